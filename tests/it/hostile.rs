//! Input that nobody should send: huge, broken, or somebody else's.

mod crowd;
mod garbage;
#[cfg(feature = "lz4")]
mod packed;
mod sizes;
