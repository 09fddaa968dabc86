//! What the sampler would have counted of a group.

use sampler_common::abi::TOLD;
use sampler_common::buckets::{self, OCTAVES};
use sampler_common::histogram::LatencyHistogram;
use sampler_common::resources::{CpuLimit, LimitOf, Limits};
use sampler_common::snapshot::{Cause, Causes, Durations, Throttling};
use sampler_common::throttle::{DURATIONS, duration_bucket};
use sampler_common::window::{Case, Window};

use super::Machine;

/// What a thread has waited since it was queued, in ns.
#[derive(Clone, Debug)]
pub struct Waited {
    /// In the order of [`Cause::ALL`].
    by_cause_ns: [u64; TOLD],
    /// By group.
    neighbors_ns: Vec<u64>,
}

impl Waited {
    /// Nothing, on a machine with so many groups.
    pub fn new(groups: usize) -> Self {
        Self { by_cause_ns: [0; TOLD], neighbors_ns: vec![0; groups] }
    }

    /// It waited for this.
    pub fn add(&mut self, cause: Cause, ns: u64) {
        self.by_cause_ns[cause as usize] += ns;
    }

    /// Part of its wait for neighbours was for this group.
    pub fn add_neighbor(&mut self, group: usize, ns: u64) {
        self.neighbors_ns[group] += ns;
    }

    /// It runs, or begins to wait.
    pub fn clear(&mut self) {
        self.by_cause_ns = [0; TOLD];
        self.neighbors_ns.fill(0);
    }

    /// All of it.
    pub fn total_ns(&self) -> u64 {
        self.by_cause_ns.iter().sum()
    }
}

/// What was counted of a group since its last window.
#[derive(Clone, Debug, Default)]
pub struct Account {
    begun_ns: u64,
    latency: LatencyHistogram,
    causes: Causes,
    coarse: [[u32; OCTAVES]; TOLD],
    neighbors_ns: Vec<u64>,
    throttled_ns: u64,
    throttles: [u64; DURATIONS],
    /// Periods, and throttled periods, before this window.
    periods_before: (u64, u64),
    /// CPU time, in ns.
    pub usage_ns: u64,
}

impl Account {
    /// One of its threads was switched in after such a wait.
    pub fn switched_in(&mut self, waited: &Waited) {
        let delay_ns = waited.total_ns();
        self.latency.record(delay_ns);
        let [quota_ns, self_ns, neighbor_ns, system_ns, idle_ns] = waited.by_cause_ns;
        self.causes.merge(&Causes {
            quota_ns,
            self_ns,
            neighbor_ns,
            system_ns,
            idle_ns,
            ..Causes::default()
        });
        let octave = buckets::octave(buckets::bucket(delay_ns)) as usize;
        // The first of equal ones, as the kernel's side does.
        let largest = (0..TOLD).rev().max_by_key(|cause| waited.by_cause_ns[*cause]).unwrap_or(0);
        self.coarse[largest][octave] += 1;
        self.neighbors_ns.resize(waited.neighbors_ns.len(), 0);
        for (sum, more) in self.neighbors_ns.iter_mut().zip(&waited.neighbors_ns) {
            *sum += more;
        }
    }

    /// It was throttled on one CPU for so long.
    pub fn throttled(&mut self, ns: u64) {
        self.throttled_ns += ns;
        self.throttles[duration_bucket(ns)] += 1;
    }

    /// The window that ends now, and begins the next. `limit` is quota and period in µs, `periods` all periods so far and
    /// those with a throttle.
    pub fn window(
        &mut self,
        now_ns: u64,
        limit: Option<(u64, u64)>,
        weight: f64,
        periods: (u64, u64),
    ) -> Window {
        let counted =
            std::mem::replace(self, Self { begun_ns: now_ns, periods_before: periods, ..Self::default() });
        let named = counted.neighbors_ns.iter().enumerate().filter(|(_, ns)| **ns > 0);
        let mut neighbors: Vec<_> = named.map(|(group, ns)| (Machine::id(group), *ns)).collect();
        neighbors.sort_by_key(|(id, ns)| (std::cmp::Reverse(*ns), *id));
        let mut window = Window {
            case: Case::Continued,
            length_ns: now_ns - counted.begun_ns,
            latency: counted.latency,
            causes: counted.causes,
            neighbors,
            usage_ns: counted.usage_ns,
            throttling: Throttling {
                periods: periods.0 - counted.periods_before.0,
                throttled_periods: periods.1 - counted.periods_before.1,
                throttled_ns: counted.throttled_ns,
                ancestors_throttled_periods: 0,
                durations: Durations::Counted(counted.throttles),
            },
            limits: Limits {
                cpu: limit.map(|(quota_us, period_us)| CpuLimit { quota_us, period_us, of: LimitOf::Own }),
                cpu_weight: Some(weight.round().clamp(1.0, 10_000.0) as u64),
                ..Limits::default()
            },
            ..Window::default()
        };
        for (sum, counts) in window.coarse.iter_mut().zip(&counted.coarse) {
            sum.add_row(counts);
        }
        window
    }
}
