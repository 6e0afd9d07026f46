//! Saves through SeaORM's own connections, which only the hooks see.
//!
//! The default cache is one for the process, so these tests take turns.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, ModelTrait, QueryFilter,
    TransactionTrait,
};
use sea_orm_cache::{Cache, PlainTransactions};
use tokio::sync::Mutex;

use crate::entities::{city, country, ledger, tag};
use crate::on_all;
use crate::reads::{city as a_city, seed};
use crate::world::World;

on_all!(
    saves_through_a_plain_connection_invalidate,
    nested_saves_through_a_plain_connection_invalidate,
    saves_in_a_plain_transaction_leave_the_rows_uncached_for_a_while,
    saves_in_a_plain_transaction_are_refused_where_asked,
    reads_through_a_plain_connection_use_the_installed_cache,
    a_behavior_of_ones_own_invalidates_too,
);

static TURN: Mutex<()> = Mutex::const_new(());

/// A connection whose cache is the default, with short fences.
async fn install(
    world: &World,
    policy: PlainTransactions,
) -> (Cache, sea_orm_cache::CachedConnection) {
    let cache = Cache::builder()
        .store(world.store.clone())
        .fence_ttl(Duration::from_millis(400))
        .plain_transactions(policy)
        .build()
        .await
        .unwrap();
    let db = cache.attach(world.raw.clone());
    db.install_default();
    (cache, db)
}

fn rename(id: i64, name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(id),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

async fn read(id: i64, world: &World) -> Option<Arc<city::Model>> {
    city::Entity::cached_get(id, &world.db).await.unwrap()
}

/// Waits until reading row 1 costs one round trip: its fences are gone.
async fn cached_again(world: &World) {
    let again = tokio::time::timeout(Duration::from_secs(10), async {
        while world.cost(read(1, world)).await.1 != world.free() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    again.await.expect("the fence expires");
}

async fn saves_through_a_plain_connection_invalidate(world: World) {
    let _turn = TURN.lock().await;
    seed(&world).await;
    install(&world, PlainTransactions::Expire).await;
    let plain = &world.raw;

    world.warm().await;
    rename(1, "updated").update(plain).await.unwrap();
    world.assert_fresh("update").await;
    read(1, &world).await;
    assert_eq!(
        world.cost(read(1, &world)).await.1,
        world.free(),
        "the fence is settled"
    );

    world.warm().await;
    city::ActiveModel {
        country_id: Set(Some(20)),
        ..rename(1, "saved")
    }
    .save(plain)
    .await
    .unwrap();
    world.assert_fresh("save").await;

    world.warm().await;
    a_city(5, Some(10), "bern").insert(plain).await.unwrap();
    world.assert_fresh("insert").await;

    world.warm().await;
    let row = city::Entity::find_by_id(5)
        .one(plain)
        .await
        .unwrap()
        .unwrap();
    row.delete(plain).await.unwrap();
    world.assert_fresh("delete").await;

    assert_eq!(tag::Entity::cached_get(1, &world.db).await.unwrap(), None);
    tag::ActiveModel {
        id: NotSet,
        label: Set("t".to_owned()),
    }
    .insert(plain)
    .await
    .unwrap();
    assert!(
        tag::Entity::cached_get(1, &world.db)
            .await
            .unwrap()
            .is_some()
    );

    // Only `before_save` fires: the fence expires by itself.
    world.warm().await;
    rename(2, "without returning")
        .update_without_returning(plain)
        .await
        .unwrap();
    world.assert_fresh("update_without_returning").await;
    let expired = tokio::time::timeout(Duration::from_secs(10), async {
        while world.cost(read(2, &world)).await.1 != world.free() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    expired.await.expect("the fence expires");
    world.assert_fresh("update_without_returning, later").await;

    // A parent that goes takes its children along.
    world.warm().await;
    let france = country::Entity::find_by_id(10)
        .one(plain)
        .await
        .unwrap()
        .unwrap();
    france.delete(plain).await.unwrap();
    world.assert_fresh("cascade").await;
}

async fn nested_saves_through_a_plain_connection_invalidate(world: World) {
    let _turn = TURN.lock().await;
    seed(&world).await;
    install(&world, PlainTransactions::Expire).await;
    world.warm().await;
    let spain = country::ActiveModel::builder()
        .set_id(30)
        .set_iso2("ES")
        .set_name("Spain")
        .add_city(
            city::ActiveModel::builder()
                .set_id(6)
                .set_slug("madrid")
                .set_name("Madrid")
                .set_rank(4),
        )
        .insert(&world.raw)
        .await
        .unwrap();
    world.assert_fresh("nested insert").await;
    let mut spain = spain.into_active_model();
    spain.cities[0].name = Set("Villa".to_owned());
    let spain = spain.save(&world.raw).await.unwrap();
    world.assert_fresh("nested save").await;
    spain.delete(&world.raw).await.unwrap();
    world.assert_fresh("nested delete").await;
    // SeaORM saves these in a transaction of its own: their fences expire.
    cached_again(&world).await;
    world.assert_fresh("later").await;
}

async fn saves_in_a_plain_transaction_leave_the_rows_uncached_for_a_while(world: World) {
    let _turn = TURN.lock().await;
    seed(&world).await;
    install(&world, PlainTransactions::Expire).await;
    world.warm().await;
    let txn = world.raw.begin().await.unwrap();
    rename(1, "in a plain transaction")
        .update(&txn)
        .await
        .unwrap();
    if world.backend() != sea_orm::DbBackend::Sqlite {
        let (row, cost) = world.cost(read(1, &world)).await;
        assert_eq!((row.unwrap().name.as_str(), cost.statements), ("PARIS", 1));
    }
    txn.commit().await.unwrap();
    world.assert_fresh("commit").await;
    cached_again(&world).await;
    world.assert_fresh("later").await;
}

async fn saves_in_a_plain_transaction_are_refused_where_asked(world: World) {
    let _turn = TURN.lock().await;
    seed(&world).await;
    let (_cache, db) = install(&world, PlainTransactions::Refuse).await;
    world.warm().await;
    let txn = world.raw.begin().await.unwrap();
    let error = rename(1, "never").update(&txn).await.unwrap_err();
    assert!(error.to_string().contains("CachedConnection"), "{error}");
    txn.rollback().await.unwrap();
    world.assert_fresh("refused").await;
    let txn = db.begin().await.unwrap();
    rename(1, "by our own").update(&txn).await.unwrap();
    txn.commit().await.unwrap();
    world.assert_fresh("our own transaction").await;
}

async fn reads_through_a_plain_connection_use_the_installed_cache(world: World) {
    let _turn = TURN.lock().await;
    seed(&world).await;
    let (cache, _db) = install(&world, PlainTransactions::Expire).await;
    for _ in 0..2 {
        city::Entity::cached_get(1, &world.raw).await.unwrap();
    }
    let stats = cache.stats().entity("city");
    assert_eq!((stats.hits, stats.misses), (1, 1));
    // In a plain transaction the database answers.
    let txn = world.raw.begin().await.unwrap();
    city::Entity::cached_get(1, &txn).await.unwrap();
    txn.rollback().await.unwrap();
    assert_eq!(cache.stats().entity("city"), stats);
    // What no hook sees must be told.
    city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("unseen"))
        .filter(city::Column::Id.eq(1))
        .exec(&world.raw)
        .await
        .unwrap();
    city::Entity::invalidate(1, &world.raw).await.unwrap();
    assert_eq!(
        city::Entity::cached_get(1, &world.raw)
            .await
            .unwrap()
            .unwrap()
            .name,
        "unseen"
    );
}

async fn a_behavior_of_ones_own_invalidates_too(world: World) {
    let _turn = TURN.lock().await;
    install(&world, PlainTransactions::Expire).await;
    let read = || async { ledger::Entity::cached_get(1, &world.db).await.unwrap() };
    assert_eq!(read().await, None);
    let row = ledger::ActiveModel {
        id: Set(1),
        note: Set("  first ".to_owned()),
    };
    row.insert(&world.raw).await.unwrap();
    assert_eq!(
        read().await.unwrap().note,
        "first",
        "its own body ran, and the cache was told"
    );
    assert_eq!(world.cost(read()).await.1, world.free());
    let row = ledger::ActiveModel {
        id: Set(1),
        note: Set("second".to_owned()),
    };
    row.update(&world.raw).await.unwrap();
    assert_eq!(read().await.unwrap().note, "second");
    let row = ledger::Entity::find_by_id(1)
        .one(&world.raw)
        .await
        .unwrap()
        .unwrap();
    row.into_active_model().delete(&world.raw).await.unwrap();
    assert_eq!(read().await, None);
}
