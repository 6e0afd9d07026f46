//! Keys of every kind, and names that must be quoted.

use sea_orm::ActiveValue::Set;
use sea_orm::prelude::Uuid;
use sea_orm::{ActiveModelTrait, ConnectionTrait, EntityTrait, Schema};
use sea_orm_cache::Feed;
use sea_orm_cache::testing::Watch as Fresh;
use sea_orm_cache_migration::Watch;

use super::{foreign, install};
use crate::entities::{account, blob, document, line, word};
use crate::on_all;
use crate::world::World;

on_all!(
    composite_and_text_keys,
    uuids_and_bytes,
    names_that_must_be_quoted
);

async fn composite_and_text_keys(world: World) {
    install(&world.raw).await.unwrap();
    let feed = Feed::new(&world.db);
    foreign(&world, "INSERT INTO line (order_id, position, product, amount) VALUES (1, 'a', 'tea', 2), (1, 'B', 'it''s \\ \"x\"', 3), (2, 'a', 'tea', 2)").await;
    foreign(&world, "INSERT INTO word (id, kind, meaning) VALUES ('one', 'noun', '1'), ('Two', 'Noun', '2'), ('été', 'café', '3')").await;
    feed.drain().await.unwrap();
    let lines = Fresh::<line::Entity>::over([(1, "a".to_owned()), (3, "c".to_owned())], &world.db);
    let words = Fresh::<word::Entity>::over(
        ["one", "ONE", "TWO", "été", "three"].map(str::to_owned),
        &world.db,
    );
    for sql in [
        "SELECT 1",
        "UPDATE line SET amount = 7 WHERE order_id = 1",
        "UPDATE line SET position = 'c' WHERE order_id = 2",
        "UPDATE line SET product = 'cof''fee' WHERE position = 'B'",
        "INSERT INTO line (order_id, position, product, amount) VALUES (3, 'c', 'tea', 7)",
        "DELETE FROM line WHERE order_id = 1",
        "UPDATE word SET meaning = 'x' WHERE id = 'one'",
        "UPDATE word SET meaning = 'y'",
        "UPDATE word SET kind = 'noun' WHERE id = 'Two'",
        "UPDATE word SET kind = 'thé' WHERE id = 'été'",
        "UPDATE word SET id = 'three' WHERE id = 'Two'",
        "DELETE FROM word WHERE id = 'été'",
    ] {
        foreign(&world, sql).await;
        feed.drain().await.unwrap();
        lines.assert_fresh().await;
        words.assert_fresh().await;
    }
}

async fn uuids_and_bytes(world: World) {
    install(&world.raw).await.unwrap();
    let feed = Feed::new(&world.db);
    let ids = [1, 2].map(Uuid::from_u128);
    let keys = [vec![1, 2, 0], vec![b'"', b'\\', 255]];
    world
        .seed(ids.map(|id| document::ActiveModel {
            id: Set(id),
            title: Set("t".to_owned()),
        }))
        .await;
    world
        .seed(keys.clone().map(|id| blob::ActiveModel {
            id: Set(id),
            size: Set(1),
        }))
        .await;
    foreign(&world, "INSERT INTO account (id, name, password_hash, settings, balance) VALUES (1, 'a', 'b', '{}', 1.5)").await;
    assert_eq!(feed.drain().await.unwrap(), 5);
    let documents = Fresh::<document::Entity>::over(ids, &world.db);
    let blobs = Fresh::<blob::Entity>::over(keys.clone(), &world.db);
    let accounts = Fresh::<account::Entity>::over([1], &world.db);
    for sql in [
        "SELECT 1",
        "UPDATE document SET title = 'new'",
        "UPDATE blob_store SET size = 2",
        "UPDATE account SET name = 'new'",
        "UPDATE document SET title = 'one' WHERE title = 'new'",
    ] {
        foreign(&world, sql).await;
        feed.drain().await.unwrap();
        documents.assert_fresh().await;
        blobs.assert_fresh().await;
        accounts.assert_fresh().await;
    }
    // Rows are named, and not their tables.
    for (kept, lost) in [(0, 1), (1, 0)] {
        let document = document::ActiveModel {
            id: Set(ids[lost]),
            title: Set(format!("{kept}")),
        };
        document.update(&world.raw).await.unwrap();
        let blob = blob::ActiveModel {
            id: Set(keys[lost].clone()),
            size: Set(10),
        };
        blob.update(&world.raw).await.unwrap();
        assert_eq!(feed.drain().await.unwrap(), 2);
        let read = async || {
            document::Entity::cached_get(ids[kept], &world.db)
                .await
                .unwrap()
                .unwrap();
            blob::Entity::cached_get(keys[kept].clone(), &world.db)
                .await
                .unwrap()
                .unwrap();
        };
        let ((), cost) = world.cost(read()).await;
        assert_eq!(cost.statements, 0);
        documents.assert_fresh().await;
        blobs.assert_fresh().await;
    }
    for table in ["document", "blob_store", "account"] {
        foreign(&world, &format!("DELETE FROM {table}")).await;
    }
    feed.drain().await.unwrap();
    documents.assert_fresh().await;
    blobs.assert_fresh().await;
    accounts.assert_fresh().await;
}

/// Names that nobody should have given.
mod odd {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "It's \"odd\" `so` $feed$ and as long as it may be: \\")]
    pub struct Model {
        #[sea_orm(
            primary_key,
            auto_increment = false,
            column_name = "the \"id\" `of` it's \\"
        )]
        pub id: i64,
        #[sea_orm(unique, column_name = "select")]
        pub select: String,
        pub note: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

async fn names_that_must_be_quoted(world: World) {
    install(&world.raw).await.unwrap();
    let table = Schema::new(world.backend()).create_table_from_entity(odd::Entity);
    world.raw.execute(&table).await.unwrap();
    let watch = Watch::of::<odd::Entity>();
    watch.install(&world.raw).await.unwrap();
    assert!(watch.is_installed(&world.raw).await.unwrap());
    let feed = Feed::new(&world.db);
    let row = |id: i64, select: &str| odd::ActiveModel {
        id: Set(id),
        select: Set(select.to_owned()),
        note: Set(String::new()),
    };
    assert_eq!(feed.drain().await.unwrap(), 1, "what was there before");
    world.seed([row(1, "a"), row(2, "b")]).await;
    assert_eq!(feed.drain().await.unwrap(), 2);
    let rows = Fresh::<odd::Entity>::over([1, 2, 3], &world.db);
    rows.assert_fresh().await;
    row(1, "c").update(&world.raw).await.unwrap();
    assert_eq!(feed.drain().await.unwrap(), 1);
    let (_, cost) = world.cost(odd::Entity::cached_get(2, &world.db)).await;
    assert_eq!(cost.statements, 0, "the row is named");
    rows.assert_fresh().await;
    odd::Entity::delete_by_id(2).exec(&world.raw).await.unwrap();
    row(3, "b").insert(&world.raw).await.unwrap();
    assert_eq!(feed.drain().await.unwrap(), 2);
    rows.assert_fresh().await;
    watch.remove(&world.raw).await.unwrap();
    row(4, "d").insert(&world.raw).await.unwrap();
    assert_eq!(feed.drain().await.unwrap(), 0);
}
