//! How much a container should get: from what it used and what it waited for to a request and a limit.
//!
//! ```text
//! History ─▶ bet or percentile × margin ─▶ cold start ─▶ objective (Signal) ─▶ limit ─▶ startup boost ─▶ CpuTarget
//! MemoryHistory ─▶ percentile of peaks × margin ─▶ cold start ─▶ recent peak ─▶ OOM ─▶ limit ─▶ MemoryTarget
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | [`bet`] | CPU from its use alone: the allocation that costs least by the container's own past errors of forecast |
//! | [`signal`] | what the last window says against the objective |
//! | [`replicas`] | one size for all replicas of a workload, or each its own |
//! | [`cpu`](mod@cpu), [`memory`](mod@memory) | the steps, each leaving a mark |
//!
//! Bounds, the node and the guards come after all of this, and are not known here.

pub mod bet;
pub mod cpu;
pub mod memory;
pub mod replicas;
pub mod signal;

pub use bet::{Changes, Prices};
pub use cpu::{CpuInputs, CpuTarget, cpu};
pub use memory::{MemoryInputs, MemoryTarget, memory};
pub use replicas::{Replicas, Spread};
pub use signal::{Calm, Signal, Verdict};
