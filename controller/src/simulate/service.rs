//! The closed loop: a service on a modelled machine, sized by what it waits for.
//!
//! ```text
//! rates ─▶ requests ─▶ machine ─▶ window (15 s) ─▶ sizing ─▶ request, limit
//!                         ▲                                       │
//!                         └───────────── weight, quota ───────────┘
//! ```
//!
//! A trace of usage cannot answer what a smaller or larger limit would have done, because it was recorded under one. Here wait
//! and throttling answer to the allocation.
//!
//! # Terms
//!
//! * **reserved**: the CPU request, averaged over time. It is what the scheduler sets aside on the node.
//! * **no limits**: the service alone on the machine without a quota: the best that any sizing can do.

use sampler_common::window::Window;
use serde::Serialize;

use super::Sizer;
use super::baseline::Vpa;
use super::machine::{Group, Machine, Work};
use super::rates::Rates;
use crate::decide::check::Unsafe;
use crate::decide::units::{MilliCpu, Timestamp};

const SECOND_NS: u64 = 1_000_000_000;
/// The sampler sends a window so often.
pub const WINDOW_SECONDS: u64 = 15;
/// VPA's samples are of a minute.
const MINUTE_SECONDS: u64 = 60;
/// For how long VPA has watched before.
const WARM_UP_DAYS: u64 = 8;
/// When traces begin: midnight, so that a day is a day.
const START: Timestamp = Timestamp(1_700_006_400);
/// A quota below this (ns of 100 ms) the kernel refuses.
const LEAST_QUOTA_NS: u64 = 1_000_000;

/// The machine and the service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// CPUs of the machine.
    pub cpus: usize,
    /// Threads that serve requests.
    pub workers: usize,
    /// CPU time of a request on average, in ns.
    pub mean_cpu_ns: f64,
    /// Threads of another container that never sleep, on the same machine; it has requested what is left of it.
    pub neighbors: usize,
    /// Of the random numbers.
    pub seed: u64,
}

/// What the service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// CPU request.
    pub request: MilliCpu,
    /// CPU limit; `None` is none.
    pub limit: Option<MilliCpu>,
}

/// Something that sizes a service by its windows.
///
/// # Errors
///
/// Those of the controller's own decisions: a plan was not safe.
pub trait Sizing {
    /// Learns from usage (cores, a sample a minute) of the days before.
    fn learn(&mut self, at: Timestamp, cores: f64, current: Allocation) -> Result<(), Unsafe>;

    /// The allocation after this window, which ended at `at`.
    fn next(&mut self, at: Timestamp, window: &Window, current: Allocation) -> Result<Allocation, Unsafe>;
}

/// What a sizing came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// CPU request in cores, averaged over time.
    pub cores_reserved: f64,
    /// CPU limit in cores, averaged over time; none where there was none.
    pub cores_limit: Option<f64>,
    /// CPU used, in cores.
    pub cores_used: f64,
    /// Median time of a request from arrival to answer, in ms.
    pub p50_ms: f64,
    /// The 99th percentile, in ms.
    pub p99_ms: f64,
    /// Part of the limit's periods in which the service was throttled.
    pub throttled_share: f64,
    /// Changes of request or limit.
    pub changes: u32,
    /// Window by window: CPU used (cores), and the request.
    #[serde(skip)]
    pub course: Vec<(f64, MilliCpu)>,
}

/// Never changes anything: a manifest, or no limits.
pub struct Unchanged;

impl Sizing for Unchanged {
    fn learn(&mut self, _: Timestamp, _: f64, _: Allocation) -> Result<(), Unsafe> {
        Ok(())
    }

    fn next(&mut self, _: Timestamp, _: &Window, current: Allocation) -> Result<Allocation, Unsafe> {
        Ok(current)
    }
}

/// VPA with `controlledValues: RequestsAndLimits`, which is its default: the limit keeps its ratio to the request. Its
/// updater resizes in place, at once.
#[derive(Default)]
pub struct VpaLoop {
    vpa: Vpa,
    minute: Window,
}

impl Sizing for VpaLoop {
    fn learn(&mut self, at: Timestamp, cores: f64, current: Allocation) -> Result<(), Unsafe> {
        self.vpa.learn(at, cores, current.request);
        Ok(())
    }

    fn next(&mut self, at: Timestamp, window: &Window, current: Allocation) -> Result<Allocation, Unsafe> {
        self.minute = std::mem::take(&mut self.minute).then(window);
        if !at.seconds_since(START).is_multiple_of(MINUTE_SECONDS) {
            return Ok(current);
        }
        let used = std::mem::take(&mut self.minute).used_cores().unwrap_or(0.0);
        let request = self.vpa.next(at, used, current.request);
        let limit = current.limit.map(|limit| limit.scale_up(request.0, current.request.0));
        Ok(Allocation { request, limit })
    }
}

/// Runs a service from this allocation on, sized by `sizing`.
///
/// # Errors
///
/// Those of the sizing.
pub fn run(
    rates: &Rates,
    setting: &Setting,
    start: Allocation,
    sizing: &mut dyn Sizing,
) -> Result<Outcome, Unsafe> {
    const SERVICE: usize = 0;
    const NEIGHBOR: usize = 1;
    let group = Group { weight: 100.0, outside: false, quota_ns: None };
    let mut machine = Machine::new(setting.cpus, vec![group.clone(), group]);
    (0..setting.workers).for_each(|_| machine.start(SERVICE, Work::Serve, None));
    (0..setting.neighbors).for_each(|_| machine.start(NEIGHBOR, Work::Spin, None));
    machine.arrivals(Box::new(rates.requests(setting.mean_cpu_ns, setting.seed)));
    let apply = |machine: &mut Machine, allocation: Allocation| {
        let all = setting.cpus as u64 * 1000;
        machine.set_weight(SERVICE, cpu_weight(allocation.request));
        machine.set_weight(NEIGHBOR, cpu_weight(MilliCpu(all.saturating_sub(allocation.request.0))));
        // 1 m for 100 ms is 100 µs.
        let quota_ns = allocation.limit.map(|limit| (limit.0 * 100_000).max(LEAST_QUOTA_NS));
        machine.set_quota(SERVICE, quota_ns);
    };
    apply(&mut machine, start);
    let (mut current, mut changes, mut all) = (start, 0, Window::default());
    let (mut reserved, mut limited, mut course) = (0.0, Some(0.0), Vec::new());
    let seconds = rates.per_second.len() as u64;
    let mut second = 0;
    while second < seconds {
        let length = WINDOW_SECONDS.min(seconds - second);
        second += length;
        machine.run_until(second * SECOND_NS);
        let window = machine.window(SERVICE);
        reserved += current.request.cores() * length as f64;
        limited = limited.zip(current.limit).map(|(sum, limit)| sum + limit.cores() * length as f64);
        course.push((window.used_cores().unwrap_or(0.0), current.request));
        let next = sizing.next(START.plus_seconds(second), &window, current)?;
        all = if all.length_ns == 0 { window } else { all.then(&window) };
        if next != current {
            changes += 1;
            apply(&mut machine, next);
            current = next;
        }
    }
    let mut latencies_ns = machine.latencies_ns();
    let mut quantile_ms = |q: f64| {
        let rank = (q * latencies_ns.len() as f64).ceil() as usize;
        let rank = rank.saturating_sub(1);
        if rank >= latencies_ns.len() { 0.0 } else { *latencies_ns.select_nth_unstable(rank).1 as f64 / 1e6 }
    };
    Ok(Outcome {
        cores_reserved: reserved / seconds as f64,
        cores_limit: limited.map(|limited| limited / seconds as f64),
        cores_used: all.used_cores().unwrap_or(0.0),
        p50_ms: quantile_ms(0.5),
        p99_ms: quantile_ms(0.99),
        throttled_share: all.throttled_share().unwrap_or(0.0),
        changes,
        course,
    })
}

/// Shows a sizing the usage of the 8 days before, in which the trace came again and again: `unheld` is a run of it
/// without limits.
///
/// # Errors
///
/// Those of the sizing.
pub fn warm_up(sizing: &mut dyn Sizing, unheld: &Outcome, start: Allocation) -> Result<(), Unsafe> {
    let per_minute = (MINUTE_SECONDS / WINDOW_SECONDS) as usize;
    let minutes: Vec<f64> = unheld
        .course
        .chunks(per_minute)
        .map(|windows| windows.iter().map(|window| window.0).sum::<f64>() / windows.len() as f64)
        .collect();
    let samples = WARM_UP_DAYS * 86_400 / MINUTE_SECONDS;
    for (sample, cores) in (0..samples).zip(minutes.iter().cycle()) {
        let before = (samples - 1 - sample) * MINUTE_SECONDS;
        sizing.learn(Timestamp(START.0 - before), *cores, start)?;
    }
    Ok(())
}

/// The `cpu.weight` that the kubelet sets for a request: by way of cgroup v1's shares.
/// <https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/2254-cgroup-v2>
fn cpu_weight(request: MilliCpu) -> f64 {
    let shares = (request.0 * 1024 / 1000).clamp(2, 262_144);
    (1 + (shares - 2) * 9999 / 262_142) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting { cpus: 8, workers: 16, mean_cpu_ns: 10e6, neighbors: 0, seed: 1 };

    fn rates(seconds: usize) -> Rates {
        Rates { name: "steady".into(), per_second: vec![200.0; seconds] }
    }

    fn of(request: u64, limit: Option<u64>) -> Allocation {
        Allocation { request: MilliCpu(request), limit: limit.map(MilliCpu) }
    }

    #[test]
    fn without_limits_a_request_takes_its_own_cpu_time_and_with_too_little_it_queues() {
        let free = run(&rates(60), &SETTING, of(2000, None), &mut Unchanged).unwrap();
        // Exponential of mean 10 ms: a median of 6.9 ms and a 99th percentile of 46 ms, on CPUs that are rarely all taken.
        assert!((free.p50_ms - 6.93).abs() < 0.4 && (free.p99_ms - 46.1).abs() < 3.0, "{free:?}");
        assert!((free.cores_used - 2.0).abs() < 0.1 && free.throttled_share == 0.0, "{free:?}");
        let held = run(&rates(60), &SETTING, of(1000, Some(1000)), &mut Unchanged).unwrap();
        assert!((held.cores_used - 1.0).abs() < 0.02 && held.throttled_share > 0.98, "{held:?}");
        assert!(held.p50_ms > 1000.0, "{held:?}");
        assert_eq!((held.cores_reserved, held.cores_limit, held.changes), (1.0, Some(1.0), 0));
    }

    /// Gives it more in the second window.
    struct Raise;

    impl Sizing for Raise {
        fn learn(&mut self, _: Timestamp, _: f64, _: Allocation) -> Result<(), Unsafe> {
            Ok(())
        }

        fn next(&mut self, _: Timestamp, window: &Window, _: Allocation) -> Result<Allocation, Unsafe> {
            assert_eq!(window.length_ns, WINDOW_SECONDS * SECOND_NS);
            Ok(of(4000, Some(6000)))
        }
    }

    #[test]
    fn what_is_decided_is_in_force_from_the_end_of_the_window_on() {
        let outcome = run(&rates(60), &SETTING, of(1000, Some(1000)), &mut Raise).unwrap();
        assert_eq!((outcome.changes, outcome.cores_reserved), (1, (1.0 + 3.0 * 4.0) / 4.0));
        let used: Vec<f64> = outcome.course.iter().map(|(used, _)| *used).collect();
        // The backlog of the first window is served in the second.
        assert!((used[0] - 1.0).abs() < 0.02 && used[1] > 2.5 && (used[3] - 2.0).abs() < 0.2, "{used:?}");
    }

    #[test]
    fn vpa_that_has_watched_for_8_days_applies_its_recommendation_after_a_minute_and_keeps_the_ratio() {
        let free = run(&rates(120), &SETTING, of(2000, None), &mut Unchanged).unwrap();
        let start = of(1000, Some(3000));
        let mut vpa = VpaLoop::default();
        warm_up(&mut vpa, &free, start).unwrap();
        let outcome = run(&rates(120), &SETTING, start, &mut vpa).unwrap();
        assert_eq!(outcome.changes, 1);
        let requests: Vec<MilliCpu> = outcome.course.iter().map(|(_, request)| *request).collect();
        assert_eq!(requests[..4], [MilliCpu(1000); 4]);
        // The 90th percentile of minutes that use 2 cores, at the end of its bucket, × 1.15.
        assert!((2250..2600).contains(&requests[4].0), "{requests:?}");
        let limit = outcome.cores_limit.unwrap();
        assert!((limit / outcome.cores_reserved - 3.0).abs() < 0.01, "{limit}");
    }

    #[test]
    fn a_neighbor_that_never_sleeps_leaves_what_the_request_is_worth() {
        let setting = Setting { neighbors: 16, ..SETTING };
        let small = run(&rates(60), &setting, of(1000, None), &mut Unchanged).unwrap();
        let large = run(&rates(60), &setting, of(4000, None), &mut Unchanged).unwrap();
        assert!(
            small.cores_used < 1.6 && large.cores_used > 1.9,
            "{} {}",
            small.cores_used,
            large.cores_used
        );
        assert!(large.p99_ms * 5.0 < small.p99_ms, "{} {}", large.p99_ms, small.p99_ms);
    }
}
