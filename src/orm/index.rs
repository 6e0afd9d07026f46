//! Rows by the value of an index.
//!
//! An index entry holds primary keys; the rows are then read as rows, and tell whether the entry
//! still tells the truth.

use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::sea_query::Value;
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, Iterable, ModelTrait, QueryFilter};
use smallvec::smallvec;

use super::entity::{CachedEntity, reading_site};
use super::meta::EntityMeta;
use super::rows::{asked, count_unkeyed, in_key_order, pk_of, rows_at};
use super::site::Site;
use crate::codec::{self, CodecError, Reader, put_varint};
use crate::fill::{Fetched, Payload, Request, Shape, within};
use crate::key::{EntityKeys, KeyPart, Pk};
use crate::tier::Id;

/// An index entry: the primary keys of the rows that carried the value when it was filled.
#[derive(Clone)]
struct Keys {
    pks: Arc<[Pk]>,
    /// Whether every row's own value was exactly the one asked for.
    exact: bool,
}

impl Payload for Keys {
    fn is_present(&self) -> bool {
        !self.pks.is_empty()
    }

    fn is_storable(&self) -> bool {
        self.exact
    }

    fn size(&self, encoded: usize) -> usize {
        encoded + self.pks.len() * size_of::<Pk>()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_varint(out, self.pks.len() as u64);
        put_varint(out, self.pks.first().map_or(0, Pk::len) as u64);
        self.pks
            .iter()
            .flatten()
            .try_for_each(|value| codec::put_value(out, value))
    }

    fn decode(_present: bool, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (rows, columns) = (reader.varint()?, reader.varint()?);
        let mut pks = Vec::new();
        for _ in 0..rows {
            let pk = (0..columns)
                .map(|_| reader.value())
                .collect::<Result<Pk, _>>()?;
            if pk.is_empty() {
                return Err(CodecError::Corrupt("a primary key without columns"));
            }
            pks.push(pk);
        }
        Ok(Self {
            pks: pks.into(),
            exact: true,
        })
    }
}

#[doc(hidden)]
pub async fn find_unique<E: CachedEntity, C: ConnectionTrait>(
    index: usize,
    values: Vec<Value>,
    db: &C,
) -> Result<Option<Arc<E::Model>>, DbErr> {
    Ok(find_index::<E, C>(index, values, db)
        .await?
        .into_iter()
        .next())
}

#[doc(hidden)]
pub async fn find_index<E: CachedEntity, C: ConnectionTrait>(
    index: usize,
    values: Vec<Value>,
    db: &C,
) -> Result<Vec<Arc<E::Model>>, DbErr> {
    let lookup = IndexLookup::<E>::new(index, values);
    let Some(site) = reading_site(db, lookup.meta) else {
        return lookup.load(db).await;
    };
    lookup.run(&site, db).await
}

/// A lookup by the value of an index.
struct IndexLookup<E: CachedEntity> {
    meta: &'static EntityMeta,
    index: usize,
    columns: Vec<E::Column>,
    values: Vec<Value>,
}

/// How often an entry found outdated is looked up again before the database answers alone.
const INDEX_ATTEMPTS: usize = 3;

impl<E: CachedEntity> IndexLookup<E> {
    fn new(index: usize, values: Vec<Value>) -> Self {
        let meta = E::cached_meta();
        let all: Vec<E::Column> = E::Column::iter().collect();
        let columns = meta.indexes[index]
            .columns
            .iter()
            .map(|position| all[*position])
            .collect();
        Self {
            meta,
            index,
            columns,
            values,
        }
    }

    async fn run<C: ConnectionTrait>(
        &self,
        site: &Site,
        db: &C,
    ) -> Result<Vec<Arc<E::Model>>, DbErr> {
        let spec = &self.meta.indexes[self.index];
        let part = KeyPart::of(self.meta.kinds(&spec.columns), &self.values, site.backend);
        let asked = asked(self.meta, &spec.columns, &self.values, site);
        let Some((part, asked)) = part.zip(asked) else {
            count_unkeyed(site, self.meta, 1);
            return self.load(db).await;
        };
        let key = site.space.index(&self.meta.name, &spec.name, &part);
        let id = Id::Entry(key.clone(), self.meta.fingerprint);
        let mut request = Request {
            key,
            id,
            asked,
            outdated: None,
        };
        for _ in 0..INDEX_ATTEMPTS {
            match self.attempt(site, request.clone(), db).await? {
                Ok(rows) => return Ok(rows),
                Err(outdated) => request.outdated = Some(outdated),
            }
        }
        self.load(db).await
    }

    /// The rows, or the seal of an entry that no longer tells the truth.
    async fn attempt<C: ConnectionTrait>(
        &self,
        site: &Site,
        request: Request,
        db: &C,
    ) -> Result<Result<Vec<Arc<E::Model>>, u64>, DbErr> {
        let loaded: Mutex<Option<Vec<Arc<E::Model>>>> = Mutex::new(None);
        let keys = site.space.entity(self.meta.id, &self.meta.name);
        let shape = self.shape(site, &keys);
        let fetched = site
            .cache
            .fetch(&shape, smallvec![request], |_| async {
                let _place = site.cache.begin_load(&self.meta.name).await?;
                let rows = within(&self.meta.policy, &self.meta.name, self.load(db)).await?;
                let keys = Keys {
                    pks: rows.iter().map(|row| pk_of(&**row)).collect(),
                    exact: rows.iter().all(|row| self.carries(row)),
                };
                *loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
                Ok::<_, DbErr>(vec![keys])
            })
            .await?;
        if let Some(rows) = loaded.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Ok(rows));
        }
        let Some(fetched) = fetched.into_iter().next() else {
            return Ok(Ok(Vec::new()));
        };
        self.verify(site, fetched, db).await
    }

    /// Reads the rows that an entry names. A row that is gone or carries another value means that the
    /// entry is outdated: nobody fences the entries of *old* values.
    async fn verify<C: ConnectionTrait>(
        &self,
        site: &Site,
        entry: Fetched<Keys>,
        db: &C,
    ) -> Result<Result<Vec<Arc<E::Model>>, u64>, DbErr> {
        let named = entry.value.pks.len();
        let rows = rows_at::<E, C>(site, entry.value.pks.to_vec(), db).await?;
        let rows: Vec<_> = rows
            .into_iter()
            .flatten()
            .filter(|row| self.carries(row))
            .collect();
        match entry.seal {
            _ if rows.len() == named => Ok(Ok(rows)),
            Some(seal) => Ok(Err(seal)),
            // Another's load of this moment: what has changed since is concurrent, but a list must
            // not be a mix of two moments.
            None => self.load(db).await.map(Ok),
        }
    }

    fn carries(&self, row: &E::Model) -> bool {
        self.columns
            .iter()
            .zip(&self.values)
            .all(|(column, value)| row.get(*column) == *value)
    }

    fn shape<'k>(&self, site: &Site, keys: &'k EntityKeys) -> Shape<'k> {
        let dependencies = keys.of_index();
        Shape {
            entity: &self.meta.name,
            field: self.meta.fingerprint,
            dependencies,
            present_needs: dependencies.keys.len(),
            policy: &self.meta.policy,
            bounded: site.is_bounded(self.meta),
            own: false,
        }
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Vec<Arc<E::Model>>, DbErr> {
        let select = self
            .columns
            .iter()
            .zip(&self.values)
            .fold(E::find(), |select, (column, value)| {
                select.filter(column.eq(value.clone()))
            });
        Ok(in_key_order(select)
            .all(db)
            .await?
            .into_iter()
            .map(Arc::new)
            .collect())
    }
}

/// The rows of `R` that have this value in `columns`, if `R` has a cached index on just these.
pub(crate) fn index_on<R: CachedEntity>(columns: &[String]) -> Option<usize> {
    let meta = R::cached_meta();
    meta.indexes.iter().position(|index| {
        index.columns.len() == columns.len()
            && index
                .columns
                .iter()
                .zip(columns)
                .all(|(position, column)| meta.columns[*position].name == *column)
    })
}

/// Whether `columns` are just the primary key of `R`.
pub(crate) fn is_primary_key<R: CachedEntity>(columns: &[String]) -> bool {
    let meta = R::cached_meta();
    meta.primary_key.len() == columns.len()
        && meta
            .primary_key
            .iter()
            .zip(columns)
            .all(|(position, column)| meta.columns[*position].name == *column)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<usize, CodecError> {
        Keys::decode(true, &mut Reader::new(bytes)).map(|keys| keys.pks.len())
    }

    #[test]
    fn a_list_that_claims_more_keys_than_it_holds_is_an_error() {
        let numbers = |all: &[u64]| {
            let mut out = Vec::new();
            all.iter().for_each(|n| put_varint(&mut out, *n));
            out
        };
        assert_eq!(decode(&numbers(&[0, 0])), Ok(0));
        for claims in [
            [1 << 60, 1],
            [1, 1 << 60],
            [1 << 60, 1 << 60],
            [u64::MAX, u64::MAX],
        ] {
            assert_eq!(
                decode(&numbers(&claims)),
                Err(CodecError::Truncated),
                "{claims:?}"
            );
        }
        assert!(matches!(
            decode(&numbers(&[1 << 60, 0])),
            Err(CodecError::Corrupt(_))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
