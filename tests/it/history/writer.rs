//! A task that writes in every way, and tells before and after.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter,
    Statement, TransactionTrait,
};

use super::record::{OpId, Outcome, Record, now};
use super::table::{item, linearizable_item};
use super::worker::{Db, Log, Plan, pause};

/// The ways to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Model,
    OtherModel,
    ManyByKey,
    ManyOfGroup,
    ManyOfRange,
    RawByKey,
    RawComputed,
    RawOfGroup,
    RawOfAll,
    Transaction,
    RolledBack,
    Released,
    PartlyRolledBack,
    Delete,
    Insert,
}

use Kind::*;

/// What they are called, and how often each is chosen beside the others. What was deleted is inserted next.
const KINDS: [(Kind, &str, u32); 15] = [
    (Model, "ActiveModel::update", 14),
    (
        OtherModel,
        "ActiveModel::update through the other entity",
        6,
    ),
    (ManyByKey, "update_many by key", 12),
    (ManyOfGroup, "update_many of a group", 3),
    (ManyOfRange, "update_many of a range", 4),
    (RawByKey, "raw UPDATE by key", 12),
    (RawComputed, "raw UPDATE that computes the group", 6),
    (RawOfGroup, "raw UPDATE of a group, RETURNING", 3),
    (RawOfAll, "raw UPDATE of all rows", 1),
    (Transaction, "a transaction", 10),
    (RolledBack, "a transaction, rolled back", 5),
    (Released, "a transaction with a savepoint, released", 6),
    (
        PartlyRolledBack,
        "a transaction with a savepoint, rolled back",
        6,
    ),
    (Delete, "delete", 6),
    (Insert, "insert", 4),
];
/// The ways to change one row, in a transaction or by itself.
const SINGLE: [Kind; 4] = [Model, OtherModel, ManyByKey, RawByKey];

impl Kind {
    /// Of its number in a record.
    pub fn name(number: usize) -> &'static str {
        KINDS[number].1
    }

    fn random(rng: &mut Rng) -> Self {
        let all: u32 = KINDS.iter().map(|(.., weight)| weight).sum();
        let mut place = rng.u32(..all);
        for (kind, _, weight) in KINDS {
            if place < weight {
                return kind;
            }
            place -= weight;
        }
        unreachable!("the weights add up")
    }
}

pub struct Writer {
    db: Db,
    log: Arc<Log>,
    rng: Rng,
    rows: i64,
    groups: i32,
    op: OpId,
    deleted: Option<i64>,
}

/// One change of one row.
#[derive(Clone, Copy)]
struct Change {
    id: i64,
    grp: Option<i32>,
    op: OpId,
}

impl Writer {
    pub fn new(plan: &Plan, first: OpId, db: Db, log: Arc<Log>, rng: Rng) -> Self {
        Self {
            db,
            log,
            rng,
            rows: plan.rows,
            groups: plan.groups,
            op: first,
            deleted: None,
        }
    }

    /// Some writes close together, then a rest in which the cache can fill.
    pub async fn run(mut self) {
        while self.log.is_writing() {
            for _ in 0..self.rng.u32(1..12) {
                if self.log.is_writing() {
                    self.once().await;
                    pause(&mut self.rng, Duration::from_millis(6)).await;
                }
            }
            pause(&mut self.rng, Duration::from_millis(250)).await;
        }
    }

    async fn once(&mut self) {
        let kind = self.kind();
        let op = self.op;
        self.op = OpId(op.0 + 1);
        let number = kind as usize;
        self.log.tell_now(&Record::Begun {
            op,
            kind: number,
            at: now(),
        });
        let result = self.write(kind, op).await;
        let at = now();
        let outcome = match result {
            Ok(()) if kind == RolledBack => Outcome::RolledBack,
            Ok(()) => Outcome::Acknowledged,
            Err(_) => Outcome::Failed,
        };
        self.log.tell_now(&Record::Ended { op, outcome, at });
        if outcome == Outcome::Failed {
            // As a caller would that is told to come again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn kind(&mut self) -> Kind {
        if self.deleted.is_some() {
            return Insert;
        }
        Kind::random(&mut self.rng)
    }

    async fn write(&mut self, kind: Kind, op: OpId) -> Result<(), DbErr> {
        let change = self.change(op);
        match kind {
            Model | OtherModel | ManyByKey | RawByKey => apply(kind, change, &self.db).await,
            ManyOfGroup | ManyOfRange => self.many(kind, change).await,
            RawComputed | RawOfGroup | RawOfAll => self.raw(kind, change).await,
            Transaction | RolledBack | Released | PartlyRolledBack => {
                self.transaction(kind, op).await
            }
            Delete => self.delete(change).await,
            Insert => self.insert(change).await,
        }
    }

    /// Of a random row, the lower the more often.
    fn change(&mut self, op: OpId) -> Change {
        let bound = self.rng.i64(1..=self.rows);
        let id = self.rng.i64(1..=bound);
        let grp = self.rng.bool().then(|| self.rng.i32(0..self.groups));
        Change { id, grp, op }
    }

    async fn many(&mut self, kind: Kind, Change { id, op, .. }: Change) -> Result<(), DbErr> {
        let many = item::Entity::update_many().col_expr(item::Column::Op, Expr::value(op.0));
        let many = if kind == ManyOfGroup {
            let from = self.rng.i32(0..self.groups);
            let to = Expr::value(self.rng.i32(0..self.groups));
            let many = many.col_expr(item::Column::Grp, to);
            many.filter(item::Column::Grp.eq(from))
        } else {
            many.filter(item::Column::Id.between(id, id + 4))
        };
        many.exec(&self.db).await.map(drop)
    }

    async fn raw(&mut self, kind: Kind, Change { id, op, .. }: Change) -> Result<(), DbErr> {
        let (db, op, groups) = (&self.db, op.0, self.groups);
        let update = format!("UPDATE history_item SET op = {op}");
        match kind {
            RawComputed => {
                let sql = format!("{update}, grp = (grp + 1) % {groups} WHERE id = {id}");
                db.execute_unprepared(&sql).await?;
            }
            RawOfGroup => {
                let sql = format!("{update} WHERE grp = $1 RETURNING id, version");
                let grp = self.rng.i32(0..groups).into();
                let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [grp]);
                db.query_all_raw(statement).await?;
            }
            _ => {
                db.execute_unprepared(&update).await?;
            }
        }
        Ok(())
    }

    /// Up to four rows, in their order.
    async fn transaction(&mut self, kind: Kind, op: OpId) -> Result<(), DbErr> {
        let mut changes: Vec<Change> = (0..self.rng.u32(2..5)).map(|_| self.change(op)).collect();
        changes.sort_by_key(|change| change.id);
        changes.dedup_by_key(|change| change.id);
        let nested = self.rng.usize(..changes.len());
        let txn = self.db.begin().await?;
        for (place, change) in changes.into_iter().enumerate() {
            let how = SINGLE[self.rng.usize(..SINGLE.len())];
            if place != nested || matches!(kind, Transaction | RolledBack) {
                apply(how, change, &txn).await?;
            } else {
                let savepoint = txn.begin().await?;
                apply(how, change, &savepoint).await?;
                match kind {
                    Released => savepoint.commit().await?,
                    _ => savepoint.rollback().await?,
                }
            }
            pause(&mut self.rng, Duration::from_millis(2)).await;
        }
        match kind {
            RolledBack => txn.rollback().await,
            _ => txn.commit().await,
        }
    }

    /// Says first who deletes it, in the same transaction: the trigger looks there.
    async fn delete(&mut self, change: Change) -> Result<(), DbErr> {
        let txn = self.db.begin().await?;
        let many = item::Entity::update_many().filter(item::Column::Id.eq(change.id));
        let said = many.col_expr(item::Column::Op, Expr::value(change.op.0));
        if said.exec(&txn).await?.rows_affected == 0 {
            return txn.commit().await;
        }
        if self.rng.bool() {
            let delete = item::Entity::delete_by_id(change.id);
            delete.exec(&txn).await?;
        } else {
            let sql = format!("DELETE FROM history_item WHERE id = {}", change.id);
            txn.execute_unprepared(&sql).await?;
        }
        txn.commit().await?;
        self.deleted = Some(change.id);
        Ok(())
    }

    async fn insert(&mut self, change: Change) -> Result<(), DbErr> {
        let row = item::ActiveModel {
            id: Set(self.deleted.take().unwrap_or(change.id)),
            grp: Set(change.grp.unwrap_or_default()),
            version: Set(0),
            op: Set(change.op.0),
        };
        let insert = item::Entity::insert(row).on_conflict_do_nothing();
        insert.exec_without_returning(&self.db).await?;
        Ok(())
    }
}

/// Sends one change of one row. That the row is not there is no failure.
async fn apply<C: ConnectionTrait>(how: Kind, change: Change, db: &C) -> Result<(), DbErr> {
    let Change { id, grp, op } = change;
    let done = match how {
        Model => {
            let row = item::ActiveModel {
                id: Set(id),
                grp: grp.map_or(NotSet, Set),
                version: NotSet,
                op: Set(op.0),
            };
            row.update(db).await.map(drop)
        }
        OtherModel => {
            let row = linearizable_item::ActiveModel {
                id: Set(id),
                grp: grp.map_or(NotSet, Set),
                version: NotSet,
                op: Set(op.0),
            };
            row.update(db).await.map(drop)
        }
        ManyByKey => {
            let mut many = item::Entity::update_many().filter(item::Column::Id.eq(id));
            many = many.col_expr(item::Column::Op, Expr::value(op.0));
            if let Some(grp) = grp {
                many = many.col_expr(item::Column::Grp, Expr::value(grp));
            }
            many.exec(db).await.map(drop)
        }
        _ => {
            let grp = grp.map_or(String::new(), |grp| format!(", grp = {grp}"));
            let sql = format!("UPDATE history_item SET op = {}{grp} WHERE id = {id}", op.0);
            db.execute_unprepared(&sql).await.map(drop)
        }
    };
    match done {
        Err(DbErr::RecordNotUpdated) => Ok(()),
        done => done,
    }
}
