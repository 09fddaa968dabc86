//! Decisions, as functions of data: no client, clock, randomness, environment or async in here.
//!
//! Same input, byte-equal output. What acts in the cluster, what replays a recording and what the tests
//! judge is this same code.
//!
//! ```text
//! Observation ─┐                                        ┌─▶ Plan ─▶ check ─▶ (act)
//! State ───────┼─▶ pipeline::decide ────────────────────┼─▶ DecisionRecord per container
//! now ─────────┘   select ▸ size ▸ bounds ▸ quota ▸     └─▶ State
//!                  node ▸ guards ▸ pod ▸ order
//! ```
//!
//! | what goes in and comes out | |
//! |---|---|
//! | [`observation`] | the cluster at one moment |
//! | [`policy`], [`scope`], [`labels`] | what is wanted, and of whom |
//! | [`state`], [`history`] | what is remembered |
//! | [`plan`], [`record`], [`reason`] | what is to be done, and why |
//! | [`units`], [`quantity`], [`sizes`], [`share`], [`duration`] | measures |
//!
//! | steps, in their order | |
//! |---|---|
//! | [`pipeline`], `draft` | puts them together |
//! | [`select`] | is it looked at, by which policy, and is there data? |
//! | [`autoscalers`] | which HorizontalPodAutoscalers scale it? |
//! | [`together`] | is it sized by what it did itself, or its workload's replicas? |
//! | [`size`], [`target`] | what it should have |
//! | [`bounds`], [`quota`] | what policy, limits and namespace allow |
//! | [`node`], `market`, [`allocate`], [`weight`] | what its node can give |
//! | [`guards`] | what must not happen now |
//! | [`pod`], `order`, [`disruption`] | one action for a pod, in an order that fits, and no more restarts than allowed |
//! | [`check`] | a second opinion on the plan |

pub mod allocate;
pub mod autoscalers;
pub mod bounds;
pub mod by_namespace;
pub mod check;
pub mod disruption;
mod draft;
pub mod duration;
pub mod guards;
pub mod history;
pub mod labels;
mod market;
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
pub mod together;
pub mod units;
pub mod weight;
