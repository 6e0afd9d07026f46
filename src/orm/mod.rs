//! The SeaORM side.

pub mod effects;
pub mod meta;
pub(crate) mod site;
