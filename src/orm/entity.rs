//! Cached reads of rows and indexes.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::sea_query::{Condition, IntoValueTuple, Value};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, Iterable, ModelTrait, Order,
    PrimaryKeyToColumn, PrimaryKeyTrait, QueryFilter, QueryOrder, Select, TryIntoModel,
};

use super::meta::EntityMeta;
use super::probe::{Place, locate};
use super::query::QueryCache;
use super::site::{Site, installed};
use crate::codec::{self, CodecError, Reader, put_varint};
use crate::config::Consistency;
use crate::error::CacheError;
use crate::fill::{Fetched, Payload, Request, Shape};
use crate::invalidation::Invalidation;
use crate::key::{Generation, KeyPart};
use crate::observe::Event;

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
/// Every read is as fresh as the database for all writes that go through the library. Reads inside
/// a transaction never use the cache.
///
/// A cached row is shared and may be replaced at any moment: to change a row, read it afresh in a
/// transaction (`Entity::find_by_id(id).lock_exclusive().one(&txn)`), change that, and save.
pub trait CachedEntity:
    EntityTrait<
        Model: Send + Sync + 'static,
        ActiveModel: TryIntoModel<<Self as EntityTrait>::Model> + Send + Sync + 'static,
    >
{
    /// What is known of the entity.
    fn cached_meta() -> &'static EntityMeta;

    /// One row by primary key.
    ///
    /// # Errors
    /// Only the database's.
    fn cached_get<C: ConnectionTrait>(
        pk: impl Into<PrimaryKeyOf<Self>>,
        db: &C,
    ) -> impl Future<Output = Result<Option<Arc<Self::Model>>, DbErr>> + Send {
        get::<Self, C>(pk.into(), db)
    }

    /// Rows by primary key, in the order asked, one answer for each key asked.
    ///
    /// # Errors
    /// Only the database's.
    fn cached_get_many<C: ConnectionTrait>(
        pks: impl IntoIterator<Item = impl Into<PrimaryKeyOf<Self>>>,
        db: &C,
    ) -> impl Future<Output = Result<Vec<Option<Arc<Self::Model>>>, DbErr>> + Send {
        get_many::<Self, C>(pks.into_iter().map(Into::into).collect(), db)
    }

    /// All rows, in the order of the primary key.
    ///
    /// # Errors
    /// Only the database's.
    fn cached_all<C: ConnectionTrait>(
        db: &C,
    ) -> impl Future<Output = Result<Rows<Self::Model>, DbErr>> + Send {
        all::<Self, C>(db)
    }
}

/// The site to read through; `None` where the database is to be asked.
pub(crate) fn reading_site<C: ConnectionTrait>(db: &C, meta: &EntityMeta) -> Option<Site> {
    if meta.policy.consistency == Consistency::Database {
        return None;
    }
    match locate(db) {
        Place::Cached(site) => Some(site),
        Place::Plain => {
            let site = installed();
            if site.is_none() {
                super::hooks::warn_without_cache(&meta.name);
            }
            site
        }
        Place::InTransaction(_) | Place::PlainTransaction | Place::Unknown => None,
    }
}

/// One row, or the knowledge that there is none.
struct Row<E: EntityTrait>(Option<Arc<E::Model>>);

impl<E: CachedEntity> Payload for Row<E> {
    fn is_present(&self) -> bool {
        self.0.is_some()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0
            .as_ref()
            .map_or(Ok(()), |model| codec::put_row(out, &**model))
    }

    fn decode(present: bool, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let model = if present {
            Some(Arc::new(codec::row::<E>(reader)?))
        } else {
            None
        };
        Ok(Self(model))
    }
}

/// What depends on what: a row on `rows`, "no such row" on `list` as well, because an INSERT whose
/// key the database makes names no row.
fn row_shape<'a>(meta: &'a EntityMeta, site: &Site) -> Shape<'a> {
    let generation = |generation| site.space.generation(&meta.name, generation);
    Shape {
        entity: &meta.name,
        field: meta.fingerprint,
        dependencies: vec![generation(Generation::Rows), generation(Generation::List)],
        present_needs: 1,
        policy: &meta.policy,
    }
}

fn values(tuple: impl IntoValueTuple) -> Vec<Value> {
    tuple.into_value_tuple().into_iter().collect()
}

/// The exact values asked for, encoded, where several may share a key; nothing where none do.
fn asked(meta: &EntityMeta, columns: &[usize], values: &[Value], site: &Site) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if meta.kinds(columns).any(|kind| kind.is_folded(site.backend)) {
        values
            .iter()
            .try_for_each(|value| codec::put_value(&mut out, value))
            .ok()?;
    }
    Some(out)
}

fn pk_of<M: ModelTrait>(model: &M) -> Vec<Value> {
    <M::Entity as EntityTrait>::PrimaryKey::iter()
        .map(|key| model.get(key.into_column()))
        .collect()
}

fn pk_filter<E: EntityTrait>(pks: &[&[Value]]) -> Condition {
    let columns: Vec<E::Column> = E::PrimaryKey::iter()
        .map(PrimaryKeyToColumn::into_column)
        .collect();
    if let [column] = columns[..] {
        return Condition::all().add(column.is_in(pks.iter().filter_map(|pk| pk.first().cloned())));
    }
    pks.iter().fold(Condition::any(), |any, pk| {
        any.add(
            columns
                .iter()
                .zip(*pk)
                .fold(Condition::all(), |all, (column, value)| {
                    all.add(column.eq(value.clone()))
                }),
        )
    })
}

#[doc(hidden)]
pub async fn get<E: CachedEntity, C: ConnectionTrait>(
    pk: PrimaryKeyOf<E>,
    db: &C,
) -> Result<Option<Arc<E::Model>>, DbErr> {
    row_at::<E, C>(values(pk), db).await
}

/// One row by the values of its primary key, which may be of other types than the key's columns.
pub(crate) async fn row_at<E: CachedEntity, C: ConnectionTrait>(
    pk: Vec<Value>,
    db: &C,
) -> Result<Option<Arc<E::Model>>, DbErr> {
    let rows = match reading_site(db, E::cached_meta()) {
        Some(site) => rows_at::<E, C>(&site, vec![pk], db).await,
        None => load_rows::<E, C>(&[&pk], db).await,
    };
    Ok(rows?.pop().flatten())
}

#[doc(hidden)]
pub async fn get_many<E: CachedEntity, C: ConnectionTrait>(
    pks: Vec<PrimaryKeyOf<E>>,
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    let pks: Vec<Vec<Value>> = pks.into_iter().map(values).collect();
    match reading_site(db, E::cached_meta()) {
        Some(site) => rows_at::<E, C>(&site, pks, db).await,
        None => load_rows::<E, C>(&pks.iter().map(Vec::as_slice).collect::<Vec<_>>(), db).await,
    }
}

/// Rows by primary key through the cache, in the order asked.
async fn rows_at<E: CachedEntity, C: ConnectionTrait>(
    site: &Site,
    pks: Vec<Vec<Value>>,
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    let meta = E::cached_meta();
    let mut requests: Vec<(Request, Vec<Value>)> = Vec::new();
    let mut unkeyed: Vec<Vec<Value>> = Vec::new();
    let mut places: HashMap<(KeyPart, Vec<u8>), usize> = HashMap::new();
    let mut parts: HashSet<KeyPart> = HashSet::new();
    let mut order = Vec::with_capacity(pks.len());
    for pk in pks {
        let part = meta.key_part(&pk, site.backend);
        let asked = asked(meta, &meta.primary_key, &pk, site);
        // Two spellings that share a key cannot both be answered by its one entry.
        order.push(match part.zip(asked) {
            Some((part, asked)) => match places.get(&(part.clone(), asked.clone())) {
                Some(place) => Slot::Keyed(*place),
                None if !parts.insert(part.clone()) => {
                    unkeyed.push(pk);
                    Slot::Unkeyed(unkeyed.len() - 1)
                }
                None => {
                    let key = site.space.row(&meta.name, &part);
                    requests.push((
                        Request {
                            key,
                            asked: asked.clone(),
                            outdated: None,
                        },
                        pk,
                    ));
                    places.insert((part, asked), requests.len() - 1);
                    Slot::Keyed(requests.len() - 1)
                }
            },
            None => {
                unkeyed.push(pk);
                Slot::Unkeyed(unkeyed.len() - 1)
            }
        });
    }
    let (requests, pks): (Vec<Request>, Vec<Vec<Value>>) = requests.into_iter().unzip();
    let keyed: Vec<Fetched<Row<E>>> = if requests.is_empty() {
        Vec::new()
    } else {
        site.cache
            .fetch(&row_shape(meta, site), requests, |wanted| {
                load_payloads::<E, C>(&pks, wanted, db)
            })
            .await?
    };
    let unkeyed = unkeyed_rows::<E, C>(site, &unkeyed, db).await?;
    Ok(order
        .into_iter()
        .map(|slot| match slot {
            Slot::Keyed(place) => keyed.get(place).and_then(|fetched| fetched.value.0.clone()),
            Slot::Unkeyed(place) => unkeyed.get(place).cloned().flatten(),
        })
        .collect())
}

enum Slot {
    Keyed(usize),
    Unkeyed(usize),
}

async fn load_payloads<E: CachedEntity, C: ConnectionTrait>(
    pks: &[Vec<Value>],
    wanted: Vec<usize>,
    db: &C,
) -> Result<Vec<Row<E>>, DbErr> {
    let wanted: Vec<&[Value]> = wanted
        .into_iter()
        .map(|place| pks[place].as_slice())
        .collect();
    Ok(load_rows::<E, C>(&wanted, db)
        .await?
        .into_iter()
        .map(Row)
        .collect())
}

async fn unkeyed_rows<E: CachedEntity, C: ConnectionTrait>(
    site: &Site,
    pks: &[Vec<Value>],
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    if pks.is_empty() {
        return Ok(Vec::new());
    }
    count_unkeyed(site, E::cached_meta(), pks.len());
    load_rows::<E, C>(&pks.iter().map(Vec::as_slice).collect::<Vec<_>>(), db).await
}

fn count_unkeyed(site: &Site, meta: &EntityMeta, keys: usize) {
    site.cache.emit(&Event::Lookup {
        entity: &meta.name,
        hits: 0,
        absent_hits: 0,
        misses: keys as u64,
    });
    site.cache.emit(&Event::Load { entity: &meta.name });
}

/// This many keys go into one query: well under every database's limit of parameters.
const KEYS_PER_QUERY: usize = 1_000;

/// The same for keys of several columns. Their condition is as deep a tree as there are keys, and
/// SQLite takes none deeper than 1,000, nor does the stack of whoever builds it.
const COMPOSITE_KEYS_PER_QUERY: usize = 100;

/// Rows by primary key from the database, in the order asked.
async fn load_rows<E: CachedEntity, C: ConnectionTrait>(
    pks: &[&[Value]],
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    let mut found = Vec::with_capacity(pks.len());
    let size = match E::cached_meta().primary_key[..] {
        [_] => KEYS_PER_QUERY,
        _ => COMPOSITE_KEYS_PER_QUERY,
    };
    for chunk in pks.chunks(size) {
        let rows = E::find().filter(pk_filter::<E>(chunk)).all(db).await?;
        let rows: Vec<(Vec<Value>, Arc<E::Model>)> = rows
            .into_iter()
            .map(|row| (pk_of(&row), Arc::new(row)))
            .collect();
        if let ([_], [(_, row)]) = (chunk, &rows[..]) {
            // The database says which row has this key, whatever it takes for equal.
            found.push(Some(row.clone()));
            continue;
        }
        let (meta, backend) = (E::cached_meta(), db.get_database_backend());
        let parts: HashSet<Option<KeyPart>> = rows
            .iter()
            .map(|(key, _)| meta.key_part(key, backend))
            .collect();
        for pk in chunk {
            let exact = find_row(&rows, &parts, pk, || meta.key_part(pk, backend));
            found.push(match exact {
                Match::Exact(row) => Some(row),
                Match::None => None,
                Match::Unsure => E::find()
                    .filter(pk_filter::<E>(&[pk]))
                    .one(db)
                    .await?
                    .map(Arc::new),
            });
        }
    }
    Ok(found)
}

enum Match<M> {
    Exact(Arc<M>),
    None,
    /// No row has exactly this key, and some row may have one that the database calls equal.
    Unsure,
}

/// Keys that the database calls equal share a part. Of a key without one nothing is known.
fn find_row<M>(
    rows: &[(Vec<Value>, Arc<M>)],
    parts: &HashSet<Option<KeyPart>>,
    pk: &[Value],
    part: impl FnOnce() -> Option<KeyPart>,
) -> Match<M> {
    if let Some((_, row)) = rows.iter().find(|(key, _)| key == pk) {
        return Match::Exact(row.clone());
    }
    let part = part();
    let equal = part.is_none() || parts.contains(&None) || parts.contains(&part);
    if equal && !rows.is_empty() {
        Match::Unsure
    } else {
        Match::None
    }
}

#[doc(hidden)]
pub async fn all<E: CachedEntity, C: ConnectionTrait>(db: &C) -> Result<Rows<E::Model>, DbErr> {
    in_key_order(E::find()).cached().all(db).await
}

fn in_key_order<E: EntityTrait>(select: Select<E>) -> Select<E> {
    E::PrimaryKey::iter().fold(select, |select, key| {
        select.order_by(key.into_column(), Order::Asc)
    })
}

/// An index entry: the primary keys of the rows that carried the value when it was filled.
struct Keys {
    pks: Vec<Vec<Value>>,
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

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_varint(out, self.pks.len() as u64);
        put_varint(out, self.pks.first().map_or(0, Vec::len) as u64);
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
                .collect::<Result<Vec<_>, _>>()?;
            if pk.is_empty() {
                return Err(CodecError::Corrupt("a primary key without columns"));
            }
            pks.push(pk);
        }
        Ok(Self { pks, exact: true })
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
        let mut request = Request {
            key,
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
        let shape = self.shape(site);
        let fetched = site
            .cache
            .fetch(&shape, vec![request], |_| async {
                let rows = self.load(db).await?;
                let keys = Keys {
                    pks: rows.iter().map(|row| pk_of(&**row)).collect(),
                    exact: rows.iter().all(|row| self.carries(row)),
                };
                *loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
                Ok(vec![keys])
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
        let rows = rows_at::<E, C>(site, entry.value.pks.clone(), db).await?;
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

    /// Index entries name rows by value, so they depend on writes whose values are not known, and on
    /// those whose rows are not known.
    fn shape(&self, site: &Site) -> Shape<'static> {
        let generation = |generation| site.space.generation(&self.meta.name, generation);
        Shape {
            entity: &self.meta.name,
            field: self.meta.fingerprint,
            dependencies: vec![generation(Generation::Rows), generation(Generation::Index)],
            present_needs: 2,
            policy: &self.meta.policy,
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
    site.cache.drop_now(&site.compact(invalidation)).await
}

#[doc(hidden)]
pub async fn invalidate_all<E: CachedEntity, C: ConnectionTrait>(db: &C) -> Result<(), CacheError> {
    let site = writing_site(db)?;
    let mut invalidation = Invalidation::default();
    site.add_whole(E::cached_meta(), &mut invalidation);
    site.cache.drop_now(&invalidation).await
}

fn writing_site<C: ConnectionTrait>(db: &C) -> Result<Site, CacheError> {
    match locate(db) {
        Place::Cached(site) | Place::InTransaction(site) => Ok(site),
        Place::Plain | Place::PlainTransaction | Place::Unknown => {
            installed().ok_or(CacheError::NoCache)
        }
    }
}
