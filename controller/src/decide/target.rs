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

use serde::{Deserialize, Serialize};

use super::share::PerMille;

/// What a container should have of a resource, before bounds, node and guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target<Size, Step, Reason> {
    /// The request.
    pub request: Size,
    /// The limit, where it should change.
    pub limit: Option<Size>,
    /// Why.
    pub reason: Reason,
    /// How much is known of its use.
    pub confidence: PerMille,
    /// What each step that did something came to, in order.
    pub marks: Vec<Mark<Size, Step, Reason>>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark<Size, Step, Reason> {
    /// Which.
    pub step: Step,
    /// The request after it.
    pub request: Size,
    /// The limit after it.
    pub limit: Option<Size>,
    /// Why.
    pub reason: Reason,
}
