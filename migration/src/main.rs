//! Installs the outbox and the triggers from a shell: for those who may change the schema where the service may
//! not, and for a database without a migrator.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sea_orm_cache_migration::sea_orm_migration::prelude::*;
use sea_orm_cache_migration::sea_orm_migration::sea_orm::{
    Database, DatabaseConnection, DbBackend, Statement,
};
use sea_orm_cache_migration::{Outbox, Watch};

/// Installs what the change feed of sea-orm-cache reads: a table, and triggers that write into it what was changed.
///
/// A TABLE is `city`, `shop.city` with its schema, or `city:slug,country_code` with the columns of its cached
/// indexes; its primary key is found.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// postgres://.., mysql://.. or sqlite://..
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the outbox if there is none, and the triggers of these tables in place of those that are there.
    Up {
        #[arg(required = true, value_name = "TABLE")]
        tables: Vec<String>,
    },
    /// Drops the triggers of these tables.
    Down {
        #[arg(required = true, value_name = "TABLE")]
        tables: Vec<String>,
    },
    /// Tells whether these tables have their triggers, and how many changes wait.
    Status {
        #[arg(value_name = "TABLE")]
        tables: Vec<String>,
    },
    /// Drops the outbox, unless a trigger still writes into it.
    DropOutbox,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments {
        database_url,
        command,
    } = Arguments::parse();
    let done = async {
        let db = Database::connect(database_url).await?;
        run(command, &db).await
    };
    match done.await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, db: &DatabaseConnection) -> Result<ExitCode, DbErr> {
    let manager = &SchemaManager::new(db);
    match command {
        Command::Up { tables } => {
            let tables = described(&tables, db).await?;
            Outbox.up(manager).await?;
            for (name, watch) in tables {
                watch.install(db).await?;
                println!("{name}: triggers installed");
            }
        }
        Command::Down { tables } => {
            for name in tables {
                let (schema, table, _) = parts(&name);
                Watch::table(schema, table).remove(db).await?;
                println!("{name}: no triggers any more");
            }
        }
        Command::Status { tables } => return status(&tables, db).await,
        Command::DropOutbox => {
            let left = count(TRIGGERS, db).await?;
            if left > 0 {
                let reason = format!(
                    "{left} triggers still write into the outbox, and without it those writes would fail: `down` first"
                );
                return Err(DbErr::Custom(reason));
            }
            Outbox.down(manager).await?;
            println!("no outbox any more");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails, as a command, if a table has not its triggers.
async fn status(tables: &[String], db: &DatabaseConnection) -> Result<ExitCode, DbErr> {
    let mut code = ExitCode::SUCCESS;
    for (name, watch) in described(tables, db).await? {
        let state = if watch.is_installed(db).await? {
            "its triggers are there"
        } else {
            code = ExitCode::FAILURE;
            "no triggers, or others than `up` would install"
        };
        println!("{name}: {state}");
    }
    let waiting = count(|_| "sea_orm_cache_outbox", db).await?;
    println!("changes that wait: {waiting}");
    Ok(code)
}

/// All of them, so that nothing is done if one is not there.
async fn described<'a>(
    tables: &'a [String],
    db: &DatabaseConnection,
) -> Result<Vec<(&'a str, Watch)>, DbErr> {
    let mut all = Vec::new();
    for name in tables {
        let (schema, table, columns) = parts(name);
        let watch = Watch::described(schema, table, &columns, db).await?;
        all.push((name.as_str(), watch));
    }
    Ok(all)
}

/// The schema, the table and the columns that it names.
fn parts(name: &str) -> (Option<&str>, &str, Vec<&str>) {
    let (place, columns) = name.split_once(':').unwrap_or((name, ""));
    let (schema, table) = match place.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, place),
    };
    let columns = columns.split(',').filter(|column| !column.is_empty());
    (schema, table, columns.collect())
}

/// The triggers of all tables that write into the outbox.
const TRIGGERS: fn(DbBackend) -> &'static str = |backend| match backend {
    DbBackend::Postgres => {
        "pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid WHERE p.prosrc LIKE '%sea\\_orm\\_cache\\_outbox%'"
    }
    DbBackend::MySql => {
        "information_schema.triggers WHERE action_statement LIKE '%sea\\_orm\\_cache\\_outbox%'"
    }
    _ => "sqlite_master WHERE type = 'trigger' AND sql LIKE '%sea_orm_cache_outbox%'",
};

async fn count(
    of: impl Fn(DbBackend) -> &'static str,
    db: &DatabaseConnection,
) -> Result<i64, DbErr> {
    let backend = db.get_database_backend();
    let sql = format!("SELECT count(*) AS n FROM {}", of(backend));
    let row = db
        .query_one_raw(Statement::from_string(backend, sql))
        .await?;
    row.map_or(Ok(0), |row| row.try_get("", "n"))
}
