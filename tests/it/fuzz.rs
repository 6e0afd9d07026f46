//! Statements that nobody chose, on real databases: what they change is what is fenced.
//!
//! `FUZZ_CASES` sets how many, `FUZZ_SEED` where they begin, `FUZZ_SHOW` prints what the database refused.

mod statements;
mod tables;
mod terms;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, Write as _};

use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr, Statement};
use sea_orm_cache::CachedConnection;

use self::statements::{Case, How, case};
use self::tables::{Rows, TABLES, needed, reseed, rows};
use crate::world::{Place, Sql, World};

/// After this many statements comes another session, because this one keeps all that it has prepared.
const SESSION: u64 = 5_000;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// How many statements there were of each kind.
#[derive(Debug, Default)]
struct Counts {
    generated: u64,
    accepted: u64,
    changed: u64,
    /// Changed something, and no table that they changed was fenced as a whole.
    precise: u64,
    missed: Vec<String>,
    refused: BTreeMap<String, (u64, String)>,
}

struct Bench {
    world: World,
    sql: Sql,
    /// One session, so that a transaction can be put around each statement behind the cache's back.
    db: CachedConnection,
    seed: Rows,
    schema: String,
}

impl Bench {
    async fn new(sql: Sql) -> Self {
        let world = World::new(sql, Place::Memory).await;
        let mut url = world.database.url().to_owned();
        if let Sql::MariaDb = sql {
            // To close a statement costs the next one 40 ms, which the server's delayed ACK takes.
            url.push_str("?statement-cache-capacity=10000");
        }
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        options.idle_timeout(None).max_lifetime(None);
        let session = sea_orm::Database::connect(options).await.expect("connect");
        let db = world.cache.attach(session);
        reseed(db.inner()).await;
        let seed = rows(db.inner(), sql, "the seed").await;
        let url = world.database.url();
        let schema = url.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            world,
            sql,
            db,
            seed,
            schema,
        }
    }

    fn past(&self) -> &DatabaseConnection {
        self.db.inner()
    }

    async fn send(&self, case: &Case) -> Result<(), DbErr> {
        let backend = self.db.get_database_backend();
        let statement = || Statement::from_sql_and_values(backend, &case.sql, case.values.clone());
        match case.how {
            How::Execute => self.db.execute_raw(statement()).await.map(drop),
            How::Query => self.db.query_all_raw(statement()).await.map(drop),
            How::Unprepared | How::Alone => self.db.execute_unprepared(&case.sql).await.map(drop),
        }
    }

    /// The rows after the statement, or why it was refused. Then everything is as it was.
    async fn run(&self, case: &Case) -> Result<(Rows, BTreeSet<String>), DbErr> {
        let alone = case.how == How::Alone;
        if !alone {
            self.past().execute_unprepared("BEGIN").await?;
        }
        self.world.store.take_fenced();
        let done = self.send(case).await;
        if alone {
            // Ends what the text left open; an error says that it left nothing.
            let _ = self.db.execute_unprepared("COMMIT").await;
        }
        let fenced = self.world.store.take_fenced();
        let after = match (&done, self.sql) {
            (Err(_), Sql::Postgres) if !alone => None,
            _ => Some(rows(self.past(), self.sql, &case.sql).await),
        };
        // Where the statement has committed, there is nothing to roll back.
        let _ = self.past().execute_unprepared("ROLLBACK").await;
        if alone || after.as_ref().is_some_and(|after| *after != self.seed) {
            self.restore(case).await;
        }
        match after {
            // A text of several statements may fail at its second.
            Some(after) if done.is_ok() || after != self.seed => Ok((after, fenced)),
            _ => Err(done.expect_err("it was refused")),
        }
    }

    async fn restore(&self, case: &Case) {
        if rows(self.past(), self.sql, &case.sql).await != self.seed {
            reseed(self.past()).await;
        }
    }

    async fn count(&self, case: &Case, counts: &mut Counts) {
        counts.generated += 1;
        let (after, fenced) = match self.run(case).await {
            Ok(done) => done,
            Err(error) => return counts.refused(&error, case),
        };
        counts.accepted += 1;
        let needed = needed(&self.seed, &after, self.sql);
        if needed.is_empty() {
            return;
        }
        counts.changed += 1;
        let missed: Vec<_> = needed
            .iter()
            .filter(|keys| !keys.iter().any(|key| fenced.contains(key)))
            .collect();
        if !missed.is_empty() {
            let found = format!("{case:?}\n  missed {missed:?}\n  fenced {fenced:?}");
            counts.missed.push(found);
        }
        let whole = TABLES.iter().any(|table| {
            let key = |generation: &str| format!("soc:main:{}:gen:{generation}", table.name);
            needed.contains(&vec![key("list")]) && fenced.contains(&key("rows"))
        });
        counts.precise += u64::from(!whole);
    }
}

impl Counts {
    fn refused(&mut self, error: &DbErr, case: &Case) {
        let text = error.to_string();
        let kind: String = text
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .take(110)
            .collect();
        let entry = self.refused.entry(kind).or_default();
        entry.0 += 1;
        entry.1 = format!("{} {:?}", case.sql, case.values);
    }

    fn report(&self, sql: Sql, seed: u64) {
        let line = format!(
            "fuzz {sql:?}, seed {seed}: {} statements, {} accepted, {} changed something, {} of them precise and {} \
             wide, {} missed\n",
            self.generated,
            self.accepted,
            self.changed,
            self.precise,
            self.changed - self.precise,
            self.missed.len(),
        );
        // Not captured, unlike what `println!` prints.
        let _ = io::stderr().write_all(line.as_bytes());
        if env::var("FUZZ_SHOW").is_ok() {
            let mut refused: Vec<_> = self.refused.iter().collect();
            refused.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
            for (kind, (count, example)) in refused.iter().take(40) {
                let _ = writeln!(io::stderr(), "{count:6} {kind}\n         {example}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_not_fenced_is_found() {
    let bench = Bench::new(Sql::Sqlite).await;
    for sql in [
        "UPDATE city SET name = 'z' WHERE id = 1",
        "INSERT INTO word (id, kind, meaning) VALUES ('n', 'k', '')",
        "DELETE FROM country WHERE id = 2",
    ] {
        bench.past().execute_unprepared(sql).await.unwrap();
        let after = rows(bench.past(), bench.sql, sql).await;
        let needed = needed(&bench.seed, &after, bench.sql);
        assert!(needed.len() > 1, "{sql}: {needed:?}");
        reseed(bench.past()).await;
    }
    let row = [(0, vec![Some("1".to_owned())])];
    let after = bench
        .seed
        .clone()
        .into_iter()
        .filter(|(place, _)| !row.contains(place));
    assert_eq!(
        needed(&bench.seed, &after.collect(), bench.sql),
        BTreeSet::from([
            vec!["soc:main:city:gen:list".to_owned()],
            vec![
                "soc:main:city:pk:1".to_owned(),
                "soc:main:city:gen:rows".to_owned()
            ],
        ]),
    );
}

async fn what_it_changes_is_fenced(sql: Sql) {
    let (seed, cases) = (setting("FUZZ_SEED", 1), setting("FUZZ_CASES", 3_000));
    let mut bench = Bench::new(sql).await;
    let mut counts = Counts::default();
    for at in 0..cases {
        if at % SESSION == SESSION - 1 {
            bench = Bench::new(sql).await;
        }
        let case = case((seed << 32) + at, sql, &bench.schema);
        bench.count(&case, &mut counts).await;
    }
    counts.report(sql, seed);
    let shown = counts.missed.len().min(10);
    assert!(
        counts.missed.is_empty(),
        "{}",
        counts.missed[..shown].join("\n")
    );
    let share = |part: u64, whole: u64| part * 100 / whole.max(1);
    let valid = share(counts.accepted, counts.generated);
    assert!(valid >= 40, "only {valid} % of the statements were valid");
    let changed = share(counts.changed, counts.accepted);
    assert!(
        changed >= 30,
        "only {changed} % of the valid statements changed anything"
    );
    let precise = share(counts.precise, counts.changed);
    assert!(
        precise >= 15,
        "only {precise} % of the changes were found precisely"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sqlite_changes_is_fenced() {
    what_it_changes_is_fenced(Sql::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_changes_is_fenced() {
    what_it_changes_is_fenced(Sql::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mariadb_changes_is_fenced() {
    what_it_changes_is_fenced(Sql::MariaDb).await;
}
