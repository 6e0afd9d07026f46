//! What each fault does to reads, to writes, to freshness, and how it ends: the fault matrix of
//! CONSISTENCY.md, with `outages`, `races` and `conformance`.

mod cluster;
mod database;
mod failover;
mod load;
mod network;
pub mod traffic;
