//! What a model's `ActiveModelBehavior` calls, so that saves through SeaORM's own connections
//! invalidate, too.
//!
//! The derive makes the calls, or `#[cache_hooks]` on a behaviour of your own. Through a
//! [`CachedConnection`](crate::CachedConnection) or a transaction of it they do nothing, because it
//! sees the statement itself. Otherwise they invalidate in the cache that was installed as the
//! default of the process.
//!
//! # Consistency
//! Only saves and deletes of single models fire hooks: not `Entity::update`, `insert_many`,
//! `delete_by_id`, raw SQL and the like. A hook does not see a commit either. So the fence of a save
//! in a plain `DatabaseTransaction` is left to expire by itself, and readers go to the database until
//! then; or such a save is refused ([`PlainTransactions`](crate::PlainTransactions)). A
//! `CachedConnection` has none of these limits.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use sea_orm::sea_query::ValueTuple;
use sea_orm::{ActiveModelTrait, ConnectionTrait, DbErr, ModelTrait};

use super::entity::CachedEntity;
use super::meta::EntityMeta;
use super::probe::{self, Place};
use super::site::{self, Site};
use crate::cache::Fence;
use crate::config::PlainTransactions;
use crate::error::CacheError;
use crate::invalidation::Invalidation;
use crate::key::{Generation, Key, KeyPart};
use crate::store::Token;

/// To be called at the end of `before_save`.
///
/// # Errors
/// If the save is refused: its fence cannot be written under
/// [`WritePolicy::Strict`](crate::WritePolicy::Strict), or it goes through a plain transaction under
/// [`PlainTransactions::Refuse`].
pub async fn before_save<A, C>(am: &A, db: &C, insert: bool) -> Result<(), DbErr>
where
    A: ActiveModelTrait,
    A::Entity: CachedEntity,
    C: ConnectionTrait,
{
    match Unseen::through::<A::Entity, C>(db) {
        Some(save) => save.before(am.get_primary_key_value(), on(insert)).await,
        None => Ok(()),
    }
}

/// To be called at the beginning of `after_save`.
///
/// # Errors
/// If the save went into a plain transaction and its fence cannot be written under
/// [`WritePolicy::Strict`](crate::WritePolicy::Strict).
pub async fn after_save<M, C>(model: &M, db: &C, insert: bool) -> Result<(), DbErr>
where
    M: ModelTrait,
    M::Entity: CachedEntity,
    C: ConnectionTrait,
{
    match Unseen::through::<M::Entity, C>(db) {
        Some(save) => {
            let pk = Some(model.get_primary_key_value());
            save.after(pk, on(insert)).await
        }
        None => Ok(()),
    }
}

/// To be called at the end of `before_delete`.
///
/// # Errors
/// Those of [`before_save`].
pub async fn before_delete<A, C>(am: &A, db: &C) -> Result<(), DbErr>
where
    A: ActiveModelTrait,
    A::Entity: CachedEntity,
    C: ConnectionTrait,
{
    match Unseen::through::<A::Entity, C>(db) {
        Some(delete) => delete.before(am.get_primary_key_value(), On::Delete).await,
        None => Ok(()),
    }
}

/// To be called at the beginning of `after_delete`.
///
/// # Errors
/// Those of [`after_save`].
pub async fn after_delete<A, C>(am: &A, db: &C) -> Result<(), DbErr>
where
    A: ActiveModelTrait,
    A::Entity: CachedEntity,
    C: ConnectionTrait,
{
    match Unseen::through::<A::Entity, C>(db) {
        Some(delete) => delete.after(am.get_primary_key_value(), On::Delete).await,
        None => Ok(()),
    }
}

/// What is being done to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum On {
    Insert,
    Update,
    Delete,
}

fn on(insert: bool) -> On {
    if insert { On::Insert } else { On::Update }
}

/// A write that goes through a connection that is not ours.
struct Unseen {
    site: Site,
    meta: &'static EntityMeta,
    /// Whether the write is committed when the database has answered.
    commits: bool,
}

impl Unseen {
    /// `None` if there is nothing to do: the connection is ours, or no cache is installed.
    fn through<E: CachedEntity, C: ConnectionTrait>(db: &C) -> Option<Self> {
        let commits = match probe::locate(db) {
            Place::Cached(_) | Place::InTransaction(_) => return None,
            Place::Plain => true,
            Place::PlainTransaction | Place::Unknown => false,
        };
        let meta = E::cached_meta();
        let Some(site) = site::installed() else {
            warn_without_cache(&meta.name);
            return None;
        };
        Some(Self {
            site,
            meta,
            commits,
        })
    }

    async fn before(&self, pk: Option<ValueTuple>, on: On) -> Result<(), DbErr> {
        let Stale { id, invalidation } = self.stale(pk, on);
        let cache = &self.site.cache;
        if self.commits {
            let writer = Token::random();
            let deadline = Instant::now() + cache.settings().fence_ttl;
            let fence = cache.fence(&invalidation, writer).await?;
            pending(|all| all.push((id, on), fence, deadline));
            Ok(())
        } else if cache.plain_transactions() == PlainTransactions::Refuse {
            Err(plain_transaction(self.meta))
        } else {
            cache.fence(&invalidation, *UNSETTLED).await?;
            Ok(())
        }
    }

    async fn after(&self, pk: Option<ValueTuple>, on: On) -> Result<(), DbErr> {
        let Stale { id, invalidation } = self.stale(pk, on);
        let cache = &self.site.cache;
        if self.commits {
            let fence = pending(|all| match all.pop(&(id, on)) {
                // Before its insert the row had no key.
                None if on == On::Insert => all.pop(&(self.list(), on)),
                fence => fence,
            });
            let fence = fence.unwrap_or_else(|| Fence {
                writer: Token::random(),
                stood: false,
            });
            cache.settle(&invalidation, fence).await;
            Ok(())
        } else {
            // The commit is yet to come: from here on the fence has its full time before it.
            let fenced = cache.fence(&invalidation, *UNSETTLED).await;
            fenced.map(drop).map_err(|error| match error {
                CacheError::Refused(why) => DbErr::Custom(format!(
                    "the transaction must be rolled back, because its write policy is `strict` \
                     and the cache could not be told of a save in it: {why}"
                )),
                error => error.into(),
            })
        }
    }

    fn stale(&self, pk: Option<ValueTuple>, on: On) -> Stale {
        let mut stale = Stale::of(&self.site, self.meta, pk, on);
        if on == On::Delete {
            stale.invalidation.merge(self.site.cascaded(self.meta));
        }
        self.site.demand(self.meta, &mut stale.invalidation);
        stale.invalidation = self.site.cache.ruled(stale.invalidation);
        stale
    }

    fn list(&self) -> Key {
        list(&self.site, self.meta)
    }
}

fn list(site: &Site, meta: &EntityMeta) -> Key {
    site.space.generation(&meta.name, Generation::List)
}

/// What a write of one row makes stale.
#[derive(Debug, PartialEq)]
struct Stale {
    /// By which `after_*` finds what `before_*` planted.
    id: Key,
    invalidation: Invalidation,
}

impl Stale {
    /// The `index` generation stands for all index entries of the new values, which `before_*` and
    /// `after_*` may see differently. So all writes with one `id` and [`On`] fence the same keys.
    fn of(site: &Site, meta: &EntityMeta, pk: Option<ValueTuple>, on: On) -> Self {
        let mut invalidation = Invalidation::default();
        let list = list(site, meta);
        invalidation.add(list.clone());
        if on != On::Delete && !meta.indexes.is_empty() {
            invalidation.add(site.space.generation(&meta.name, Generation::Index));
        }
        let id = match pk {
            None if on == On::Insert => list,
            pk => pk
                .and_then(|pk| row(site, meta, &pk))
                .unwrap_or_else(|| site.space.generation(&meta.name, Generation::Rows)),
        };
        invalidation.add(id.clone());
        Self { id, invalidation }
    }
}

fn row(site: &Site, meta: &EntityMeta, pk: &ValueTuple) -> Option<Key> {
    let kinds = meta.primary_key.iter().map(|&at| meta.columns[at].kind);
    let part = KeyPart::of(kinds, pk.iter(), site.backend)?;
    Some(site.space.row(&meta.name, &part))
}

/// The writer of all fences of this process that are left to expire. It settles nothing, so one is
/// enough, and each use renews it.
static UNSETTLED: LazyLock<Token> = LazyLock::new(Token::random);

fn plain_transaction(meta: &EntityMeta) -> DbErr {
    DbErr::Custom(format!(
        "{} is cached, and the commit of a plain DatabaseTransaction cannot be seen: begin the \
         transaction on a CachedConnection",
        meta.name
    ))
}

/// Warns once that nothing is cached or invalidated because no cache is installed.
pub(crate) fn warn_without_cache(entity: &str) {
    static WARNED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if !warned.contains(entity) {
        warned.insert(entity.to_owned());
        drop(warned);
        tracing::warn!(
            entity,
            "a cached entity is used through a plain connection and no cache is installed: nothing \
             is cached or invalidated"
        );
    }
}

/// What was fenced by a `before_*` and is to be settled by an `after_*`.
///
/// The two share nothing but the row. Where several writes of one row are under way, each settles
/// some writer's fence, not necessarily its own: because they all fence the same keys, as many
/// fences stand as writes are under way, and that is all that counts. A write that never comes to its
/// `after_*` (it failed, or was an `update_without_returning`) leaves a fence too many until the
/// deadline; the youngest is settled first, so that this one is the oldest.
#[derive(Debug, Default)]
struct Pending {
    writers: HashMap<(Key, On), Vec<(Fence, Instant)>>,
    count: usize,
    prune_at: usize,
}

impl Pending {
    fn push(&mut self, id: (Key, On), fence: Fence, deadline: Instant) {
        if self.count >= self.prune_at {
            self.prune(Instant::now());
        }
        self.writers.entry(id).or_default().push((fence, deadline));
        self.count += 1;
    }

    fn pop(&mut self, id: &(Key, On)) -> Option<Fence> {
        let writers = self.writers.get_mut(id)?;
        let youngest = writers.pop();
        if writers.is_empty() {
            self.writers.remove(id);
        }
        let (fence, _) = youngest?;
        self.count -= 1;
        Some(fence)
    }

    /// Forgets the fences that have expired. Twice as many as are left make it worth the next time.
    fn prune(&mut self, now: Instant) {
        self.writers.retain(|_, writers| {
            writers.retain(|(_, deadline)| *deadline > now);
            !writers.is_empty()
        });
        self.count = self.writers.values().map(Vec::len).sum();
        self.prune_at = (2 * self.count).max(1024);
    }
}

fn pending<T>(on_all: impl FnOnce(&mut Pending) -> T) -> T {
    static PENDING: LazyLock<Mutex<Pending>> = LazyLock::new(Mutex::default);
    on_all(&mut PENDING.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sea_orm::sea_query::Value;

    use super::*;
    use crate::config::EntityPolicy;
    use crate::key::ColumnKind;
    use crate::orm::meta::{ColumnMeta, IndexMeta};
    use crate::store::Fingerprint;

    fn meta(indexed: bool) -> EntityMeta {
        let column = |name: &str, kind| ColumnMeta {
            name: name.to_owned(),
            kind,
        };
        let index = IndexMeta {
            name: "name".to_owned(),
            columns: vec![1],
            unique: true,
        };
        EntityMeta {
            id: crate::orm::meta::next_id(),
            name: "city".to_owned(),
            schema: None,
            table: "city".to_owned(),
            columns: vec![
                column("id", ColumnKind::Integer),
                column("name", ColumnKind::Text),
            ],
            primary_key: vec![0],
            indexes: indexed.then_some(index).into_iter().collect(),
            cascades_from: vec![],
            fingerprint: Fingerprint(1),
            policy: EntityPolicy::default(),
        }
    }

    fn stale(meta: &EntityMeta, pk: Option<Value>, on: On) -> (String, Vec<String>) {
        let stale = Stale::of(&Site::for_tests(), meta, pk.map(ValueTuple::One), on);
        let keys = stale.invalidation.keys().map(Key::to_string).collect();
        (stale.id.to_string(), keys)
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter()
            .map(|key| format!("soc:test:city:{key}"))
            .collect()
    }

    fn expect(id: &str, all: &[&str]) -> (String, Vec<String>) {
        (format!("soc:test:city:{id}"), keys(all))
    }

    #[test]
    fn an_update_makes_the_row_the_lists_and_the_indexes_stale() {
        assert_eq!(
            stale(&meta(true), Some(5.into()), On::Update),
            expect("pk:5", &["gen:index", "gen:list", "pk:5"]),
        );
        assert_eq!(
            stale(&meta(false), Some(5.into()), On::Update),
            expect("pk:5", &["gen:list", "pk:5"]),
        );
    }

    #[test]
    fn a_delete_leaves_the_indexes_alone_because_they_verify_themselves() {
        assert_eq!(
            stale(&meta(true), Some(5.into()), On::Delete),
            expect("pk:5", &["gen:list", "pk:5"]),
        );
    }

    #[test]
    fn an_insert_without_a_key_is_known_by_the_list() {
        assert_eq!(
            stale(&meta(true), None, On::Insert),
            expect("gen:list", &["gen:index", "gen:list"]),
        );
    }

    #[test]
    fn a_row_that_cannot_be_named_makes_all_rows_stale() {
        let all = expect("gen:rows", &["gen:list", "gen:rows"]);
        assert_eq!(stale(&meta(false), Some(0.5.into()), On::Insert), all);
        assert_eq!(stale(&meta(false), Some(0.5.into()), On::Update), all);
        assert_eq!(stale(&meta(false), None, On::Update), all);
        assert_eq!(stale(&meta(false), None, On::Delete), all);
    }

    fn id(key: &str, on: On) -> (Key, On) {
        (key.to_owned().into(), on)
    }

    fn fence(n: u64) -> Fence {
        let writer = Token::new(n).unwrap();
        Fence {
            writer,
            stood: true,
        }
    }

    #[test]
    fn the_youngest_writer_of_the_same_row_and_kind_is_settled_first() {
        let mut pending = Pending::default();
        let [old, young, other] = [1, 2, 3].map(fence);
        let later = Instant::now() + Duration::from_secs(10);
        pending.push(id("a", On::Update), old, later);
        pending.push(id("a", On::Update), young, later);
        pending.push(id("a", On::Delete), other, later);
        assert_eq!(pending.pop(&id("b", On::Update)), None);
        assert_eq!(pending.pop(&id("a", On::Insert)), None);
        assert_eq!(pending.pop(&id("a", On::Update)), Some(young));
        assert_eq!(pending.pop(&id("a", On::Update)), Some(old));
        assert_eq!(pending.pop(&id("a", On::Update)), None);
        assert_eq!(pending.pop(&id("a", On::Delete)), Some(other));
        assert_eq!((pending.count, pending.writers.len()), (0, 0));
    }

    #[test]
    fn writers_that_never_settle_are_forgotten_past_their_deadline() {
        let mut pending = Pending::default();
        let now = Instant::now();
        for n in 0..100_000_u64 {
            pending.push(id(&n.to_string(), On::Update), fence(n + 1), now);
        }
        assert!(pending.count <= 1024, "{}", pending.count);
        assert_eq!(pending.count, pending.writers.len());
    }

    #[test]
    fn a_writer_before_its_deadline_is_not_forgotten() {
        let mut pending = Pending::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let [early, late] = [1, 2].map(fence);
        pending.push(id("a", On::Update), early, now + second);
        pending.push(id("a", On::Update), late, now + 3 * second);
        pending.prune(now + 2 * second);
        assert_eq!(pending.pop(&id("a", On::Update)), Some(late));
        assert_eq!(pending.pop(&id("a", On::Update)), None);
    }
}
