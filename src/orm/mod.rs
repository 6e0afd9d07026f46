//! The SeaORM side.

pub(crate) mod connection;
pub(crate) mod effects;
pub(crate) mod entity;
pub(crate) mod hooks;
pub(crate) mod meta;
mod probe;
pub(crate) mod query;
pub(crate) mod site;
