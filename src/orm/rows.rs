//! Rows by primary key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::slice;
use std::sync::Arc;

use quick_cache::DefaultHashBuilder;
use sea_orm::sea_query::{Condition, IntoValueTuple, Value, ValueTuple};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, Iterable, ModelTrait, Order,
    PrimaryKeyToColumn, QueryFilter, QueryOrder, Select,
};
use smallvec::smallvec;

use super::entity::{CachedEntity, PrimaryKeyOf, reading_site, site_at};
use super::meta::EntityMeta;
use super::probe::{self, Asked, Place, locate};
use super::site::Site;
use crate::codec::{self, CodecError, Reader};
use crate::fill::{Fetched, Few, Payload, Request, Shape, within};
use crate::gather::{Load, Wanted};
use crate::key::{EntityKeys, Key, KeyPart, Pk};
use crate::observe::Event;
use crate::tier::{self, Held, Id};

/// One row, or the knowledge that there is none.
struct Row<E: EntityTrait>(Option<Arc<E::Model>>);

impl<E: EntityTrait> Clone for Row<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: CachedEntity> Payload for Row<E> {
    fn is_present(&self) -> bool {
        self.0.is_some()
    }

    fn size(&self, _encoded: usize) -> usize {
        let size = |model: &Arc<_>| size_of::<E::Model>() + codec::heap_size(&**model);
        self.0.as_ref().map_or(0, size)
    }

    /// The row itself: one pointer less to follow.
    fn hold(&self) -> tier::Value {
        match &self.0 {
            Some(row) => row.clone(),
            None => Arc::new(()),
        }
    }

    fn held(held: &Held) -> Option<Self> {
        row_held(held.value.clone()).map(Self)
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

fn row_shape<'a>(meta: &'a EntityMeta, site: &Site, keys: &'a EntityKeys) -> Shape<'a> {
    let dependencies = keys.of_rows();
    Shape {
        entity: &meta.name,
        field: meta.fingerprint,
        dependencies,
        present_needs: 1,
        policy: &meta.policy,
        bounded: site.is_bounded(meta),
        own: false,
    }
}

pub(crate) fn values(tuple: impl IntoValueTuple) -> Pk {
    match tuple.into_value_tuple() {
        ValueTuple::One(value) => smallvec![value],
        several => several.into_iter().collect(),
    }
}

/// The exact values asked for, encoded, where several may share a key; nothing where none do.
pub(super) fn asked(
    meta: &EntityMeta,
    columns: &[usize],
    values: &[Value],
    site: &Site,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if meta.kinds(columns).any(|kind| kind.is_folded(site.backend)) {
        values
            .iter()
            .try_for_each(|value| codec::put_value(&mut out, value))
            .ok()?;
    }
    Some(out)
}

pub(crate) fn pk_of<M: ModelTrait>(model: &M) -> Pk {
    <M::Entity as EntityTrait>::PrimaryKey::iter()
        .map(|key| model.get(key.into_column()))
        .collect()
}

pub(crate) fn pk_filter<E: EntityTrait>(pks: &[&[Value]]) -> Condition {
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
    let pk = pk.into_value_tuple();
    let place = match &pk {
        ValueTuple::One(value) => match held::<E, C>(value, db) {
            Ok(row) => return Ok(row),
            Err(place) => place,
        },
        _ => locate(db),
    };
    // In a box of its own: who is answered from the tier moves nothing of it.
    Box::pin(read_row::<E, C>(place, values(pk), db)).await
}

/// The row that the in-process tier has; else where to read it.
#[inline]
fn held<E: CachedEntity, C: ConnectionTrait>(
    pk: &Value,
    db: &C,
) -> Result<Option<Arc<E::Model>>, Place> {
    let meta = E::cached_meta();
    let Some(row) = meta.row_id(pk) else {
        return Err(locate(db));
    };
    let held = probe::held(db, Asked::row(meta, row))?;
    row_held(held).ok_or_else(|| locate(db))
}

/// The row that is held like this, or that there is none.
#[inline]
fn row_held<M: Send + Sync + 'static>(held: tier::Value) -> Option<Option<Arc<M>>> {
    match held.downcast() {
        Ok(row) => Some(Some(row)),
        Err(held) => held.is::<()>().then_some(None),
    }
}

async fn read_row<E: CachedEntity, C: ConnectionTrait>(
    place: Place,
    pk: Pk,
    db: &C,
) -> Result<Option<Arc<E::Model>>, DbErr> {
    match site_at(place, E::cached_meta()) {
        Some(site) => one_row::<E, C>(&site, pk, db).await,
        None => {
            let rows = Box::pin(load_rows::<E, C>(&[&pk], db)).await;
            Ok(rows?.pop().flatten())
        }
    }
}

/// A row through the cache.
async fn one_row<E: CachedEntity, C: ConnectionTrait>(
    site: &Site,
    pk: Pk,
    db: &C,
) -> Result<Option<Arc<E::Model>>, DbErr> {
    let meta = E::cached_meta();
    let keys = site.space.entity(meta.id, &meta.name);
    let Some(request) = row_request(meta, site, &keys, &pk) else {
        let rows = Box::pin(unkeyed_rows::<E, C>(site, slice::from_ref(&pk), db)).await;
        return Ok(rows?.pop().flatten());
    };
    let shape = row_shape(meta, site, &keys);
    let load = |wanted| load_payloads::<E, C>(site, slice::from_ref(&pk), wanted, db);
    let fetched = site.cache.fetch(&shape, smallvec![request], load).await?;
    Ok(fetched.into_iter().next().and_then(|row| row.value.0))
}

/// How the row is asked for; `None` if it cannot be keyed.
fn row_request(meta: &EntityMeta, site: &Site, keys: &EntityKeys, pk: &[Value]) -> Option<Request> {
    let key = keys.row(meta.kinds(&meta.primary_key), pk, site.backend)?;
    let asked = asked(meta, &meta.primary_key, pk, site)?;
    Some(Request {
        id: row_id(meta, site, pk, &key),
        key,
        asked,
        outdated: None,
    })
}

/// One row by the values of its primary key, which may be of other types than the key's columns.
pub(crate) async fn row_at<E: CachedEntity, C: ConnectionTrait>(
    pk: Pk,
    db: &C,
) -> Result<Option<Arc<E::Model>>, DbErr> {
    read_row::<E, C>(locate(db), pk, db).await
}

#[doc(hidden)]
pub async fn get_many<E: CachedEntity, C: ConnectionTrait>(
    pks: Vec<PrimaryKeyOf<E>>,
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    let pks: Vec<Pk> = pks.into_iter().map(values).collect();
    match reading_site(db, E::cached_meta()) {
        Some(site) => rows_at::<E, C>(&site, pks, db).await,
        None => load_rows::<E, C>(&pks.iter().map(Pk::as_slice).collect::<Vec<_>>(), db).await,
    }
}

/// Rows by primary key through the cache, in the order asked.
pub(super) async fn rows_at<E: CachedEntity, C: ConnectionTrait>(
    site: &Site,
    pks: Vec<Pk>,
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    if site.cache.tier().is_none() {
        return rows_in_store::<E, C>(site, pks, db).await;
    }
    let held: Vec<Option<Row<E>>> = pks.iter().map(|pk| held_row(site, pk)).collect();
    let open = pks.into_iter().zip(&held);
    let open: Vec<Pk> = open
        .filter_map(|(pk, held)| held.is_none().then_some(pk))
        .collect();
    let asked = match open.is_empty() {
        true => Vec::new(),
        false => Box::pin(rows_in_store::<E, C>(site, open, db)).await?,
    };
    let mut asked = asked.into_iter();
    let row = |held: Option<Row<E>>| match held {
        Some(row) => row.0,
        None => asked.next().flatten(),
    };
    Ok(held.into_iter().map(row).collect())
}

/// The row that the in-process tier has.
fn held_row<E: CachedEntity>(site: &Site, pk: &Pk) -> Option<Row<E>> {
    let meta = E::cached_meta();
    let [value] = &pk[..] else { return None };
    row_held(site.held(meta, meta.id, meta.row_id(value)?)?).map(Row)
}

/// The same of rows that the in-process tier does not have.
async fn rows_in_store<E: CachedEntity, C: ConnectionTrait>(
    site: &Site,
    mut pks: Vec<Pk>,
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    let meta = E::cached_meta();
    if pks.len() < 2 {
        let row = pks.pop().map(|pk| one_row::<E, C>(site, pk, db));
        return match row {
            Some(row) => Ok(vec![row.await?]),
            None => Ok(Vec::new()),
        };
    }
    let keys = site.space.entity(meta.id, &meta.name);
    let RowPlan {
        requests,
        keyed: pks,
        unkeyed,
        order,
    } = RowPlan::new(meta, site, &keys, pks);
    let keyed: Few<Fetched<Row<E>>> = if requests.is_empty() {
        Few::new()
    } else {
        site.cache
            .fetch(&row_shape(meta, site, &keys), requests, |wanted| {
                load_payloads::<E, C>(site, &pks, wanted, db)
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

/// How the rows of some primary keys are read.
struct RowPlan {
    /// Through the cache, each key once.
    requests: Few<Request>,
    /// The primary keys of the requests.
    keyed: Vec<Pk>,
    /// From the database alone.
    unkeyed: Vec<Pk>,
    /// For each primary key asked for, where its row is to be found.
    order: Vec<Slot>,
}

enum Slot {
    Keyed(usize),
    Unkeyed(usize),
}

impl RowPlan {
    fn new(meta: &EntityMeta, site: &Site, keys: &EntityKeys, pks: Vec<Pk>) -> Self {
        let mut plan = Self {
            requests: Few::with_capacity(pks.len()),
            keyed: Vec::with_capacity(pks.len()),
            unkeyed: Vec::new(),
            order: Vec::with_capacity(pks.len()),
        };
        let hasher = DefaultHashBuilder::default();
        let mut places: HashMap<Key, usize, _> =
            HashMap::with_capacity_and_hasher(pks.len(), hasher);
        for pk in pks {
            let slot = match row_request(meta, site, keys, &pk) {
                None => plan.unkeyed(pk),
                Some(request) => match places.entry(request.key.clone()) {
                    Entry::Vacant(place) => {
                        place.insert(plan.requests.len());
                        plan.keyed(pk, request)
                    }
                    Entry::Occupied(place)
                        if plan.requests[*place.get()].asked == request.asked =>
                    {
                        Slot::Keyed(*place.get())
                    }
                    // Two spellings that share a key cannot both be answered by its one entry.
                    Entry::Occupied(_) => plan.unkeyed(pk),
                },
            };
            plan.order.push(slot);
        }
        plan
    }

    fn keyed(&mut self, pk: Pk, request: Request) -> Slot {
        self.keyed.push(pk);
        self.requests.push(request);
        Slot::Keyed(self.requests.len() - 1)
    }

    fn unkeyed(&mut self, pk: Pk) -> Slot {
        self.unkeyed.push(pk);
        Slot::Unkeyed(self.unkeyed.len() - 1)
    }
}

/// The row's name in the in-process tier.
fn row_id(meta: &EntityMeta, site: &Site, pk: &[Value], key: &Key) -> Id {
    let single = match pk {
        [value] => meta.row_id(value),
        _ => None,
    };
    match single {
        Some(row) => Id::Row(site.space.clone(), meta.id, row),
        None => Id::Entry(key.clone(), meta.fingerprint),
    }
}

/// The rows of some of `pks`, loaded with those that other readers want at the same moment.
async fn load_payloads<E: CachedEntity, C: ConnectionTrait>(
    site: &Site,
    pks: &[Pk],
    wanted: Vec<usize>,
    db: &C,
) -> Result<Vec<Row<E>>, DbErr> {
    let load = Load {
        cache: &site.cache,
        gathers: site.cache.gathers(),
        space: &site.space,
        entity: &E::cached_meta().name,
        most: keys_per_query::<E>(),
    };
    let wanted = wanted.into_iter().map(|place| pks[place].clone()).collect();
    let query = |wanted: Vec<Wanted>| async move {
        let pks: Vec<&[Value]> = wanted
            .iter()
            .flat_map(|pks| pks.iter().map(Pk::as_slice))
            .collect();
        load_rows::<E, C>(&pks, db).await
    };
    let meta = E::cached_meta();
    let rows = within(&meta.policy, &meta.name, load.run(wanted, query)).await?;
    Ok(rows.into_iter().map(Row).collect())
}

async fn unkeyed_rows<E: CachedEntity, C: ConnectionTrait>(
    site: &Site,
    pks: &[Pk],
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    if pks.is_empty() {
        return Ok(Vec::new());
    }
    count_unkeyed(site, E::cached_meta(), pks.len());
    load_rows::<E, C>(&pks.iter().map(Pk::as_slice).collect::<Vec<_>>(), db).await
}

pub(super) fn count_unkeyed(site: &Site, meta: &EntityMeta, keys: usize) {
    site.cache.emit(&Event::Lookup {
        entity: &meta.name,
        hits: 0,
        l1_hits: 0,
        absent_hits: 0,
        misses: keys as u64,
    });
    let _loading = site.cache.loading(&meta.name);
}

/// This many keys go into one query: well under every database's limit of parameters.
const KEYS_PER_QUERY: usize = 1_000;

/// The same for keys of several columns. Their condition is as deep a tree as there are keys, and
/// SQLite takes none deeper than 1,000, nor does the stack of whoever builds it.
const COMPOSITE_KEYS_PER_QUERY: usize = 100;

fn keys_per_query<E: CachedEntity>() -> usize {
    match E::cached_meta().primary_key[..] {
        [_] => KEYS_PER_QUERY,
        _ => COMPOSITE_KEYS_PER_QUERY,
    }
}

/// Rows by primary key from the database, in the order asked.
async fn load_rows<E: CachedEntity, C: ConnectionTrait>(
    pks: &[&[Value]],
    db: &C,
) -> Result<Vec<Option<Arc<E::Model>>>, DbErr> {
    let mut found = Vec::with_capacity(pks.len());
    for chunk in pks.chunks(keys_per_query::<E>()) {
        let rows = E::find().filter(pk_filter::<E>(chunk)).all(db).await?;
        let rows: Vec<KeyedRow<E::Model>> = rows
            .into_iter()
            .map(|row| (pk_of(&row), Arc::new(row)))
            .collect();
        if let ([_], [(_, row)]) = (chunk, &rows[..]) {
            // The database says which row has this key, whatever it takes for equal.
            found.push(Some(row.clone()));
            continue;
        }
        let (meta, backend) = (E::cached_meta(), db.get_database_backend());
        let rows = ByPart::new(rows, |key| meta.key_part(key, backend));
        for pk in chunk {
            let exact = rows.find(pk, meta.key_part(pk, backend));
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

/// Rows by the part of their key. Keys that the database calls equal share a part; of a key without
/// one nothing is known.
struct ByPart<M>(HashMap<Option<KeyPart>, Vec<KeyedRow<M>>>);

type KeyedRow<M> = (Pk, Arc<M>);

impl<M> ByPart<M> {
    fn new(rows: Vec<KeyedRow<M>>, part: impl Fn(&[Value]) -> Option<KeyPart>) -> Self {
        let mut by_part: HashMap<_, Vec<_>> = HashMap::with_capacity(rows.len());
        for row in rows {
            by_part.entry(part(&row.0)).or_default().push(row);
        }
        Self(by_part)
    }

    fn find(&self, pk: &[Value], part: Option<KeyPart>) -> Match<M> {
        let alike: Vec<&KeyedRow<M>> = match part {
            Some(_) => [self.0.get(&part), self.0.get(&None)]
                .into_iter()
                .flatten()
                .flatten()
                .collect(),
            None => self.0.values().flatten().collect(),
        };
        match alike.iter().find(|(key, _)| key[..] == *pk) {
            Some((_, row)) => Match::Exact(row.clone()),
            None if alike.is_empty() => Match::None,
            None => Match::Unsure,
        }
    }
}

pub(crate) fn in_key_order<E: EntityTrait>(select: Select<E>) -> Select<E> {
    E::PrimaryKey::iter().fold(select, |select, key| {
        select.order_by(key.into_column(), Order::Asc)
    })
}
