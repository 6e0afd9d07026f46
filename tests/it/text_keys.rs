//! Two texts that a database calls equal share what is fenced.

use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ConnectionTrait, DbBackend, EntityTrait};

use crate::entities::word;
use crate::on_all;
use crate::world::World;

on_all!(
    a_row_read_in_one_spelling_and_written_in_another_is_fresh,
    an_index_list_read_in_one_spelling_and_written_in_another_is_fresh,
    text_that_is_not_ascii_is_fresh,
    unusual_texts_do_not_mix,
);

fn word(id: &str, kind: &str, meaning: &str) -> word::ActiveModel {
    word::ActiveModel {
        id: Set(id.to_owned()),
        kind: Set(kind.to_owned()),
        meaning: Set(meaning.to_owned()),
    }
}

/// What the cache answers is what the database answers.
async fn assert_same(id: &str, world: &World) {
    let asked = word::Entity::find_by_id(id).one(&world.raw).await.unwrap();
    for round in 0..2 {
        let cached = word::Entity::cached_get(id, &world.db).await.unwrap();
        assert_eq!(cached.as_deref(), asked.as_ref(), "{id:?}, round {round}");
    }
}

async fn assert_same_list(kind: &str, world: &World) {
    use sea_orm::{ColumnTrait, QueryFilter, QueryOrder};
    let select = word::Entity::find()
        .filter(word::Column::Kind.eq(kind))
        .order_by_asc(word::Column::Id);
    let asked = select.all(&world.raw).await.unwrap();
    for round in 0..3 {
        let cached = word::Entity::cached_find_by_kind(kind, &world.db)
            .await
            .unwrap();
        let cached: Vec<word::Model> = cached.iter().map(|row| (**row).clone()).collect();
        assert_eq!(cached, asked, "{kind:?}, round {round}");
    }
}

async fn a_row_read_in_one_spelling_and_written_in_another_is_fresh(world: World) {
    world.seed([word("abc", "x", "old")]).await;
    for id in ["abc", "ABC", "abc ", "Abc"] {
        assert_same(id, &world).await;
    }
    // By another spelling than the row's own.
    world
        .db
        .execute_unprepared("UPDATE word SET meaning = 'new' WHERE id = 'ABC'")
        .await
        .unwrap();
    for id in ["abc", "ABC", "abc ", "Abc"] {
        assert_same(id, &world).await;
    }
    world
        .db
        .execute_unprepared("UPDATE word SET meaning = 'newer' WHERE id = 'abc'")
        .await
        .unwrap();
    for id in ["ABC", "abc", "aBC "] {
        assert_same(id, &world).await;
    }
    let rows = word::Entity::cached_get_many(["ABC", "abc", "zzz"], &world.db)
        .await
        .unwrap();
    let insensitive = word::Entity::find_by_id("ABC")
        .one(&world.raw)
        .await
        .unwrap()
        .is_some();
    assert_eq!(
        rows.iter().map(Option::is_some).collect::<Vec<_>>(),
        [insensitive, true, false]
    );
    if world.backend() == DbBackend::MySql {
        assert!(insensitive, "MariaDB's default collation ignores case");
    }
    word::Entity::delete_by_id("ABC")
        .exec(&world.db)
        .await
        .unwrap();
    for id in ["abc", "ABC"] {
        assert_same(id, &world).await;
    }
    // A row in its own spelling is cached in every database.
    world.seed([word("own", "x", "old")]).await;
    word::Entity::cached_get("own", &world.db).await.unwrap();
    assert_eq!(
        world
            .cost(word::Entity::cached_get("own", &world.db))
            .await
            .1,
        world.free()
    );
}

async fn an_index_list_read_in_one_spelling_and_written_in_another_is_fresh(world: World) {
    world
        .seed([word("a", "noun", "1"), word("b", "Noun", "2")])
        .await;
    for kind in ["noun", "NOUN", "Noun"] {
        assert_same_list(kind, &world).await;
    }
    word("c", "NOUN", "3").insert(&world.db).await.unwrap();
    for kind in ["noun", "NOUN", "Noun"] {
        assert_same_list(kind, &world).await;
    }
    world
        .db
        .execute_unprepared("UPDATE word SET kind = 'nOUN ' WHERE id = 'a'")
        .await
        .unwrap();
    for kind in ["noun", "NOUN", "nOUN", "nOUN "] {
        assert_same_list(kind, &world).await;
    }
}

async fn text_that_is_not_ascii_is_fresh(world: World) {
    world
        .seed([
            word("etude", "n", "old"),
            word("straße", "n", "old"),
            word("日本", "é", "old"),
        ])
        .await;
    let ids = ["etude", "étude", "straße", "strasse", "STRASSE", "日本"];
    for id in ids {
        assert_same(id, &world).await;
    }
    for kind in ["e", "é", "n"] {
        assert_same_list(kind, &world).await;
    }
    for id in ids {
        let text = format!("UPDATE word SET meaning = 'by {id}', kind = 'É' WHERE id = '{id}'");
        world.db.execute_unprepared(&text).await.unwrap();
        for id in ids {
            assert_same(id, &world).await;
        }
        for kind in ["e", "é", "n"] {
            assert_same_list(kind, &world).await;
        }
    }
}

async fn unusual_texts_do_not_mix(world: World) {
    let long = "x".repeat(200);
    let ids = [
        "",
        "a:b",
        "a%3Ab",
        "{tag}",
        "*",
        "a,b",
        "-1",
        "NULL",
        " lead",
        "quote'\"`",
        "back\\slash",
        &long,
    ];
    world
        .seed(
            ids.iter()
                .map(|id| word(id, "odd", &format!("meaning of {id}"))),
        )
        .await;
    for id in ids {
        assert_same(id, &world).await;
    }
    for id in ids {
        let mut row: word::ActiveModel = word(id, "odd", "changed");
        row.kind = Set("even".to_owned());
        row.update(&world.db).await.unwrap();
        for id in ids {
            assert_same(id, &world).await;
        }
    }
    for kind in ["odd", "even"] {
        assert_same_list(kind, &world).await;
    }
}
