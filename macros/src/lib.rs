//! The derive and attribute macros of `sea-orm-cache`. Use them through that crate, which
//! re-exports them.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod codec;
mod entity;
mod hooks;
mod input;
mod memoize;
mod value;

/// Typed, cached reads for a SeaORM model.
///
/// On `Entity` it adds `cached_get`, `cached_get_many`, `cached_all`, one `cached_find_by_..` per
/// index, `invalidate`, `invalidate_many` and `invalidate_all`; on `Model`, `cached_related` and
/// `cached_related_one`; and it implements `CachedEntity` for `Entity` and, so that writes through a
/// plain `DatabaseConnection` invalidate too, `ActiveModelBehavior` for `ActiveModel`.
///
/// On the struct, `#[cached(..)]` takes, below the `#[derive]`:
///
/// | attribute | meaning |
/// |---|---|
/// | `ttl = "10m"` | how long a value lives; units `ms`, `s`, `m`, `h`, `d`, also together: `"1h30m"` |
/// | `jitter = 0.1` | by which part of itself, 0 to 1, that life is shortened at random |
/// | `absent_ttl = "30s"` | how long "no such row" lives |
/// | `stale_while_revalidate = "1m"` | how long after its `ttl` a value is still answered while one caller loads it anew |
/// | `stale_if_error = "1h"` | how long after its `ttl` it is still answered where the database cannot be read |
/// | `early_refresh = 1.0` | how eagerly one caller loads it anew before its end; 0 is never |
/// | `soft_timeout = "100ms"` | how long a caller waits for a load where there is a value past its `ttl` |
/// | `load_timeout = "5s"` | how long a load may take before it fails |
/// | `consistency = "bounded"` | how fresh reads are; or `"linearizable"`, or `"database"`: not cached |
/// | `write_policy = "available"` | what a write does when the cache is away; or `"strict"` |
/// | `name = "city"` | the entity's name in keys, instead of its table's |
/// | `index(a, b)`, `unique(a, b)` | an index over these fields: `cached_find_by_a_and_b` |
/// | `cascades_from("parent")` | tables whose rows take rows of this one with them, where the entity's relations do not say so |
/// | `hooks = false` | no `ActiveModelBehavior`: write your own under `#[cache_hooks]` |
///
/// On a field, `#[cached(index)]` or `#[cached(unique)]` gives `cached_find_by_<field>`. Fields with
/// `#[sea_orm(unique)]` have it without being asked, and `#[sea_orm(unique_key = "name")]` gives
/// `cached_find_by_name` over all fields of that key. A finder of a unique index answers with one row
/// or none, any other with a list. Every argument is a value: NULL is not looked up.
#[proc_macro_derive(CachedEntity, attributes(cached))]
pub fn derive_cached_entity(item: TokenStream) -> TokenStream {
    entity::derive(&parse_macro_input!(item as DeriveInput)).into()
}

/// Weaves the cache's invalidations into your own `ActiveModelBehavior`.
///
/// Put it above `#[async_trait]`, on the whole `impl ActiveModelBehavior for ActiveModel` block of a
/// model that has `#[cached(hooks = false)]`. Your `before_save` and `before_delete` run first and the
/// cache sees what they return; in `after_save` and `after_delete` the cache is told first, so that an
/// error of yours does not leave it stale.
#[proc_macro_attribute]
pub fn cache_hooks(args: TokenStream, item: TokenStream) -> TokenStream {
    hooks::weave(args.into(), item.into()).into()
}

/// A function that remembers what it has answered.
///
/// A call with arguments that were there before is answered without running the body; of all who make the same
/// call at the same moment one works; if it fails, each of the others does. On `fn` and `async fn`, free or in an `impl` block, not in a trait or an
/// `impl` of one. Errors of a function that answers a `Result` go to the caller and are not remembered; that an
/// `Option` is `None` is. Generic parameters are allowed in arguments that are skipped.
///
/// Without `cache`, answers are remembered in this process, for each function on its own, until they are evicted,
/// cleared or past their ttl: for what depends on its arguments alone. With `cache = ..`, any expression of a
/// `Cache` or a `Namespace`, also by reference, they are values of that cache, seen by all processes, which go
/// stale with what they depend on. The function is then an `async fn`, its future is `Send`, and what it answers
/// is what serde writes and reads. Give it no open transaction to read from: what is not committed would be
/// remembered.
///
/// | attribute | meaning |
/// |---|---|
/// | `capacity = 1000` | how many answers are remembered in this process; 1000 if not said |
/// | `ttl = "10m"` | how long an answer lives; in this process without end if not said, in a cache as long as its `CacheBuilder::ttl` |
/// | `absent_ttl = "30s"` | how long `None` lives; in this process as long as anything if not said, in a cache 30 seconds |
/// | `key = "{id}:{lang}"` | tells calls apart, instead of the arguments; or an expression, or several in parentheses: `key = (self.id, lang)` |
/// | `associated` | says that it is in an `impl` block, where the signature has neither `self` nor `Self` |
/// | `cache = self.cache` | where answers are, if not in this process |
/// | `depends_on(city::Entity)` | tables, with any write to which an answer goes stale |
/// | `depends_on_row(city::Entity = id)` | rows, with any write to which an answer goes stale. Of one that is not there, answer `None` of an `Option`: that goes stale with any insert, and another answer does not |
/// | `tags("ranking", format!("country:{id}"))` | tags, which `invalidate_tags` makes stale |
/// | `database = "archive"` | the label of the database of these entities |
/// | `consistency`, `jitter`, `stale_while_revalidate`, `stale_if_error`, `early_refresh`, `soft_timeout` | as of a `Policy` |
///
/// # What tells calls apart
/// All arguments, `self` among them, as serde writes them, exactly: not by a hash. So each implements `Serialize`;
/// what does not, such as a connection or a service, is left out by `#[memo(skip)]`, which also says that the
/// answer does not depend on it: `fn top(#[memo(skip)] &self, country: i64)`. An argument whose text differs
/// from call to call, such as a `HashSet`, needs a `key`.
///
/// # Beside the function
/// A module of its name: `name::clear()` and `name::stats()`; with a cache `name::clear(&cache).await` and
/// `name::stats(&cache)`. In an `impl` block, functions: `Type::name_clear()` and `Type::name_stats()`.
///
/// In a cache, answers are in the namespace `memo:` and the function's path. In a namespace that you give, they
/// are among its other values: `cache = db.cache().scoped(tenant)` keeps tenants apart.
#[proc_macro_attribute]
pub fn memoize(args: TokenStream, item: TokenStream) -> TokenStream {
    memoize::memoize(args.into(), item.into()).into()
}
