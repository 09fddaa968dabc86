use proptest::prelude::*;

use super::*;
use crate::histogram::{CoarseHistogram, LatencyHistogram};
use crate::resources::{CpuLimit, Limits};
use crate::snapshot::{Causes, Cycles};

const SECOND: u64 = 1_000_000_000;

/// Any window of up to 20 s of a container of up to 100 threads, throttled or not.
fn window() -> impl Strategy<Value = Window> {
    (1..20 * SECOND).prop_flat_map(|length_ns| {
        let ns = || prop_oneof![Just(0), 0..2 * length_ns, 0..100 * length_ns];
        let causes = (ns(), ns(), ns(), ns(), ns(), ns(), ns()).prop_map(
            |(quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, untold_ns)| Causes {
                quota_ns,
                self_ns,
                neighbor_ns,
                system_ns,
                idle_ns,
                away_ns,
                untold_ns,
                beyond_ns: 0,
            },
        );
        let throttling = (0..200u64, ns(), 0..1000u64, 0..3u64);
        let unmet =
            prop::option::of((ns(), ns()).prop_map(|(paced_ns, busy_ns)| Unmet { paced_ns, busy_ns }));
        let unmet = (unmet, prop::option::of(cycles()));
        (Just(length_ns), ns(), causes, unmet, throttling, 0..10_000u64, delays()).prop_map(
            |(length_ns, usage_ns, causes, (unmet, cycles), throttling, quota_delays, latency)| {
                let (throttled_periods, throttled_ns, throttles, ancestors) = throttling;
                // Who was switched in has run; without, its use would not be known.
                let usage_ns = if latency.is_empty() { usage_ns } else { usage_ns.max(1) };
                let mut window =
                    Window { length_ns, usage_ns, causes, unmet, cycles, latency, ..Window::default() };
                window.coarse[Cause::Quota as usize].counts[0] = quota_delays;
                window.throttling = Throttling {
                    periods: 200,
                    throttled_periods,
                    throttled_ns,
                    ancestors_throttled_periods: ancestors,
                    durations: counted(throttles),
                };
                window
            },
        )
    })
}

/// Of any differences of waits and sleeps.
fn cycles() -> impl Strategy<Value = Cycles> {
    prop::collection::vec((-60_000..60_000i64, -60_000..60_000i64), 0..20).prop_map(|differences| {
        let mut cycles = Cycles::default();
        for (wait, sleep) in differences {
            let square = |difference: i64| (difference * difference) as u64;
            cycles.merge(&Cycles::from_parts([1, square(wait), square(sleep), square(wait + sleep)]));
        }
        cycles
    })
}

fn delays() -> impl Strategy<Value = LatencyHistogram> {
    prop::collection::vec(SECOND / 1000..SECOND, 0..5).prop_map(|delays| {
        let mut histogram = LatencyHistogram::default();
        delays.into_iter().for_each(|delay| histogram.record(delay));
        histogram
    })
}

fn counted(throttles: u64) -> Durations {
    let mut counts = [0; crate::throttle::DURATIONS];
    counts[0] = throttles;
    Durations::Counted(counts)
}

/// `more` is not less, but for what the last digits of a float are off by.
fn not_less(more: f64, less: f64) -> bool {
    more >= less - 1e-9 * less.abs()
}

fn near(one: f64, another: f64) -> bool {
    not_less(one, another) && not_less(another, one)
}

/// Everything in a window that is a time, longer by so many octaves.
fn stretched(window: &Window, octaves: usize) -> Window {
    let times = |ns: u64| ns << octaves;
    let mut counts = *window.latency.counts();
    counts.rotate_right(8 * octaves);
    let mut window = Window {
        length_ns: times(window.length_ns),
        usage_ns: times(window.usage_ns),
        causes: Causes::from_parts(window.causes.parts().map(times)),
        unmet: window.unmet.map(|unmet| Unmet::from_parts(unmet.parts().map(times))),
        latency: LatencyHistogram::new(counts, times(window.latency.sum_ns())),
        ..window.clone()
    };
    window.throttling.throttled_ns <<= octaves;
    window
}

/// `threads` that never sleep, with a limit of `cores` in periods of 100 ms, for 5 s on two CPUs: at the beginning of
/// each period they run until the quota is used up.
fn spinning(threads: u64, cores: f64, with_pace: bool) -> Window {
    const PERIODS: u64 = 50;
    let period_ns = SECOND / 10;
    let running = threads.min(2);
    let quota_ns = (cores * period_ns as f64) as u64;
    let runs_ns = quota_ns / running;
    let throttled_ns = period_ns - runs_ns;
    let mut window = Window {
        length_ns: PERIODS * period_ns,
        usage_ns: PERIODS * quota_ns,
        causes: Causes {
            quota_ns: PERIODS * threads * throttled_ns,
            self_ns: PERIODS * (threads - running) * runs_ns,
            ..Causes::default()
        },
        ..Window::default()
    };
    window.unmet = with_pace.then_some(Unmet { paced_ns: 0, busy_ns: window.causes.total() });
    window.coarse[Cause::Quota as usize] = quota_delays(PERIODS * threads);
    window.throttling = Throttling {
        periods: PERIODS,
        throttled_periods: PERIODS,
        throttled_ns: PERIODS * running * throttled_ns,
        ancestors_throttled_periods: 0,
        durations: counted(PERIODS * running),
    };
    window
}

fn quota_delays(count: u64) -> CoarseHistogram {
    let mut delays = CoarseHistogram::default();
    delays.counts[0] = count;
    delays
}

/// One thread that ran and waited for so many ms of a second, without throttles.
fn starved(run_ms: u64, wait_ms: u64) -> Window {
    let ns = |ms: u64| ms * (SECOND / 1000);
    Window {
        length_ns: SECOND,
        usage_ns: ns(run_ms),
        causes: Causes { neighbor_ns: ns(wait_ms), ..Causes::default() },
        ..Window::default()
    }
}

/// Cycles of threads that sleep for as long after long waits as after short ones.
fn closed_loops() -> Cycles {
    Cycles { count: 100, waits: 1 << 40, sleeps: 0, sums: 1 << 40 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bounds_hold_the_point_and_usage_and_lie_within_the_node(window in window(), cpus in 1..128u32) {
        let Demand { point, lower, upper, confidence, .. } = estimate(&window, cpus);
        let used = window.used_cores().unwrap();
        prop_assert_eq!(lower, used);
        prop_assert!(lower <= point && point <= upper && upper <= used.max(f64::from(cpus)), "{lower} {point} {upper}");
        prop_assert!((0.0..=1.0).contains(&confidence), "{confidence}");
    }

    #[test]
    fn without_a_wait_but_for_wake_ups_it_is_usage(window in window(), cpus in 1..128u32) {
        let idle_ns = window.causes.idle_ns;
        let window = Window { causes: Causes { idle_ns, ..Causes::default() }, ..window };
        let window = Window { throttling: Throttling::default(), ..window };
        let demand = estimate(&window, cpus);
        let used = window.used_cores().unwrap();
        prop_assert!(near(demand.point, used) && near(demand.upper, used), "{demand:?}, {used} used");
        prop_assert_eq!(demand.bottleneck, Bottleneck::None);
    }

    #[test]
    fn more_usage_or_more_wait_never_lowers_it(
        window in window(), cpus in 1..128u32, part in 0..10usize, more in 0..30 * SECOND
    ) {
        let mut larger = window.clone();
        let mut nothing = Unmet::default();
        let unmet = larger.unmet.as_mut().unwrap_or(&mut nothing);
        let grows = match part {
            8 => &mut unmet.paced_ns,
            9 => &mut unmet.busy_ns,
            0 => &mut larger.usage_ns,
            1 => &mut larger.causes.quota_ns,
            2 => &mut larger.causes.neighbor_ns,
            3 => &mut larger.causes.system_ns,
            4 => &mut larger.causes.away_ns,
            5 => &mut larger.causes.self_ns,
            6 => &mut larger.causes.idle_ns,
            _ => &mut larger.causes.untold_ns,
        };
        *grows += more;
        let (less, more) = (estimate(&window, cpus), estimate(&larger, cpus));
        prop_assert!(not_less(more.lower, less.lower), "{less:?} {more:?}");
        prop_assert!(not_less(more.point, less.point), "{less:?} {more:?}");
        prop_assert!(not_less(more.upper, less.upper), "{less:?} {more:?}");
    }

    #[test]
    fn more_cpus_never_lower_it(window in window(), cpus in 1..64u32, more in 0..64u32) {
        let (few, many) = (estimate(&window, cpus), estimate(&window, cpus + more));
        prop_assert!(many.point >= few.point && many.upper >= few.upper && many.lower == few.lower);
    }

    #[test]
    fn the_unit_of_time_does_not_matter(window in window(), cpus in 1..128u32, octaves in 1..4usize) {
        let (short, long) = (estimate(&window, cpus), estimate(&stretched(&window, octaves), cpus));
        prop_assert!(near(short.point, long.point) && near(short.upper, long.upper), "{short:?} {long:?}");
        prop_assert!(near(short.lower, long.lower));
        prop_assert_eq!(short.bottleneck, long.bottleneck);
    }

    #[test]
    fn a_window_and_another_like_it_are_surer_of_the_same(window in window(), cpus in 1..128u32) {
        let (one, two) = (estimate(&window, cpus), estimate(&window.clone().then(&window), cpus));
        prop_assert!(near(one.lower, two.lower), "{one:?} {two:?}");
        // The longer one knows better how many threads there are, and less of it is missing at its end.
        prop_assert!(not_less(one.point, two.point) && not_less(one.upper, two.upper), "{one:?} {two:?}");
    }

    #[test]
    fn containers_without_waits_add_up(one in window(), other in window()) {
        let calm = |window: Window| Window {
            length_ns: SECOND,
            causes: Causes::default(),
            throttling: Throttling::default(),
            ..window
        };
        let (one, other) = (calm(one), calm(other));
        let sum = estimate(&one, 128).point + estimate(&other, 128).point;
        prop_assert!(near(estimate(&one.beside(&other), 128).point, sum));
    }

    #[test]
    fn one_window_finds_what_throttled_threads_that_never_sleep_want(
        threads in 1..8u64, level in prop::sample::select(vec![0.05, 0.1, 0.25, 0.5, 0.8, 0.95]), with_pace: bool
    ) {
        let wants = threads.min(2) as f64;
        let demand = estimate(&spinning(threads, level * wants, with_pace), 2);
        prop_assert!((demand.point / wants - 1.0).abs() < 1e-6, "{demand:?}");
        prop_assert_eq!(demand.bottleneck, Bottleneck::Quota);
        // The raise that it asks for ends it: nothing waits for the quota any more.
        let raised = estimate(&spinning(threads, demand.point, with_pace), 2);
        prop_assert!((raised.lower / wants - 1.0).abs() < 1e-6 && raised.confidence > 0.999, "{raised:?}");
        prop_assert!(demand.confidence <= level + 1e-6, "who never sleeps may have a backlog: {demand:?}");
        prop_assert_eq!(raised.bottleneck, if threads > 2 { Bottleneck::Own } else { Bottleneck::None });
    }

    #[test]
    fn one_window_finds_the_pace_of_a_thread_that_works_and_sleeps(
        run in 1..1000u64, sleep in 1..1000u64, level in 0.05..0.95f64
    ) {
        // In a second it gets `used`; the rest of its pace it sleeps, and what is left it waits.
        let wants = run as f64 / (run + sleep) as f64;
        let used = level * wants;
        let wait = 1.0 - used / wants;
        let ns = |part: f64| (part * SECOND as f64) as u64;
        let window = Window {
            length_ns: SECOND,
            usage_ns: ns(used),
            causes: Causes { neighbor_ns: ns(wait), ..Causes::default() },
            ..Window::default()
        };
        let demand = estimate(&window, 4);
        prop_assert!((demand.point / wants - 1.0).abs() < 1e-3, "{demand:?} for {wants}");
        prop_assert!(demand.lower <= wants && wants <= demand.upper * 1.001);
    }

    #[test]
    fn one_window_finds_what_any_threads_want_whose_paces_are_known(
        threads in prop::collection::vec((1..1000u64, 1..1000u64, 0.05..0.95f64), 1..8)
    ) {
        let ns = |part: f64| (part * SECOND as f64) as u64;
        let mut wants = 0.0;
        let mut window = Window {
            length_ns: SECOND,
            unmet: Some(Unmet::default()),
            cycles: Some(closed_loops()),
            ..Window::default()
        };
        for (run, sleep, level) in threads {
            let pace = run as f64 / (run + sleep) as f64;
            wants += pace;
            window.usage_ns += ns(level * pace);
            window.causes.neighbor_ns += ns(1.0 - level);
            window.unmet.as_mut().unwrap().paced_ns += ns((1.0 - level) * pace);
        }
        let demand = estimate(&window, 128);
        prop_assert!((demand.point / wants - 1.0).abs() < 1e-3, "{demand:?} for {wants}");
        prop_assert!(demand.confidence > 0.999, "{demand:?}");
    }
}

/// What holds back a container that waits most for this, and was throttled by these limits.
fn bottleneck_of(causes: Causes, own: u64, ancestors: u64, tightest: Option<LimitOf>) -> Bottleneck {
    let throttling = Throttling {
        throttled_periods: own,
        ancestors_throttled_periods: ancestors,
        ..Throttling::default()
    };
    let cpu = tightest.map(|of| CpuLimit { quota_us: 50_000, period_us: 100_000, of });
    let limits = Limits { cpu, ..Limits::default() };
    let window =
        Window { length_ns: SECOND, usage_ns: SECOND / 4, causes, throttling, limits, ..Window::default() };
    estimate(&window, 4).bottleneck
}

#[test]
fn the_bottleneck_is_the_cause_of_most_of_the_wait() {
    let most = |causes| bottleneck_of(causes, 0, 0, None);
    let rest = Causes { self_ns: 1 << 20, neighbor_ns: 1 << 20, system_ns: 1 << 20, ..Causes::default() };
    let much = SECOND / 2;
    assert_eq!(most(Causes { self_ns: much, ..Causes::default() }), Bottleneck::Own);
    assert_eq!(most(Causes { self_ns: much, neighbor_ns: much / 2, ..rest }), Bottleneck::Own);
    assert_eq!(most(Causes { self_ns: much / 2, neighbor_ns: much, ..rest }), Bottleneck::Neighbors);
    assert_eq!(most(Causes { neighbor_ns: much, ..rest }), Bottleneck::Neighbors);
    assert_eq!(most(Causes { system_ns: much, ..rest }), Bottleneck::System);
    assert_eq!(most(Causes { beyond_ns: much, ..rest }), Bottleneck::Unknown);
    assert_eq!(most(Causes { idle_ns: much, ..Causes::default() }), Bottleneck::None);
    assert_eq!(most(Causes { neighbor_ns: SECOND / 1000, ..Causes::default() }), Bottleneck::None);
}

#[test]
fn a_limit_is_named_by_whose_it_is() {
    let causes = Causes { quota_ns: SECOND / 2, ..Causes::default() };
    let cases = [
        (50, 0, None, Bottleneck::Quota),
        (50, 0, Some(LimitOf::Ancestor), Bottleneck::Quota),
        (0, 50, Some(LimitOf::Own), Bottleneck::AncestorQuota),
        (1, 50, Some(LimitOf::Ancestor), Bottleneck::AncestorQuota),
        (50, 1, Some(LimitOf::Own), Bottleneck::Quota),
    ];
    for (own, ancestors, tightest, bottleneck) in cases {
        assert_eq!(
            bottleneck_of(causes, own, ancestors, tightest),
            bottleneck,
            "{own} {ancestors} {tightest:?}"
        );
        // Without the hooks the cause is unknown, and that it was throttled is not.
        let untold = Causes { untold_ns: causes.quota_ns, ..Causes::default() };
        assert_eq!(bottleneck_of(untold, own, ancestors, tightest), bottleneck);
    }
}

#[test]
fn an_empty_window_says_nothing() {
    let demand = estimate(&Window::default(), 4);
    assert_eq!((demand.point, demand.upper, demand.confidence), (0.0, 0.0, 0.0));
}

#[test]
fn a_wait_that_is_still_on_is_allowed_for_in_the_upper_bound() {
    // 0.1 s of 1 s run, 0.4 s waited, and 0.4 s more at its end that nobody has counted yet.
    let mut window = starved(100, 400);
    window.latency.record(400 * SECOND / 1000);
    let demand = estimate(&window, 4);
    assert!((demand.point - 0.1 / 0.6).abs() < 1e-9, "{demand:?}");
    assert!(demand.upper > 0.1 / 0.2 && demand.upper < 1.0, "{demand:?}");
    // Longer than can be told: all that may be.
    window.latency.record(9 * SECOND);
    assert!(estimate(&window, 4).upper >= 1.0);
}

#[test]
fn the_count_of_waits_for_the_quota_tells_several_threads_from_one() {
    // Two threads that want a quarter each, throttled in each of ten periods: 0.1 run, 0.8 waited by each.
    let mut window = starved(100, 0);
    window.causes.quota_ns = 16 * SECOND / 10;
    window.throttling.throttled_periods = 10;
    window.coarse[Cause::Quota as usize] = quota_delays(11);
    let one_or_more = estimate(&window, 4);
    window.coarse[Cause::Quota as usize] = quota_delays(23);
    let three = estimate(&window, 4);
    assert!((one_or_more.point - 1.7).abs() < 1e-9, "as many as were runnable: {one_or_more:?}");
    assert!((three.point - 0.1 / (1.0 - 1.6 / 3.0)).abs() < 1e-9, "{three:?}");
}

#[test]
fn one_that_was_starved_all_the_time_wants_a_core_for_each_of_its_threads() {
    let demand = estimate(&starved(0, 3000), 4);
    assert_eq!((demand.lower, demand.point, demand.upper), (0.0, 3.0, 3.0));
    assert_eq!(demand.confidence, 0.0);
}

/// A quarter run, and a quarter missed by threads with a pace, which is half of what they waited.
fn missing(cycles: Option<Cycles>) -> Demand {
    let unmet = Some(Unmet { paced_ns: SECOND / 4, busy_ns: 0 });
    estimate(&Window { unmet, cycles, ..starved(250, 500) }, 4)
}

#[test]
fn who_works_at_fixed_times_wants_what_it_uses() {
    let demand = missing(Some(Cycles { count: 100, waits: 1_000_000, sleeps: 1_000_000, sums: 0 }));
    assert!((demand.point - 0.25).abs() < 0.001 && demand.confidence > 0.99, "{demand:?}");
    assert_eq!(demand.bottleneck, Bottleneck::None);
    let demand = missing(Some(closed_loops()));
    assert!((demand.point - 0.5).abs() < 0.001 && demand.confidence > 0.99, "{demand:?}");
    assert_eq!(demand.bottleneck, Bottleneck::Neighbors);
}

#[test]
fn what_cannot_be_told_from_fixed_times_is_not_sure() {
    // Nobody has counted cycles; none has waited for longer than another; sleeps differ far more than waits.
    let noisy = Cycles { count: 100, waits: 1_000, sleeps: 1_000_000, sums: 1_001_000 };
    for cycles in [None, Some(Cycles::default()), Some(noisy)] {
        let demand = missing(cycles);
        assert!((demand.point - 0.5).abs() < 0.001, "{demand:?}");
        assert!(demand.lower <= 0.25 && demand.confidence <= 0.5, "{demand:?}");
    }
}

#[test]
fn one_that_was_throttled_all_the_time_is_not_known() {
    let quiet = Window { length_ns: SECOND, usage_ns: SECOND / 10, ..Window::default() };
    assert_eq!(estimate(&quiet, 4).confidence, 1.0);
    let throttling =
        Throttling { throttled_ns: SECOND * 9 / 10, throttled_periods: 10, ..Throttling::default() };
    let throttled = estimate(&Window { throttling, ..quiet }, 4);
    assert!((throttled.confidence - 0.1).abs() < 1e-9, "{throttled:?}");
}
