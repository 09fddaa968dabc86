//! Our own sizing, as the controller runs it.

use sampler_common::window::Window;

use super::Sizer;
use super::service::{Allocation, Sizing};
use crate::decide::history::{History, Observed};
use crate::decide::policy::Policy;
use crate::decide::target::{Changes, CpuInputs, Prices, cpu};
use crate::decide::units::{MilliCpu, Timestamp};

/// One container's history and its changes.
pub struct Ours {
    policy: Policy,
    history: Option<History>,
    changes: Changes,
}

impl Ours {
    /// Nothing known yet.
    pub fn new(cost: Prices) -> Self {
        Self { policy: Policy { cost, ..Policy::default() }, history: None, changes: Changes::default() }
    }
}

impl Sizer for Ours {
    fn next(&mut self, at: Timestamp, cores: f64, current: MilliCpu) -> MilliCpu {
        let window = self.policy.history.window;
        let history = self.history.get_or_insert_with(|| History::new(at, window));
        let observed = history.observe(at, cores);
        // Between slots only what has been outgrown cannot wait.
        if observed != Observed::EndedSlot && cores <= current.cores() {
            return current;
        }
        let inputs = CpuInputs {
            history,
            request: current,
            limit: None,
            started_with: current,
            signal: None,
            changes: self.changes,
            policy: &self.policy,
            age_seconds: u64::MAX,
            now: at,
        };
        let target = cpu(&inputs);
        if target.request != current {
            self.changes.add(at);
        }
        target.request
    }
}

/// One container in a closed loop.
pub struct OursLoop {
    ours: Ours,
}

impl OursLoop {
    /// Nothing known yet.
    pub fn new(_cpus: u32) -> Self {
        Self { ours: Ours::new(Prices::default()) }
    }
}

impl Sizing for OursLoop {
    fn learn(&mut self, at: Timestamp, cores: f64, current: Allocation) {
        self.ours.next(at, cores, current.request);
    }

    fn next(&mut self, at: Timestamp, window: &Window, current: Allocation) -> Allocation {
        let request = self.ours.next(at, window.used_cores().unwrap_or(0.0), current.request);
        let limit = current.limit.map(|limit| limit.scale_up(request.0, current.request.0));
        Allocation { request, limit }
    }
}
