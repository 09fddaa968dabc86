//! The window that a sampler would have measured of a container that wanted so much and got so much.

use sampler_common::abi::TOLD;
use sampler_common::buckets::{self, BUCKETS, OCTAVES};
use sampler_common::histogram::LatencyHistogram;
use sampler_common::resources::{CpuLimit, LimitOf, Limits, Memory};
use sampler_common::snapshot::{Cause, Causes, Durations, Throttling};
use sampler_common::throttle::{DURATIONS, duration_bucket};
use sampler_common::window::Window;

use crate::decide::units::{Bytes, MilliCpu, Timestamp};

const PERIOD_NS: u64 = 100_000_000;
/// A wait for nobody: the wake-up of a thread.
const WAKE_UP_NS: u64 = 20_000;
/// A wait for another container: some slices.
const SLICES_NS: u64 = 12_000_000;

/// What a container wanted and got in a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minute {
    /// CPU that it would have used, in cores.
    pub wants: f64,
    /// CPU that it was given, in cores; not more.
    pub gets: f64,
    /// Whether its own limit is what held it back; else other containers did.
    pub held_by_limit: bool,
    /// Its limit.
    pub limit: Option<MilliCpu>,
    /// Its working set.
    pub memory: Bytes,
    /// When it ended.
    pub until: Timestamp,
}

impl Minute {
    const NS: u64 = 60_000_000_000;

    /// As the sampler sees it: its threads ran for what they were given, and waited such that without the wait they would have
    /// used what was wanted (the demand model, the other way round).
    pub fn window(&self) -> Window {
        let used_ns = (self.gets * Self::NS as f64) as u64;
        let threads = self.wants.ceil().max(1.0);
        let held = if self.gets < self.wants { threads * (1.0 - self.gets / self.wants) } else { 0.0 };
        let held_ns = (held * Self::NS as f64) as u64;
        let periods = Self::NS / PERIOD_NS;
        let (cause, delays) = match self.held_by_limit {
            true => (Cause::Quota, periods * threads as u64),
            false => (Cause::Neighbor, held_ns.div_ceil(SLICES_NS)),
        };
        let wake_ups = 100 + (self.gets * 6_000.0) as u64;
        let mut counts = [0; BUCKETS];
        let mut coarse = [[0u32; OCTAVES]; TOLD];
        let mut count = |cause: Cause, delays: u64, ns: u64| {
            let bucket = buckets::bucket(ns);
            counts[bucket as usize] += delays;
            coarse[cause as usize][buckets::octave(bucket) as usize] += delays as u32;
        };
        count(Cause::Idle, wake_ups, WAKE_UP_NS);
        let idle_ns = wake_ups * WAKE_UP_NS;
        if held_ns > 0 && delays > 0 {
            count(cause, delays, held_ns / delays);
        }
        let mut causes = Causes { idle_ns, ..Causes::default() };
        match cause {
            Cause::Quota => causes.quota_ns = held_ns,
            _ => causes.neighbor_ns = held_ns,
        }
        let mut window = Window {
            length_ns: Self::NS,
            latency: LatencyHistogram::new(counts, held_ns + idle_ns),
            causes,
            usage_ns: used_ns,
            throttling: self.throttling(periods, held),
            limits: Limits {
                cpu: self.limit.map(|limit| CpuLimit {
                    quota_us: (limit.0 * PERIOD_NS / 1_000_000).max(1_000),
                    period_us: PERIOD_NS / 1000,
                    of: LimitOf::Own,
                }),
                ..Limits::default()
            },
            memory: Some(Memory {
                current_bytes: self.memory.0,
                working_set_bytes: self.memory.0,
                peak_bytes: None,
                read_ns: self.until.0.saturating_mul(1_000_000_000),
            }),
            ..Window::default()
        };
        for (sum, counts) in window.coarse.iter_mut().zip(&coarse) {
            sum.add_row(counts);
        }
        window
    }

    /// One that its limit holds back is throttled in every period, for the part that its threads waited.
    fn throttling(&self, periods: u64, held: f64) -> Throttling {
        if self.limit.is_none() {
            return Throttling::default();
        }
        let throttled = self.held_by_limit && held > 0.0;
        let part = (held / self.wants.ceil().max(1.0)).clamp(0.0, 1.0);
        let each_ns = (part * PERIOD_NS as f64) as u64;
        let mut durations = [0; DURATIONS];
        let throttled_periods = if throttled { periods } else { 0 };
        durations[duration_bucket(each_ns)] = throttled_periods;
        Throttling {
            periods,
            throttled_periods,
            throttled_ns: throttled_periods * each_ns,
            ancestors_throttled_periods: 0,
            durations: Durations::Counted(durations),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sampler_common::demand::{Bottleneck, estimate};

    use super::*;

    proptest! {
        /// What goes in comes out of the demand model again.
        #[test]
        fn the_demand_model_finds_what_was_wanted(wants in 0.01..8.0f64, share in 0.2..1.0f64, held_by_limit: bool) {
            let gets = wants * share;
            let limit = held_by_limit.then(|| MilliCpu::ceil_cores(gets));
            let until = Timestamp(60);
            let window = Minute { wants, gets, held_by_limit, limit, memory: Bytes(1 << 30), until }.window();
            let demand = estimate(&window, 64);
            prop_assert_eq!(window.causes.total(), window.wait_ns());
            prop_assert!((demand.lower - gets).abs() < 1e-6, "{demand:?}");
            prop_assert!(demand.lower <= wants + 1e-6 && demand.upper >= 0.99 * wants, "{demand:?} of {wants}");
            if share < 0.9 {
                let bottleneck = if held_by_limit { Bottleneck::Quota } else { Bottleneck::Neighbors };
                prop_assert_eq!(demand.bottleneck, bottleneck);
            } else if share > 0.9999 {
                prop_assert_eq!(demand.bottleneck, Bottleneck::None);
            }
        }
    }
}
