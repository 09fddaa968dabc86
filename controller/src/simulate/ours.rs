//! Our own sizing, as the controller runs it.

use sampler_common::window::Window;

use super::Sizer;
use super::service::{Allocation, Sizing};
use crate::decide::history::{History, Observed};
use crate::decide::observation::Qos;
use crate::decide::policy::Policy;
use crate::decide::target::{Calm, Changes, CpuInputs, Signal, Verdict, cpu};
use crate::decide::units::{MilliCpu, Timestamp};

/// One container's history and its changes.
pub struct Ours {
    policy: Policy,
    history: Option<History>,
    changes: Changes,
}

impl Ours {
    /// Nothing known yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, history: None, changes: Changes::default() }
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
            qos: Qos::Burstable,
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

/// One container in a closed loop, with objective feedback: it is sized by what it waits for, too.
pub struct OursLoop {
    cpus: u32,
    policy: Policy,
    history: Option<History>,
    changes: Changes,
    calm: Calm,
}

impl OursLoop {
    /// Nothing known yet of a container on a machine of so many CPUs.
    pub fn new(cpus: u32, policy: Policy) -> Self {
        Self { cpus, policy, history: None, changes: Changes::default(), calm: Calm::default() }
    }
}

impl Sizing for OursLoop {
    fn learn(&mut self, at: Timestamp, cores: f64, _: Allocation) {
        let window = self.policy.history.window;
        self.history.get_or_insert_with(|| History::new(at, window)).observe(at, cores);
    }

    fn next(&mut self, at: Timestamp, window: &Window, current: Allocation) -> Allocation {
        let objectives = &self.policy.objectives;
        let Some(mut signal) = Signal::of(window, self.cpus, objectives) else { return current };
        let verdict = signal.verdict(objectives);
        self.calm.tell(&mut signal, objectives, at);
        let length = self.policy.history.window;
        let history = self.history.get_or_insert_with(|| History::new(at, length));
        let observed = history.observe(at, signal.remembered());
        let used = window.used_cores().unwrap_or(0.0);
        let missed = matches!(verdict, Verdict::Missed { .. });
        if observed != Observed::EndedSlot && used <= current.request.cores() && !missed {
            return current;
        }
        let target = cpu(&CpuInputs {
            history,
            request: current.request,
            limit: current.limit,
            qos: Qos::Burstable,
            started_with: current.request,
            signal: Some(&signal),
            changes: self.changes,
            policy: &self.policy,
            age_seconds: u64::MAX,
            now: at,
        });
        if target.request != current.request {
            self.changes.add(at);
        }
        Allocation { request: target.request, limit: target.limit.or(current.limit) }
    }
}
