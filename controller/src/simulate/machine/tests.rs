use proptest::prelude::*;
use sampler_common::demand::{Bottleneck, estimate};

use super::*;

const SECOND_NS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;

fn group(weight: f64, quota_ms: Option<u64>) -> Group {
    Group { weight, outside: false, quota_ns: quota_ms.map(|ms| ms * MS_NS) }
}

/// Windows of 10 s of groups with threads that never sleep.
fn busy(cpus: usize, groups: &[(Group, usize)]) -> Vec<Window> {
    let mut machine = Machine::new(cpus, groups.iter().map(|(group, _)| group.clone()).collect());
    for (index, (_, threads)) in groups.iter().enumerate() {
        (0..*threads).for_each(|_| machine.start(index, Work::Spin, None));
    }
    machine.run_until(10 * SECOND_NS);
    (0..groups.len()).map(|index| machine.window(index)).collect()
}

fn used(window: &Window) -> f64 {
    window.used_cores().unwrap()
}

#[test]
fn a_busy_cpu_is_divided_by_weight() {
    let windows = busy(1, &[(group(100.0, None), 1), (group(300.0, None), 1)]);
    assert!((used(&windows[0]) - 0.25).abs() < 0.01, "{}", used(&windows[0]));
    assert!((used(&windows[1]) - 0.75).abs() < 0.01, "{}", used(&windows[1]));
    assert_eq!(windows[0].neighbors.len(), 1);
    assert_eq!(windows[0].neighbors[0].0, Machine::id(1));
}

#[test]
fn a_quota_is_what_is_used_and_demand_sees_through_it() {
    let windows = busy(4, &[(group(100.0, Some(50)), 1), (group(100.0, Some(150)), 4)]);
    for (window, quota, wants) in [(&windows[0], 0.5, 1.0), (&windows[1], 1.5, 3.5)] {
        assert!((used(window) - quota).abs() < 0.02, "{}", used(window));
        assert!(window.throttled_share().unwrap() > 0.95, "{:?}", window.throttling);
        let demand = estimate(window, 4);
        assert_eq!(demand.bottleneck, Bottleneck::Quota);
        assert!(demand.point >= wants * 0.9, "{demand:?}");
    }
}

#[test]
fn a_new_quota_counts_at_once() {
    let mut machine = Machine::new(2, vec![group(100.0, Some(20))]);
    machine.start(0, Work::Spin, None);
    machine.run_until(SECOND_NS);
    assert!((used(&machine.window(0)) - 0.2).abs() < 0.05);
    machine.set_quota(0, None);
    machine.run_until(2 * SECOND_NS);
    let window = machine.window(0);
    assert!(used(&window) > 0.99, "{}", used(&window));
    assert_eq!(window.throttling.periods, 0);
    assert_eq!(window.limits.cpu, None);
}

#[test]
fn requests_are_served_in_order_and_none_is_lost() {
    let mut machine = Machine::new(1, vec![group(100.0, None)]);
    machine.start(0, Work::Serve, None);
    // 10 ms of work every 20 ms: each takes 10 ms; then three at once, of which the last takes 30 ms.
    let at = |ms: u64| Request { at_ns: ms * MS_NS, needs_ns: 10 * MS_NS };
    let requests = [at(0), at(20), at(40), at(100), at(100), at(100), at(990)];
    machine.arrivals(Box::new(requests.into_iter()));
    machine.run_until(SECOND_NS);
    let latencies_ms: Vec<u64> = machine.latencies_ns().iter().map(|ns| ns / MS_NS).collect();
    assert_eq!(latencies_ms, [10, 10, 10, 10, 20, 30, 10]);
}

#[test]
fn a_request_that_is_not_done_counts_with_its_age() {
    let mut machine = Machine::new(1, vec![group(100.0, None)]);
    machine.start(0, Work::Serve, None);
    let requests = [Request { at_ns: 0, needs_ns: 5 * SECOND_NS }, Request { at_ns: SECOND_NS, needs_ns: 1 }];
    machine.arrivals(Box::new(requests.into_iter()));
    machine.run_until(3 * SECOND_NS);
    assert_eq!(machine.latencies_ns(), [3 * SECOND_NS, 2 * SECOND_NS]);
}

fn work() -> impl Strategy<Value = Work> {
    let duty = (1..20_000u64, 1..40_000u64)
        .prop_map(|(run_us, period_us)| Work::Duty { run_ns: run_us * 1000, period_ns: period_us * 1000 });
    prop_oneof![Just(Work::Spin), duty]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_is_invented_and_nothing_lies_idle(
        cpus in 1..5usize,
        groups in prop::collection::vec((1..1000u32, prop::option::of(1..300u64), prop::collection::vec(work(), 1..5)), 1..4),
    ) {
        let all = groups.iter().map(|(weight, quota_ms, _)| group(f64::from(*weight), *quota_ms)).collect();
        let run = || {
            let mut machine = Machine::new(cpus, Vec::clone(&all));
            for (index, (_, _, works)) in groups.iter().enumerate() {
                works.iter().for_each(|work| machine.start(index, *work, None));
            }
            machine.run_until(SECOND_NS);
            (0..groups.len()).map(|index| machine.window(index)).collect::<Vec<_>>()
        };
        let windows = run();
        prop_assert_eq!(&windows, &run());
        let total: f64 = windows.iter().map(used).sum();
        prop_assert!(total <= cpus as f64 + 1e-9);
        let mut spinners = 0;
        for ((_, quota_ms, works), window) in groups.iter().zip(&windows) {
            prop_assert_eq!(window.causes.total(), window.wait_ns());
            prop_assert!(used(window) <= works.len() as f64 + 1e-9);
            if let Some(quota_ms) = quota_ms {
                // Each CPU may overrun it by a tick, once.
                let overrun = cpus as f64 * 0.004 + 0.005;
                prop_assert!(used(window) <= *quota_ms as f64 / 100.0 * 1.1 + overrun, "{} of {quota_ms}", used(window));
                prop_assert!(window.throttling.throttled_periods <= window.throttling.periods);
            } else {
                prop_assert_eq!((window.causes.quota_ns, window.throttling.periods), (0, 0));
                spinners += works.iter().filter(|work| **work == Work::Spin).count();
            }
        }
        // Threads that never sleep and have no quota fill the CPUs, but for the tick until one is moved.
        prop_assert!(total >= spinners.min(cpus) as f64 * 0.97, "{total} of {spinners} on {cpus}");
    }
}
