//! What it costs to encode and decode a row, beside rmp-serde and serde_json.
//!
//! `cargo bench --bench codec`. `-- --smoke` takes a second and says nothing about speed.
//!
//! The rows of one table are measured in turns, many short rounds each, and a figure is the median of the rounds:
//! compare within a table of one run only.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use sea_orm::ModelTrait;
use sea_orm::prelude::{ChronoDateTimeUtc, Decimal};
use sea_orm_cache::__private::{Reader, RowCodec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Ten columns of the usual types.
mod plain {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity, Serialize, Deserialize)]
    #[sea_orm(table_name = "bench_plain")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub country_id: i32,
        pub name: String,
        pub slug: String,
        pub timezone: String,
        pub latitude: f64,
        pub longitude: f64,
        pub capital: bool,
        pub population: Option<i64>,
        pub updated_at: ChronoDateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

/// The same with a decimal and a tree of JSON.
mod rich {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity, Serialize, Deserialize)]
    #[sea_orm(table_name = "bench_rich")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub country_id: i32,
        pub name: String,
        pub slug: String,
        pub timezone: String,
        pub latitude: f64,
        pub longitude: f64,
        pub capital: bool,
        pub population: Option<i64>,
        pub updated_at: ChronoDateTimeUtc,
        pub area: Decimal,
        pub names: Json,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let plan = if smoke { Plan::SMOKE } else { Plan::FULL };
    compare::<plain::Entity>("10 columns", &plain_row(), &plan)?;
    compare::<rich::Entity>("with a decimal and JSON", &rich_row(), &plan)
}

/// How long to measure.
struct Plan {
    rounds: usize,
    round: Duration,
}

impl Plan {
    const FULL: Self = Self {
        rounds: 31,
        round: Duration::from_millis(10),
    };
    const SMOKE: Self = Self {
        rounds: 3,
        round: Duration::from_millis(1),
    };
}

fn plain_row() -> plain::Model {
    plain::Model {
        id: 2_988_507,
        country_id: 75,
        name: "Paris".to_owned(),
        slug: "fr-ile-de-france-paris".to_owned(),
        timezone: "Europe/Paris".to_owned(),
        latitude: 48.85341,
        longitude: 2.3488,
        capital: true,
        population: Some(2_138_551),
        updated_at: ChronoDateTimeUtc::from_timestamp_nanos(1_700_000_000_123_456_000),
    }
}

fn rich_row() -> rich::Model {
    let plain = plain_row();
    rich::Model {
        id: plain.id,
        country_id: plain.country_id,
        name: plain.name,
        slug: plain.slug,
        timezone: plain.timezone,
        latitude: plain.latitude,
        longitude: plain.longitude,
        capital: plain.capital,
        population: plain.population,
        updated_at: plain.updated_at,
        area: Decimal::new(10_540, 2),
        names: json!({"de": "Paris", "it": "Parigi", "ranks": [1, 2.5, null], "seat": true}),
    }
}

fn compare<E>(title: &str, row: &E::Model, plan: &Plan) -> Outcome<()>
where
    E: RowCodec,
    E::Model: ModelTrait + Serialize + DeserializeOwned + PartialEq,
{
    let ours = encoded::<E>(row)?;
    let rmp = rmp_serde::to_vec(row)?;
    let json = serde_json::to_vec(row)?;
    let same = E::take_row(&mut Reader::new(&ours))? == *row;
    if !same || rmp_serde::from_slice::<E::Model>(&rmp)? != *row {
        return Err("a row came back as another".into());
    }
    let sizes = (ours.len(), rmp.len(), json.len());
    println!(
        "\n{title}: {} bytes, rmp-serde {}, serde_json {}",
        sizes.0, sizes.1, sizes.2
    );
    print(
        "encode",
        &measure(
            plan,
            &mut [
                ("generated", &mut || {
                    drop(black_box(encoded::<E>(black_box(row))))
                }),
                ("rmp-serde", &mut || {
                    drop(black_box(rmp_serde::to_vec(black_box(row))))
                }),
                ("serde_json", &mut || {
                    drop(black_box(serde_json::to_vec(black_box(row))))
                }),
            ],
        ),
    );
    print(
        "decode",
        &measure(
            plan,
            &mut [
                ("generated", &mut || {
                    drop(black_box(E::take_row(&mut Reader::new(black_box(&ours)))))
                }),
                ("rmp-serde", &mut || {
                    drop(black_box(rmp_serde::from_slice::<E::Model>(black_box(
                        &rmp,
                    ))))
                }),
                ("serde_json", &mut || {
                    drop(black_box(serde_json::from_slice::<E::Model>(black_box(
                        &json,
                    ))))
                }),
                ("clone", &mut || drop(black_box(black_box(row).clone()))),
            ],
        ),
    );
    Ok(())
}

fn encoded<E: RowCodec>(row: &E::Model) -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    E::put_row(&mut out, row)?;
    Ok(out)
}

type Contender<'a> = (&'static str, &'a mut dyn FnMut());

/// The median of each, in nanoseconds.
fn measure(plan: &Plan, contenders: &mut [Contender<'_>]) -> Vec<(&'static str, f64)> {
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..plan.rounds {
        for ((_, work), times) in contenders.iter_mut().zip(&mut times) {
            times.push(round(plan.round, work));
        }
    }
    let names = contenders.iter().map(|(name, _)| *name);
    names.zip(times.into_iter().map(median)).collect()
}

/// Nanoseconds per call.
fn round(length: Duration, work: &mut dyn FnMut()) -> f64 {
    const CALLS: u32 = 500;
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < length {
        for _ in 0..CALLS {
            work();
        }
        calls += CALLS;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print(what: &str, medians: &[(&str, f64)]) {
    let ours = medians[0].1;
    for (name, median) in medians {
        println!(
            "  {what}  {name:<12} {median:>7.1} ns  {:>5.2}x",
            median / ours
        );
    }
}
