//! A stand-in for the runtime side of the macros: signatures only.
#![allow(missing_docs, clippy::unused_async)]

use std::sync::Arc;

use sea_orm::{EntityTrait, TryIntoModel};

use crate::orm::meta::EntityMeta;

/// Rows, shared.
pub type Rows<M> = Arc<[Arc<M>]>;

/// An entity that is cached.
pub trait CachedEntity:
    EntityTrait<
        Model: Send + Sync + 'static,
        ActiveModel: TryIntoModel<<Self as EntityTrait>::Model> + Send + Sync + 'static,
    >
{
    /// What the library knows of it.
    fn cached_meta() -> &'static EntityMeta;
}

pub mod hooks {
    use sea_orm::{ActiveModelTrait, ConnectionTrait, DbErr, ModelTrait};

    use super::CachedEntity;

    pub async fn before_save<A, C>(am: &A, db: &C, insert: bool) -> Result<(), DbErr>
    where
        A: ActiveModelTrait<Entity: CachedEntity> + Sync,
        C: ConnectionTrait,
    {
        let _ = (am, db, insert);
        std::future::ready(()).await;
        todo!()
    }

    pub async fn after_save<M, C>(model: &M, db: &C, insert: bool) -> Result<(), DbErr>
    where
        M: ModelTrait<Entity: CachedEntity> + Sync,
        C: ConnectionTrait,
    {
        let _ = (model, db, insert);
        todo!()
    }

    pub async fn before_delete<A, C>(am: &A, db: &C) -> Result<(), DbErr>
    where
        A: ActiveModelTrait<Entity: CachedEntity> + Sync,
        C: ConnectionTrait,
    {
        let _ = (am, db);
        todo!()
    }

    pub async fn after_delete<A, C>(am: &A, db: &C) -> Result<(), DbErr>
    where
        A: ActiveModelTrait<Entity: CachedEntity> + Sync,
        C: ConnectionTrait,
    {
        let _ = (am, db);
        todo!()
    }
}

#[doc(hidden)]
pub mod __private {
    use std::sync::Arc;

    pub use {async_trait, inventory::submit, sea_orm};

    use sea_orm::sea_query::Value;
    use sea_orm::{ConnectionTrait, DbErr, EntityTrait, PrimaryKeyTrait, Related};

    use super::{CachedEntity, Rows};
    use crate::cache::CacheError;
    use crate::config::EntityPolicy;
    use crate::orm::meta::{ColumnMeta, EntityMeta, IndexMeta};

    type Pk<E> = <<E as EntityTrait>::PrimaryKey as PrimaryKeyTrait>::ValueType;
    type Row<E> = Arc<<E as EntityTrait>::Model>;

    pub struct Registration(pub fn() -> &'static EntityMeta);
    inventory::collect!(Registration);

    pub fn entity_meta<E: EntityTrait>(
        name: Option<&str>,
        policy: EntityPolicy,
        indexes: &[(&str, bool, &[E::Column])],
        cascades_from: &[&str],
    ) -> EntityMeta {
        use sea_orm::{IdenStatic, Iterable};
        let table = E::default().table_name().to_owned();
        let columns: Vec<_> = E::Column::iter()
            .map(|column| column.as_str().to_owned())
            .collect();
        let at = |column: &E::Column| {
            columns
                .iter()
                .position(|name| name == column.as_str())
                .unwrap_or(usize::MAX)
        };
        EntityMeta {
            name: name.unwrap_or(&table).to_owned(),
            schema: None,
            table,
            indexes: indexes
                .iter()
                .map(|(name, unique, columns)| IndexMeta {
                    name: (*name).to_owned(),
                    columns: columns.iter().map(at).collect(),
                    unique: *unique,
                })
                .collect(),
            columns: Vec::<ColumnMeta>::new(),
            primary_key: Vec::new(),
            cascades_from: cascades_from
                .iter()
                .map(|&table| table.to_owned())
                .collect(),
            fingerprint: crate::store::Fingerprint(0),
            policy,
        }
    }

    pub async fn get<E: CachedEntity, C: ConnectionTrait>(
        pk: Pk<E>,
        db: &C,
    ) -> Result<Option<Row<E>>, DbErr> {
        let _ = (pk, db);
        todo!()
    }

    pub async fn get_many<E: CachedEntity, C: ConnectionTrait>(
        pks: Vec<Pk<E>>,
        db: &C,
    ) -> Result<Vec<Option<Row<E>>>, DbErr> {
        let _ = (pks, db);
        todo!()
    }

    pub async fn all<E: CachedEntity, C: ConnectionTrait>(db: &C) -> Result<Rows<E::Model>, DbErr> {
        let _ = db;
        todo!()
    }

    pub async fn find_unique<E: CachedEntity, C: ConnectionTrait>(
        index: usize,
        values: Vec<Value>,
        db: &C,
    ) -> Result<Option<Row<E>>, DbErr> {
        let _ = (index, values, db);
        todo!()
    }

    pub async fn find_index<E: CachedEntity, C: ConnectionTrait>(
        index: usize,
        values: Vec<Value>,
        db: &C,
    ) -> Result<Vec<Row<E>>, DbErr> {
        let _ = (index, values, db);
        todo!()
    }

    pub async fn related<E, R, C>(model: &E::Model, db: &C) -> Result<Rows<R::Model>, DbErr>
    where
        E: CachedEntity + Related<R>,
        R: CachedEntity,
        C: ConnectionTrait,
    {
        let _ = (model, db);
        todo!()
    }

    pub async fn related_one<E, R, C>(model: &E::Model, db: &C) -> Result<Option<Row<R>>, DbErr>
    where
        E: CachedEntity + Related<R>,
        R: CachedEntity,
        C: ConnectionTrait,
    {
        let _ = (model, db);
        todo!()
    }

    pub async fn invalidate<E: CachedEntity, C: ConnectionTrait>(
        pk: Pk<E>,
        db: &C,
    ) -> Result<(), CacheError> {
        let _ = (pk, db);
        todo!()
    }

    pub async fn invalidate_many<E: CachedEntity, C: ConnectionTrait>(
        pks: Vec<Pk<E>>,
        db: &C,
    ) -> Result<(), CacheError> {
        let _ = (pks, db);
        todo!()
    }

    pub async fn invalidate_all<E: CachedEntity, C: ConnectionTrait>(
        db: &C,
    ) -> Result<(), CacheError> {
        let _ = db;
        todo!()
    }
}
