//! What a cgroup may use and what it has: limits in force, memory, and stalls as the kernel's PSI counts them.

use serde::{Deserialize, Serialize};

use crate::histogram::{WentBack, add_all, growths};

/// A CPU limit: so much CPU time in every period (`cpu.max`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuLimit {
    /// CPU time that may be used in a period, in µs.
    pub quota_us: u64,
    /// Length of a period, in µs; never 0.
    pub period_us: u64,
    /// Whose limit it is.
    pub of: LimitOf,
}

impl CpuLimit {
    /// The limit in cores.
    pub fn cores(&self) -> f64 {
        self.quota_us as f64 / self.period_us as f64
    }
}

/// Whose limit is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitOf {
    /// The cgroup's own.
    Own,
    /// That of one above it: the pod's, a slice's.
    Ancestor,
}

/// The limits in force: the tightest of the cgroup's own and those above it. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU (`cpu.max`; v1 `cpu.cfs_quota_us`, `cpu.cfs_period_us`).
    pub cpu: Option<CpuLimit>,
    /// Its own share among its siblings, 1 to 10,000 (`cpu.weight`; v1 `cpu.shares` is converted as runtimes do);
    /// `None` where the controller is off.
    pub cpu_weight: Option<u64>,
    /// Memory in bytes, beyond which the kernel kills (`memory.max`; v1 `memory.limit_in_bytes`).
    pub memory_max_bytes: Option<u64>,
    /// Memory in bytes, beyond which the kernel slows down (`memory.high`; v1 has none).
    pub memory_high_bytes: Option<u64>,
}

/// Memory of a cgroup and everything below it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All that is charged to it (`memory.current`), page cache included.
    pub current_bytes: u64,
    /// What the kubelet calls the working set: `memory.current` less `inactive_file` of `memory.stat`, at least 0.
    /// Evictions go by it.
    pub working_set_bytes: u64,
    /// The highest `memory.current` since the cgroup was made (`memory.peak`, from Linux 5.19); `None` where the
    /// kernel does not say.
    pub peak_bytes: Option<u64>,
    /// When it was read (`CLOCK_MONOTONIC`, ns): memory is read less often than rows.
    pub read_ns: u64,
}

impl Memory {
    /// That of two cgroups together. Their peaks need not have been at one time, so the sum is an upper bound.
    pub fn beside(&self, other: &Self) -> Self {
        let sum = |one: u64, another: u64| one.saturating_add(another);
        Self {
            current_bytes: sum(self.current_bytes, other.current_bytes),
            working_set_bytes: sum(self.working_set_bytes, other.working_set_bytes),
            peak_bytes: self.peak_bytes.zip(other.peak_bytes).map(|(one, another)| sum(one, another)),
            read_ns: self.read_ns.min(other.read_ns),
        }
    }
}

/// How often memory limits were met, in the cgroup or below it (`memory.events`). Cumulative.
///
/// Of a cgroup that was gone before that file was read again only `oom_kill` goes on: the kernel tells of it at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    /// Reclaimed though below `memory.low`.
    pub low: u64,
    /// Slowed down above `memory.high`.
    pub high: u64,
    /// About to go above `memory.max`.
    pub max: u64,
    /// An allocation was about to fail.
    pub oom: u64,
    /// Processes killed for it.
    pub oom_kill: u64,
}

impl MemoryEvents {
    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        let mut sums = self.parts();
        add_all(&mut sums, &other.parts());
        *self = Self::from_parts(sums);
    }

    /// The events since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        growths("memory_events", &earlier.parts(), &self.parts()).map(Self::from_parts)
    }

    pub(crate) fn parts(&self) -> [u64; 5] {
        [self.low, self.high, self.max, self.oom, self.oom_kill]
    }

    pub(crate) fn from_parts([low, high, max, oom, oom_kill]: [u64; 5]) -> Self {
        Self { low, high, max, oom, oom_kill }
    }
}

/// Time for which threads of the cgroup were stalled, in ns, as the kernel's PSI counts it (`cpu.pressure`,
/// `memory.pressure`: `total`). Cumulative. **some**: at least one was; **full**: all were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// Some waited for a CPU.
    pub cpu_some_ns: u64,
    /// None ran, and some waited for a CPU: a limit, in a cgroup. 0 before Linux 5.13.
    pub cpu_full_ns: u64,
    /// Some waited for memory.
    pub memory_some_ns: u64,
    /// All waited for memory.
    pub memory_full_ns: u64,
}

impl Pressure {
    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        let mut sums = self.parts();
        add_all(&mut sums, &other.parts());
        *self = Self::from_parts(sums);
    }

    /// The stalls since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        growths("pressure", &earlier.parts(), &self.parts()).map(Self::from_parts)
    }

    pub(crate) fn parts(&self) -> [u64; 4] {
        [self.cpu_some_ns, self.cpu_full_ns, self.memory_some_ns, self.memory_full_ns]
    }

    pub(crate) fn from_parts([cpu_some_ns, cpu_full_ns, memory_some_ns, memory_full_ns]: [u64; 4]) -> Self {
        Self { cpu_some_ns, cpu_full_ns, memory_some_ns, memory_full_ns }
    }
}
