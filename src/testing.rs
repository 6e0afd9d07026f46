//! A kit for the tests of a service: faults, races, crashes, costs, freshness.
//!
//! A service trusts its cache when its tests have seen it go wrong. This module makes it go wrong at
//! the moment that a test chooses, without sleeping and without a server:
//!
//! - [`Server`]: a model of a Redis server that several caches share. It evicts, and restarts empty
//!   or from an old snapshot.
//! - [`FaultyStore`]: one process's way to a store. It delays, refuses or loses batches
//!   ([`Fault`]), holds them at a [`Pause`] until the test has done what must come between, and
//!   [crashes](FaultyStore::crash).
//! - [`Meter`]: what a piece of work [cost](Cost) in statements and round trips.
//! - [`Watch`] and [`assert_fresh`]: whether the cache answers what the database does.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use sea_orm::{ActiveModelTrait, ConnectionTrait, Database, DbErr, Schema, Set};
//! use sea_orm_cache::store::Op;
//! use sea_orm_cache::testing::{FaultyStore, Meter, Server, Watch};
//! use sea_orm_cache::{Cache, CachedConnection};
//!
//! mod city {
//!     use sea_orm::entity::prelude::*;
//!     use sea_orm_cache::CachedEntity;
//!
//!     #[sea_orm::model]
//!     #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
//!     #[sea_orm(table_name = "city")]
//!     pub struct Model {
//!         #[sea_orm(primary_key)]
//!         pub id: i64,
//!         #[sea_orm(unique)]
//!         pub name: String,
//!     }
//! }
//!
//! // The service under test.
//! async fn name(id: i64, db: &CachedConnection) -> Result<Option<String>, DbErr> {
//!     Ok(city::Entity::cached_get(id, db).await?.map(|city| city.name.clone()))
//! }
//! async fn rename(id: i64, name: &str, db: &CachedConnection) -> Result<(), DbErr> {
//!     city::ActiveModel { id: Set(id), name: Set(name.to_owned()) }.update(db).await.map(drop)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = FaultyStore::around(Server::start());
//! let cache = Cache::builder().store(store.clone()).build().await?;
//! let mut database = Database::connect("sqlite::memory:").await?;
//! let meter = Meter::new(&cache, &mut database);
//! let db = cache.attach(database);
//! db.execute(&Schema::new(db.get_database_backend()).create_table_from_entity(city::Entity)).await?;
//! city::ActiveModel { id: Set(1), name: Set("Paris".to_owned()) }.insert(&db).await?;
//!
//! // It is cached, and fresh after a write.
//! let cities = Watch::<city::Entity>::over([1, 99], &db);
//! cities.assert_fresh().await;
//! let (answer, cost) = meter.cost(name(1, &db)).await;
//! assert_eq!((answer?.as_deref(), cost.statements), (Some("Paris"), 0));
//! rename(1, "Lutetia", &db).await?;
//! cities.assert_fresh().await;
//!
//! // A reader that is slow to fill cannot put the old row back.
//! rename(1, "Paris", &db).await?;
//! let pause = store.pause_before(Op::is_fill);
//! let slow = tokio::spawn({ let db = db.clone(); async move { name(1, &db).await } });
//! pause.arrived().await;
//! rename(1, "Lutetia", &db).await?;
//! pause.resume();
//! assert_eq!(slow.await??.as_deref(), Some("Paris")); // it began before the write
//! cities.assert_fresh().await;
//!
//! // Without the cache the database answers.
//! store.outage();
//! assert_eq!(name(1, &db).await?.as_deref(), Some("Lutetia"));
//! # Ok(()) }
//! ```
//!
//! Several processes are several caches over one server, each with a [`FaultyStore`] of its own:
//!
//! ```
//! # async fn build() -> Result<(), sea_orm_cache::CacheError> {
//! use sea_orm_cache::Cache;
//! use sea_orm_cache::testing::{FaultyStore, Server};
//!
//! let server = Server::start();
//! let (one, two) = (FaultyStore::around(server.clone()), FaultyStore::around(server.clone()));
//! let first = Cache::builder().store(one.clone()).build().await?;
//! let second = Cache::builder().store(two.clone()).build().await?;
//! one.crash(); // the second process goes on
//! # Ok(()) }
//! ```

mod faults;
mod fresh;
mod meter;
mod pause;
mod server;

pub use faults::{Fault, FaultyStore};
pub use fresh::{Watch, assert_fresh};
pub use meter::{Cost, Meter};
pub use pause::Pause;
pub use server::Server;
