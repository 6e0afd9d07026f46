//! Sessions: what tower-sessions expects of a store, and what a cache can do to them.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::routing::get;
use sea_orm::prelude::TimeDateTimeWithTimeZone as Instant;
use sea_orm_cache::testing::Fault;
use sea_orm_cache::{Cache, CacheSessions};
use serde_json::json;
use tower::ServiceExt;
use tower_sessions::session::{Id, Record};
use tower_sessions::{Session, SessionManagerLayer, SessionStore};

use crate::on_all;
use crate::outages::until;
use crate::world::World;

on_all!(
    a_session_is_what_was_saved_until_it_is_deleted,
    a_session_ends_at_its_expiry_date,
    an_id_that_is_taken_is_replaced,
    a_lost_session_is_none_and_can_be_saved_again,
    what_cannot_be_stored_or_looked_up_is_an_error,
);

fn record(seconds: u64) -> Record {
    let data = [
        ("user".to_owned(), json!(42)),
        (
            "cart".to_owned(),
            json!({"a": [1, 2.5, -3, null, "x"], "n": u64::MAX, "m": i64::MIN}),
        ),
    ];
    Record {
        id: Id::default(),
        data: HashMap::from(data),
        expiry_date: Instant::now_utc() + Duration::from_secs(seconds),
    }
}

async fn a_session_is_what_was_saved_until_it_is_deleted(world: World) {
    let sessions = CacheSessions::new(&world.cache);
    let (other, _) = world.another_process().await;
    let other = CacheSessions::new(&other);
    let mut record = record(3_600);
    let id = record.id;
    assert_eq!(sessions.load(&id).await.unwrap(), None);
    sessions.create(&mut record).await.unwrap();
    assert_eq!(record.id, id);
    for sessions in [&sessions, &other] {
        assert_eq!(sessions.load(&id).await.unwrap(), Some(record.clone()));
    }
    // At once, in the other process too, however often.
    for n in 0..20 {
        record.data.insert("n".to_owned(), json!(n));
        sessions.save(&record).await.unwrap();
        assert_eq!(other.load(&id).await.unwrap(), Some(record.clone()));
    }
    other.delete(&id).await.unwrap();
    assert_eq!(sessions.load(&id).await.unwrap(), None);
    other.delete(&id).await.unwrap();
    // One that is not there is saved.
    sessions.save(&record).await.unwrap();
    assert_eq!(other.load(&id).await.unwrap(), Some(record));
    sessions.namespace().invalidate().await.unwrap();
    assert_eq!(other.load(&id).await.unwrap(), None);
}

async fn a_session_ends_at_its_expiry_date(world: World) {
    let sessions = CacheSessions::new(&world.cache);
    let mut long = record(3_600);
    sessions.create(&mut long).await.unwrap();
    let mut short = record(0);
    short.expiry_date = Instant::now_utc() + Duration::from_millis(50);
    sessions.create(&mut short).await.unwrap();
    until(async || sessions.load(&short.id).await.unwrap().is_none()).await;
    assert!(Instant::now_utc() >= short.expiry_date);
    assert_eq!(sessions.load(&long.id).await.unwrap(), Some(long.clone()));
    // To save one that is over is to delete it.
    long.expiry_date = Instant::now_utc() - Duration::from_secs(1);
    sessions.save(&long).await.unwrap();
    assert_eq!(sessions.load(&long.id).await.unwrap(), None);
    sessions.create(&mut long).await.unwrap();
    assert_eq!(sessions.load(&long.id).await.unwrap(), None);
    // Its life in the store is that of the session, not a part of it.
    let mut exact = record(1_000);
    sessions.create(&mut exact).await.unwrap();
    let lives = session_lives(&world.cache).await;
    assert!(
        lives.iter().any(|life| *life > Duration::from_secs(990)),
        "{lives:?}"
    );
}

/// How long the sessions of this cache live in its store.
async fn session_lives(cache: &Cache) -> Vec<Duration> {
    let sessions = CacheSessions::new(cache);
    let mut record = record(1_000);
    sessions.create(&mut record).await.unwrap();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(record.id.0.to_le_bytes());
    let key: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let life = sessions.namespace().ttl(&key).await;
    life.into_iter().collect()
}

async fn an_id_that_is_taken_is_replaced(world: World) {
    let sessions = CacheSessions::new(&world.cache);
    let mut first = record(3_600);
    sessions.create(&mut first).await.unwrap();
    let mut second = record(3_600);
    second.id = first.id;
    second.data.clear();
    sessions.create(&mut second).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(sessions.load(&first.id).await.unwrap(), Some(first));
    assert_eq!(sessions.load(&second.id).await.unwrap(), Some(second));
}

async fn a_lost_session_is_none_and_can_be_saved_again(world: World) {
    let sessions = CacheSessions::new(&world.cache);
    let mut record = record(3_600);
    sessions.create(&mut record).await.unwrap();
    // As good as evicted.
    sessions.namespace().invalidate().await.unwrap();
    assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    sessions.save(&record).await.unwrap();
    assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record));
}

async fn what_cannot_be_stored_or_looked_up_is_an_error(world: World) {
    let sessions = CacheSessions::new(&world.cache);
    let mut first = record(3_600);
    sessions.create(&mut first).await.unwrap();
    world.store.inject(Fault::refuse());
    let mut second = record(3_600);
    assert!(sessions.create(&mut second).await.is_err());
    first.data.clear();
    let error = sessions.save(&first).await.unwrap_err().to_string();
    assert!(!error.contains(&first.id.to_string()), "{error}");
    assert!(sessions.load(&first.id).await.is_err());
    assert!(sessions.delete(&first.id).await.is_err());
    world.store.heal();
    until(async || world.cache.stats().undelivered == 0).await;
    // What was to be changed is not what it was.
    let loaded = until_loaded(&sessions, &first.id).await;
    assert_eq!(loaded, None);
}

/// The session, once the cache is back.
async fn until_loaded(sessions: &CacheSessions, id: &Id) -> Option<Record> {
    until(async || sessions.load(id).await.is_ok()).await;
    sessions.load(id).await.unwrap()
}

#[tokio::test]
async fn one_that_is_too_large_is_an_error() {
    let cache = Cache::builder()
        .max_value_bytes(1_000)
        .build()
        .await
        .unwrap();
    let sessions = CacheSessions::new(&cache);
    let mut large = record(3_600);
    large.data.insert("x".to_owned(), json!("x".repeat(2_000)));
    let error = sessions.save(&large).await.unwrap_err().to_string();
    assert!(error.contains("max_value_bytes"), "{error}");
    assert!(sessions.create(&mut large).await.is_err());
}

#[tokio::test]
async fn two_browsers_never_see_each_others_session() {
    let cache = Cache::in_memory();
    let layer = SessionManagerLayer::new(CacheSessions::new(&cache)).with_secure(false);
    let count = async |session: Session| {
        let visits: u32 = session.get("visits").await.unwrap().unwrap_or_default();
        session.insert("visits", visits + 1).await.unwrap();
        (visits + 1).to_string()
    };
    let app = Router::new().route("/", get(count)).layer(layer);
    let visit = async |cookie: Option<&str>| {
        let mut request = Request::get("/");
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let cookie = response.headers().get(header::SET_COOKIE);
        let cookie = cookie.map(|cookie| cookie.to_str().unwrap().to_owned());
        let cookie = cookie.and_then(|cookie| Some(cookie.split(';').next()?.to_owned()));
        let body = axum::body::to_bytes(response.into_body(), 100)
            .await
            .unwrap();
        (String::from_utf8(body.to_vec()).unwrap(), cookie)
    };
    let (one, two) = (visit(None).await, visit(None).await);
    assert_eq!((&*one.0, &*two.0), ("1", "1"));
    assert_ne!(one.1, two.1);
    for n in ["2", "3"] {
        assert_eq!(visit(one.1.as_deref()).await.0, n);
    }
    assert_eq!(visit(two.1.as_deref()).await.0, "2");
    assert_eq!(visit(two.1.as_deref()).await.0, "3");
}
