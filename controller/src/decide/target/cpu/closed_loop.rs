//! A throttled container in a closed loop with its target: threads that work and sleep by turns, under a quota.
//!
//! The kernel's bandwidth control in steps of half a millisecond: in each period of 100 ms the threads run, each on a CPU
//! of its own, until the quota is used up, and then wait for the next period. Windows are made of what they then waited
//! for, as the sampler makes them.

use sampler_common::buckets;
use sampler_common::resources::{CpuLimit, LimitOf, Limits};
use sampler_common::snapshot::{Cause, Durations};
use sampler_common::throttle::DURATIONS;
use sampler_common::window::Window;

use super::*;
use crate::decide::policy::Objectives;

const STEP_US: u64 = 500;
const PERIOD_US: u64 = 100_000;
const CPUS: u32 = 8;

/// Threads that work for so long, then sleep for so long.
#[derive(Clone, Copy, Debug)]
struct Load {
    threads: u64,
    work_us: u64,
    sleep_us: u64,
}

impl Load {
    /// What they use where nothing holds them back, in cores.
    fn demand(self) -> f64 {
        self.threads as f64 * self.work_us as f64 / (self.work_us + self.sleep_us) as f64
    }
}

#[derive(Clone, Copy)]
enum Thread {
    Works { left_us: u64 },
    Sleeps { left_us: u64 },
}

/// The window of so many seconds under a limit.
fn window(load: Load, limit: MilliCpu, seconds: u64) -> Window {
    let Load { threads, work_us, sleep_us } = load;
    // They do not start as one.
    let mut all: Vec<(Thread, u64)> = (0..threads)
        .map(|i| (Thread::Sleeps { left_us: (i * sleep_us / threads).next_multiple_of(STEP_US) }, 0))
        .collect();
    let quota_us = limit.0 * PERIOD_US / 1000;
    let mut window = Window { length_ns: seconds * 1_000_000_000, ..Window::default() };
    let own = CpuLimit { quota_us, period_us: PERIOD_US, of: LimitOf::Own };
    window.limits = Limits { cpu: Some(own), ..Limits::default() };
    let (mut left_us, mut throttled) = (quota_us, None);
    let mut durations = [0u64; DURATIONS];
    for now_us in (0..seconds * 1_000_000).step_by(STEP_US as usize) {
        if now_us % PERIOD_US == 0 {
            left_us = quota_us;
            window.throttling.periods += 1;
            if let Some((since_us, queues)) = throttled.take() {
                durations[0] += queues;
                window.throttling.throttled_ns += queues * (now_us - since_us) * 1000;
            }
        }
        for (thread, waited_us) in &mut all {
            *thread = match *thread {
                Thread::Sleeps { left_us: 0 } => Thread::Works { left_us: work_us },
                Thread::Sleeps { left_us } => Thread::Sleeps { left_us: left_us - STEP_US },
                works => works,
            };
            let Thread::Works { left_us: work_left_us } = *thread else { continue };
            if left_us < STEP_US {
                *waited_us += STEP_US;
                continue;
            }
            if *waited_us > 0 {
                let ns = *waited_us * 1000;
                window.latency.record(ns);
                window.causes.quota_ns += ns;
                let octave = buckets::octave(buckets::bucket(ns));
                window.coarse[Cause::Quota as usize].counts[octave as usize] += 1;
                *waited_us = 0;
            }
            left_us -= STEP_US;
            window.usage_ns += STEP_US * 1000;
            *thread = match work_left_us - STEP_US {
                0 => Thread::Sleeps { left_us: sleep_us },
                left_us => Thread::Works { left_us },
            };
        }
        let runnable = all.iter().filter(|thread| matches!(thread.0, Thread::Works { .. })).count() as u64;
        if left_us < STEP_US && throttled.is_none() && runnable > 0 {
            throttled = Some((now_us + STEP_US, runnable));
            window.throttling.throttled_periods += 1;
        }
    }
    window.throttling.durations = Durations::Counted(durations);
    window
}

/// What the policy and a window make of a limit.
fn sized(window: &Window, limit: MilliCpu, policy: &Policy) -> CpuTarget {
    let signal = Signal::of(window, CPUS, &policy.objectives).unwrap();
    // Nothing else is known of it: the window alone decides.
    let history = History::new(Timestamp(0), policy.history.window);
    cpu(&CpuInputs {
        history: &history,
        request: limit,
        limit: Some(limit),
        qos: Qos::Burstable,
        started_with: limit,
        started_limit: None,
        signal: Some(&signal),
        changes: Changes::default(),
        policy,
        age_seconds: 600,
        now: Timestamp(600),
    })
}

fn both() -> Policy {
    Policy { controlled_values: ControlledValues::RequestsAndLimits, ..Policy::default() }
}

#[test]
fn a_throttled_constant_load_gets_its_demand_in_one_step() {
    let policy = both();
    let Objectives { throttled_share, .. } = policy.objectives;
    let loads = [
        // Never sleeps; serves requests of 5 ms and of 20 ms; four that do.
        Load { threads: 1, work_us: 10_000, sleep_us: 0 },
        Load { threads: 1, work_us: 5_000, sleep_us: 5_000 },
        Load { threads: 1, work_us: 20_000, sleep_us: 20_000 },
        Load { threads: 4, work_us: 5_000, sleep_us: 15_000 },
    ];
    for load in loads {
        for percent in [10, 25, 50, 80] {
            let limit = MilliCpu::ceil_cores(load.demand()).scale_up(percent, 100);
            let target = sized(&window(load, limit, 20), limit, &policy);
            let raised = target.limit.unwrap_or(limit);
            let of_demand = raised.cores() / load.demand();
            // The margin is 15 %, and demand is off by 5 % at most.
            assert!(
                (1.09..1.21).contains(&of_demand),
                "{load:?} at {percent} %: {of_demand:.2} of its demand"
            );
            assert_eq!(target.reason, Reason::LimitRaised, "{load:?} at {percent} %");
            let after = window(load, raised, 20);
            let used = after.used_cores().unwrap() / load.demand();
            assert!(used > 0.98, "{load:?} at {percent} %: then uses {used:.2} of its demand");
            // Pieces of work that do not divide a period meet its end: what is left of throttling goes in one more step.
            let last = sized(&after, raised, &policy).limit.unwrap_or(raised);
            let share = window(load, last, 20).throttled_share().unwrap();
            assert!(last.cores() <= 1.3 * raised.cores(), "{load:?} at {percent} %: {raised}, then {last}");
            assert!(
                share <= throttled_share.fraction(),
                "{load:?} at {percent} %: still throttled in {share:.2}"
            );
        }
    }
}

#[test]
fn bursts_longer_than_a_period_take_three_steps_at_most() {
    // Half a core on the whole, and a whole one for 300 ms at a time.
    let load = Load { threads: 1, work_us: 300_000, sleep_us: 300_000 };
    let policy = both();
    let mut limit = MilliCpu(100);
    let mut steps = 0;
    loop {
        let target = sized(&window(load, limit, 30), limit, &policy);
        let Some(raised) = target.limit else { break };
        assert!(raised > limit, "{target:?}");
        (limit, steps) = (raised, steps + 1);
    }
    assert!(steps <= 3 && (1_000..1_200).contains(&limit.0), "{limit} after {steps} steps");
}

#[test]
fn with_requests_only_the_limit_is_named_and_stays() {
    let load = Load { threads: 1, work_us: 5_000, sleep_us: 5_000 };
    let limit = MilliCpu(100);
    let target = sized(&window(load, limit, 20), limit, &Policy::default());
    assert_eq!((target.request, target.limit, target.reason), (limit, None, Reason::LimitBinds));
}
