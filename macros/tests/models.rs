//! Every shape of model that SeaORM accepts, with the columns that its indexes have.

use std::future::Future;

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sea_orm_cache::{CachedEntity, Consistency, EntityPolicy, WritePolicy};

/// The old style: a `Relation` enum, and SeaORM's derive alone.
mod country {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "country")]
    #[cached(
        ttl = "10m",
        jitter = 0.25,
        absent_ttl = "250ms",
        consistency = "linearizable"
    )]
    #[cached(
        write_policy = "strict",
        stale_while_revalidate = "1m",
        stale_if_error = "1h",
        early_refresh = 1.5,
        soft_timeout = "100ms",
        load_timeout = "5s",
        name = "land",
        cascades_from = "continent",
        cascades_from("world", "planet")
    )]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        #[sea_orm(unique)]
        pub iso2: String,
        #[cached(index)]
        pub r#type: Option<String>,
        #[sea_orm(enum_name = "Contains", column_name = "part_of")]
        #[cached(index)]
        pub continent: String,
        #[sea_orm(ignore)]
        pub not_a_column: Vec<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(has_many = "super::city::Entity")]
        City,
    }

    impl Related<super::city::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::City.def()
        }
    }
}

mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "city")]
    #[cached(index(country_id, db), unique(country_id, r#type), unique(name))]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        #[cached(index)]
        pub country_id: i32,
        #[sea_orm(unique_key = "code in the country")]
        #[cached(unique)]
        pub code: String,
        #[sea_orm(unique_key = "code in the country", unique_key = "box")]
        pub district: Option<String>,
        #[sea_orm(unique_key = "box")]
        pub r#type: String,
        pub name: String,
        pub db: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(
            belongs_to = "super::country::Entity",
            from = "Column::CountryId",
            to = "super::country::Column::Id"
        )]
        Country,
    }

    impl Related<super::country::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Country.def()
        }
    }
}

/// The new style: relations as fields, and a `ModelEx`.
mod author {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "author")]
    #[cached(ttl = "1h 30m", index(tenant, email))]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        #[sea_orm(unique)]
        pub email: String,
        #[sea_orm(unique_key = "tenant_login")]
        pub tenant: i32,
        #[sea_orm(unique_key = "tenant_login")]
        pub login: String,
        #[sea_orm(has_many)]
        pub books: HasMany<super::book::Entity>,
    }
}

mod book {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "book")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub isbn: String,
        #[cached(index)]
        pub author_id: Uuid,
        #[sea_orm(belongs_to, from = "author_id", to = "id")]
        pub author: HasOne<super::author::Entity>,
    }
}

/// A key of two columns, an enum and a newtype to look up by, nothing public.
mod membership {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(1))")]
    pub(crate) enum Role {
        #[sea_orm(string_value = "O")]
        Owner,
        #[sea_orm(string_value = "G")]
        Guest,
    }

    #[derive(Clone, Debug, PartialEq, Eq, DeriveValueType)]
    pub(crate) struct Badge(pub(crate) i64);

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "membership", rename_all = "camelCase")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        #[cached(index)]
        pub(crate) person_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) club_id: Uuid,
        #[cached(index)]
        pub(crate) role: Role,
        #[cached(index)]
        pub(crate) badge: Option<Badge>,
        #[cached(index)]
        pub(crate) born_on: Date,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}
}

/// The expanded format, where only `#[cached]` says what to look up by.
mod tag {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Copy, Clone, Default, Debug, DeriveEntity)]
    pub struct Entity;

    impl EntityName for Entity {
        fn table_name(&self) -> &'static str {
            "tag"
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq, DeriveModel, DeriveActiveModel, CachedEntity)]
    #[cached(ttl = "1m", unique(word))]
    pub struct Model {
        pub id: i32,
        pub word: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveColumn)]
    pub enum Column {
        Id,
        Word,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DerivePrimaryKey)]
    pub enum PrimaryKey {
        Id,
    }

    impl PrimaryKeyTrait for PrimaryKey {
        type ValueType = i32;
        fn auto_increment() -> bool {
            true
        }
    }

    impl ColumnTrait for Column {
        type EntityName = Entity;
        fn def(&self) -> ColumnDef {
            match self {
                Self::Id => ColumnType::Integer.def(),
                Self::Word => ColumnType::string(None).def().unique(),
            }
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

fn send<T>(future: impl Future<Output = T> + Send) {
    drop(future);
}

/// Every generated function, on a connection that is a type parameter, as in a service.
fn every_function<C: ConnectionTrait>(db: &C, country: &country::Model, city: &city::Model) {
    use std::rc::Rc;

    send(country::Entity::cached_get(1, db));
    send(country::Entity::cached_get_many([1, 2], db));
    send(country::Entity::cached_get_many(
        Rc::new(vec![1i16]).iter().copied(),
        db,
    ));
    send(country::Entity::cached_all(db));
    send(country::Entity::cached_find_by_iso2("FR", db));
    send(country::Entity::cached_find_by_type("kingdom", db));
    send(country::Entity::cached_find_by_continent(
        String::from("Europe"),
        db,
    ));
    send(country::Entity::invalidate(1, db));
    send(country::Entity::invalidate_many(vec![1, 2], db));
    send(country::Entity::invalidate_all(db));
    send(country.cached_related(city::Entity, db));
    send(city.cached_related_one(country::Entity, db));

    send(city::Entity::cached_find_by_country_id_and_db(1, 2, db));
    send(city::Entity::cached_find_by_country_id_and_type(
        1, "capital", db,
    ));
    send(city::Entity::cached_find_by_code_in_the_country(
        "IDF", "Paris", db,
    ));
    send(city::Entity::cached_find_by_box("Paris", "capital", db));
    send(city::Entity::cached_find_by_code("IDF", db));
    send(city::Entity::cached_find_by_name("Paris", db));

    send(author::Entity::cached_get(
        sea_orm::prelude::Uuid::nil(),
        db,
    ));
    send(author::Entity::cached_find_by_tenant_login(1, "ada", db));
    send(author::Entity::cached_find_by_tenant_and_email(
        1, "a@b.c", db,
    ));
    send(book::Entity::cached_get("978", db));
    send(book::Entity::cached_find_by_author_id(
        sea_orm::prelude::Uuid::nil(),
        db,
    ));

    send(membership::Entity::cached_get(
        (1, sea_orm::prelude::Uuid::nil()),
        db,
    ));
    send(membership::Entity::cached_get_many(
        [(1, sea_orm::prelude::Uuid::nil())],
        db,
    ));
    send(membership::Entity::cached_find_by_person_id(1, db));
    send(membership::Entity::cached_find_by_role(
        membership::Role::Owner,
        db,
    ));
    send(membership::Entity::cached_find_by_badge(
        membership::Badge(7),
        db,
    ));
    send(membership::Entity::cached_find_by_born_on(
        sea_orm::prelude::Date::MIN,
        db,
    ));
    send(tag::Entity::cached_find_by_word("x", db));
}

fn indexes<E: CachedEntity>() -> Vec<(&'static str, Vec<usize>, bool)> {
    let indexes = E::cached_meta().indexes.iter();
    indexes
        .map(|index| (&*index.name, index.columns.clone(), index.unique))
        .collect()
}

#[test]
fn works() {
    let _ = every_function::<DatabaseConnection>;

    let country = country::Entity::cached_meta();
    assert!(std::ptr::eq(country, country::Entity::cached_meta()));
    assert_eq!(country.name, "land");
    assert_eq!(country.cascades_from, ["continent", "world", "planet"]);
    assert_eq!(
        country.policy,
        EntityPolicy {
            ttl: std::time::Duration::from_secs(600),
            jitter: 0.25,
            absent_ttl: std::time::Duration::from_millis(250),
            consistency: Consistency::Linearizable,
            write_policy: Some(WritePolicy::Strict),
            stale_while_revalidate: std::time::Duration::from_secs(60),
            stale_if_error: std::time::Duration::from_secs(3_600),
            early_refresh: 1.5,
            soft_timeout: Some(std::time::Duration::from_millis(100)),
            load_timeout: Some(std::time::Duration::from_secs(5)),
        }
    );
    assert_eq!(
        indexes::<country::Entity>(),
        [
            ("iso2", vec![1], true),
            ("type", vec![2], false),
            ("continent", vec![3], false)
        ]
    );

    assert_eq!(city::Entity::cached_meta().name, "city");
    assert_eq!(city::Entity::cached_meta().policy, EntityPolicy::default());
    assert_eq!(
        indexes::<city::Entity>(),
        [
            ("code_in_the_country", vec![2, 3], true),
            ("box", vec![3, 4], true),
            ("country_id", vec![1], false),
            ("code", vec![2], true),
            ("country_id_and_db", vec![1, 6], false),
            ("country_id_and_type", vec![1, 4], true),
            ("name", vec![5], true),
        ]
    );

    assert_eq!(
        indexes::<author::Entity>(),
        [
            ("email", vec![1], true),
            ("tenant_login", vec![2, 3], true),
            ("tenant_and_email", vec![2, 1], false)
        ]
    );
    assert_eq!(indexes::<book::Entity>(), [("author_id", vec![1], false)]);
    assert_eq!(indexes::<tag::Entity>(), [("word", vec![1], true)]);

    let registered = inventory::iter::<sea_orm_cache::__private::Registration>.into_iter();
    let mut registered: Vec<_> = registered.map(|entity| &*entity.0().name).collect();
    registered.sort_unstable();
    assert_eq!(
        registered,
        ["author", "book", "city", "land", "membership", "tag"]
    );
}
