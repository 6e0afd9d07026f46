//! Behaviour against real servers: one binary, one module per subject.

mod servers;
mod support;
