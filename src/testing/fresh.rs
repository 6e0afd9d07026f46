//! Whether the cache answers what the database does.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sea_orm::sea_query::Value;
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IdenStatic, Iterable, ModelTrait, QueryFilter, Select,
};

use crate::key::Pk;
use crate::orm::connection::CachedConnection;
use crate::orm::entity::{CachedEntity, PrimaryKeyOf};
use crate::orm::index::find_index;
use crate::orm::rows::{in_key_order, pk_filter, pk_of, row_at, values};

/// Asserts that the cache answers what the database does: see [`Watch`], which also remembers what
/// was there before a write.
///
/// # Panics
/// If it does not, with every difference; and if the database fails.
pub async fn assert_fresh<E: CachedEntity>(
    keys: impl IntoIterator<Item = impl Into<PrimaryKeyOf<E>>>,
    db: &CachedConnection,
) {
    Watch::<E>::over(keys, db).assert_fresh().await;
}

/// Compares an entity's cached reads with the database.
///
/// It compares `cached_all`, rows by their key and rows by each index: for the keys and rows that it
/// was given, and for every row that it has ever found in the table. Each comparison caches all that
/// it reads. So compare once before a write, and again after it: then an index entry of the *old*
/// value is looked at, too. Cached selects other than `cached_all` are not compared.
///
/// Nobody else may write meanwhile.
pub struct Watch<E: CachedEntity> {
    db: CachedConnection,
    known: Mutex<Known>,
    entity: std::marker::PhantomData<fn() -> E>,
}

/// What to look up.
#[derive(Clone, Debug, Default)]
struct Known {
    keys: Vec<Pk>,
    /// For each value: which index, and the value.
    index: Vec<(usize, Vec<Value>)>,
}

impl<E: CachedEntity> Watch<E> {
    /// Watches the rows of the table, and these keys, which may be absent. Reads nothing yet.
    pub fn over(
        keys: impl IntoIterator<Item = impl Into<PrimaryKeyOf<E>>>,
        db: &CachedConnection,
    ) -> Self {
        let keys = keys.into_iter().map(|key| values(key.into())).collect();
        Self {
            db: db.clone(),
            known: Mutex::new(Known {
                keys,
                index: Vec::new(),
            }),
            entity: std::marker::PhantomData,
        }
    }

    /// Watches the keys and index values of these rows, too, which need not exist: those that a
    /// write is going to add, for instance.
    #[must_use]
    pub fn also(self, rows: impl IntoIterator<Item = E::Model>) -> Self {
        rows.into_iter().for_each(|row| self.learn(&row));
        self
    }

    /// Every difference between what the cache answers and what the database does, in words; empty
    /// if all is fresh.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn stale(&self) -> Result<Vec<String>, DbErr> {
        let mut found = Vec::new();
        let rows = self.load(E::find()).await?;
        rows.iter().for_each(|row| self.learn(row));
        let cached = E::cached_all(&self.db).await?;
        found.extend(difference::<E>("all rows", &cached, &rows));
        let known = self.known().clone();
        for key in &known.keys {
            let rows = self.load(E::find().filter(pk_filter::<E>(&[key]))).await?;
            let cached = row_at::<E, _>(key.clone(), &self.db).await?;
            let what = format!("key {}", list(key));
            found.extend(difference::<E>(&what, cached.as_slice(), &rows));
        }
        for (index, value) in &known.index {
            let rows = self.load(carrying::<E>(*index, value)).await?;
            let cached = find_index::<E, _>(*index, value.clone(), &self.db).await?;
            let name = &E::cached_meta().indexes[*index].name;
            let what = format!("index {name} {}", list(value));
            found.extend(difference::<E>(&what, &cached, &rows));
        }
        Ok(found)
    }

    /// Asserts that nothing is stale.
    ///
    /// # Panics
    /// If anything is, with every difference; and if the database fails.
    pub async fn assert_fresh(&self) {
        match self.stale().await {
            Ok(stale) => assert!(stale.is_empty(), "stale reads:\n{}", stale.join("\n")),
            Err(error) => panic!("the database failed: {error}"),
        }
    }

    /// From the database, past the cache.
    async fn load(&self, select: Select<E>) -> Result<Vec<E::Model>, DbErr> {
        in_key_order(select).all(self.db.inner()).await
    }

    fn learn(&self, row: &E::Model) {
        let mut known = self.known();
        let key = pk_of(row);
        if !known.keys.contains(&key) {
            known.keys.push(key);
        }
        let row = values_of(row);
        for (index, spec) in E::cached_meta().indexes.iter().enumerate() {
            let value = spec.columns.iter().map(|column| row[*column].clone());
            let entry = (index, value.collect());
            if !known.index.contains(&entry) {
                known.index.push(entry);
            }
        }
    }

    /// Never held across an await.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: CachedEntity> fmt::Debug for Watch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("entity", &E::cached_meta().name)
            .field("known", &*self.known())
            .finish_non_exhaustive()
    }
}

fn carrying<E: CachedEntity>(index: usize, value: &[Value]) -> Select<E> {
    let columns: Vec<E::Column> = E::Column::iter().collect();
    let indexed = E::cached_meta().indexes[index].columns.iter();
    indexed
        .zip(value)
        .fold(E::find(), |select, (column, value)| {
            select.filter(columns[*column].eq(value.clone()))
        })
}

/// What differs between two answers to the same question, if anything does.
fn difference<E: CachedEntity>(
    what: &str,
    cached: &[impl AsRef<E::Model>],
    rows: &[E::Model],
) -> Option<String> {
    let cached: Vec<Row> = cached
        .iter()
        .map(|row| Row::of::<E>(row.as_ref()))
        .collect();
    let rows: Vec<Row> = rows.iter().map(Row::of::<E>).collect();
    (cached != rows).then(|| {
        format!(
            "{}, {what}: the cache answers {}; the database answers {}",
            E::cached_meta().name,
            only(&cached, &rows),
            only(&rows, &cached),
        )
    })
}

/// A row with all its columns: the user's own `Debug` and `PartialEq` may leave some out.
#[derive(PartialEq)]
struct Row {
    /// Tells apart what the words may not: the last digits of a time, the scale of a decimal.
    exact: String,
    words: String,
}

impl Row {
    fn of<E: EntityTrait>(row: &E::Model) -> Self {
        let values = values_of(row);
        let exact = format!("{values:?}");
        let columns = E::Column::iter().zip(values);
        let columns = columns.map(|(column, value)| format!("{}: {value}", column.as_str()));
        Self {
            exact,
            words: format!("{{{}}}", columns.collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Those of `these` that `those` lack.
fn only(these: &[Row], those: &[Row]) -> String {
    let only = these.iter().filter(|row| !those.contains(row));
    let only: Vec<&str> = only.map(|row| row.words.as_str()).collect();
    match (these.len(), only.is_empty()) {
        (0, _) => "no row".to_owned(),
        (_, false) => only.join(", "),
        (count, true) => format!("{count} rows, no other ones"),
    }
}

fn values_of<M: ModelTrait>(row: &M) -> Vec<Value> {
    <M::Entity as EntityTrait>::Column::iter()
        .map(|column| row.get(column))
        .collect()
}

fn list(values: &[Value]) -> String {
    let values: Vec<String> = values.iter().map(Value::to_string).collect();
    values.join(", ")
}
