//! What each step does to a CPU target.

use sampler_common::demand::Demand;
use sampler_common::snapshot::Causes;

use super::*;
use crate::decide::duration::Micros;
use crate::decide::policy::StartupBoost;

const DAY: u64 = 86_400;
/// A midnight.
const START: u64 = 1_700_006_400;

/// A history of a sample a minute.
fn history(minutes: u64, cores: impl Fn(u64) -> f64) -> History {
    let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
    for minute in 0..minutes {
        history.observe(Timestamp(START + 60 * minute), cores(minute));
    }
    history
}

/// A container with this request that has been running for as long as its history, and no limit.
fn inputs<'a>(history: &'a History, request: u64, policy: &'a Policy) -> CpuInputs<'a> {
    CpuInputs {
        history,
        request: MilliCpu(request),
        limit: None,
        qos: Qos::Burstable,
        started_with: MilliCpu(request),
        started_limit: None,
        signal: None,
        changes: Changes::default(),
        policy,
        age_seconds: history.age_seconds(),
        now: history.latest().unwrap_or(Timestamp(START)),
    }
}

fn by_percentile(percent: u8) -> Policy {
    let mut policy = Policy::default();
    policy.history.percentile = Percentile::new(percent);
    policy
}

/// A container that met its objective for an hour, using so much.
fn met(cores: f64) -> Signal {
    Signal {
        demand: Demand {
            point: cores,
            lower: cores,
            upper: cores,
            bottleneck: Bottleneck::None,
            confidence: 1.0,
        },
        p99_wait: Some(Micros(100)),
        causes: Causes::default(),
        tail_cause: None,
        throttled_share: None,
        throttled_depth: PerMille(0),
        node_cpus: 16,
        length: Seconds(15),
        calm: Seconds(3600),
        unpressed: None,
    }
}

/// One whose waits are too long, for this.
fn waits(bottleneck: Bottleneck, lower: f64, point: f64, upper: f64) -> Signal {
    let demand = Demand { point, lower, upper, bottleneck, confidence: lower / upper };
    Signal { demand, p99_wait: Some(Micros(80_000)), calm: Seconds(0), ..met(0.0) }
}

#[test]
fn a_percentile_is_exact_and_young_ones_only_raise() {
    let policy = by_percentile(95);
    let old = history(2 * 1440, |_| 1.0);
    let target = cpu(&inputs(&old, 5_000, &policy));
    assert_eq!((target.request, target.reason), (MilliCpu(1_150), Reason::UsesLess));
    let young = history(60, |_| 1.0);
    let target = cpu(&inputs(&young, 5_000, &policy));
    assert_eq!((target.request, target.reason), (MilliCpu(5_000), Reason::Learning));
    assert_eq!(target.marks.iter().map(|mark| mark.step).collect::<Vec<_>>(), [Step::Use, Step::ColdStart]);
    assert_eq!((target.marks[0].request, target.confidence), (MilliCpu(1_150), PerMille(40)));
    let target = cpu(&inputs(&young, 500, &policy));
    assert_eq!((target.request, target.reason), (MilliCpu(1_150), Reason::UsesMore));
}

#[test]
fn what_no_forecast_is_judged_of_gets_its_99th_percentile() {
    let policy = Policy::default();
    let sparse = |hours: u64| {
        let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
        (0..=hours / 2).for_each(|sample| {
            history.observe(Timestamp(START + 7200 * sample), 1.0);
        });
        history
    };
    let young = cpu(&inputs(&sparse(22), 4_000, &policy));
    assert_eq!((young.request, young.reason), (MilliCpu(4_000), Reason::Learning));
    let known = sparse(24);
    for (has, reason) in [(4_000, Reason::UsesLess), (1_100, Reason::UsesMore)] {
        let target = cpu(&inputs(&known, has, &policy));
        assert_eq!((target.request, target.reason), (MilliCpu(1_150), reason));
    }
    // Nor can it be where but a quarter of each hour is known. What is outgrown is not held to what it used before.
    let mut gaps = History::new(Timestamp(START), Seconds(8 * DAY));
    for minute in (0..2 * 1440).filter(|minute| minute % 60 < 15) {
        gaps.observe(Timestamp(START + 60 * minute), 1.0);
    }
    assert_eq!(cpu(&inputs(&gaps, 4_000, &policy)).request, MilliCpu(1_150));
    gaps.observe(Timestamp(START + 2 * DAY), 3.0);
    let target = cpu(&inputs(&gaps, 1_150, &policy));
    assert_eq!((target.request, target.reason), (MilliCpu(3_900), Reason::UsesMore));
}

#[test]
fn without_recent_samples_nothing_moves() {
    for policy in [by_percentile(90), Policy::default()] {
        let (none, old) = (history(0, |_| 0.0), history(2 * 1440, |_| 1.0));
        let late = CpuInputs { now: old.latest().unwrap().plus_seconds(601), ..inputs(&old, 700, &policy) };
        for inputs in [inputs(&none, 700, &policy), late] {
            let target = cpu(&inputs);
            assert_eq!((target.request, target.reason), (MilliCpu(700), Reason::NoData));
        }
    }
}

#[test]
fn waits_for_neighbours_raise_the_request_and_nothing_shrinks_meanwhile() {
    let (history, policy) = (history(2 * 1440, |_| 1.0), Policy::default());
    let sized = |request, signal: &Signal| {
        let target = cpu(&CpuInputs { signal: Some(signal), ..inputs(&history, request, &policy) });
        (target.request.0, target.reason)
    };
    // Sure of it: the point and the margin. Not sure: twice what it uses at least, and no more than the upper bound.
    let sure = waits(Bottleneck::Neighbors, 1.0, 1.4, 1.6);
    assert_eq!(sized(1_050, &sure), (1_610, Reason::Waits(Bottleneck::Neighbors)));
    let unsure = waits(Bottleneck::Neighbors, 1.0, 1.4, 6.0);
    assert_eq!(sized(1_050, &unsure), (2_300, Reason::Waits(Bottleneck::Neighbors)));
    assert_eq!(sized(5_000, &sure), (5_000, Reason::WaitsDespiteRequest(Bottleneck::Neighbors)));
    assert_eq!(sized(5_000, &waits(Bottleneck::Own, 1.0, 1.4, 1.6)), (5_000, Reason::OverThreaded));
    // Met: it shrinks once it has been for long enough.
    assert_eq!(sized(5_000, &Signal { calm: Seconds(299), ..met(1.0) }), (5_000, Reason::NotCalm));
    let (request, reason) = sized(5_000, &met(1.0));
    assert!((1_000..1_150).contains(&request) && reason == Reason::UsesLess, "{request} {reason}");
}

#[test]
fn bursts_that_nobody_feels_are_not_requested_until_somebody_does() {
    // A core, and four for two minutes of each half an hour: 1.2 on average.
    let history = history(2 * 1440, |minute| if minute % 30 < 2 { 4.0 } else { 1.0 });
    let policy = Policy::default();
    let sized = |request, unpressed: Option<u64>, calm, qos| {
        let signal = Signal { unpressed: unpressed.map(Seconds), calm: Seconds(calm), ..met(1.0) };
        let limit = Some(MilliCpu(request));
        let target =
            cpu(&CpuInputs { signal: Some(&signal), limit, qos, ..inputs(&history, request, &policy) });
        (target.request.0, target.reason)
    };
    let (request, reason) = sized(5_000, None, 300, Qos::Burstable);
    assert!((1_200..1_500).contains(&request) && reason == Reason::UsesLess, "{request} {reason}");
    assert_eq!(sized(5_000, Some(86_400), 300, Qos::Burstable), (request, reason));
    assert_eq!(sized(5_000, None, 299, Qos::Burstable), (5_000, Reason::NotCalm));
    // Somebody kept it waiting within the day, or its limit would fall with its request: bursts count.
    for (unpressed, qos) in [(Some(86_399), Qos::Burstable), (None, Qos::Guaranteed)] {
        assert!(sized(5_000, unpressed, 300, qos).0 > 3_500, "{unpressed:?} {qos:?}");
    }
    // What it has is too little on average: it is raised to the average, not to the bursts.
    let (raised, reason) = sized(1_000, None, 300, Qos::Burstable);
    assert!((1_000..1_500).contains(&raised), "{raised} {reason}");
}

#[test]
fn a_limit_that_binds_is_raised_or_named() {
    let history = history(2 * 1440, |_| 0.15);
    let throttled = Signal {
        throttled_share: Some(PerMille(950)),
        throttled_depth: PerMille(800),
        p99_wait: None,
        ..waits(Bottleneck::Quota, 0.2, 1.0, 1.2)
    };
    let sized = |controlled_values, signal: &Signal| {
        let policy = Policy { controlled_values, ..Policy::default() };
        let limit = Some(MilliCpu(200));
        let target = cpu(&CpuInputs { limit, signal: Some(signal), ..inputs(&history, 100, &policy) });
        (target.request.0, target.limit.map(|limit| limit.0), target.reason)
    };
    let both = ControlledValues::RequestsAndLimits;
    // Nobody else keeps it waiting: the limit alone cures it, and the request is for what it has gone on using.
    assert_eq!(sized(both, &throttled), (151, Some(1_150), Reason::LimitRaised));
    // Where others do, the request rises too: to what it wants where that is sure, else to what it uses.
    let pressed = Signal { unpressed: Some(Seconds(3600)), ..throttled.clone() };
    assert_eq!(sized(both, &pressed), (230, Some(1_150), Reason::LimitRaised));
    let sure = Signal { demand: Demand { confidence: 0.9, ..throttled.demand }, ..pressed };
    assert_eq!(sized(both, &sure), (1_150, Some(1_150), Reason::LimitRaised));
    assert_eq!(sized(ControlledValues::RequestsOnly, &throttled), (200, None, Reason::LimitBinds));
    assert!(Reason::LimitBinds.to_string().contains("controlledValues: RequestsAndLimits"));
    // Bursts that are throttled cost no demand, but wait: the limit is what they used it up at.
    let bursts = Signal { throttled_depth: PerMille(600), demand: met(0.1).demand, ..throttled.clone() };
    let (_, limit, reason) = sized(both, &bursts);
    assert_eq!((limit, reason), (Some(575), Reason::LimitRaised));
    let above =
        Signal { demand: Demand { bottleneck: Bottleneck::AncestorQuota, ..throttled.demand }, ..throttled };
    assert_eq!(sized(both, &above).1, None);
    assert_eq!(sized(both, &above).2, Reason::AncestorLimitBinds);
}

#[test]
fn a_controlled_limit_falls_with_the_request_but_not_below_what_was_used() {
    // Half a core, and three once an hour.
    let history = history(2 * 1440, |minute| if minute % 60 == 0 { 3.0 } else { 0.5 });
    let calm = met(0.5);
    let limit = |request, limit, controlled_values, signal| {
        let policy = Policy { controlled_values, ..by_percentile(90) };
        let target =
            cpu(&CpuInputs { limit: Some(MilliCpu(limit)), signal, ..inputs(&history, request, &policy) });
        (target.request.0, target.limit.map(|limit| limit.0))
    };
    let both = ControlledValues::RequestsAndLimits;
    // P90 is the half core; half of 10 cores is more than was ever used, half of 4 is not (3 cores within a bin, × 1.15).
    assert_eq!(limit(1_150, 10_000, both, Some(&calm)), (575, Some(5_000)));
    let (_, lowest) = limit(1_150, 5_000, both, Some(&calm));
    assert!((3_450..3_770).contains(&lowest.unwrap()), "{lowest:?}");
    // Guaranteed stays so; what only happens to be equal does not.
    let (_, lowest) = limit(5_000, 5_000, both, Some(&calm));
    assert!((3_450..3_770).contains(&lowest.unwrap()), "{lowest:?}");
    let policy = Policy { controlled_values: both, ..by_percentile(90) };
    let guaranteed = CpuInputs {
        qos: Qos::Guaranteed,
        limit: Some(MilliCpu(5_000)),
        signal: Some(&calm),
        ..inputs(&history, 5_000, &policy)
    };
    let target = cpu(&guaranteed);
    assert_eq!((target.request, target.limit), (MilliCpu(575), Some(MilliCpu(575))));
    for (controlled_values, signal) in [(both, None), (ControlledValues::RequestsOnly, Some(&calm))] {
        assert_eq!(limit(1_150, 10_000, controlled_values, signal), (575, None));
    }
}

#[test]
fn a_controlled_limit_that_was_raised_goes_back_once_nothing_has_used_it_within_the_window() {
    let calm = met(0.5);
    let policy = Policy { controlled_values: ControlledValues::RequestsAndLimits, ..by_percentile(90) };
    let limit = |bursts: fn(u64) -> f64, started_with, started_limit| {
        let history = history(9 * 1440, bursts);
        // P90 of half a core and the margin: the request stays.
        let request = cpu(&inputs(&history, 1_000, &policy)).request;
        let target = cpu(&CpuInputs {
            started_with: MilliCpu(started_with),
            started_limit,
            limit: Some(MilliCpu(8_000)),
            signal: Some(&calm),
            ..inputs(&history, request.0, &policy)
        });
        assert_eq!(target.request, request);
        (target.limit.map(|limit| limit.0), target.reason)
    };
    // A burst to three cores on the first of nine days, of which the window has eight; and one on the fifth.
    let long_ago = |minute: u64| if minute == 60 { 3.0 } else { 0.5 };
    let lately = |minute: u64| if minute == 5 * 1440 { 3.0 } else { 0.5 };
    assert_eq!(limit(long_ago, 575, Some(MilliCpu(1_500))), (Some(1_500), Reason::UsesLess));
    // In proportion to the request that it has now.
    assert_eq!(limit(long_ago, 1_150, Some(MilliCpu(3_000))), (Some(1_500), Reason::UsesLess));
    let (kept, _) = limit(lately, 575, Some(MilliCpu(1_500)));
    assert!((3_450..3_770).contains(&kept.unwrap()), "{kept:?}");
    // It was started with as much, or with none, or has more to begin with.
    assert_eq!(limit(long_ago, 575, Some(MilliCpu(8_000))), (None, Reason::Holding));
    assert_eq!(limit(long_ago, 575, None), (None, Reason::Holding));
    assert_eq!(limit(long_ago, 0, Some(MilliCpu(1_500))), (None, Reason::Holding));
}

#[test]
fn a_starting_container_gets_more_of_what_it_was_started_with() {
    let history = history(2 * 1440, |_| 1.0);
    let mut policy = by_percentile(90);
    policy.startup_boost = Some(StartupBoost { factor: PerMille(3000), duration: Seconds(120) });
    let sized = |age_seconds, request, limit: Option<u64>| {
        let limit = limit.map(MilliCpu);
        let started_with = MilliCpu(1_000);
        let target =
            cpu(&CpuInputs { age_seconds, limit, started_with, ..inputs(&history, request, &policy) });
        (target.request.0, target.reason)
    };
    assert_eq!(sized(119, 1_000, None), (3_000, Reason::StartupBoost));
    // What it has is not multiplied once more.
    assert_eq!(sized(119, 3_000, None), (3_000, Reason::StartupBoost));
    assert_eq!(sized(119, 1_000, Some(2_000)), (2_000, Reason::StartupBoost));
    assert_eq!(sized(120, 3_000, None), (1_150, Reason::UsesLess));
}
