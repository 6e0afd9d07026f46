//! Models with a behaviour of their own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use sea_orm::{ActiveModelBehavior, DatabaseConnection, DbErr};

/// All of it: patterns, early returns, another name for the connection's type, its own functions.
mod full {
    use sea_orm::entity::prelude::*;
    use sea_orm::{ActiveValue, Set};
    use sea_orm_cache::{CachedEntity, cache_hooks};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "full")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    #[cache_hooks]
    #[async_trait::async_trait]
    impl ActiveModelBehavior for ActiveModel {
        fn new() -> Self {
            Self {
                name: Set("new".into()),
                ..ActiveModelTrait::default()
            }
        }

        async fn before_save<Db>(mut self, _: &Db, _insert: bool) -> Result<Self, DbErr>
        where
            Db: ConnectionTrait,
        {
            if let ActiveValue::Set(name) = &self.name {
                if name.is_empty() {
                    return Err(DbErr::Custom("a name, please".into()));
                }
                let _: i32 = name
                    .len()
                    .try_into()
                    .map_err(|_| DbErr::Custom("too long".into()))?;
            }
            self.name = Set("saved".into());
            Ok(self)
        }

        async fn after_save<C: ConnectionTrait>(
            Model { id, mut name }: Model,
            _db: &C,
            mut insert: bool,
        ) -> Result<Model, DbErr> {
            insert = !insert;
            name.push_str(if insert { "!" } else { "?" });
            Ok(Model { id, name })
        }

        async fn before_delete<C>(self, db: &C) -> Result<Self, DbErr>
        where
            C: ConnectionTrait,
        {
            Entity::find().one(db).await?;
            Ok(self)
        }

        async fn after_delete<C>(mut self, _db: &C) -> Result<Self, DbErr>
        where
            C: ConnectionTrait,
        {
            self.name = Set("deleted".into());
            Ok(self)
        }
    }
}

/// As sea-orm-cli writes it.
mod empty {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::{CachedEntity, cache_hooks};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "empty")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    #[cache_hooks]
    impl ActiveModelBehavior for ActiveModel {}
}

/// One of the four, its model by a pattern that is a name, the trait by its path.
mod one {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, sea_orm_cache::CachedEntity)]
    #[sea_orm(table_name = "one")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
    }

    #[sea_orm_cache::cache_hooks]
    #[sea_orm::prelude::async_trait::async_trait]
    impl sea_orm::ActiveModelBehavior for ActiveModel {
        async fn after_save<C>(mut model: Model, _db: &C, _insert: bool) -> Result<Model, DbErr>
        where
            C: ConnectionTrait,
        {
            model.id += 1;
            Ok(model)
        }
    }
}

/// No hooks at all: the connection is always a cached one.
mod unhooked {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "unhooked")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What a future that waits for nothing answers.
fn now<T>(mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> Option<T> {
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn works() {
    let db = DatabaseConnection::default();

    let new = <full::ActiveModel as ActiveModelBehavior>::new();
    assert_eq!(new.name, sea_orm::Set("new".into()));

    let nameless = full::ActiveModel {
        name: sea_orm::Set(String::new()),
        ..new
    };
    let refused = now(nameless.before_save(&db, true));
    assert_eq!(refused, Some(Err(DbErr::Custom("a name, please".into()))));

    let unhooked = unhooked::ActiveModel {
        id: sea_orm::Set(1),
    };
    assert_eq!(
        now(unhooked.clone().before_save(&db, true)),
        Some(Ok(unhooked))
    );
}
