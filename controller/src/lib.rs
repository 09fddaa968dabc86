//! The controller: from what containers waited for to what they get.
//!
//! ```text
//! kernel events → histogram → window → demand → allocation → resize → outcome
//!  sampler-ebpf      sampler-common + sampler   ^^^^^^^^^^
//!                                               this crate: decide
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | [`api`] | what users write: the custom resources, from their YAML |
//! | [`decide`] | pure: from an observation to a plan, with a reason for every container |
//! | [`cli`] | the commands of `loadline` |
//! | [`simulate`] | replays traces through `decide` and through what others do |
//!
//! # Invariants
//!
//! * [`decide`] is a function of its arguments. It knows no client, clock, randomness, environment or async.
//! * The controller never knows BPF and never depends on the sampler.

pub mod api;
pub mod cli;
pub mod decide;
pub mod simulate;
