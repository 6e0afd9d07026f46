//! The SeaORM side.

pub(crate) mod connection;
pub(crate) mod effects;
pub(crate) mod entity;
mod fenced;
pub mod hooks;
pub(crate) mod index;
mod levels;
mod manual;
pub(crate) mod meta;
mod probe;
pub(crate) mod query;
pub(crate) mod rows;
pub(crate) mod site;
pub(crate) mod stream;
pub(crate) mod transaction;
