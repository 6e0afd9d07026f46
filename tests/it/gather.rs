//! Readers whose keys are loaded by one query.

use std::sync::Arc;

use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, EntityTrait};
use sea_orm_cache::store::Op;
use sea_orm_cache::testing::Pause;
use tokio::task::JoinHandle;

use crate::entities::{city, word};
use crate::on_all;
use crate::reads::city as a_city;
use crate::world::World;

on_all!(
    readers_of_different_cold_keys_share_queries_and_each_row_is_cached,
    a_write_under_a_shared_query_keeps_its_own_row_out_and_no_other,
    spellings_that_meet_in_one_query_get_each_its_own_answer,
);

const READERS: i64 = 64;

async fn seed(world: &World) {
    let rows = (1..=READERS).map(|id| a_city(id, None, &format!("c{id}")));
    world.seed(rows).await;
}

/// A reader for each key. `last` has no row.
fn readers(world: &World, last: i64) -> Vec<JoinHandle<Option<Arc<city::Model>>>> {
    let read = |id| {
        let db = world.db.clone();
        tokio::spawn(async move { city::Entity::cached_get(id, &db).await.unwrap() })
    };
    (1..=last).map(read).collect()
}

async fn all_have_arrived(pause: &Pause, readers: i64) {
    for _ in 0..readers {
        pause.arrived().await;
    }
}

async fn assert_rows(readers: Vec<JoinHandle<Option<Arc<city::Model>>>>) {
    for (id, reader) in (1..).zip(readers) {
        let row = reader.await.unwrap();
        assert_eq!(row.map(|row| row.id), (id <= READERS).then_some(id));
    }
}

async fn readers_of_different_cold_keys_share_queries_and_each_row_is_cached(world: World) {
    seed(&world).await;
    // All hold their leases before the first of them asks the database.
    let pause = world
        .store
        .pause_after(|op| matches!(op, Op::Acquire { .. }));
    let before = world.meter.total().statements;
    let readers = readers(&world, READERS + 1);
    all_have_arrived(&pause, READERS + 1).await;
    pause.resume();
    assert_rows(readers).await;
    let (stats, queries) = (world.stats("city"), world.meter.total().statements - before);
    assert!(queries <= READERS as u64 / 2, "{queries} queries");
    assert_eq!(stats.loads, queries);
    assert_eq!(stats.loads + stats.coalesced, READERS as u64 + 1);
    assert_eq!((stats.fills, stats.superseded), (READERS as u64 + 1, 0));
    for id in 1..=READERS + 1 {
        let (row, cost) = world.cost(city::Entity::cached_get(id, &world.db)).await;
        assert_eq!(
            (row.unwrap().is_some(), cost),
            (id <= READERS, world.free())
        );
    }
}

async fn a_write_under_a_shared_query_keeps_its_own_row_out_and_no_other(world: World) {
    seed(&world).await;
    let pause = world.store.pause_before(Op::is_fill);
    let readers = readers(&world, READERS);
    all_have_arrived(&pause, READERS).await;
    let rename = city::ActiveModel {
        id: Set(7),
        name: Set("new".to_owned()),
        ..Default::default()
    };
    rename.update(&world.db).await.unwrap();
    pause.resume();
    assert_rows(readers).await;
    let stats = world.stats("city");
    assert_eq!((stats.fills, stats.superseded), (READERS as u64 - 1, 1));
    for id in (1..=READERS).filter(|id| *id != 7) {
        let (_, cost) = world.cost(city::Entity::cached_get(id, &world.db)).await;
        assert_eq!(cost.statements, 0, "{id}");
    }
    let row = city::Entity::cached_get(7, &world.db).await.unwrap();
    assert_eq!(row.unwrap().name, "new");
}

async fn spellings_that_meet_in_one_query_get_each_its_own_answer(world: World) {
    let word = |id: &str| word::ActiveModel {
        id: Set(id.to_owned()),
        kind: Set("x".to_owned()),
        meaning: Set(format!("of {id}")),
    };
    world.seed(["abc", "own", "lone"].map(word)).await;
    let spellings = ["abc", "ABC", "abc ", "own", "OWN", "lone", "LONE ", "none"];
    for _ in 0..5 {
        let mut readers = Vec::new();
        for id in spellings.repeat(3) {
            let db = world.db.clone();
            let read = async move { word::Entity::cached_get(id, &db).await.unwrap() };
            readers.push((id, tokio::spawn(read)));
        }
        for (id, reader) in readers {
            let asked = word::Entity::find_by_id(id).one(&world.raw).await.unwrap();
            assert_eq!(reader.await.unwrap().as_deref(), asked.as_ref(), "{id:?}");
        }
        word::Entity::invalidate_all(&world.db).await.unwrap();
    }
}
