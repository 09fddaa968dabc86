//! Our own sizing, as the controller runs it.

use super::Sizer;
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
