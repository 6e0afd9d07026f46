//! A task that reads in every cached way, and tells what it was answered.

use std::ops::RangeInclusive;
use std::sync::Arc;

use fastrand::Rng;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm_cache::QueryCache;

use super::record::{Asked, Found, OpId, Record, now};
use super::table::{item, strict_item};
use super::worker::{Db, Log, Plan};

/// The ways to read, at the default level and then at the other one.
pub const WAYS: [&str; 14] = [
    "cached_get",
    "cached_get_many",
    "cached_find_by_grp",
    "cached_all",
    "a cached select of a group",
    "a cached select of a range",
    "a cached select of one row",
    "cached_get, linearizable",
    "cached_get_many, linearizable",
    "cached_find_by_grp, linearizable",
    "cached_all, linearizable",
    "a cached select of a group, linearizable",
    "a cached select of a range, linearizable",
    "a cached select of one row, linearizable",
];
const LEVELS: usize = 2;

pub struct Reader {
    db: Db,
    log: Arc<Log>,
    rng: Rng,
    rows: i64,
    groups: i32,
}

impl Reader {
    pub fn new(plan: &Plan, db: Db, log: Arc<Log>, rng: Rng) -> Self {
        let (rows, groups) = (plan.rows, plan.groups);
        Self {
            db,
            log,
            rng,
            rows,
            groups,
        }
    }

    pub async fn run(mut self) {
        while self.log.is_running() {
            self.once().await;
        }
    }

    async fn once(&mut self) {
        let way = self.way();
        let level = self.rng.usize(..LEVELS);
        let asked = self.asked(way);
        let start = now();
        let answer = match level {
            0 => self.default_level(way, &asked).await,
            _ => self.linearizable(way, &asked).await,
        };
        let end = now();
        let way = way + level * WAYS.len() / LEVELS;
        match answer {
            Ok(found) => self.log.tell(&Record::Read {
                way,
                start,
                end,
                asked,
                found,
            }),
            Err(_) => {
                self.log.tell(&Record::ReadFailed { way });
                // As a caller would that is told to come again.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }

    fn way(&mut self) -> usize {
        match self.rng.u32(..100) {
            0..22 => 0,
            22..67 => 1,
            67..82 => 2,
            82..88 => 3,
            88..93 => 4,
            93..97 => 5,
            _ => 6,
        }
    }

    fn asked(&mut self, way: usize) -> Asked {
        match way {
            1 => {
                let most = self.rows.min(64);
                let mut ids: Vec<i64> = (1..=self.rows).collect();
                self.rng.shuffle(&mut ids);
                let few = (most / 4).max(1);
                ids.truncate(usize::try_from(self.rng.i64(few..=most)).unwrap());
                Asked::Keys(ids)
            }
            2 | 4 => Asked::Group(self.rng.i32(0..self.groups)),
            3 => Asked::All,
            5 => {
                let first = self.rng.i64(1..=self.rows);
                Asked::Keys((first..=self.rows.min(first + 15)).collect())
            }
            _ => Asked::Keys(vec![self.rng.i64(1..=self.rows)]),
        }
    }
}

fn range(ids: &[i64]) -> RangeInclusive<i64> {
    ids[0]..=ids[ids.len() - 1]
}

/// The ways to read one of the entities.
macro_rules! ways {
    ($name:ident, $entity:ident) => {
        impl Reader {
            async fn $name(&self, way: usize, asked: &Asked) -> Result<Vec<Found>, DbErr> {
                use $entity::{Column, Entity};
                let db = &self.db;
                let found = |row: &$entity::Model| Found {
                    id: row.id,
                    version: row.version,
                    grp: row.grp,
                    op: OpId(row.op),
                };
                let rows: sea_orm_cache::Rows<$entity::Model> = match (way, asked) {
                    (0, Asked::Keys(ids)) => {
                        let row = Entity::cached_get(ids[0], db).await?;
                        return Ok(row.iter().map(|row| found(row)).collect());
                    }
                    (1, Asked::Keys(ids)) => {
                        let rows = Entity::cached_get_many(ids.clone(), db).await?;
                        assert_eq!(rows.len(), ids.len(), "one answer for each key");
                        let rows = ids.iter().zip(&rows);
                        let rows = rows.filter_map(|(id, row)| Some((id, row.as_ref()?)));
                        let in_order = |(id, row): (&i64, &std::sync::Arc<$entity::Model>)| {
                            assert_eq!(*id, row.id, "in the order asked");
                            found(row)
                        };
                        return Ok(rows.map(in_order).collect());
                    }
                    (2, Asked::Group(grp)) => Entity::cached_find_by_grp(*grp, db).await?.into(),
                    (4, Asked::Group(grp)) => {
                        Entity::find()
                            .filter(Column::Grp.eq(*grp))
                            .cached()
                            .all(db)
                            .await?
                    }
                    (_, Asked::Keys(ids)) => {
                        let (first, last) = range(ids).into_inner();
                        let select = Entity::find().filter(Column::Id.between(first, last));
                        select.cached().all(db).await?
                    }
                    _ => Entity::cached_all(db).await?,
                };
                Ok(rows.iter().map(|row| found(row)).collect())
            }
        }
    };
}

ways!(default_level, item);
ways!(linearizable, strict_item);
