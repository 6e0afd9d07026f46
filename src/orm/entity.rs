//! What a cached entity can do.

use std::future::Future;
use std::sync::Arc;

use sea_orm::{ConnectionTrait, DbErr, EntityTrait, PrimaryKeyTrait};

use super::meta::EntityMeta;
use super::probe::{Place, locate};
use super::query;
use super::rows::{get, get_many, values};
use super::site::{Site, installed};
use crate::codec::RowCodec;
use crate::config::Consistency;
use crate::error::CacheError;
use crate::invalidation::Invalidation;
use crate::key::Generation;

/// The primary key of an entity.
pub type PrimaryKeyOf<E> = <<E as EntityTrait>::PrimaryKey as PrimaryKeyTrait>::ValueType;

/// Many cached rows: cheap to clone.
pub type Rows<M> = Arc<[Arc<M>]>;

/// An entity whose rows are cached. Derived: `#[derive(CachedEntity)]`.
///
/// The derive adds the same functions to the entity itself, so this trait need not be in scope;
/// it is for code that is generic over entities.
///
/// # Consistency
/// Every read is as fresh as the database for all writes that go through the library; with an
/// in-process tier, as fresh as its [`Consistency`] says. Reads inside a transaction never use the
/// cache.
///
/// A cached row is shared and may be replaced at any moment: to change a row, read it afresh in a
/// transaction (`Entity::find_by_id(id).lock_exclusive().one(&txn)`), change that, and save.
pub trait CachedEntity:
    RowCodec<Model: Send + Sync + 'static, ActiveModel: Send + Sync + 'static>
{
    /// What is known of the entity.
    fn cached_meta() -> &'static EntityMeta;

    /// One row by primary key.
    ///
    /// # Errors
    /// The database's, or [`CacheError::Overloaded`](crate::CacheError::Overloaded).
    fn cached_get<C: ConnectionTrait>(
        pk: impl Into<PrimaryKeyOf<Self>>,
        db: &C,
    ) -> impl Future<Output = Result<Option<Arc<Self::Model>>, DbErr>> + Send {
        get::<Self, C>(pk.into(), db)
    }

    /// Rows by primary key, in the order asked, one answer for each key asked.
    ///
    /// # Errors
    /// The database's, or [`CacheError::Overloaded`](crate::CacheError::Overloaded).
    fn cached_get_many<C: ConnectionTrait>(
        pks: impl IntoIterator<Item = impl Into<PrimaryKeyOf<Self>>>,
        db: &C,
    ) -> impl Future<Output = Result<Vec<Option<Arc<Self::Model>>>, DbErr>> + Send {
        get_many::<Self, C>(pks.into_iter().map(Into::into).collect(), db)
    }

    /// All rows, in the order of the primary key.
    ///
    /// # Errors
    /// The database's, or [`CacheError::Overloaded`](crate::CacheError::Overloaded).
    fn cached_all<C: ConnectionTrait>(
        db: &C,
    ) -> impl Future<Output = Result<Rows<Self::Model>, DbErr>> + Send {
        all::<Self, C>(db)
    }
}

/// The site to read through; `None` where the database is to be asked.
pub(crate) fn reading_site<C: ConnectionTrait>(db: &C, meta: &EntityMeta) -> Option<Site> {
    site_at(locate(db), meta)
}

/// The site to read through at this place; `None` where the database is to be asked.
pub(crate) fn site_at(place: Place, meta: &EntityMeta) -> Option<Site> {
    let site = match place {
        Place::Cached(site) => Some(site),
        Place::Plain => {
            let site = installed();
            if site.is_none() {
                super::hooks::warn_without_cache(&meta.name);
            }
            site
        }
        Place::InTransaction(_) | Place::PlainTransaction | Place::Unknown => None,
    };
    site.filter(|site| site.consistency(meta) != Consistency::Database)
}

#[doc(hidden)]
pub async fn all<E: CachedEntity, C: ConnectionTrait>(db: &C) -> Result<Rows<E::Model>, DbErr> {
    query::all::<E, C>(db).await
}

#[doc(hidden)]
pub async fn invalidate<E: CachedEntity, C: ConnectionTrait>(
    pk: PrimaryKeyOf<E>,
    db: &C,
) -> Result<(), CacheError> {
    invalidate_many::<E, C>(vec![pk], db).await
}

#[doc(hidden)]
pub async fn invalidate_many<E: CachedEntity, C: ConnectionTrait>(
    pks: Vec<PrimaryKeyOf<E>>,
    db: &C,
) -> Result<(), CacheError> {
    let (meta, site) = (E::cached_meta(), writing_site(db)?);
    let mut invalidation = Invalidation::default();
    // The caller says that rows changed, not what they carry now.
    invalidation.add(site.space.generation(&meta.name, Generation::Index));
    for pk in pks {
        let part = meta.key_part(&values(pk), site.backend);
        site.add_row(meta, part.as_ref(), &mut invalidation);
    }
    site.cache.drop_now(site.compact(invalidation)).await
}

#[doc(hidden)]
pub async fn invalidate_all<E: CachedEntity, C: ConnectionTrait>(db: &C) -> Result<(), CacheError> {
    let site = writing_site(db)?;
    let mut invalidation = Invalidation::default();
    site.add_whole(E::cached_meta(), &mut invalidation);
    site.cache.drop_now(invalidation).await
}

fn writing_site<C: ConnectionTrait>(db: &C) -> Result<Site, CacheError> {
    match locate(db) {
        Place::Cached(site) | Place::InTransaction(site) => Ok(site),
        Place::Plain | Place::PlainTransaction | Place::Unknown => {
            installed().ok_or(CacheError::NoCache)
        }
    }
}
