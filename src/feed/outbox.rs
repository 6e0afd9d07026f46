//! The table that triggers write into, as `sea-orm-cache-migration` makes it.

use std::fmt::Write as _;
use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel,
    JsonValue, QueryResult, Statement, TransactionTrait,
};

use crate::orm::effects::RowChange;

const TABLE: &str = "sea_orm_cache_outbox";

/// How long the database may take to answer, and for how long it keeps what was taken for a process that has vanished
/// without closing its connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// On MySQL, where it is of the session, the end of that.
const PATIENT: &str = "SET SESSION wait_timeout = DEFAULT";

#[derive(Clone, Debug)]
pub(super) struct Outbox {
    db: DatabaseConnection,
    backend: DbBackend,
}

/// Changes that no other feed takes meanwhile (save on SQLite, where two may apply the same ones). They stay in the
/// outbox if this is dropped.
pub(super) struct Taken {
    pub(super) changes: Vec<RowChange>,
    /// How long ago the oldest change was written down that is there, whoever has taken it.
    pub(super) oldest: Option<Duration>,
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

    /// Takes the oldest changes that nobody else has taken.
    pub(super) async fn take(&self, most: u64) -> Result<Taken, DbErr> {
        let txn = self.begin().await?;
        let (oldest, rows) = match &txn {
            Some(txn) => self.read(most, txn).await?,
            None => self.read(most, &self.db).await?,
        };
        if let Some(txn) = txn.as_ref().filter(|_| !rows.is_empty()) {
            self.be_impatient(txn).await?;
        }
        let ids = match self.backend {
            DbBackend::Postgres => Vec::new(),
            _ => (rows.iter().map(|row| row.try_get("", "id"))).collect::<Result<_, _>>()?,
        };
        Ok(Taken {
            changes: rows.iter().map(change).collect::<Result<_, _>>()?,
            oldest,
            ids,
            outbox: self.clone(),
            txn,
        })
    }

    /// The age of the oldest change, and those that can be taken.
    async fn read<C: ConnectionTrait>(
        &self,
        most: u64,
        db: &C,
    ) -> Result<(Option<Duration>, Vec<QueryResult>), DbErr> {
        let (order, now) = (self.order(), self.now());
        let sql = format!("SELECT {now} - created_at AS age FROM {TABLE} ORDER BY {order} LIMIT 1");
        let Some(oldest) = db.query_one_raw(self.statement(sql)).await? else {
            return Ok((None, Vec::new()));
        };
        let rows = db.query_all_raw(self.taking(most)).await?;
        Ok((Some(age(&oldest)?), rows))
    }

    async fn begin(&self) -> Result<Option<DatabaseTransaction>, DbErr> {
        // Under repeatable reads MySQL would also lock the gap into which others insert.
        let committed = Some(IsolationLevel::ReadCommitted);
        let txn = match self.backend {
            DbBackend::Postgres | DbBackend::MySql => {
                self.db.begin_with_config(committed, None).await?
            }
            _ => return Ok(None),
        };
        if self.backend == DbBackend::Postgres {
            // And a plan that was made while the outbox was empty would read and sort all of it for ever.
            let seconds = PATIENCE.as_secs();
            let settings = format!(
                "SET LOCAL idle_in_transaction_session_timeout = '{seconds}s'; \
                 SET LOCAL enable_seqscan = off"
            );
            txn.execute_unprepared(&settings).await?;
        }
        Ok(Some(txn))
    }

    /// Postgres deletes at once; it is the commit that counts.
    fn taking(&self, most: u64) -> Statement {
        let order = self.order();
        let columns = "table_name, old_json, new_json";
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

    /// Has MySQL free what was taken, should this process vanish without closing its connection.
    async fn be_impatient(&self, txn: &DatabaseTransaction) -> Result<(), DbErr> {
        if self.backend == DbBackend::MySql {
            let impatient = format!("SET SESSION wait_timeout = {}", PATIENCE.as_secs());
            txn.execute_unprepared(&impatient).await?;
        }
        Ok(())
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
    /// Leaves them in the outbox, and the connection as it was.
    pub(super) async fn give_back(self) -> Result<(), DbErr> {
        let Some(txn) = self.txn else { return Ok(()) };
        if !self.ids.is_empty() {
            txn.execute_unprepared(PATIENT).await?;
        }
        txn.rollback().await
    }

    /// Deletes them from the outbox.
    pub(super) async fn delete(self) -> Result<(), DbErr> {
        let delete = delete(&self.ids);
        match self.txn {
            Some(txn) => {
                if let Some(delete) = delete {
                    txn.execute_unprepared(&delete).await?;
                    txn.execute_unprepared(PATIENT).await?;
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
