//! Cached selects and relations.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sea_query::Value;
use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait, IdenStatic, Identity, Iterable, ModelTrait,
    PaginatorTrait, QuerySelect, QueryTrait, Related, Select, Statement,
};
use smallvec::smallvec;

use super::effects::reads;
use super::entity::{CachedEntity, Rows, reading_site, site_at};
use super::index::{find_index, index_on, is_primary_key};
use super::meta::EntityMeta;
use super::probe::{self, Asked, Place, locate};
use super::rows::{in_key_order, row_at};
use super::site::{Site, registry};
use crate::codec::{self, CodecError, Reader, put_varint};
use crate::config::EntityPolicy;
use crate::fill::{Payload, Request, Shape, within};
use crate::key::{Dependencies, Generation, Key, Pk, tag_keys};
use crate::observe::Event;
use crate::store::Fingerprint;
use crate::tier::Id;

/// Adds [`cached`](Self::cached) to SeaORM's selects.
///
/// # Examples
/// ```no_run
/// # mod city {
/// #     use sea_orm::entity::prelude::*;
/// #     #[derive(Clone, Debug, PartialEq, DeriveEntityModel, sea_orm_cache::CachedEntity)]
/// #     #[sea_orm(table_name = "city")]
/// #     pub struct Model { #[sea_orm(primary_key)] pub id: i64, pub population: i64 }
/// #     #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
/// #     pub enum Relation {}
/// # }
/// # async fn run(db: sea_orm_cache::CachedConnection) -> Result<(), sea_orm::DbErr> {
/// use sea_orm::{EntityTrait, QueryOrder, QuerySelect};
/// use sea_orm_cache::QueryCache;
///
/// let largest = city::Entity::find()
///     .order_by_desc(city::Column::Population)
///     .limit(20)
///     .cached()
///     .all(&db)
///     .await?;
/// # Ok(()) }
/// ```
pub trait QueryCache<E: CachedEntity> {
    /// The same select, answered from the cache where it can be.
    ///
    /// # Consistency
    /// The result is stale as soon as any table that the SQL text mentions is written. A select that
    /// reads a table, view or function that is no cached entity, or that locks rows, is not cached.
    fn cached(self) -> CachedSelect<E>;
}

impl<E: CachedEntity> QueryCache<E> for Select<E> {
    fn cached(self) -> CachedSelect<E> {
        CachedSelect {
            select: self,
            ttl: None,
            tags: Vec::new(),
            whole: false,
        }
    }
}

/// A select whose results are cached, made by [`QueryCache::cached`].
#[derive(Clone, Debug)]
#[must_use]
pub struct CachedSelect<E: EntityTrait> {
    select: Select<E>,
    ttl: Option<Duration>,
    tags: Vec<String>,
    /// Whether it is the entity's `cached_all`, which needs no digest for a name.
    whole: bool,
}

/// One page of a cached select.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<M> {
    /// The page's rows.
    pub rows: Rows<M>,
    /// How many rows all pages have together.
    pub total_rows: u64,
    /// How many pages there are.
    pub total_pages: u64,
}

impl<E: CachedEntity> CachedSelect<E> {
    /// How long the result lives, instead of the entity's `ttl`.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Tags, so that [`Cache::invalidate_tags`](crate::Cache::invalidate_tags) makes the result stale.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self.tags.sort();
        self.tags.dedup();
        self
    }

    /// All rows.
    ///
    /// # Errors
    /// The database's, or [`CacheError::Overloaded`](crate::CacheError::Overloaded).
    pub async fn all<C: ConnectionTrait>(&self, db: &C) -> Result<Rows<E::Model>, DbErr> {
        self.rows("all", &self.select, db).await
    }

    /// The first row.
    ///
    /// # Errors
    /// The database's, or [`CacheError::Overloaded`](crate::CacheError::Overloaded).
    pub async fn one<C: ConnectionTrait>(&self, db: &C) -> Result<Option<Arc<E::Model>>, DbErr> {
        let select = self.select.clone().limit(1);
        Ok(self.rows("one", &select, db).await?.first().cloned())
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// The database's, or [`CacheError::Overloaded`](crate::CacheError::Overloaded).
    pub async fn count<C: ConnectionTrait>(&self, db: &C) -> Result<u64, DbErr> {
        let statement = self.select.build(db.get_database_backend());
        let load = || async { Ok(Count(self.select.clone().count(db).await?)) };
        Ok(self
            .fetch("count", statement, COUNT_FIELD, db, load)
            .await?
            .0)
    }

    /// The page with this number, counted from 0, of pages of `size` rows. Give the select an order.
    ///
    /// # Errors
    /// The database's, or [`CacheError::Overloaded`](crate::CacheError::Overloaded); also when `size` is 0.
    pub async fn page<C: ConnectionTrait>(
        &self,
        number: u64,
        size: u64,
        db: &C,
    ) -> Result<Page<E::Model>, DbErr> {
        if size == 0 {
            return Err(DbErr::Custom(
                "a page of 0 rows was asked for: `size` must be at least 1".to_owned(),
            ));
        }
        let total_rows = self.count(db).await?;
        let select = self
            .select
            .clone()
            .limit(size)
            .offset(number.saturating_mul(size));
        let rows = self.rows("all", &select, db).await?;
        Ok(Page {
            rows,
            total_rows,
            total_pages: total_rows.div_ceil(size),
        })
    }

    async fn rows<C: ConnectionTrait>(
        &self,
        kind: &str,
        select: &Select<E>,
        db: &C,
    ) -> Result<Rows<E::Model>, DbErr> {
        let statement = select.build(db.get_database_backend());
        let load = || async {
            let rows = select.clone().all(db).await?;
            Ok(Models::<E>(rows.into_iter().map(Arc::new).collect()))
        };
        Ok(self
            .fetch(kind, statement, E::cached_meta().fingerprint, db, load)
            .await?
            .0)
    }

    async fn fetch<P, C, L, F>(
        &self,
        kind: &str,
        statement: Statement,
        field: Fingerprint,
        db: &C,
        load: L,
    ) -> Result<P, DbErr>
    where
        P: Payload,
        C: ConnectionTrait,
        L: Fn() -> F + Sync,
        F: Future<Output = Result<P, DbErr>> + Send,
    {
        let meta = E::cached_meta();
        let digest = match digest(&statement) {
            Ok(digest) => digest,
            Err(reason) => {
                not_cached(meta, reading_site(db, meta).as_ref(), &reason);
                return load().await;
            }
        };
        let asked = Asked::query(meta, self.name(kind, digest));
        let place = match held(db, asked) {
            Ok(held) => return Ok(held),
            Err(place) => place,
        };
        let Some(site) = site_at(place, meta) else {
            return load().await;
        };
        let (key, dependencies) = match self.identify(&site, kind, &statement.sql, digest) {
            Ok(found) => found,
            Err(reason) => {
                not_cached(meta, Some(&site), &reason);
                return load().await;
            }
        };
        let dependencies = Dependencies::new(dependencies);
        let policy = self.policy();
        let shape = Shape {
            entity: &meta.name,
            field,
            dependencies: &dependencies,
            present_needs: dependencies.keys.len(),
            policy: &policy,
            bounded: site.is_bounded(meta),
            own: false,
        };
        let request = Request {
            id: Id::Row(site.space.clone(), asked.entity, asked.row),
            key,
            asked: Vec::new(),
            outdated: None,
        };
        let load = |_| async {
            let _place = site.cache.begin_load(&meta.name).await?;
            Ok::<_, DbErr>(vec![within(&policy, &meta.name, load()).await?])
        };
        let fetched = site.cache.fetch(&shape, smallvec![request], load).await?;
        let answer = fetched.into_iter().next().map(|fetched| fetched.value);
        answer.ok_or_else(|| DbErr::Custom("a cached select had no answer".to_owned()))
    }

    /// An empty result lives as long as others.
    fn policy(&self) -> EntityPolicy {
        let policy = E::cached_meta().policy.clone();
        let ttl = self.ttl.unwrap_or(policy.ttl);
        EntityPolicy {
            ttl,
            absent_ttl: ttl,
            ..policy
        }
    }

    /// What names the result in the in-process tier; `None` for all rows. The tags are part of it: in the
    /// store an entry says itself what it depends on.
    fn name(&self, kind: &str, digest: u128) -> Option<u128> {
        if self.whole {
            return None;
        }
        let mut name = digest.to_le_bytes().to_vec();
        for part in [kind]
            .into_iter()
            .chain(self.tags.iter().map(String::as_str))
        {
            put_varint(&mut name, part.len() as u64);
            name.extend_from_slice(part.as_bytes());
        }
        Some(codec::stable_hash128(&name))
    }

    /// The select's key and the generations that it depends on, or why it cannot be cached.
    fn identify(
        &self,
        site: &Site,
        kind: &str,
        sql: &str,
        digest: u128,
    ) -> Result<(Key, Vec<Key>), String> {
        let reads = reads(sql, site.backend, registry());
        if let Some(table) = reads.unknown.first() {
            return Err(format!(
                "the select reads `{table}`, which is no cached entity"
            ));
        }
        if reads.uncacheable || reads.entities.is_empty() {
            return Err("the statement locks rows, writes, or is not a plain select".to_owned());
        }
        let mut dependencies: Vec<Key> = reads
            .entities
            .iter()
            .map(|meta| site.space.generation(&meta.name, Generation::List))
            .collect();
        dependencies.extend(
            self.tags
                .iter()
                .flat_map(|tag| tag_keys(&site.cache.settings().prefix, site.space.tenant(), tag)),
        );
        dependencies.sort();
        dependencies.dedup();
        let entity = &E::cached_meta().name;
        Ok((site.space.query(entity, kind, digest), dependencies))
    }
}

/// The digest of a statement with its values, or why there is none.
fn digest(statement: &Statement) -> Result<u128, String> {
    let mut text = Vec::with_capacity(statement.sql.len() + 64);
    text.extend_from_slice(statement.sql.as_bytes());
    text.push(0);
    for value in statement.values.iter().flat_map(|values| &values.0) {
        codec::put_value(&mut text, value).map_err(|error| error.to_string())?;
    }
    Ok(codec::stable_hash128(&text))
}

fn not_cached(meta: &EntityMeta, site: Option<&Site>, reason: &str) {
    if let Some(site) = site {
        let entity = &meta.name;
        site.cache.emit(&Event::NotCached { entity, reason });
    }
}

/// The result that the in-process tier has; else where to read it.
fn held<P: Payload, C: ConnectionTrait>(db: &C, asked: Asked) -> Result<P, Place> {
    let held = probe::held(db, asked)?;
    held.downcast_ref().cloned().ok_or_else(|| locate(db))
}

/// All rows, in the order of the primary key.
pub(super) async fn all<E: CachedEntity, C: ConnectionTrait>(
    db: &C,
) -> Result<Rows<E::Model>, DbErr> {
    let asked = Asked::query(E::cached_meta(), None);
    if let Ok(models) = held::<Models<E>, C>(db, asked) {
        return Ok(models.0);
    }
    // In a box of its own: who is answered from the tier moves nothing of it.
    Box::pin(read_all::<E, C>(db)).await
}

async fn read_all<E: CachedEntity, C: ConnectionTrait>(db: &C) -> Result<Rows<E::Model>, DbErr> {
    let mut select = in_key_order(E::find()).cached();
    select.whole = true;
    select.all(db).await
}

/// The rows of a select.
struct Models<E: EntityTrait>(Rows<E::Model>);

impl<E: EntityTrait> Clone for Models<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: CachedEntity> Payload for Models<E> {
    fn is_present(&self) -> bool {
        !self.0.is_empty()
    }

    fn size(&self, _encoded: usize) -> usize {
        // Of each its place in the list and the two counts of its `Arc`.
        let each = size_of::<E::Model>() + 3 * size_of::<usize>();
        let size = |model: &Arc<_>| each + codec::heap_size(&**model);
        self.0.iter().map(size).sum()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_varint(out, self.0.len() as u64);
        self.0
            .iter()
            .try_for_each(|model| codec::put_row(out, &**model))
    }

    fn decode(_present: bool, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let count = reader.varint()?;
        let mut rows = Vec::new();
        for _ in 0..count {
            rows.push(Arc::new(codec::row::<E>(reader)?));
            if reader.is_empty() && (rows.len() as u64) < count {
                return Err(CodecError::Truncated);
            }
        }
        Ok(Self(rows.into()))
    }
}

#[derive(Clone)]
struct Count(u64);

/// A count has the same bytes whatever the entity's columns are.
const COUNT_FIELD: Fingerprint = Fingerprint(0x636f_756e_7400_0001);

impl Payload for Count {
    fn is_present(&self) -> bool {
        true
    }

    fn size(&self, _encoded: usize) -> usize {
        size_of::<u64>()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_varint(out, self.0);
        Ok(())
    }

    fn decode(_present: bool, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.varint().map(Self)
    }
}

/// How the rows of `R` belong to one row of `M`.
enum Relationship {
    /// They are the row with this primary key.
    ByKey(Pk),
    /// They carry these values in an index.
    ByIndex(usize, Vec<Value>),
    /// Ask by a select.
    ByQuery,
    /// The foreign key is NULL: there is none.
    None,
}

fn relationship<E, R>(model: &E::Model) -> Relationship
where
    E: CachedEntity + Related<R>,
    R: CachedEntity,
{
    let definition = <E as Related<R>>::to();
    if <E as Related<R>>::via().is_some() || definition.on_condition.is_some() {
        return Relationship::ByQuery;
    }
    let from: Vec<_> = columns(&definition.from_col);
    let values: Option<Vec<Value>> = from.iter().map(|name| column_value(model, name)).collect();
    let Some(values) = values else {
        return Relationship::ByQuery;
    };
    if values.iter().any(|value| *value == value.as_null()) {
        return Relationship::None;
    }
    let to = columns(&definition.to_col);
    if is_primary_key::<R>(&to) {
        return Relationship::ByKey(values.into());
    }
    match index_on::<R>(&to) {
        Some(index) => Relationship::ByIndex(index, values),
        None => Relationship::ByQuery,
    }
}

fn columns(identity: &Identity) -> Vec<String> {
    identity.iter().map(ToString::to_string).collect()
}

fn column_value<M: ModelTrait>(model: &M, name: &str) -> Option<Value> {
    let column =
        <M::Entity as EntityTrait>::Column::iter().find(|column| column.as_str() == name)?;
    Some(model.get(column))
}

#[doc(hidden)]
pub async fn related<E, R, C>(model: &E::Model, db: &C) -> Result<Rows<R::Model>, DbErr>
where
    E: CachedEntity + Related<R>,
    R: CachedEntity,
    C: ConnectionTrait,
{
    match relationship::<E, R>(model) {
        Relationship::None => Ok(Rows::from([])),
        Relationship::ByKey(values) => Ok(row_at::<R, C>(values, db).await?.into_iter().collect()),
        Relationship::ByIndex(index, values) => {
            Ok(find_index::<R, C>(index, values, db).await?.into())
        }
        Relationship::ByQuery => model.find_related(R::default()).cached().all(db).await,
    }
}

#[doc(hidden)]
pub async fn related_one<E, R, C>(model: &E::Model, db: &C) -> Result<Option<Arc<R::Model>>, DbErr>
where
    E: CachedEntity + Related<R>,
    R: CachedEntity,
    C: ConnectionTrait,
{
    match relationship::<E, R>(model) {
        Relationship::ByQuery => model.find_related(R::default()).cached().one(db).await,
        _ => Ok(related::<E, R, C>(model, db).await?.first().cloned()),
    }
}
