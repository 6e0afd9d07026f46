//! The triggers that write changes of a table into the outbox.

use sea_orm_cache::{__private::linked, CachedEntity, ColumnKind, EntityMeta};
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::outbox;
use crate::sql::{Sql, Target};

/// Creates and drops the triggers that write every change of a table into the [`Outbox`](crate::Outbox), whoever makes
/// it.
///
/// One line for each entity in your own migrator, behind the outbox and behind what creates the table:
/// ```
/// # mod city {
/// #     use sea_orm::entity::prelude::*;
/// #     #[derive(Clone, Debug, PartialEq, DeriveEntityModel, sea_orm_cache::CachedEntity)]
/// #     #[sea_orm(table_name = "city")]
/// #     pub struct Model { #[sea_orm(primary_key)] pub id: i64, pub name: String }
/// #     #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
/// #     pub enum Relation {}
/// # }
/// use sea_orm_cache_migration::sea_orm_migration::{MigrationTrait, MigratorTrait};
/// use sea_orm_cache_migration::{Outbox, Watch};
///
/// struct Migrator;
///
/// impl MigratorTrait for Migrator {
///     fn migrations() -> Vec<Box<dyn MigrationTrait>> {
///         vec![Box::new(Outbox), Box::new(Watch::of::<city::Entity>())]
///     }
/// }
/// ```
///
/// When the entity gets another index or another primary key, add the line again with [`again(2)`](Self::again). Until
/// then changes drop more than they need to, and nothing is stale. Before a watched column is renamed or dropped,
/// [`remove`](Self::remove) the triggers, or writes to the table fail; SQLite renames it in them by itself.
#[derive(Clone, Debug)]
pub struct Watch {
    schema: Option<String>,
    table: String,
    columns: Vec<(String, ColumnKind)>,
    keys: usize,
    bulk: u32,
    notifies: bool,
    time: u32,
    name: String,
}

impl Watch {
    /// The table of a cached entity.
    pub fn of<E: CachedEntity>() -> Self {
        Self::meta(E::cached_meta())
    }

    /// The tables of all cached entities that are linked into this program.
    pub fn linked() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for watch in linked().iter().map(|meta| Self::meta(meta)) {
            let known = |other: &&mut Self| other.name == watch.name;
            match all.iter_mut().find(known) {
                Some(known) => known.also(watch),
                None => all.push(watch),
            }
        }
        all
    }

    /// A table of no cached entity, which cached selects read. Its rows are not named in the outbox.
    pub fn table(schema: Option<&str>, table: &str) -> Self {
        Self::new(schema.map(str::to_owned), table.to_owned(), Vec::new(), 0)
    }

    fn meta(meta: &EntityMeta) -> Self {
        let mut positions = meta.primary_key.clone();
        let indexed = meta.indexes.iter().flat_map(|index| &index.columns);
        indexed.for_each(|column| {
            if !positions.contains(column) {
                positions.push(*column);
            }
        });
        let columns = positions.iter().map(|position| {
            let column = &meta.columns[*position];
            (column.name.clone(), column.kind)
        });
        let keys = meta.primary_key.len();
        Self::new(
            meta.schema.clone(),
            meta.table.clone(),
            columns.collect(),
            keys,
        )
    }

    pub(crate) fn new(
        schema: Option<String>,
        table: String,
        columns: Vec<(String, ColumnKind)>,
        keys: usize,
    ) -> Self {
        let mut watch = Self {
            schema,
            table,
            columns,
            keys,
            bulk: 1_000,
            notifies: true,
            time: 1,
            name: String::new(),
        };
        watch.name = watch.named();
        watch
    }

    /// Another entity of the same table.
    fn also(&mut self, other: Self) {
        for column in other.columns {
            if !self.columns.contains(&column) {
                self.columns.push(column);
            }
        }
    }

    /// The same once more, under another name: for an entity whose keys have changed since. Count from 2.
    ///
    /// The lines that are there stay: SeaORM's migrator refuses to run where one is missing that was applied.
    #[must_use]
    pub fn again(mut self, time: u32) -> Self {
        self.time = time;
        self.name = self.named();
        self
    }

    /// A statement that touches more rows than this writes one line for the whole table. On Postgres only: the
    /// triggers of other databases fire for each row. Defaults to 1,000.
    #[must_use]
    pub fn bulk_over(mut self, rows: u32) -> Self {
        self.bulk = rows;
        self
    }

    /// Does not wake the feed, which then finds changes when it looks. On Postgres, where transactions that notify
    /// commit one after the other, for tables with thousands of writes a second.
    #[must_use]
    pub fn without_notify(mut self) -> Self {
        self.notifies = false;
        self
    }

    /// Creates the triggers, in place of those that are there, and has the feed drop all that is cached of the table:
    /// nobody has seen what was written before.
    ///
    /// # Errors
    /// The database's, if there is no outbox or no such table, for instance.
    pub async fn install<C: ConnectionTrait>(&self, db: &C) -> Result<(), DbErr> {
        let sql = self.sql(db).await?;
        sql.run(sql.create(&self.target()), db).await
    }

    /// Whether the triggers are there, and just as [`install`](Self::install) would create them.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_installed<C: ConnectionTrait>(&self, db: &C) -> Result<bool, DbErr> {
        let (count, all) = self.sql(db).await?.count(&self.target());
        let asked = Statement::from_string(db.get_database_backend(), count);
        let row = db.query_one_raw(asked).await?;
        let found: Option<i64> = row.map(|row| row.try_get("", "n")).transpose()?;
        Ok(found == Some(all))
    }

    /// Drops the triggers, if they are there.
    ///
    /// # Errors
    /// The database's.
    pub async fn remove<C: ConnectionTrait>(&self, db: &C) -> Result<(), DbErr> {
        let sql = self.sql(db).await?;
        sql.run(sql.remove(&self.target()), db).await
    }

    fn target(&self) -> Target<'_> {
        Target {
            schema: self.schema.as_deref(),
            table: &self.table,
            columns: &self.columns,
            keys: self.keys,
            bulk: self.bulk,
            notifies: self.notifies,
        }
    }

    async fn sql<C: ConnectionTrait>(&self, db: &C) -> Result<Sql, DbErr> {
        let backend = db.get_database_backend();
        let asked = match backend {
            DbBackend::Postgres => Some(HOME_POSTGRES),
            DbBackend::MySql => Some("SELECT DATABASE() AS home"),
            _ => None,
        };
        let home = match asked {
            Some(sql) => {
                db.query_one_raw(Statement::from_string(backend, sql))
                    .await?
            }
            None => None,
        };
        let home = home.map(|row| row.try_get("", "home")).transpose()?;
        Ok(Sql { backend, home })
    }

    /// Kept in the user's database: it must not change.
    fn named(&self) -> String {
        let schema = self.schema.iter().map(|schema| format!("{schema}."));
        let table = schema.chain([self.table.clone()]).collect::<String>();
        let name = format!("m20250101_000002_sea_orm_cache_watch_{table}");
        match self.time {
            0 | 1 => name,
            time => format!("{name}_{time}"),
        }
    }
}

/// The schema of the outbox.
const HOME_POSTGRES: &str = "SELECT COALESCE((SELECT n.nspname FROM pg_class c JOIN pg_namespace n \
    ON n.oid = c.relnamespace WHERE c.oid = to_regclass('sea_orm_cache_outbox')), current_schema())::text AS home";

impl MigrationName for Watch {
    fn name(&self) -> &str {
        &self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Watch {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.install(manager.get_connection()).await
    }

    /// Where it was [again](Self::again), the first one drops them.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match self.time {
            0 | 1 => self.remove(manager.get_connection()).await,
            _ => Ok(()),
        }
    }
}

/// Creates the outbox, and the triggers of all cached entities that are linked into this program, where they are not
/// as they should be: for programs without a migrator, when they start.
///
/// All of them must be tables of this database: where one is a view, or is in a database that another connection leads
/// to, install a [`Watch`] for each of the others.
///
/// # Errors
/// The database's, with the name of the table.
pub async fn install<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    let create = outbox::create(db.get_database_backend());
    db.execute_unprepared(create).await?;
    for watch in Watch::linked() {
        let done = async {
            match watch.is_installed(db).await? {
                true => Ok(()),
                false => watch.install(db).await,
            }
        };
        let name = |error: DbErr| DbErr::Custom(format!("the table {}: {error}", watch.table));
        done.await.map_err(name)?;
    }
    Ok(())
}
