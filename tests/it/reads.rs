//! Cached reads: what they answer and what they cost.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::prelude::{Decimal, Uuid};
use sea_orm::sea_query::{CommonTableExpression, Expr, ExprTrait, Query};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, JoinType, ModelTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, RelationTrait, TransactionTrait,
};
use sea_orm_cache::testing::Cost;
use sea_orm_cache::{CachedEntity, QueryCache};

use crate::entities::{account, blob, city, city_tag, country, document, line, plain, tag, word};
use crate::on_all;
use crate::world::World;

on_all!(
    a_hit_is_one_round_trip_and_a_miss_one_statement_and_three,
    many_keys_come_in_the_order_asked,
    absence_is_cached_and_an_insert_ends_it,
    all_rows_come_in_key_order,
    unique_columns_and_indexes_find_rows,
    every_kind_of_primary_key_works,
    serde_attributes_lose_nothing,
    relations_in_both_directions_and_through_a_junction,
    selects_are_cached_with_joins_subqueries_and_ctes,
    a_select_of_an_uncached_table_runs_uncached,
    pages_and_counts,
    tags_make_queries_stale,
    reads_in_a_transaction_bypass_the_cache,
    two_databases_and_tenants_share_no_keys,
    one_thousand_readers_of_a_cold_key_send_one_query,
    generic_code_works_over_cached_entities,
    explicit_invalidation_reaches_what_others_wrote,
);

pub fn paris() -> city::ActiveModel {
    city(1, Some(10), "paris")
}

pub fn city(id: i64, country: Option<i64>, slug: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(id),
        country_id: Set(country),
        slug: Set(slug.to_owned()),
        name: Set(slug.to_uppercase()),
        rank: Set(1),
    }
}

pub fn country(id: i64, iso2: &str) -> country::ActiveModel {
    country::ActiveModel {
        id: Set(id),
        iso2: Set(iso2.to_owned()),
        name: Set(format!("country {iso2}")),
    }
}

/// France (10) with Paris (1) and Lyon (2), Italy (20) with Rome (3), and Atlantis (4) of no country.
pub async fn seed(world: &World) {
    world.seed([country(10, "FR"), country(20, "IT")]).await;
    let cities = [
        paris(),
        city(2, Some(10), "lyon"),
        city(3, Some(20), "rome"),
        city(4, None, "atlantis"),
    ];
    world.seed(cities).await;
}

fn slugs(rows: &[Arc<city::Model>]) -> Vec<&str> {
    rows.iter().map(|row| row.slug.as_str()).collect()
}

async fn a_hit_is_one_round_trip_and_a_miss_one_statement_and_three(world: World) {
    seed(&world).await;
    let (row, cost) = world.cost(city::Entity::cached_get(1, &world.db)).await;
    assert_eq!(row.unwrap().unwrap().slug, "paris");
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 3
        }
    );
    let (row, cost) = world.cost(city::Entity::cached_get(1, &world.db)).await;
    assert_eq!(row.unwrap().unwrap().slug, "paris");
    assert_eq!(cost, world.free());
    let stats = world.stats("city");
    assert_eq!(
        (stats.hits, stats.misses, stats.loads, stats.fills),
        (1, 1, 1, 1)
    );
}

async fn many_keys_come_in_the_order_asked(world: World) {
    seed(&world).await;
    let (rows, cost) = world
        .cost(city::Entity::cached_get_many([3, 1, 99, 1, 2], &world.db))
        .await;
    let rows = rows.unwrap();
    let found: Vec<Option<&str>> = rows
        .iter()
        .map(|row| row.as_ref().map(|row| row.slug.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            Some("rome"),
            Some("paris"),
            None,
            Some("paris"),
            Some("lyon")
        ]
    );
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 3
        }
    );
    let (again, cost) = world
        .cost(city::Entity::cached_get_many([3, 1, 99, 1, 2], &world.db))
        .await;
    assert_eq!(again.unwrap(), rows);
    assert_eq!(cost, world.free());
    // Half of it cached: one query for the other half.
    let (_, cost) = world
        .cost(city::Entity::cached_get_many([4, 1], &world.db))
        .await;
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 3
        }
    );
    let none: [i64; 0] = [];
    let (rows, cost) = world
        .cost(city::Entity::cached_get_many(none, &world.db))
        .await;
    assert!(rows.unwrap().is_empty());
    assert_eq!(
        cost,
        Cost {
            statements: 0,
            round_trips: 0
        }
    );
}

async fn absence_is_cached_and_an_insert_ends_it(world: World) {
    assert_eq!(city::Entity::cached_get(5, &world.db).await.unwrap(), None);
    let (row, cost) = world.cost(city::Entity::cached_get(5, &world.db)).await;
    assert_eq!((row.unwrap(), cost), (None, world.free()));
    assert_eq!(world.stats("city").absent_hits, 1);
    city::ActiveModel {
        id: Set(5),
        ..paris()
    }
    .insert(&world.db)
    .await
    .unwrap_err_country();
    world.seed([country(10, "FR")]).await;
    city::ActiveModel {
        id: Set(5),
        ..paris()
    }
    .insert(&world.db)
    .await
    .unwrap();
    assert!(
        city::Entity::cached_get(5, &world.db)
            .await
            .unwrap()
            .is_some()
    );
    // An insert whose key the database makes names no row, and still ends absence.
    assert_eq!(tag::Entity::cached_get(1, &world.db).await.unwrap(), None);
    let made = tag::ActiveModel {
        id: NotSet,
        label: Set("sea".to_owned()),
    }
    .insert(&world.db)
    .await
    .unwrap();
    assert_eq!(made.id, 1);
    assert_eq!(
        tag::Entity::cached_get(1, &world.db)
            .await
            .unwrap()
            .unwrap()
            .label,
        "sea"
    );
}

/// The first insert fails: its country is not there. A failed write must not harm.
trait Refused {
    fn unwrap_err_country(self);
}

impl Refused for Result<city::Model, sea_orm::DbErr> {
    fn unwrap_err_country(self) {
        self.expect_err("a foreign key without its row");
    }
}

async fn all_rows_come_in_key_order(world: World) {
    seed(&world).await;
    let (all, cost) = world.cost(city::Entity::cached_all(&world.db)).await;
    assert_eq!(slugs(&all.unwrap()), ["paris", "lyon", "rome", "atlantis"]);
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 3
        }
    );
    let (all, cost) = world.cost(city::Entity::cached_all(&world.db)).await;
    assert_eq!((all.unwrap().len(), cost), (4, world.free()));
    city::Entity::delete_by_id(2).exec(&world.db).await.unwrap();
    assert_eq!(
        slugs(&city::Entity::cached_all(&world.db).await.unwrap()),
        ["paris", "rome", "atlantis"]
    );
}

async fn unique_columns_and_indexes_find_rows(world: World) {
    seed(&world).await;
    let lyon = city::Entity::cached_find_by_slug("lyon", &world.db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lyon.id, 2);
    // The entry is cached; its row is read as a row, once from the database.
    city::Entity::cached_find_by_slug("lyon", &world.db)
        .await
        .unwrap();
    let (found, cost) = world
        .cost(city::Entity::cached_find_by_slug("lyon", &world.db))
        .await;
    assert_eq!((found.unwrap().unwrap().id, cost), (2, world.hits(2)));
    assert_eq!(
        city::Entity::cached_find_by_slug("oslo", &world.db)
            .await
            .unwrap(),
        None
    );
    let (found, cost) = world
        .cost(city::Entity::cached_find_by_slug("oslo", &world.db))
        .await;
    assert_eq!((found.unwrap(), cost.statements), (None, 0));

    for _ in 0..3 {
        let french = city::Entity::cached_find_by_country_id(10, &world.db)
            .await
            .unwrap();
        assert_eq!(slugs(&french), ["paris", "lyon"]);
    }
    let (french, cost) = world
        .cost(city::Entity::cached_find_by_country_id(10, &world.db))
        .await;
    assert_eq!((french.unwrap().len(), cost), (2, world.hits(2)));
    // A composite index of other kinds.
    let row = |position: &str, amount| line::ActiveModel {
        order_id: Set(1),
        position: Set(position.to_owned()),
        product: Set("nail".to_owned()),
        amount: Set(amount),
    };
    world.seed([row("a", 5), row("b", 6), row("c", 5)]).await;
    for _ in 0..3 {
        let lines = line::Entity::cached_find_by_product_and_amount("nail", 5, &world.db)
            .await
            .unwrap();
        let positions: Vec<&str> = lines.iter().map(|line| line.position.as_str()).collect();
        assert_eq!(positions, ["a", "c"]);
    }
}

async fn every_kind_of_primary_key_works(world: World) {
    let id = Uuid::from_u128(0x1234_5678_9abc);
    world
        .seed([document::ActiveModel {
            id: Set(id),
            title: Set("deed".to_owned()),
        }])
        .await;
    let bytes = vec![0u8, 1, 0xff, b':'];
    world
        .seed([blob::ActiveModel {
            id: Set(bytes.clone()),
            size: Set(4),
        }])
        .await;
    world
        .seed([word::ActiveModel {
            id: Set("a:b*{c}%".to_owned()),
            kind: Set("odd".to_owned()),
            meaning: Set("x".to_owned()),
        }])
        .await;
    world
        .seed([line::ActiveModel {
            order_id: Set(7),
            position: Set("1,2".to_owned()),
            product: Set("p".to_owned()),
            amount: Set(1),
        }])
        .await;
    for _ in 0..2 {
        assert_eq!(
            document::Entity::cached_get(id, &world.db)
                .await
                .unwrap()
                .unwrap()
                .title,
            "deed"
        );
        assert_eq!(
            blob::Entity::cached_get(bytes.clone(), &world.db)
                .await
                .unwrap()
                .unwrap()
                .size,
            4
        );
        assert_eq!(
            word::Entity::cached_get("a:b*{c}%", &world.db)
                .await
                .unwrap()
                .unwrap()
                .meaning,
            "x"
        );
        let line = line::Entity::cached_get((7, "1,2".to_owned()), &world.db)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(line.product, "p");
        assert_eq!(
            line::Entity::cached_get((7, "1".to_owned()), &world.db)
                .await
                .unwrap(),
            None
        );
        let many =
            line::Entity::cached_get_many([(7, "x".to_owned()), (7, "1,2".to_owned())], &world.db);
        assert_eq!(
            many.await
                .unwrap()
                .iter()
                .map(Option::is_some)
                .collect::<Vec<_>>(),
            [false, true]
        );
    }
    for entity in ["document", "blob_store", "word", "line"] {
        assert!(world.stats(entity).hits >= 1, "{entity}");
    }
    document::Entity::delete_by_id(id)
        .exec(&world.db)
        .await
        .unwrap();
    assert_eq!(
        document::Entity::cached_get(id, &world.db).await.unwrap(),
        None
    );
    blob::Entity::delete_by_id(bytes.clone())
        .exec(&world.db)
        .await
        .unwrap();
    assert_eq!(
        blob::Entity::cached_get(bytes, &world.db).await.unwrap(),
        None
    );
    line::Entity::delete_by_id((7, "1,2".to_owned()))
        .exec(&world.db)
        .await
        .unwrap();
    assert_eq!(
        line::Entity::cached_get((7, "1,2".to_owned()), &world.db)
            .await
            .unwrap(),
        None
    );
}

async fn serde_attributes_lose_nothing(world: World) {
    let made = account::ActiveModel {
        id: NotSet,
        name: Set("ann".to_owned()),
        password_hash: Set("$argon2id$".to_owned()),
        settings: Set(serde_json::json!({"third": 0.1, "list": [1, null, "x"]})),
        balance: Set(Decimal::new(1050, 2)),
    };
    // Not `made.insert(..)`: its hooks would write to the cache that another test has installed.
    let inserted = account::Entity::insert(made).exec(&world.raw);
    let id = inserted.await.unwrap().last_insert_id;
    let stored = account::Entity::find_by_id(id)
        .one(&world.raw)
        .await
        .unwrap()
        .unwrap();
    for _ in 0..2 {
        let row = account::Entity::cached_get(id, &world.db)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*row, stored);
    }
    assert_eq!(world.stats("account").hits, 1);
}

async fn relations_in_both_directions_and_through_a_junction(world: World) {
    seed(&world).await;
    world
        .seed([tag::ActiveModel {
            id: Set(1),
            label: Set("capital".to_owned()),
        }])
        .await;
    let link = |city_id| city_tag::ActiveModel {
        city_id: Set(city_id),
        tag_id: Set(1),
    };
    world.seed([link(1), link(3)]).await;
    let paris = city::Entity::cached_get(1, &world.db)
        .await
        .unwrap()
        .unwrap();
    let atlantis = city::Entity::cached_get(4, &world.db)
        .await
        .unwrap()
        .unwrap();
    let capital = tag::Entity::cached_get(1, &world.db)
        .await
        .unwrap()
        .unwrap();
    for _ in 0..3 {
        let france = paris
            .cached_related_one(country::Entity, &world.db)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(france.iso2, "FR");
        assert_eq!(
            atlantis
                .cached_related_one(country::Entity, &world.db)
                .await
                .unwrap(),
            None
        );
        let cities = france
            .cached_related(city::Entity, &world.db)
            .await
            .unwrap();
        assert_eq!(slugs(&cities), ["paris", "lyon"]);
        let tags = paris.cached_related(tag::Entity, &world.db).await.unwrap();
        assert_eq!(tags.len(), 1);
        let mut capitals: Vec<i64> = capital
            .cached_related(city::Entity, &world.db)
            .await
            .unwrap()
            .iter()
            .map(|city| city.id)
            .collect();
        capitals.sort_unstable();
        assert_eq!(capitals, [1, 3]);
    }
    let (_, cost) = world
        .cost(capital.cached_related(city::Entity, &world.db))
        .await;
    assert_eq!(cost, world.free());
    // The junction alone changes.
    city_tag::Entity::delete_by_id((3, 1))
        .exec(&world.db)
        .await
        .unwrap();
    assert_eq!(
        slugs(
            &capital
                .cached_related(city::Entity, &world.db)
                .await
                .unwrap()
        ),
        ["paris"]
    );
    assert!(
        paris
            .cached_related(tag::Entity, &world.db)
            .await
            .unwrap()
            .len()
            == 1
    );
}

async fn selects_are_cached_with_joins_subqueries_and_ctes(world: World) {
    seed(&world).await;
    let joined = city::Entity::find()
        .join(JoinType::InnerJoin, city::Relation::Country.def())
        .filter(country::Column::Iso2.eq("FR"))
        .order_by_asc(city::Column::Id);
    let within = city::Entity::find()
        .filter(
            city::Column::CountryId.in_subquery(
                country::Entity::find()
                    .select_only()
                    .column(country::Column::Id)
                    .filter(country::Column::Iso2.eq("FR"))
                    .into_query(),
            ),
        )
        .order_by_asc(city::Column::Id);
    let mut with_cte = city::Entity::find().order_by_asc(city::Column::Id);
    let french = Query::select()
        .column(country::Column::Id)
        .from(country::Entity)
        .and_where(country::Column::Iso2.eq("FR"))
        .to_owned();
    let cte = CommonTableExpression::new()
        .query(french)
        .table_name("french")
        .to_owned();
    let ids = Query::select().column("id").from("french").to_owned();
    QuerySelect::query(&mut with_cte)
        .with_cte(Query::with().cte(cte).to_owned())
        .and_where(Expr::col((city::Entity, city::Column::CountryId)).in_subquery(ids));
    for select in [joined, within, with_cte] {
        let sql = select.build(world.backend()).to_string();
        let cached = select.cached();
        assert_eq!(
            slugs(&cached.all(&world.db).await.unwrap()),
            ["paris", "lyon"],
            "{sql}"
        );
        let (rows, cost) = world.cost(cached.all(&world.db)).await;
        assert_eq!((rows.unwrap().len(), cost), (2, world.free()), "{sql}");
        // Both tables count: a country moves away, a city is renamed.
        let france = country::Entity::find_by_id(10)
            .one(&world.raw)
            .await
            .unwrap()
            .unwrap();
        let mut moved = france.into_active_model();
        moved.iso2 = Set("XX".to_owned());
        moved.update(&world.db).await.unwrap();
        assert_eq!(cached.all(&world.db).await.unwrap().len(), 0, "{sql}");
        assert_eq!(cached.one(&world.db).await.unwrap(), None);
        country::Entity::update_many()
            .col_expr(country::Column::Iso2, Expr::value("FR"))
            .filter(country::Column::Id.eq(10))
            .exec(&world.db)
            .await
            .unwrap();
        assert_eq!(
            cached.one(&world.db).await.unwrap().unwrap().slug,
            "paris",
            "{sql}"
        );
    }
}

async fn a_select_of_an_uncached_table_runs_uncached(world: World) {
    seed(&world).await;
    world
        .seed([plain::ActiveModel {
            id: Set(1),
            city_id: Set(3),
        }])
        .await;
    let select = city::Entity::find().filter(
        city::Column::Id.in_subquery(
            plain::Entity::find()
                .select_only()
                .column(plain::Column::CityId)
                .into_query(),
        ),
    );
    for _ in 0..2 {
        let (rows, cost) = world.cost(select.clone().cached().all(&world.db)).await;
        assert_eq!(slugs(&rows.unwrap()), ["rome"]);
        assert_eq!(
            cost,
            Cost {
                statements: 1,
                round_trips: 0
            }
        );
    }
    if world.backend() != sea_orm::DbBackend::Sqlite {
        let locked = city::Entity::find().lock_exclusive().cached();
        let (rows, cost) = world.cost(locked.all(&world.db)).await;
        assert_eq!((rows.unwrap().len(), cost.round_trips), (4, 0));
    }
}

async fn pages_and_counts(world: World) {
    seed(&world).await;
    let cached = city::Entity::find()
        .order_by_asc(city::Column::Id)
        .cached()
        .ttl(Duration::from_secs(60));
    assert_eq!(cached.count(&world.db).await.unwrap(), 4);
    let page = cached.page(1, 3, &world.db).await.unwrap();
    assert_eq!(
        (slugs(&page.rows), page.total_rows, page.total_pages),
        (vec!["atlantis"], 4, 2)
    );
    let (again, cost) = world.cost(cached.page(1, 3, &world.db)).await;
    assert_eq!((again.unwrap(), cost), (page, world.hits(2)));
    city::Entity::delete_by_id(1).exec(&world.db).await.unwrap();
    assert_eq!(cached.count(&world.db).await.unwrap(), 3);
    assert_eq!(cached.page(1, 3, &world.db).await.unwrap().rows.len(), 0);
    cached.page(0, 0, &world.db).await.unwrap_err();
}

async fn tags_make_queries_stale(world: World) {
    seed(&world).await;
    let cached = city::Entity::find().cached().tags(["front", "weird: tag"]);
    cached.all(&world.db).await.unwrap();
    let (_, cost) = world.cost(cached.all(&world.db)).await;
    assert_eq!(cost, world.free());
    world.cache.invalidate_tags(["other"]).await.unwrap();
    assert_eq!(world.cost(cached.all(&world.db)).await.1, world.free());
    world.cache.invalidate_tags(["weird: tag"]).await.unwrap();
    assert_eq!(world.cost(cached.all(&world.db)).await.1.statements, 1);
}

async fn reads_in_a_transaction_bypass_the_cache(world: World) {
    seed(&world).await;
    city::Entity::cached_get(1, &world.db).await.unwrap();
    let txn = world.db.begin().await.unwrap();
    let (row, cost) = world.cost(city::Entity::cached_get(1, &txn)).await;
    assert_eq!(
        (row.unwrap().unwrap().id, cost),
        (
            1,
            Cost {
                statements: 1,
                round_trips: 0
            }
        )
    );
    let (_, cost) = world.cost(city::Entity::find().cached().all(&txn)).await;
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 0
        }
    );
    let (_, cost) = world
        .cost(city::Entity::cached_find_by_slug("rome", &txn))
        .await;
    assert_eq!(
        cost,
        Cost {
            statements: 1,
            round_trips: 0
        }
    );
    txn.rollback().await.unwrap();
    // And they fill nothing.
    assert_eq!(
        world
            .cost(city::Entity::cached_find_by_slug("rome", &world.db))
            .await
            .1
            .statements,
        1
    );
}

async fn two_databases_and_tenants_share_no_keys(world: World) {
    seed(&world).await;
    let other = world.cache.attach_as("other", world.raw.clone());
    let tenant = world.db.scoped("acme");
    city::Entity::cached_get(1, &world.db).await.unwrap();
    for db in [&other, &tenant] {
        let misses = world.stats("city").misses;
        city::Entity::cached_get(1, db).await.unwrap();
        assert_eq!(world.stats("city").misses, misses + 1);
        let hits = world.stats("city").hits;
        city::Entity::cached_get(1, db).await.unwrap();
        assert_eq!(world.stats("city").hits, hits + 1);
    }
    // A write through one leaves the entries of the others.
    city::Entity::delete_by_id(4).exec(&tenant).await.unwrap();
    assert_eq!(
        world.cost(city::Entity::cached_get(1, &world.db)).await.1,
        world.free()
    );
}

async fn one_thousand_readers_of_a_cold_key_send_one_query(world: World) {
    seed(&world).await;
    let db = Arc::new(world.db.clone());
    let (answers, cost) = world
        .cost(async {
            let readers: Vec<_> = (0..1_000)
                .map(|_| {
                    let db = db.clone();
                    tokio::spawn(async move { city::Entity::cached_get(1, &*db).await })
                })
                .collect();
            let mut answers = 0;
            for reader in readers {
                answers += usize::from(reader.await.unwrap().unwrap().unwrap().id == 1);
            }
            answers
        })
        .await;
    assert_eq!((answers, cost.statements), (1_000, 1));
    let stats = world.stats("city");
    assert_eq!(stats.hits + stats.misses, 1_000);
    assert_eq!((stats.loads, stats.coalesced), (1, stats.misses - 1));
}

async fn generic_code_works_over_cached_entities(world: World) {
    async fn twice<E, C>(pk: i64, db: &C) -> Option<Arc<E::Model>>
    where
        E: CachedEntity,
        i64: Into<sea_orm_cache::PrimaryKeyOf<E>>,
        C: sea_orm::ConnectionTrait,
    {
        E::cached_get(pk, db).await.unwrap();
        E::cached_get_many([pk], db).await.unwrap().pop().flatten()
    }
    seed(&world).await;
    assert_eq!(
        twice::<country::Entity, _>(10, &world.db)
            .await
            .unwrap()
            .iso2,
        "FR"
    );
    assert_eq!(
        twice::<city::Entity, _>(3, &world.db).await.unwrap().slug,
        "rome"
    );
    assert_eq!(
        country::Entity::cached_all(&world.db).await.unwrap().len(),
        2
    );
    assert_eq!(country::Entity::cached_meta().name, "country");
    let rome = city::Entity::find_by_id(3)
        .one(&world.raw)
        .await
        .unwrap()
        .unwrap();
    rome.delete(&world.db).await.unwrap();
    assert_eq!(twice::<city::Entity, _>(3, &world.db).await, None);
}

async fn explicit_invalidation_reaches_what_others_wrote(world: World) {
    seed(&world).await;
    let rename = |name: &'static str| {
        city::Entity::update_many()
            .col_expr(city::Column::Name, Expr::value(name))
            .col_expr(city::Column::CountryId, Expr::value(20))
            .filter(city::Column::Id.is_in([1, 2]))
    };
    for id in [1, 2] {
        city::Entity::cached_get(id, &world.db).await.unwrap();
    }
    city::Entity::cached_find_by_country_id(20, &world.db)
        .await
        .unwrap();
    // Behind our back.
    rename("one").exec(&world.raw).await.unwrap();
    city::Entity::invalidate(1, &world.db).await.unwrap();
    assert_eq!(
        city::Entity::cached_get(1, &world.db)
            .await
            .unwrap()
            .unwrap()
            .name,
        "one"
    );
    assert_eq!(
        city::Entity::cached_find_by_country_id(20, &world.db)
            .await
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        city::Entity::cached_get(2, &world.db)
            .await
            .unwrap()
            .unwrap()
            .name,
        "LYON"
    );
    city::Entity::invalidate_many([2], &world.db).await.unwrap();
    assert_eq!(
        city::Entity::cached_get(2, &world.db)
            .await
            .unwrap()
            .unwrap()
            .name,
        "one"
    );
    rename("two").exec(&world.raw).await.unwrap();
    city::Entity::invalidate_all(&world.db).await.unwrap();
    for id in [1, 2] {
        assert_eq!(
            city::Entity::cached_get(id, &world.db)
                .await
                .unwrap()
                .unwrap()
                .name,
            "two"
        );
    }
}
