//! The table that triggers write into, as `sea-orm-cache-migration` makes it.

use std::fmt::Write as _;
use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel,
    JsonValue, QueryResult, Statement, TransactionTrait,
};

use crate::orm::effects::RowChange;

const TABLE: &str = "sea_orm_cache_outbox";

/// What a server may wait for a feed that has taken changes and is heard of no more, in seconds.
const PATIENCE: u32 = 30;

#[derive(Clone, Debug)]
pub(super) struct Outbox {
    db: DatabaseConnection,
    backend: DbBackend,
}

/// Changes that no other feed takes meanwhile (save on SQLite, where two may apply the same ones). They stay in the
/// outbox if this is dropped.
pub(super) struct Taken {
    pub(super) changes: Vec<RowChange>,
    /// Of the oldest.
    pub(super) age: Duration,
    ids: Vec<i64>,
    outbox: Outbox,
    /// None on SQLite, where a transaction that is open keeps others from writing.
    txn: Option<DatabaseTransaction>,
}

impl Outbox {
    pub(super) fn of(db: &DatabaseConnection) -> Self {
        Self {
            db: db.clone(),
            backend: db.get_database_backend(),
        }
    }

    pub(super) fn database(&self) -> &DatabaseConnection {
        &self.db
    }

    /// How long ago the oldest change was written down that is still there.
    pub(super) async fn oldest(&self) -> Result<Option<Duration>, DbErr> {
        let (order, now) = (self.order(), self.now());
        let sql = format!("SELECT {now} - created_at AS age FROM {TABLE} ORDER BY {order} LIMIT 1");
        let row = self.db.query_one_raw(self.statement(sql)).await?;
        row.as_ref().map(age).transpose()
    }

    /// Takes the oldest changes that nobody else has taken.
    pub(super) async fn take(&self, most: u64) -> Result<Taken, DbErr> {
        let txn = self.begin().await?;
        let rows = match &txn {
            Some(txn) => txn.query_all_raw(self.taking(most)).await?,
            None => self.db.query_all_raw(self.taking(most)).await?,
        };
        self.taken(rows, txn).await
    }

    async fn taken(
        &self,
        rows: Vec<QueryResult>,
        txn: Option<DatabaseTransaction>,
    ) -> Result<Taken, DbErr> {
        let ids = match self.backend {
            DbBackend::Postgres => Vec::new(),
            _ => (rows.iter().map(|row| row.try_get("", "id"))).collect::<Result<_, _>>()?,
        };
        let ages = rows.iter().map(age).collect::<Result<Vec<_>, _>>()?;
        let changes = rows.iter().map(change).collect::<Result<Vec<_>, _>>()?;
        if let Some(txn) = txn.as_ref().filter(|_| !changes.is_empty()) {
            self.be_impatient(txn).await?;
        }
        Ok(Taken {
            changes,
            age: ages.into_iter().max().unwrap_or_default(),
            ids,
            outbox: self.clone(),
            txn,
        })
    }

    /// Under repeatable reads MySQL would also lock the gap into which others insert.
    async fn begin(&self) -> Result<Option<DatabaseTransaction>, DbErr> {
        let committed = Some(IsolationLevel::ReadCommitted);
        match self.backend {
            DbBackend::Postgres | DbBackend::MySql => {
                self.db.begin_with_config(committed, None).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Postgres deletes at once; it is the commit that counts.
    fn taking(&self, most: u64) -> Statement {
        let (order, now) = (self.order(), self.now());
        let columns = format!("table_name, old_json, new_json, {now} - created_at AS age");
        let oldest = format!("FROM {TABLE} ORDER BY {order} LIMIT {most}");
        let sql = match self.backend {
            DbBackend::Postgres => format!(
                "DELETE FROM {TABLE} WHERE ctid = ANY(ARRAY(\
                 SELECT ctid {oldest} FOR UPDATE SKIP LOCKED)) RETURNING {columns}"
            ),
            DbBackend::MySql => format!("SELECT id, {columns} {oldest} FOR UPDATE SKIP LOCKED"),
            _ => format!("SELECT id, {columns} {oldest}"),
        };
        self.statement(sql)
    }

    /// Has the server free what was taken, should this process vanish without closing its connection.
    async fn be_impatient(&self, txn: &DatabaseTransaction) -> Result<(), DbErr> {
        let sql = match self.backend {
            DbBackend::Postgres => {
                format!("SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE}s'")
            }
            _ => format!("SET SESSION wait_timeout = {PATIENCE}"),
        };
        txn.execute_unprepared(&sql).await.map(drop)
    }

    /// The order of an index.
    fn order(&self) -> &'static str {
        match self.backend {
            DbBackend::Postgres => "created_at, id",
            _ => "id",
        }
    }

    /// Milliseconds since 1970, by the clock by which changes are dated.
    fn now(&self) -> &'static str {
        match self.backend {
            DbBackend::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
            DbBackend::MySql => "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
            _ => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        }
    }

    fn statement(&self, sql: String) -> Statement {
        Statement::from_string(self.backend, sql)
    }
}

impl Taken {
    /// Deletes them from the outbox.
    pub(super) async fn delete(self) -> Result<(), DbErr> {
        let delete = delete(&self.ids);
        match self.txn {
            Some(txn) => {
                if let Some(delete) = delete {
                    txn.execute_unprepared(&delete).await?;
                    let patient = "SET SESSION wait_timeout = DEFAULT";
                    txn.execute_unprepared(patient).await?;
                }
                txn.commit().await
            }
            None => match delete {
                Some(delete) => (self.outbox.db.execute_unprepared(&delete).await).map(drop),
                None => Ok(()),
            },
        }
    }
}

/// In text: for each number of ids a prepared statement would be another one.
fn delete(ids: &[i64]) -> Option<String> {
    let (first, rest) = ids.split_first()?;
    let mut sql = format!("DELETE FROM {TABLE} WHERE id IN ({first}");
    for id in rest {
        // Writing to a String does not fail.
        let _ = write!(sql, ",{id}");
    }
    sql.push(')');
    Some(sql)
}

fn age(row: &QueryResult) -> Result<Duration, DbErr> {
    let age: i64 = row.try_get("", "age")?;
    Ok(Duration::from_millis(age.try_into().unwrap_or(0)))
}

/// Rows that are no JSON stand for the whole table.
fn change(row: &QueryResult) -> Result<RowChange, DbErr> {
    let table: String = row.try_get("", "table_name")?;
    let told = |column: &str| {
        let text: Option<String> = row.try_get("", column)?;
        Ok::<_, DbErr>(text.map(|text| text.parse::<JsonValue>()))
    };
    let whole = RowChange::table(&*table);
    Ok(match (told("old_json")?, told("new_json")?) {
        (Some(Err(_)), _) | (_, Some(Err(_))) => whole,
        (old, new) => RowChange::row(table, old.and_then(Result::ok), new.and_then(Result::ok)),
    })
}
