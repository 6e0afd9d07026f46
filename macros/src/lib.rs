//! The derive and attribute macros of `sea-orm-cache`. Use them through that crate, which
//! re-exports them.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod codec;
mod entity;
mod hooks;
mod input;
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
