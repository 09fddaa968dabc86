//! Decisions, as functions of data: no client, clock, randomness, environment or async in here.
//!
//! Same input, byte-equal output. What acts in the cluster, what replays a recording and what the tests
//! judge is this same code.

pub mod allocate;
pub mod duration;
pub mod history;
pub mod labels;
pub mod observation;
pub mod policy;
pub mod quantity;
pub mod scope;
pub mod share;
pub mod sizes;
pub mod target;
pub mod units;
pub mod weight;
