//! A task that writes in every way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait,
    QueryFilter, TransactionTrait, Value,
};
use sea_orm_cache::CachedConnection;

use super::ledger::{Fields, State};
use super::{COUNTRIES, RANKS, Run};
use crate::entities::{city, country};

pub struct Writer {
    run: Arc<Run>,
    rng: Rng,
}

/// What a write brings a row from, and to.
struct Change {
    id: i64,
    from: State,
    to: State,
}

/// How one row is written, where it is there before and after.
#[derive(Clone, Copy)]
enum Update {
    Model,
    ByKey,
    BySlug,
    Raw,
    Upsert,
}

const UPDATES: [(Update, &str); 5] = [
    (Update::Model, "ActiveModel::update"),
    (Update::ByKey, "update_many by key"),
    (Update::BySlug, "update_many by slug"),
    (Update::Raw, "raw UPDATE"),
    (Update::Upsert, "upsert"),
];

impl Writer {
    pub fn new(run: Arc<Run>, rng: Rng) -> Self {
        Self { run, rng }
    }

    pub async fn write(mut self, writes: usize) {
        let run = self.run.clone();
        for _ in 0..writes {
            let db = &run.processes[self.rng.usize(..run.processes.len())].1;
            let open = run.gate.read().await;
            match self.rng.u32(..20) {
                0 => self.bulk(db).await,
                1 => self.delete_country(db).await,
                2..6 => self.transaction(db).await,
                6..8 => self.replace(db).await,
                _ => self.one(db).await,
            }
            drop(open);
            run.writes.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_micros(self.rng.u64(..4_000))).await;
        }
    }

    /// One statement on one row.
    async fn one(&mut self, db: &CachedConnection) {
        let id = self.run.any_id(&mut self.rng);
        let run = self.run.clone();
        let _turn = run.turn([id]).await;
        let (change, update) = self.change(id);
        self.send(&[&change], apply(update, &change, db)).await;
    }

    /// A row is deleted and inserted again, perhaps elsewhere.
    async fn replace(&mut self, db: &CachedConnection) {
        let id = self.run.any_id(&mut self.rng);
        let run = self.run.clone();
        let _turn = run.turn([id]).await;
        for _ in 0..2 {
            let from = self.run.ledger.now(id);
            let to = match &from.fields {
                Some(_) => run.ledger.next("delete", None),
                None => run.ledger.next("insert", Some(self.fresh_fields())),
            };
            let change = Change { id, from, to };
            let write = apply(self.update().0, &change, db);
            self.send(&[&change], write).await;
        }
    }

    /// Several rows in a transaction, one of them in a savepoint; both may be rolled back.
    async fn transaction(&mut self, db: &CachedConnection) {
        let mut ids: Vec<i64> = (0..3).map(|_| self.run.any_id(&mut self.rng)).collect();
        ids.sort_unstable();
        ids.dedup();
        let run = self.run.clone();
        let _turn = run.turn(ids.clone()).await;
        let script = Script {
            changes: ids.iter().map(|id| self.change(*id)).collect(),
            nested: self.rng.usize(..3),
            keeps: self.rng.bool(),
            commits: self.rng.u32(..4) > 0,
        };
        let (lasting, void): (Vec<_>, Vec<_>) = (0..script.changes.len())
            .map(|place| (script.lasts(place), &script.changes[place].0))
            .partition(|(lasts, _)| *lasts);
        let lasting: Vec<&Change> = lasting.into_iter().map(|(_, change)| change).collect();
        self.send(&lasting, script.run(db)).await;
        for (_, change) in void {
            run.free_slugs(&change.from, &change.to, &change.from);
        }
    }

    /// All rows, or those of a country or rank, by one statement that names none.
    async fn bulk(&mut self, db: &CachedConnection) {
        let run = self.run.clone();
        let _turn = run.turn(run.ids()).await;
        let (rank, country) = (self.rng.i32(0..RANKS), self.rng.i64(1..=COUNTRIES));
        match self.rng.u32(..3) {
            0 => {
                let template = run.ledger.next("bulk raw UPDATE", None);
                let changes = self.changes(&template, |fields| Some(Some(fields.clone())));
                let sql = format!("UPDATE city SET name = '{}'", template.version);
                let write = async { db.execute_unprepared(&sql).await.map(drop) };
                if self.send(&all(&changes), write).await {
                    run.ledger.wrote_all(template.version);
                }
            }
            1 => {
                let template = run.ledger.next("bulk by rank", None);
                let stays = |fields: &Fields| (fields.rank == rank).then(|| Some(fields.clone()));
                let changes = self.changes(&template, stays);
                let write = named(&template).filter(city::Column::Rank.eq(rank));
                let write = async { write.exec(db).await.map(drop) };
                self.send(&all(&changes), write).await;
            }
            _ => {
                let template = run.ledger.next("bulk by country", None);
                let moves = |fields: &Fields| {
                    let moved = Fields {
                        rank,
                        ..fields.clone()
                    };
                    (fields.country == Some(country)).then_some(Some(moved))
                };
                let changes = self.changes(&template, moves);
                let write = named(&template)
                    .col_expr(city::Column::Rank, Expr::value(rank))
                    .filter(city::Column::CountryId.eq(country));
                let write = async { write.exec(db).await.map(drop) };
                self.send(&all(&changes), write).await;
            }
        }
    }

    /// Its cities go with it.
    async fn delete_country(&mut self, db: &CachedConnection) {
        let run = self.run.clone();
        let _turn = run.turn(run.ids()).await;
        let id = self.rng.i64(1..=COUNTRIES);
        let template = self.run.ledger.next("cascade", None);
        let changes = self.changes(&template, |fields| {
            (fields.country == Some(id)).then_some(None)
        });
        let delete = country::Entity::delete_by_id(id);
        let write = async { delete.exec(db).await.map(drop) };
        self.send(&all(&changes), write).await;
        // Whether the country was deleted or not: past the cache, because cached reads of cities
        // do not see a country without cities.
        let again = country::Entity::insert(super::country(id)).on_conflict_do_nothing();
        again.exec_without_returning(&self.run.raw).await.unwrap();
    }

    /// The same change of every row that is there and for which `after` answers.
    fn changes(
        &self,
        template: &State,
        after: impl Fn(&Fields) -> Option<Option<Fields>>,
    ) -> Vec<Change> {
        let change = |id| {
            let from = self.run.ledger.now(id);
            let fields = after(from.fields.as_ref()?)?;
            let to = State {
                fields,
                ..template.clone()
            };
            Some(Change { id, from, to })
        };
        self.run.ids().filter_map(change).collect()
    }

    /// Sends a write of rows whose turn it is, and notes what has become of them. Whether it succeeded.
    async fn send(
        &self,
        changes: &[&Change],
        write: impl Future<Output = Result<(), DbErr>>,
    ) -> bool {
        let ledger = &self.run.ledger;
        changes
            .iter()
            .for_each(|change| ledger.begin(change.id, &change.to));
        let outcome = write.await;
        if let Err(error) = &outcome {
            self.run.failed(error);
            // As a caller would that is told to come again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for change in changes {
            let happened = match &outcome {
                Ok(()) => true,
                Err(_) => self.happened(change).await,
            };
            if happened {
                ledger.acknowledge(change.id, change.to.clone());
                self.run.free_slugs(&change.from, &change.to, &change.to);
            } else {
                ledger.take_back(change.id);
                self.run.free_slugs(&change.from, &change.to, &change.from);
            }
        }
        outcome.is_ok()
    }

    /// Whether a failed write has happened all the same.
    async fn happened(&self, change: &Change) -> bool {
        let row = city::Entity::find_by_id(change.id).one(&self.run.raw).await;
        let is = |state: &State| match row.as_ref().unwrap() {
            Some(row) => state.fields.is_some() && row.name == state.version.to_string(),
            None => state.fields.is_none(),
        };
        assert!(
            is(&change.to) || is(&change.from),
            "{row:?} is of neither state"
        );
        is(&change.to)
    }

    /// Something else for a row whose turn it is.
    fn change(&mut self, id: i64) -> (Change, Update) {
        let from = self.run.ledger.now(id);
        let (update, by) = self.update();
        let (by, fields) = match &from.fields {
            None => ("insert", Some(self.fresh_fields())),
            Some(_) if self.rng.u32(..8) == 0 => ("delete", None),
            Some(fields) => (by, Some(self.moved(fields))),
        };
        let to = self.run.ledger.next(by, fields);
        (Change { id, from, to }, update)
    }

    fn update(&mut self) -> (Update, &'static str) {
        UPDATES[self.rng.usize(..UPDATES.len())]
    }

    fn moved(&mut self, fields: &Fields) -> Fields {
        let mut fields = fields.clone();
        match self.rng.u32(..4) {
            0 => fields.country = self.country(),
            1 => fields.rank = self.rng.i32(0..RANKS),
            2 => fields.slug = self.run.take_slug(&mut self.rng),
            _ => {}
        }
        fields
    }

    fn fresh_fields(&mut self) -> Fields {
        Fields {
            country: self.country(),
            rank: self.rng.i32(0..RANKS),
            slug: self.run.take_slug(&mut self.rng),
        }
    }

    fn country(&mut self) -> Option<i64> {
        Some(self.rng.i64(0..=COUNTRIES)).filter(|id| *id > 0)
    }
}

/// What is done in one transaction.
struct Script {
    changes: Vec<(Change, Update)>,
    /// The place of the change that is in a savepoint.
    nested: usize,
    /// Whether the savepoint is released.
    keeps: bool,
    commits: bool,
}

impl Script {
    /// Whether the change at this place is there after the transaction.
    fn lasts(&self, place: usize) -> bool {
        self.commits && (self.keeps || place != self.nested)
    }

    async fn run(&self, db: &CachedConnection) -> Result<(), DbErr> {
        let txn = db.begin().await?;
        for (place, (change, update)) in self.changes.iter().enumerate() {
            if place != self.nested {
                apply(*update, change, &txn).await?;
                continue;
            }
            let savepoint = txn.begin().await?;
            apply(*update, change, &savepoint).await?;
            if self.keeps {
                savepoint.commit().await?;
            } else {
                savepoint.rollback().await?;
            }
        }
        if self.commits {
            txn.commit().await
        } else {
            txn.rollback().await
        }
    }
}

fn all(changes: &[Change]) -> Vec<&Change> {
    changes.iter().collect()
}

/// An update of all rows to this version.
fn named(state: &State) -> sea_orm::UpdateMany<city::Entity> {
    let name = Expr::value(state.version.to_string());
    city::Entity::update_many().col_expr(city::Column::Name, name)
}

/// Sends one change of one row.
async fn apply<C: ConnectionTrait>(update: Update, change: &Change, db: &C) -> Result<(), DbErr> {
    match (&change.from.fields, &change.to.fields) {
        (None, Some(fields)) => insert(update, change, fields, db).await,
        (Some(fields), None) => delete(update, change.id, fields, db).await,
        (Some(old), Some(new)) => modify(update, change, old, new, db).await,
        (None, None) => Ok(()),
    }
}

async fn insert<C: ConnectionTrait>(
    update: Update,
    change: &Change,
    fields: &Fields,
    db: &C,
) -> Result<(), DbErr> {
    let row = super::city(change.id, fields, change.to.version);
    match update {
        Update::Model => row.insert(db).await.map(drop),
        Update::Upsert => upsert(row, db).await,
        _ => {
            let insert = city::Entity::insert(row);
            insert.exec_without_returning(db).await.map(drop)
        }
    }
}

async fn delete<C: ConnectionTrait>(
    update: Update,
    id: i64,
    fields: &Fields,
    db: &C,
) -> Result<(), DbErr> {
    let delete = city::Entity::delete_many();
    match update {
        Update::Model => {
            let row = city::ActiveModel {
                id: Set(id),
                ..Default::default()
            };
            row.delete(db).await.map(drop)
        }
        Update::BySlug => delete
            .filter(city::Column::Slug.eq(&fields.slug))
            .exec(db)
            .await
            .map(drop),
        Update::Raw => {
            let sql = format!("DELETE FROM city WHERE id = {id}");
            db.execute_unprepared(&sql).await.map(drop)
        }
        Update::ByKey | Update::Upsert => {
            let done = city::Entity::delete_by_id(id).exec(db).await;
            done.map(drop)
        }
    }
}

async fn modify<C: ConnectionTrait>(
    update: Update,
    change: &Change,
    old: &Fields,
    new: &Fields,
    db: &C,
) -> Result<(), DbErr> {
    let row = super::city(change.id, new, change.to.version);
    let row = city::ActiveModel {
        country_id: changed(old.country != new.country, row.country_id),
        rank: changed(old.rank != new.rank, row.rank),
        slug: changed(old.slug != new.slug, row.slug),
        ..row
    };
    match update {
        Update::Model => row.update(db).await.map(drop),
        Update::Upsert => upsert(super::city(change.id, new, change.to.version), db).await,
        Update::Raw => {
            let sql = raw_update(change, old, new, db.get_database_backend());
            db.execute_unprepared(&sql).await.map(drop)
        }
        Update::ByKey => many(row)
            .filter(city::Column::Id.eq(change.id))
            .exec(db)
            .await
            .map(drop),
        Update::BySlug => many(row)
            .filter(city::Column::Slug.eq(&old.slug))
            .exec(db)
            .await
            .map(drop),
    }
}

fn changed<V: Into<Value>>(differs: bool, value: ActiveValue<V>) -> ActiveValue<V> {
    if differs { value } else { NotSet }
}

fn many(row: city::ActiveModel) -> sea_orm::UpdateMany<city::Entity> {
    city::Entity::update_many().set(city::ActiveModel { id: NotSet, ..row })
}

async fn upsert<C: ConnectionTrait>(row: city::ActiveModel, db: &C) -> Result<(), DbErr> {
    use city::Column as C;
    let mut conflict = OnConflict::column(C::Id);
    conflict.update_columns([C::CountryId, C::Slug, C::Name, C::Rank]);
    let insert = city::Entity::insert(row).on_conflict(conflict);
    insert.exec_without_returning(db).await.map(drop)
}

/// An index column is set by an expression.
fn raw_update(change: &Change, old: &Fields, new: &Fields, backend: DbBackend) -> String {
    let quote = if backend == DbBackend::MySql {
        '`'
    } else {
        '"'
    };
    let country = new.country.map_or("NULL".to_owned(), |id| id.to_string());
    format!(
        "UPDATE city SET name = '{}', {quote}rank{quote} = {quote}rank{quote} + {}, country_id = {country}, \
         slug = '{}' WHERE id = {}",
        change.to.version,
        new.rank - old.rank,
        new.slug,
        change.id,
    )
}
