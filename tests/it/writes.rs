//! Writes invalidate by themselves: exactly what they change, exactly when it counts.

use std::collections::BTreeSet;

use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, IntoActiveModel,
    ModelTrait, QueryFilter, Statement, StreamTrait, TransactionTrait,
};
use sea_orm_cache::QueryCache;
use sea_orm_cache::testing::Cost;

use crate::entities::{city, city_tag, country, gadget_new, gadget_old, ledger, tag};
use crate::on_all;
use crate::reads::{city, paris, seed};
use crate::world::World;

on_all!(
    an_autocommit_write_costs_two_round_trips,
    a_transaction_of_100_updates_costs_two_round_trips,
    a_row_update_fences_the_row_the_list_and_its_new_index_values,
    commit_invalidates_but_rollback_does_not,
    savepoint_rollback_keeps_the_outer,
    a_dropped_transaction_invalidates_nothing,
    every_way_to_write_is_seen,
    raw_sql_is_seen,
    raw_begin_and_commit_are_seen,
    streams_that_write_are_seen,
    upserts_are_seen,
    nested_active_models_are_seen,
    cascades_are_seen,
    a_changed_unique_column_is_found_under_its_new_value_only,
    a_row_leaves_one_list_and_joins_another,
    an_index_column_set_by_default_or_expression_leaves_no_stale_list,
    a_primary_key_that_changes_is_seen,
    closures_and_async_closures_commit_and_roll_back,
    two_builds_share_keys_and_invalidate_each_other,
    a_table_of_no_linked_entity_is_invalidated_by_name,
);

pub async fn name_of(id: i64, world: &World) -> String {
    city::Entity::cached_get(id, &world.db)
        .await
        .unwrap()
        .unwrap()
        .name
        .clone()
}

async fn active(id: i64, world: &World) -> city::ActiveModel {
    city::Entity::find_by_id(id)
        .one(&world.raw)
        .await
        .unwrap()
        .unwrap()
        .into_active_model()
}

async fn an_autocommit_write_costs_two_round_trips(world: World) {
    seed(&world).await;
    world.warm().await;
    let mut row = active(1, &world).await;
    row.name = Set("Paris!".to_owned());
    let (row, cost) = world.cost(row.update(&world.db)).await;
    assert_eq!(row.unwrap().name, "Paris!");
    assert_eq!(cost.round_trips, 2);
    let (_, cost) = world
        .cost(city::Entity::delete_by_id(2).exec(&world.db))
        .await;
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 2
        }
    );
    // A select costs none.
    let (_, cost) = world.cost(city::Entity::find().all(&world.db)).await;
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 0
        }
    );
    world.assert_fresh("autocommit").await;
}

async fn a_transaction_of_100_updates_costs_two_round_trips(world: World) {
    world
        .seed((1..=100).map(|id| tag::ActiveModel {
            id: Set(id),
            label: Set("old".to_owned()),
        }))
        .await;
    for id in 1..=100 {
        tag::Entity::cached_get(id, &world.db).await.unwrap();
    }
    let txn = world.db.begin().await.unwrap();
    let ((), cost) = world
        .cost(async {
            for id in 1..=100 {
                let row = tag::ActiveModel {
                    id: Set(id),
                    label: Set(format!("new {id}")),
                };
                row.update(&txn).await.unwrap();
            }
            txn.commit().await.unwrap();
        })
        .await;
    assert_eq!(cost.round_trips, 2);
    for id in 1..=100 {
        assert_eq!(
            tag::Entity::cached_get(id, &world.db)
                .await
                .unwrap()
                .unwrap()
                .label,
            format!("new {id}")
        );
    }
}

async fn a_row_update_fences_the_row_the_list_and_its_new_index_values(world: World) {
    seed(&world).await;
    let mut row = active(1, &world).await;
    row.country_id = Set(Some(20));
    row.name = Set("Parigi".to_owned());
    world.store.take_fenced();
    row.update(&world.db).await.unwrap();
    let expected = [
        "soc:main:city:gen:list",
        "soc:main:city:ix:country_id:20",
        "soc:main:city:pk:1",
    ];
    assert_eq!(
        world.store.take_fenced(),
        BTreeSet::from(expected.map(str::to_owned))
    );
    // A condition that names no key: the rows are not known.
    city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("x"))
        .filter(city::Column::Rank.gt(0))
        .exec(&world.db)
        .await
        .unwrap();
    let expected = ["soc:main:city:gen:list", "soc:main:city:gen:rows"];
    assert_eq!(
        world.store.take_fenced(),
        BTreeSet::from(expected.map(str::to_owned))
    );
}

async fn commit_invalidates_but_rollback_does_not(world: World) {
    seed(&world).await;
    world.warm().await;
    let txn = world.db.begin().await.unwrap();
    let mut row = active(1, &world).await;
    row.name = Set("rolled back".to_owned());
    row.update(&txn).await.unwrap();
    world.store.take_fenced();
    let ((), cost) = world.cost(async { txn.rollback().await.unwrap() }).await;
    assert_eq!(cost.round_trips, 0);
    assert!(world.store.take_fenced().is_empty());
    assert_eq!(
        world.cost(city::Entity::cached_get(1, &world.db)).await.1,
        world.free()
    );

    let txn = world.db.begin().await.unwrap();
    let mut row = active(1, &world).await;
    row.name = Set("committed".to_owned());
    row.update(&txn).await.unwrap();
    // Before the commit the old row is the right answer, and nothing is invalidated.
    assert!(world.store.take_fenced().is_empty());
    if world.backend() != DbBackend::Sqlite {
        assert_eq!(name_of(1, &world).await, "PARIS");
    }
    txn.commit().await.unwrap();
    assert!(!world.store.take_fenced().is_empty());
    assert_eq!(name_of(1, &world).await, "committed");
    world.assert_fresh("commit").await;
}

async fn savepoint_rollback_keeps_the_outer(world: World) {
    seed(&world).await;
    world.warm().await;
    let txn = world.db.begin().await.unwrap();
    let mut row = active(1, &world).await;
    row.name = Set("outer".to_owned());
    row.update(&txn).await.unwrap();
    let inner = txn.begin().await.unwrap();
    let mut row = city::Entity::find_by_id(2)
        .one(&inner)
        .await
        .unwrap()
        .unwrap()
        .into_active_model();
    row.name = Set("inner".to_owned());
    row.update(&inner).await.unwrap();
    inner.rollback().await.unwrap();
    let released = txn.begin().await.unwrap();
    let mut row = city::Entity::find_by_id(3)
        .one(&released)
        .await
        .unwrap()
        .unwrap()
        .into_active_model();
    row.name = Set("released".to_owned());
    row.update(&released).await.unwrap();
    released.commit().await.unwrap();
    world.store.take_fenced();
    txn.commit().await.unwrap();
    let expected = [
        "soc:main:city:gen:list",
        "soc:main:city:pk:1",
        "soc:main:city:pk:3",
    ];
    assert_eq!(
        world.store.take_fenced(),
        BTreeSet::from(expected.map(str::to_owned))
    );
    world.assert_fresh("savepoints").await;
    assert_eq!(
        (name_of(1, &world).await, name_of(2, &world).await),
        ("outer".to_owned(), "LYON".to_owned())
    );
}

async fn a_dropped_transaction_invalidates_nothing(world: World) {
    seed(&world).await;
    world.warm().await;
    world.store.take_fenced();
    let txn = world.db.begin().await.unwrap();
    city::Entity::delete_by_id(1).exec(&txn).await.unwrap();
    drop(txn);
    assert!(world.store.take_fenced().is_empty());
    assert_eq!(name_of(1, &world).await, "PARIS");
}

async fn every_way_to_write_is_seen(world: World) {
    seed(&world).await;
    if world.backend() == DbBackend::Postgres {
        // The seeded keys did not come from the sequence.
        world
            .raw
            .execute_unprepared("SELECT setval('city_id_seq', 5)")
            .await
            .unwrap();
    }
    let db = &world.db;
    let mut way = 0;
    macro_rules! way {
        ($name:literal, $write:expr) => {{
            world.warm().await;
            $write.await.unwrap();
            way += 1;
            world.assert_fresh($name).await;
        }};
    }
    let mut row = active(1, &world).await;
    row.rank = Set(2);
    way!("update", row.update(db));
    let mut row = active(1, &world).await;
    row.country_id = Set(Some(20));
    way!("save", row.save(db));
    let mut row = active(1, &world).await;
    row.slug = Set("oslo".to_owned());
    way!("update_without_returning", row.update_without_returning(db));
    way!("insert", city(5, Some(10), "bern").insert(db));
    way!(
        "insert without key",
        city::ActiveModel {
            id: NotSet,
            ..city(0, Some(10), "x")
        }
        .insert(db)
    );
    way!(
        "delete",
        city::Entity::find_by_id(5)
            .one(&world.raw)
            .await
            .unwrap()
            .unwrap()
            .delete(db)
    );
    way!(
        "Entity::insert",
        city::Entity::insert(city(5, Some(10), "bern")).exec(db)
    );
    way!(
        "insert_many",
        city::Entity::insert_many([city(7, None, "a"), city(8, Some(20), "b")]).exec(db)
    );
    let mut row = active(7, &world).await;
    row.name = Set("renamed".to_owned());
    way!("Entity::update", city::Entity::update(row).exec(db));
    way!("delete_by_id", city::Entity::delete_by_id(7).exec(db));
    way!(
        "update_many with an expression",
        city::Entity::update_many()
            .col_expr(city::Column::Rank, Expr::col(city::Column::Rank).add(1))
            .filter(city::Column::CountryId.eq(10))
            .exec(db)
    );
    way!(
        "update_many by keys",
        city::Entity::update_many()
            .col_expr(city::Column::Rank, Expr::value(9))
            .filter(city::Column::Id.is_in([2, 3]))
            .exec(db)
    );
    way!(
        "delete_many",
        city::Entity::delete_many()
            .filter(city::Column::Rank.gt(8))
            .exec(db)
    );
    way!("update to NULL", {
        let mut row = active(1, &world).await;
        row.country_id = Set(None);
        row.update(db)
    });
    assert_eq!(way, 14);
}

async fn raw_sql_is_seen(world: World) {
    seed(&world).await;
    let db = &world.db;
    let mark = if world.backend() == DbBackend::Postgres {
        "$1"
    } else {
        "?"
    };
    let texts = [
        "UPDATE city SET name = 'raw 1' WHERE id = 1",
        "update city set NAME = 'raw 2' where city.ID in (1, 2) -- all of it",
        "UPDATE city SET name = 'raw 3' WHERE name LIKE 'raw%'",
        "INSERT INTO city (id, country_id, slug, name) VALUES (5, 10, 'bern', 'x')",
        "DELETE FROM city WHERE id = 5; UPDATE city SET country_id = 20 WHERE slug = 'lyon';",
        "/* nothing here */ DELETE FROM city WHERE id = 4",
    ];
    for text in texts {
        world.warm().await;
        if text.contains(';') && world.backend() == DbBackend::MySql {
            for text in text.split_terminator(';') {
                db.execute_unprepared(text).await.unwrap();
            }
        } else {
            db.execute_unprepared(text).await.unwrap();
        }
        world.assert_fresh(text).await;
    }
    let text = format!("UPDATE city SET rank = 5 WHERE id = {mark}");
    let text = if world.backend() == DbBackend::MySql {
        text.replace("rank", "`rank`")
    } else {
        text
    };
    world.warm().await;
    world.store.take_fenced();
    let statement = Statement::from_sql_and_values(world.backend(), &text, [2.into()]);
    db.execute_raw(statement).await.unwrap();
    assert!(world.store.take_fenced().contains("soc:main:city:pk:2"));
    world.assert_fresh(&text).await;
}

async fn raw_begin_and_commit_are_seen(world: World) {
    seed(&world).await;
    // One pooled connection: otherwise BEGIN and the statement after it may be on two.
    let mut options = sea_orm::ConnectOptions::new(world.database.url());
    options.max_connections(1);
    let db = world
        .cache
        .attach(sea_orm::Database::connect(options).await.unwrap());
    world.warm().await;
    db.execute_unprepared("BEGIN").await.unwrap();
    db.execute_unprepared("UPDATE city SET name = 'by hand' WHERE id = 1")
        .await
        .unwrap();
    if world.backend() != DbBackend::Sqlite {
        // A reader between statement and commit fills the old row again.
        assert_eq!(name_of(1, &world).await, "PARIS");
    }
    db.execute_unprepared("COMMIT").await.unwrap();
    world.assert_fresh("BEGIN .. COMMIT").await;
    assert_eq!(name_of(1, &world).await, "by hand");
}

async fn streams_that_write_are_seen(world: World) {
    use futures_util::TryStreamExt;
    if world.backend() == DbBackend::MySql {
        // MariaDB's UPDATE returns no rows; its DELETE does.
        seed(&world).await;
        world.warm().await;
        let text = "DELETE FROM city WHERE country_id = 10 RETURNING id";
        let stream = world
            .db
            .stream_raw(Statement::from_string(DbBackend::MySql, text))
            .await
            .unwrap();
        stream.try_collect::<Vec<_>>().await.unwrap();
        return settled(&world, "stream").await;
    }
    seed(&world).await;
    world.warm().await;
    let text = "UPDATE city SET name = 'streamed' WHERE country_id = 10 RETURNING id";
    let stream = world
        .db
        .stream_raw(Statement::from_string(world.backend(), text))
        .await
        .unwrap();
    assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap().len(), 2);
    settled(&world, "stream").await;
    let txn = world.db.begin().await.unwrap();
    let text = "UPDATE city SET name = 'streamed again' WHERE country_id = 10 RETURNING id";
    txn.stream_raw(Statement::from_string(world.backend(), text))
        .await
        .unwrap()
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    txn.commit().await.unwrap();
    world.assert_fresh("stream in a transaction").await;
}

/// A stream's fence stands until its settle, which is not waited for: both are fresh.
async fn settled(world: &World, after: &str) {
    world.assert_fresh(after).await;
}

async fn upserts_are_seen(world: World) {
    seed(&world).await;
    world.warm().await;
    let row = || city::ActiveModel {
        name: Set("upserted".to_owned()),
        ..paris()
    };
    city::Entity::insert(row())
        .on_conflict(
            OnConflict::column(city::Column::Id)
                .update_column(city::Column::Name)
                .to_owned(),
        )
        .exec_without_returning(&world.db)
        .await
        .unwrap();
    world.assert_fresh("on conflict update").await;
    assert_eq!(name_of(1, &world).await, "upserted");
    world.warm().await;
    let nothing = city::Entity::insert(city(1, Some(20), "elsewhere"))
        .on_conflict_do_nothing()
        .exec(&world.db)
        .await;
    nothing.unwrap();
    world.assert_fresh("on conflict do nothing").await;
    if world.backend() != DbBackend::Postgres {
        world.warm().await;
        let columns = if world.backend() == DbBackend::MySql {
            "`rank`"
        } else {
            "rank"
        };
        let text = format!(
            "REPLACE INTO city (id, country_id, slug, name, {columns}) VALUES (9, 20, 'rome', 'new', 3)"
        );
        world.db.execute_unprepared(&text).await.unwrap();
        world.assert_fresh("replace").await;
        assert_eq!(city::Entity::cached_get(3, &world.db).await.unwrap(), None);
    }
}

async fn nested_active_models_are_seen(world: World) {
    seed(&world).await;
    world.warm().await;
    country::Entity::cached_all(&world.db).await.unwrap();
    let spain = country::ActiveModel::builder()
        .set_id(30)
        .set_iso2("ES")
        .set_name("Spain")
        .add_city(
            city::ActiveModel::builder()
                .set_id(11)
                .set_slug("madrid")
                .set_name("Madrid")
                .set_rank(4),
        )
        .insert(&world.db)
        .await
        .unwrap();
    assert_eq!(
        city::Entity::cached_find_by_country_id(30, &world.db)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        country::Entity::cached_all(&world.db).await.unwrap().len(),
        3
    );
    world.assert_fresh("nested insert").await;
    let mut spain = spain.into_active_model();
    spain.name = Set("España".to_owned());
    spain.cities[0].name = Set("Villa".to_owned());
    let spain = spain.save(&world.db).await.unwrap();
    world.assert_fresh("nested save").await;
    assert_eq!(name_of(11, &world).await, "Villa");
    assert_eq!(
        country::Entity::cached_get(30, &world.db)
            .await
            .unwrap()
            .unwrap()
            .name,
        "España"
    );
    spain.delete(&world.db).await.unwrap();
    world.assert_fresh("nested delete").await;
    assert_eq!(
        country::Entity::cached_get(30, &world.db).await.unwrap(),
        None
    );
}

async fn cascades_are_seen(world: World) {
    seed(&world).await;
    world
        .seed([tag::ActiveModel {
            id: Set(1),
            label: Set("t".to_owned()),
        }])
        .await;
    world
        .seed([city_tag::ActiveModel {
            city_id: Set(1),
            tag_id: Set(1),
        }])
        .await;
    world.warm().await;
    assert!(
        city_tag::Entity::cached_get((1, 1), &world.db)
            .await
            .unwrap()
            .is_some()
    );
    // France goes, its cities with it, and their tags with them.
    country::Entity::delete_by_id(10)
        .exec(&world.db)
        .await
        .unwrap();
    world.assert_fresh("cascade").await;
    assert_eq!(city::Entity::cached_get(1, &world.db).await.unwrap(), None);
    assert_eq!(
        city_tag::Entity::cached_get((1, 1), &world.db)
            .await
            .unwrap(),
        None
    );
}

async fn a_changed_unique_column_is_found_under_its_new_value_only(world: World) {
    seed(&world).await;
    world.warm().await;
    // Two rows swap a unique value in one transaction.
    let txn = world.db.begin().await.unwrap();
    for (id, slug) in [(1, "x"), (2, "paris"), (1, "lyon")] {
        let row = city::ActiveModel {
            id: Set(id),
            slug: Set(slug.to_owned()),
            ..Default::default()
        };
        row.update(&txn).await.unwrap();
    }
    txn.commit().await.unwrap();
    let find = |slug: &'static str| city::Entity::cached_find_by_slug(slug, &world.db);
    assert_eq!(find("lyon").await.unwrap().unwrap().id, 1);
    assert_eq!(find("paris").await.unwrap().unwrap().id, 2);
    let mut row = active(1, &world).await;
    row.slug = Set("oslo".to_owned());
    row.update(&world.db).await.unwrap();
    assert_eq!(find("lyon").await.unwrap(), None);
    assert_eq!(find("oslo").await.unwrap().unwrap().id, 1);
    // The old value's entry has healed: no query the second time.
    assert_eq!(world.cost(find("lyon")).await.1.statements, 0);
}

async fn a_row_leaves_one_list_and_joins_another(world: World) {
    seed(&world).await;
    world.warm().await;
    let mut row = active(1, &world).await;
    row.country_id = Set(Some(20));
    row.update(&world.db).await.unwrap();
    let ids =
        |rows: Vec<std::sync::Arc<city::Model>>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let by = |country: i64| city::Entity::cached_find_by_country_id(country, &world.db);
    assert_eq!(ids(by(10).await.unwrap()), [2]);
    assert_eq!(ids(by(20).await.unwrap()), [1, 3]);
    // And back again.
    let mut row = active(1, &world).await;
    row.country_id = Set(Some(10));
    row.update(&world.db).await.unwrap();
    assert_eq!(ids(by(10).await.unwrap()), [1, 2]);
    assert_eq!(ids(by(20).await.unwrap()), [3]);
}

async fn an_index_column_set_by_default_or_expression_leaves_no_stale_list(world: World) {
    seed(&world).await;
    world.warm().await;
    for rank in [2, 7] {
        assert!(
            city::Entity::cached_find_by_rank(rank, &world.db)
                .await
                .unwrap()
                .is_empty()
        );
    }
    // `rank` is left to its default, 7.
    let row = city::ActiveModel {
        rank: NotSet,
        ..city(5, None, "bern")
    };
    city::Entity::insert(row).exec(&world.db).await.unwrap();
    assert_eq!(
        city::Entity::cached_find_by_rank(7, &world.db)
            .await
            .unwrap()
            .len(),
        1
    );
    city::Entity::update_many()
        .col_expr(city::Column::Rank, Expr::col(city::Column::Rank).add(1))
        .filter(city::Column::Id.eq(1))
        .exec(&world.db)
        .await
        .unwrap();
    assert_eq!(
        city::Entity::cached_find_by_rank(2, &world.db)
            .await
            .unwrap()
            .len(),
        1
    );
    world.assert_fresh("default and expression").await;
}

async fn a_primary_key_that_changes_is_seen(world: World) {
    seed(&world).await;
    world.warm().await;
    assert_eq!(city::Entity::cached_get(12, &world.db).await.unwrap(), None);
    world
        .db
        .execute_unprepared("UPDATE city SET id = 12 WHERE id = 1")
        .await
        .unwrap();
    world.assert_fresh("new primary key").await;
}

async fn closures_and_async_closures_commit_and_roll_back(world: World) {
    seed(&world).await;
    world.warm().await;
    world
        .db
        .transaction::<_, (), DbErr>(|txn| {
            Box::pin(async move {
                city::Entity::delete_by_id(4).exec(txn).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
    world.assert_fresh("closure").await;
    world.warm().await;
    world.store.take_fenced();
    let refused = world
        .db
        .transaction_async(async |txn| {
            city::Entity::delete_by_id(3).exec(txn).await?;
            txn.transaction_async(async |inner| city::Entity::delete_by_id(2).exec(inner).await)
                .await
                .unwrap();
            Err::<(), DbErr>(DbErr::Custom("no".to_owned()))
        })
        .await;
    refused.unwrap_err();
    assert!(world.store.take_fenced().is_empty());
    world.assert_fresh("rolled back").await;
    world
        .db
        .transaction_async(async |txn| {
            txn.transaction_async(async |inner| city::Entity::delete_by_id(2).exec(inner).await)
                .await
                .unwrap();
            Ok::<(), DbErr>(())
        })
        .await
        .unwrap();
    world.assert_fresh("nested async closure").await;
}

async fn two_builds_share_keys_and_invalidate_each_other(world: World) {
    world
        .seed([gadget_new::ActiveModel {
            id: Set(1),
            name: Set("a".to_owned()),
            color: Set(Some("red".to_owned())),
        }])
        .await;
    let old = || gadget_old::Entity::cached_get(1, &world.db);
    let new = || gadget_new::Entity::cached_get(1, &world.db);
    for _ in 0..2 {
        assert_eq!(old().await.unwrap().unwrap().name, "a");
        assert_eq!(new().await.unwrap().unwrap().color.as_deref(), Some("red"));
    }
    assert_eq!(world.cost(old()).await.1, world.free());
    assert_eq!(world.cost(new()).await.1, world.free());
    let row = gadget_old::ActiveModel {
        id: Set(1),
        name: Set("b".to_owned()),
    };
    row.update(&world.db).await.unwrap();
    assert_eq!(
        (
            old().await.unwrap().unwrap().name.as_str(),
            new().await.unwrap().unwrap().name.as_str()
        ),
        ("b", "b")
    );
    let row = gadget_new::ActiveModel {
        id: Set(1),
        name: Set("c".to_owned()),
        color: NotSet,
    };
    row.update(&world.db).await.unwrap();
    assert_eq!(
        (
            old().await.unwrap().unwrap().name.as_str(),
            new().await.unwrap().unwrap().name.as_str()
        ),
        ("c", "c")
    );
}

async fn a_table_of_no_linked_entity_is_invalidated_by_name(world: World) {
    world.store.take_fenced();
    world
        .db
        .execute_unprepared("INSERT INTO plain (id, city_id) VALUES (1, 1)")
        .await
        .unwrap();
    let expected = [
        "soc:main:plain:gen:index",
        "soc:main:plain:gen:list",
        "soc:main:plain:gen:rows",
    ];
    assert_eq!(
        world.store.take_fenced(),
        BTreeSet::from(expected.map(str::to_owned))
    );
    let only = sea_orm_cache::Cache::builder()
        .store(world.store.clone())
        .only_linked_entities()
        .build()
        .await
        .unwrap();
    let db = only.attach(world.raw.clone());
    db.execute_unprepared("INSERT INTO plain (id, city_id) VALUES (2, 1)")
        .await
        .unwrap();
    assert!(world.store.take_fenced().is_empty());
    // Strict or not, a ledger row is written when the store answers.
    let row = ledger::ActiveModel {
        id: Set(1),
        note: Set("  trimmed ".to_owned()),
    };
    assert_eq!(row.insert(&db).await.unwrap().note, "trimmed");
    let _ = city::Entity::find().cached();
}
