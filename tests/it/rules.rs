//! Rules: what a change makes stale beside itself.

use std::sync::{Arc, Mutex};

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, TransactionTrait,
};
use sea_orm_cache::{Cache, Change, Namespace, Policy};

use crate::entities::{city, country, word};
use crate::on_all;
use crate::outages::until;
use crate::reads::{country as a_country, paris};
use crate::world::{Place, Sql, World};

on_all!(
    what_a_rule_adds_goes_stale_with_the_change_and_not_before,
    a_value_computed_while_the_row_changes_is_not_stored,
);

/// Values that a change of a city makes stale: its own page, all searches, what is popular.
struct Pages {
    cities: Namespace,
    searches: Namespace,
    popular: Namespace,
    seen: Arc<Mutex<Vec<Change>>>,
}

impl Pages {
    fn of(cache: &Cache) -> Self {
        let pages = Self {
            cities: cache.namespace("city"),
            searches: cache.namespace("search"),
            popular: cache.namespace("popular"),
            seen: Arc::default(),
        };
        let (cities, searches) = (pages.cities.clone(), pages.searches.clone());
        let seen = Arc::clone(&pages.seen);
        cache.on_change::<city::Entity>(move |change, stale| {
            seen.lock().unwrap().push(change.clone());
            match change.rows() {
                Some(rows) => rows.iter().for_each(|id| {
                    stale.key(&cities, id);
                }),
                None => {
                    stale.namespace(&cities);
                }
            }
            stale.namespace(&searches).tag("popular");
        });
        pages
    }

    async fn fill(&self) {
        let policy = Policy::new();
        self.cities.set("1", &1, &policy).await.unwrap();
        self.cities.set("2", &2, &policy).await.unwrap();
        self.searches.set("par", &3, &policy).await.unwrap();
        let popular = policy.tags(["popular"]);
        self.popular.set("all", &4, &popular).await.unwrap();
    }

    async fn left(&self) -> [bool; 4] {
        let there = async |namespace: &Namespace, key| namespace.get::<i32>(key).await.is_some();
        [
            there(&self.cities, "1").await,
            there(&self.cities, "2").await,
            there(&self.searches, "par").await,
            there(&self.popular, "all").await,
        ]
    }

    fn rows(&self) -> Vec<Option<Vec<String>>> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let rows = seen.iter().map(|change| {
            assert_eq!((change.database(), change.tenant()), ("main", None));
            change.rows().map(<[String]>::to_vec)
        });
        rows.collect()
    }
}

fn rename(id: i64, name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(id),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

const ALL: [bool; 4] = [true; 4];
const ONLY_TWO: [bool; 4] = [false, true, false, false];
const NONE: [bool; 4] = [false; 4];

async fn what_a_rule_adds_goes_stale_with_the_change_and_not_before(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world
        .seed([paris(), crate::reads::city(2, Some(10), "lyon")])
        .await;
    let pages = Pages::of(&world.cache);
    pages.fill().await;
    assert_eq!(pages.left().await, ALL);

    // Another entity's change is nothing to it.
    let france = country::ActiveModel {
        id: Set(10),
        name: Set("France".to_owned()),
        ..Default::default()
    };
    france.update(&world.db).await.unwrap();
    assert_eq!(pages.left().await, ALL);
    assert_eq!(pages.rows(), []);

    rename(1, "one").update(&world.db).await.unwrap();
    assert_eq!(pages.left().await, ONLY_TWO);
    let one = Some(vec!["1".to_owned()]);
    let rows = pages.rows();
    assert!(
        !rows.is_empty() && rows.iter().all(|rows| *rows == one),
        "{rows:?}"
    );

    pages.fill().await;
    let txn = world.db.begin().await.unwrap();
    rename(1, "never").update(&txn).await.unwrap();
    txn.rollback().await.unwrap();
    assert_eq!(pages.left().await, ALL);

    let txn = world.db.begin().await.unwrap();
    rename(1, "txn").update(&txn).await.unwrap();
    assert_eq!(pages.left().await, ALL, "not before the commit");
    txn.commit().await.unwrap();
    assert_eq!(pages.left().await, ONLY_TWO);

    pages.fill().await;
    pages.rows();
    city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("bulk"))
        .filter(city::Column::Name.ne("x"))
        .exec(&world.db)
        .await
        .unwrap();
    assert_eq!(pages.left().await, NONE);
    assert!(pages.rows().contains(&None));

    pages.fill().await;
    let sql = "UPDATE city SET name = 'raw' WHERE id = 1";
    world.db.execute_unprepared(sql).await.unwrap();
    assert_eq!(pages.left().await, ONLY_TWO);
    pages.fill().await;
    city::Entity::invalidate(1, &world.db).await.unwrap();
    assert_eq!(pages.left().await, ONLY_TWO);
}

async fn a_value_computed_while_the_row_changes_is_not_stored(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let pages = Pages::of(&world.cache);
    let name = async || {
        let load = async {
            let city = city::Entity::find_by_id(1).one(&world.raw).await.unwrap();
            // What was read is old before it is stored.
            if city.as_ref().is_some_and(|city| city.name == "PARIS") {
                rename(1, "new").update(&world.db).await.unwrap();
            }
            Ok::<_, std::convert::Infallible>(city.map_or_else(String::new, |city| city.name))
        };
        let Ok(name) = pages.cities.get_or_set("1", &Policy::new(), load).await;
        name
    };
    assert_eq!(name().await, "PARIS");
    assert_eq!(name().await, "new");
}

#[tokio::test]
async fn a_rule_is_asked_of_a_tenants_change_too_and_its_panic_fails_the_write_alone() {
    let world = World::new(crate::world::Sql::Sqlite, crate::world::Place::Memory).await;
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    world.cache.on_change::<city::Entity>(move |change, stale| {
        told.lock()
            .unwrap()
            .push(change.tenant().map(str::to_owned));
        stale.tag("t");
    });
    let policy = Policy::new().tags(["t"]);
    let acme = world.cache.scoped("acme");
    let other = world.cache.scoped("other");
    for namespace in [&acme, &other] {
        namespace.set("k", &1, &policy).await.unwrap();
    }
    rename(1, "one")
        .update(&world.db.scoped("acme"))
        .await
        .unwrap();
    assert_eq!(acme.get::<i32>("k").await, None);
    assert_eq!(other.get("k").await, Some(1));
    assert!(seen.lock().unwrap().contains(&Some("acme".to_owned())));

    world
        .cache
        .on_change::<city::Entity>(|_, _| panic!("a rule's own fault"));
    let db = world.db.clone();
    let write = tokio::spawn(async move { rename(1, "two").update(&db).await });
    assert!(write.await.unwrap_err().is_panic());
    let row = city::Entity::find_by_id(1).one(&world.raw).await.unwrap();
    assert_eq!(row.unwrap().name, "one");
    until(async || world.cache.stats().undelivered == 0).await;
}

/// What a database takes for one key, a namespace takes for two: then no row is named.
#[tokio::test]
async fn rows_are_named_only_where_their_text_is_certain() {
    for (sql, certain) in [
        (Sql::Sqlite, false),
        (Sql::MariaDb, false),
        (Sql::Postgres, true),
    ] {
        let world = World::new(sql, Place::Memory).await;
        let seen: Arc<Mutex<Vec<Change>>> = Arc::default();
        let told = Arc::clone(&seen);
        world.cache.on_change::<word::Entity>(move |change, _| {
            told.lock().unwrap().push(change.clone());
        });
        let word = word::ActiveModel {
            id: Set("ISBN-A".to_owned()),
            kind: Set("noun".to_owned()),
            meaning: Set("a number".to_owned()),
        };
        word.insert(&world.db).await.unwrap();
        let seen = seen.lock().unwrap();
        let rows: Vec<_> = seen.iter().filter_map(Change::rows).flatten().collect();
        match certain {
            true => assert_eq!(rows, ["ISBN-A"]),
            false => assert!(!seen.is_empty() && rows.is_empty(), "{sql:?}: {rows:?}"),
        }
    }
}
