//! Input that nobody should send: huge, broken, or somebody else's.

mod crowd;
mod garbage;
mod sizes;
