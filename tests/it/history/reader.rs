//! A task that reads in every cached way, and tells what it was answered.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm_cache::QueryCache;

use super::record::{Asked, Found, OpId, Record, now};
use super::table::{item, linearizable_item};
use super::worker::{Db, Log, Plan, pause};

/// The ways to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Get,
    GetMany,
    FindByGroup,
    All,
    SelectGroup,
    SelectRange,
}

/// What they are called, and how often each of a hundred reads is one.
const WAYS: [(Way, &str, u32); 6] = [
    (Way::Get, "cached_get", 22),
    (Way::GetMany, "cached_get_many", 45),
    (Way::FindByGroup, "cached_find_by_grp", 15),
    (Way::All, "cached_all", 6),
    (Way::SelectGroup, "a cached select of a group", 5),
    (Way::SelectRange, "a cached select of a range", 7),
];

/// Added to the number of a way at the other level.
const LINEARIZABLE: usize = WAYS.len();

/// Whether a record's number is one of the other level.
pub fn is_linearizable(number: usize) -> bool {
    number >= LINEARIZABLE
}

/// Of a record's number.
pub fn way_name(number: usize) -> String {
    let (_, name, _) = WAYS[number % WAYS.len()];
    let level = if is_linearizable(number) {
        "linearizable"
    } else {
        "bounded"
    };
    format!("{name}, {level}")
}

pub struct Reader {
    db: Db,
    log: Arc<Log>,
    rng: Rng,
    rows: i64,
    groups: i32,
    tiered: bool,
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
            tiered: plan.tiered,
        }
    }

    pub async fn run(mut self) {
        while self.log.is_running() {
            self.once().await;
        }
    }

    async fn once(&mut self) {
        if self.tiered {
            // Its answers wait for nothing, and the other tasks of this thread for it.
            pause(&mut self.rng, Duration::from_micros(600)).await;
        }
        let way = self.way();
        let linearizable = self.rng.bool();
        let asked = self.asked(way);
        let start = now();
        let answer = match linearizable {
            false => self.bounded(way, &asked).await,
            true => self.linearizable(way, &asked).await,
        };
        let end = now();
        let way = way as usize + usize::from(linearizable) * LINEARIZABLE;
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
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn way(&mut self) -> Way {
        let mut place = self.rng.u32(..100);
        for (way, _, weight) in WAYS {
            if place < weight {
                return way;
            }
            place -= weight;
        }
        unreachable!("the weights add up")
    }

    fn asked(&mut self, way: Way) -> Asked {
        match way {
            Way::Get => Asked::Keys(vec![self.rng.i64(1..=self.rows)]),
            Way::GetMany => {
                let mut ids: Vec<i64> = (1..=self.rows).collect();
                self.rng.shuffle(&mut ids);
                let (few, all) = ((ids.len() / 4).max(1), ids.len());
                ids.truncate(self.rng.usize(few..=all));
                Asked::Keys(ids)
            }
            Way::FindByGroup | Way::SelectGroup => Asked::Group(self.rng.i32(0..self.groups)),
            Way::All => Asked::All,
            Way::SelectRange => {
                let first = self.rng.i64(1..=self.rows);
                let last = self.rows.min(first + self.rng.i64(0..16));
                Asked::Keys((first..=last).collect())
            }
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
            async fn $name(&self, way: Way, asked: &Asked) -> Result<Vec<Found>, DbErr> {
                use $entity::{Column, Entity};
                let db = &self.db;
                let found = |row: &$entity::Model| Found {
                    id: row.id,
                    version: row.version,
                    grp: row.grp,
                    op: OpId(row.op),
                };
                let rows: sea_orm_cache::Rows<$entity::Model> = match (way, asked) {
                    (Way::Get, Asked::Keys(ids)) => {
                        let row = Entity::cached_get(ids[0], db).await?;
                        return Ok(row.iter().map(|row| found(row)).collect());
                    }
                    (Way::GetMany, Asked::Keys(ids)) => {
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
                    (Way::FindByGroup, Asked::Group(grp)) => {
                        Entity::cached_find_by_grp(*grp, db).await?.into()
                    }
                    (_, Asked::Group(grp)) => {
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

ways!(bounded, item);
ways!(linearizable, linearizable_item);
