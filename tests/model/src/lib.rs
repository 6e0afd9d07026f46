//! The protocol of sea-orm-cache as a model, to be checked exhaustively.
//!
//! One row, the generation `rows` on which it depends, the root, and the database as one register
//! of numbered versions. A step is one operation on one key of the store, one query or commit of
//! the database, or one event: steps of different participants may come in any order. Operations of
//! one batch are steps of their own. Time is not modelled: what may expire does so at any moment.
//!
//! | file | what it models |
//! |---|---|
//! | `store.rs` | the operations of `src/store/memory/entry.rs` and of the scripts in `src/store/lua` |
//! | `reader.rs` | a read for one key: `src/fill.rs`, `src/fill/aged.rs`, `src/flight.rs` |
//! | `putter.rs` | a value that is put without a load: `src/values/write.rs` |
//! | `writer.rs` | a write: `Cache::guarded` in `src/cache.rs`, and the database |
//! | `environment.rs` | evictions, expiry, restarts, connections |
//! | `tiered/` | an in-process tier in front of the store, which is not written yet |
//! | `guard.rs` | what a mutant lacks |
//! | `configurations.rs` | who takes part in each check, and what may happen how often |
//!
//! Left out: requests of readers and of putters that fail, the breaker, `strict`, and processes that end
//! before they have delivered their journal; index entries, lists and absent rows; values under one key that
//! depend on different things.
//!
//! `CONSISTENCY.md` says what is promised, and what the two assumptions in [`Guard`] mean.

mod check;
pub mod configurations;
mod environment;
mod guard;
mod model;
mod putter;
mod reader;
mod seen;
mod state;
mod store;
pub mod tiered;
mod token;
mod writer;

pub use check::{Check, run};
pub use environment::Event;
pub use guard::Guard;
pub use model::{
    AGED_STAYS, Action, Config, FRESH_AT_REST, NO_STALE_READ, NONE_IS_STUCK, NOTHING_LOST,
    Protocol, ReaderKind, WriterKind,
};
pub use putter::PutterKind;
pub use seen::{Seen, Sight};
pub use state::{History, State, Used};
pub use store::{Entry, Key, Noted, Over, Root, Stale, Store, Value};
pub use token::Token;
