//! A task that reads in every way and checks each answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};
use sea_orm_cache::{CachedConnection, QueryCache};

use super::ledger::{Answer, Fields, Floors, Seen};
use super::{COUNTRIES, RANKS, Run, SLUGS};
use crate::entities::{city, country};

pub struct Reader {
    run: Arc<Run>,
    rng: Rng,
    seen: Seen,
}

/// The ways to read, each as likely as the others.
const WAYS: [&str; 9] = [
    "cached_get",
    "cached_get, again",
    "cached_get_many",
    "cached_find_by_slug",
    "cached_find_by_country_id",
    "cached_find_by_rank",
    "cached_all",
    "a cached select with a join",
    "a cached count",
];

impl Reader {
    pub fn new(run: Arc<Run>, rng: Rng) -> Self {
        let seen = Seen::nothing(run.ledger.len());
        Self { run, rng, seen }
    }

    pub async fn read(mut self, reads: usize) {
        for _ in 0..reads {
            let way = self.rng.usize(..WAYS.len());
            let process = self.rng.usize(..self.run.processes.len());
            self.once(way, process).await;
        }
    }

    /// Reads in every way in both processes.
    pub async fn sweep(mut self, times: usize) {
        for _ in 0..times {
            for way in 0..WAYS.len() {
                for process in 0..self.run.processes.len() {
                    self.once(way, process).await;
                }
            }
        }
    }

    async fn once(&mut self, way: usize, process: usize) {
        let run = self.run.clone();
        let verdict = self.way(way, &run.processes[process].1).await;
        run.reads.fetch_add(1, Ordering::Relaxed);
        if let Err(reason) = verdict {
            run.violated(format!("{} in process {process}: {reason}", WAYS[way]));
        }
    }

    async fn way(&mut self, way: usize, db: &CachedConnection) -> Result<(), String> {
        let floors = self.run.ledger.floors();
        let answer = match way {
            0 | 1 => self.get(&floors, db).await,
            2 => self.get_many(&floors, db).await,
            3 => self.by_slug(&floors, db).await,
            4 => self.by_country(&floors, db).await,
            5 => self.by_rank(&floors, db).await,
            6 => self.all(&floors, db).await,
            7 => self.join(&floors, db).await,
            _ => self.count(&floors, db).await,
        };
        answer.map_err(|error| error.to_string())?
    }

    async fn get(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let id = self.run.any_id(&mut self.rng);
        let row = city::Entity::cached_get(id, db).await?;
        Ok(self.check([id], &versions(row), floors, |_| true))
    }

    async fn get_many(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let ids: Vec<i64> = (0..self.rng.usize(1..8))
            .map(|_| self.run.any_id(&mut self.rng))
            .collect();
        let rows = city::Entity::cached_get_many(ids.clone(), db).await?;
        if rows.len() != ids.len() {
            return Ok(Err(format!("{} answers to {} keys", rows.len(), ids.len())));
        }
        for (id, row) in ids.iter().zip(&rows) {
            if row.as_ref().is_some_and(|row| row.id != *id) {
                return Ok(Err(format!("{row:?} for row {id}")));
            }
        }
        Ok(self.check(ids, &versions(rows.into_iter().flatten()), floors, |_| true))
    }

    async fn by_slug(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let slug = format!("s{}", self.rng.usize(..SLUGS));
        let row = city::Entity::cached_find_by_slug(slug.as_str(), db).await?;
        Ok(self.check_list(&versions(row), floors, |fields| fields.slug == slug))
    }

    async fn by_country(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let id = self.rng.i64(1..=COUNTRIES);
        let rows = city::Entity::cached_find_by_country_id(id, db).await?;
        Ok(self.check_list(&versions(rows), floors, |fields| fields.country == Some(id)))
    }

    async fn by_rank(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let rank = self.rng.i32(0..RANKS);
        let rows = city::Entity::cached_find_by_rank(rank, db).await?;
        Ok(self.check_list(&versions(rows), floors, |fields| fields.rank == rank))
    }

    async fn all(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let rows = city::Entity::cached_all(db).await?;
        Ok(self.check_moment(&versions(rows.iter().cloned()), floors, |_| true))
    }

    async fn join(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let id = self.rng.i64(1..=COUNTRIES);
        let rows = city::Entity::find()
            .inner_join(country::Entity)
            .filter(country::Column::Iso2.eq(format!("C{id}")))
            .order_by_asc(city::Column::Id)
            .cached()
            .all(db)
            .await?;
        let answer = versions(rows.iter().cloned());
        Ok(self.check_moment(&answer, floors, |fields| fields.country == Some(id)))
    }

    async fn count(&mut self, floors: &Floors, db: &CachedConnection) -> Verdict {
        let rank = self.rng.i32(0..RANKS);
        let counted = city::Entity::find()
            .filter(city::Column::Rank.eq(rank))
            .cached()
            .count(db)
            .await?;
        let fit = |fields: &Fields| fields.rank == rank;
        let ledger = &self.run.ledger;
        Ok(ledger.check_count(counted, floors, &self.seen, fit))
    }

    fn check(
        &mut self,
        ids: impl IntoIterator<Item = i64>,
        answer: &Answer,
        floors: &Floors,
        fit: impl Fn(&Fields) -> bool,
    ) -> Result<(), String> {
        let ledger = &self.run.ledger;
        ledger.check(ids, answer, floors, &mut self.seen, fit)
    }

    fn check_list(
        &mut self,
        answer: &Answer,
        floors: &Floors,
        fit: impl Fn(&Fields) -> bool,
    ) -> Result<(), String> {
        self.check(1..=self.run.ledger.len() as i64, answer, floors, fit)
    }

    fn check_moment(
        &mut self,
        answer: &Answer,
        floors: &Floors,
        fit: impl Fn(&Fields) -> bool,
    ) -> Result<(), String> {
        self.check_list(answer, floors, fit)?;
        self.run.ledger.check_moment(answer)
    }
}

/// What the database said, and what that is worth.
type Verdict = Result<Result<(), String>, DbErr>;

fn versions(rows: impl IntoIterator<Item = Arc<city::Model>>) -> Answer {
    let version = |row: Arc<city::Model>| (row.id, row.name.parse().unwrap());
    rows.into_iter().map(version).collect()
}
