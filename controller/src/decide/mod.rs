//! Decisions, as functions of data: no client, clock, randomness, environment or async in here.
//!
//! Same input, byte-equal output. What acts in the cluster, what replays a recording and what the tests
//! judge is this same code.

pub mod allocate;
pub mod bounds;
pub mod check;
pub mod duration;
pub mod guards;
pub mod history;
pub mod labels;
pub mod node;
pub mod observation;
mod order;
pub mod pipeline;
pub mod plan;
pub mod pod;
pub mod policy;
pub mod quantity;
pub mod quota;
pub mod reason;
pub mod record;
pub mod scope;
pub mod select;
pub mod share;
pub mod size;
pub mod sizes;
pub mod state;
pub mod target;
pub mod units;
pub mod weight;
