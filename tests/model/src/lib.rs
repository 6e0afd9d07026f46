//! The protocol of sea-orm-cache as a model, to be checked exhaustively.
//!
//! One row, the generation `rows` on which it depends, the root, and the database as one register
//! of numbered versions. A step is one operation on one key of the store, one query or commit of
//! the database, or one event: steps of different participants may come in any order.
//!
//! `CONSISTENCY.md` says what is promised, `src/fill.rs` and `src/cache.rs` how it is kept.

mod check;
pub mod configurations;
mod environment;
mod guard;
mod model;
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
    Action, Config, FRESH_AT_REST, NO_STALE_READ, NONE_IS_STUCK, Protocol, ReaderKind, WriterKind,
};
pub use seen::{Seen, Sight};
pub use state::{History, State, Used};
pub use store::{Entry, Key, Noted, Root, Store, Value};
pub use token::Token;
