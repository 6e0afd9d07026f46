//! Behaviour against real servers: one binary, one module per subject.

// The futures of tests that run traffic against several servers nest deeply.
#![recursion_limit = "256"]

mod aging;
mod caches;
mod conformance;
mod entities;
mod faults;
mod feed;
mod fuzz;
mod gather;
mod history;
mod hooks;
mod hostile;
mod http;
mod kit;
mod memoize;
mod metrics;
mod outages;
mod places;
mod races;
mod reads;
mod review;
mod rules;
mod servers;
mod session;
mod stress;
mod support;
mod text_keys;
mod tier;
mod values;
mod world;
mod writes;
