//! The table that is read and written, and the truth about it.
//!
//! Triggers give each row's versions their order, in the transaction that writes them and under the row's lock, and
//! write down who wrote them. So the truth is known of every write, also of one whose writer was killed, and
//! every kind of statement takes part.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};

use super::judge::Version;
use super::record::OpId;

/// At the default level.
pub mod item {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "history_item")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        #[cached(index)]
        pub grp: i32,
        /// The trigger's.
        pub version: i64,
        /// Who wrote this version.
        pub op: i64,
    }
}

/// The same table at the other level.
pub mod linearizable_item {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "history_item")]
    #[cached(consistency = "linearizable")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        #[cached(index)]
        pub grp: i32,
        pub version: i64,
        pub op: i64,
    }
}

const SCHEMA: &str = "
CREATE TABLE history_item (
    id bigint PRIMARY KEY, grp int NOT NULL, version bigint NOT NULL, op bigint NOT NULL);
CREATE INDEX ON history_item (grp);
CREATE TABLE history_tally (id bigint PRIMARY KEY, version bigint NOT NULL);
CREATE TABLE history_truth (id bigint NOT NULL, version bigint NOT NULL, grp int, op bigint NOT NULL);

CREATE FUNCTION history_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE history_tally SET version = version + 1 WHERE id = NEW.id RETURNING version INTO STRICT NEW.version;
    RETURN NEW;
END $$;
CREATE FUNCTION history_write_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history_truth VALUES (NEW.id, NEW.version, NEW.grp, NEW.op);
    RETURN NULL;
END $$;
CREATE FUNCTION history_bury() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE number bigint;
BEGIN
    UPDATE history_tally SET version = version + 1 WHERE id = OLD.id RETURNING version INTO STRICT number;
    INSERT INTO history_truth VALUES (OLD.id, number, NULL, OLD.op);
    RETURN NULL;
END $$;
CREATE FUNCTION history_wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1);
    RETURN NULL;
END $$;
CREATE TRIGGER number BEFORE INSERT OR UPDATE ON history_item FOR EACH ROW EXECUTE FUNCTION history_number();
CREATE TRIGGER write_down AFTER INSERT OR UPDATE ON history_item FOR EACH ROW EXECUTE FUNCTION history_write_down();
CREATE TRIGGER bury AFTER DELETE ON history_item FOR EACH ROW EXECUTE FUNCTION history_bury();
CREATE CONSTRAINT TRIGGER wait AFTER INSERT OR UPDATE OR DELETE ON history_item
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION history_wait();
";

/// As long as a transaction has done this, no other one that wrote gets to its end: it waits in its COMMIT, or in
/// its statement if that is all of it.
pub const NOBODY_COMMITS: &str = "SELECT pg_advisory_xact_lock(1)";

/// Makes the tables and rows 1 to `rows`, written by the seed.
pub async fn create(db: &DatabaseConnection, rows: i64, groups: i32) -> Result<(), DbErr> {
    db.execute_unprepared(SCHEMA).await?;
    // Rows that are locked in another order than their ids': cheap to find out, cheap to repeat.
    db.execute_unprepared("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 100', current_database()); END $$")
        .await?;
    db.execute_unprepared(&format!(
        "INSERT INTO history_tally SELECT id, 0 FROM generate_series(1, {rows}) id;
         INSERT INTO history_item SELECT id, id % {groups}, 0, {} FROM generate_series(1, {rows}) id",
        OpId::SEED.0
    ))
    .await?;
    Ok(())
}

/// All committed versions of each row, in their order. Row `n` has the id `n + 1`.
pub async fn truth(db: &DatabaseConnection, rows: usize) -> Result<Vec<Vec<Version>>, DbErr> {
    let sql = "SELECT id, version, grp, op FROM history_truth ORDER BY id, version";
    let mut truth = vec![Vec::new(); rows];
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    for row in db.query_all_raw(statement).await? {
        let id: i64 = row.try_get("", "id")?;
        truth[usize::try_from(id - 1).unwrap()].push(Version {
            number: row.try_get("", "version")?,
            grp: row.try_get("", "grp")?,
            op: OpId(row.try_get("", "op")?),
        });
    }
    Ok(truth)
}

/// The database's sessions of a process.
pub async fn sessions(db: &DatabaseConnection, process: u16) -> Result<Vec<i32>, DbErr> {
    let name = session_name(process);
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE application_name = '{name}'");
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| row.try_get("", "pid")).collect()
}

/// What a worker's sessions are called.
pub fn session_name(process: u16) -> String {
    format!("history-{process}")
}
