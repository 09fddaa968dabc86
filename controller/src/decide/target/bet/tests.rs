//! What is bet on, and what is left alone.

use proptest::prelude::*;

use super::*;
use crate::decide::duration::Seconds;
use crate::decide::policy::{Policy, Profile};
use crate::decide::units::Timestamp;

const DAY: u64 = 86_400;
/// A midnight.
const START: u64 = 1_700_006_400;

fn at(minute: u64) -> Timestamp {
    Timestamp(START + 60 * minute)
}

/// A history of a sample a minute.
fn history(minutes: u64, cores: impl Fn(u64) -> f64) -> History {
    let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
    for minute in 0..minutes {
        history.observe(at(minute), cores(minute));
    }
    history
}

/// The target after so many minutes, for a container that has not changed lately.
fn sized(minutes: u64, current: u64, cores: impl Fn(u64) -> f64) -> Bet {
    let history = history(minutes, cores);
    bet(&history, MilliCpu(current), Changes::default(), &Prices::default(), at(minutes - 1))
}

#[test]
fn without_samples_or_with_old_ones_nothing_moves() {
    let none = History::new(Timestamp(START), Seconds(8 * DAY));
    let old = history(3_000, |_| 1.0);
    let much_later = at(3_000 + 11);
    for (history, now) in [(none, at(0)), (old, much_later)] {
        let target = bet(&history, MilliCpu(5_000), Changes::default(), &Prices::default(), now);
        assert_eq!(target, Bet { request: MilliCpu(5_000), reason: Reason::NoData });
    }
}

#[test]
fn a_cold_start_only_raises() {
    // Twenty minutes: nothing has been judged often enough.
    let idle = sized(20, 5_000, |_| 0.1);
    assert_eq!(idle, Bet { request: MilliCpu(5_000), reason: Reason::Learning });
    let outgrown = sized(20, 500, |_| 1.0);
    assert_eq!(outgrown, Bet { request: MilliCpu(1_300), reason: Reason::Learning });
}

#[test]
fn constant_use_gets_a_little_more_than_it_uses_and_then_rests() {
    let first = sized(2 * 1440, 5_000, |_| 1.0);
    assert_eq!(first.reason, Reason::Shrunk);
    assert!((1_000..1_150).contains(&first.request.0), "{first:?}");
    let next = sized(2 * 1440, first.request.0, |_| 1.0);
    assert_eq!(next, Bet { request: first.request, reason: Reason::Holding });
}

/// A history of four days, with a sample so many minutes apart.
fn sampled_every(minutes: u64, cores: impl Fn(u64) -> f64) -> (History, Timestamp) {
    let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
    let times = (0..4 * 1440).step_by(minutes as usize);
    times.for_each(|minute| {
        history.observe(at(minute), cores(minute));
    });
    let latest = history.latest().unwrap();
    (history, latest)
}

#[test]
fn samples_that_are_far_apart_are_learned_from() {
    for minutes in [5, 6, 10, 15, 60, 90] {
        let (history, now) = sampled_every(minutes, |_| 1.0);
        let bet = bet(&history, MilliCpu(5_000), Changes::default(), &Prices::default(), now);
        assert_eq!(bet.reason, Reason::Shrunk, "{minutes}");
        assert!((1_000..1_300).contains(&bet.request.0), "{minutes}: {bet:?}");
    }
}

#[test]
fn what_nobody_notices_for_longer_is_dearer() {
    // Twice as much in one quarter of an hour of twenty.
    let spikes = |minute: u64| if minute / 15 * 7919 % 1009 < 50 { 2.0 } else { 1.0 };
    let request = |minutes: u64| {
        let (history, now) = sampled_every(minutes, spikes);
        bet(&history, MilliCpu(10_000), Changes::default(), &Prices::default(), now).request.0
    };
    assert!(request(15) > request(1), "{} {}", request(15), request(1));
}

#[test]
fn what_is_outgrown_is_raised_in_one_step() {
    let jump = |minute| if minute < 2 * 1440 { 1.0 } else { 3.0 };
    // One sample of it, in the middle of a slot.
    let raised = sized(2 * 1440 + 1, 1_100, jump);
    assert_eq!(raised.reason, Reason::Raised);
    assert!((3_000..4_500).contains(&raised.request.0), "{raised:?}");
}

#[test]
fn a_rise_that_comes_every_morning_is_met_ahead_of_it() {
    // From half a core at six to four at nine, every day; six days, and the seventh until seven.
    let use_at = |minute: u64| 0.5 + 3.5 * (minute % 1440).saturating_sub(360).min(180) as f64 / 180.0;
    let seven = 6 * 1440 + 7 * 60;
    let raised = sized(seven + 1, 1_500, use_at);
    assert_eq!(raised.reason, Reason::Raised);
    // As if it knew the use of half an hour later.
    assert!(raised.request >= MilliCpu::ceil_cores(use_at(seven + 30)), "{raised:?}");
    // The first time it rises nobody can know that.
    let quiet_before = |minute: u64| if minute < 6 * 1440 { 0.5 } else { use_at(minute) };
    let surprised = sized(seven + 1, 1_500, quiet_before);
    assert!(surprised.request < raised.request, "{surprised:?}, {raised:?}");
}

#[test]
fn savings_that_are_small_against_the_mean_are_left() {
    // Ten cores by day, hardly anything at night: 0.3 instead of 0.2 then is not worth a change.
    let use_of = |minute: u64| if minute % 1440 < 720 { 10.0 } else { 0.2 };
    let night = sized(4 * 1440 + 1000, 300, use_of);
    assert_eq!(night, Bet { request: MilliCpu(300), reason: Reason::Holding });
}

#[test]
fn whoever_changes_too_often_does_not_shrink() {
    let history = history(2 * 1440, |_| 1.0);
    let now = at(2 * 1440 - 1);
    let mut changes = Changes::default();
    for _ in 0..40 {
        changes.add(now);
    }
    assert!((changes.per_day(now) - 55.0).abs() < 1.0);
    // So many that even the price of a change is worth a shrink to nobody, or it is refused.
    let target = bet(&history, MilliCpu(50_000), changes, &Prices::default(), now);
    assert_eq!(target, Bet { request: MilliCpu(50_000), reason: Reason::TooManyChanges });
    // Half a day later half of them count.
    assert!((changes.per_day(now.plus_seconds(DAY / 2)) - 27.7).abs() < 0.5);
}

#[test]
fn dearer_breaches_reserve_more_and_dearer_changes_move_less() {
    let noisy = |minute: u64| {
        1.0 + (minute * 7919 % 101) as f64 / 100.0 * if minute.is_multiple_of(97) { 3.0 } else { 0.5 }
    };
    let history = history(3 * 1440, noisy);
    let request = |prices: Prices| {
        bet(&history, MilliCpu(20_000), Changes::default(), &prices, at(3 * 1440 - 1)).request
    };
    let plain = Prices::default();
    assert!(
        request(Prices { breach_minutes: 500, ..plain }) > request(Prices { breach_minutes: 1, ..plain })
    );
    assert!(request(Prices { unmet: 500, ..plain }) > request(Prices { unmet: 1, ..plain }));
    // Nothing is worth a change that costs a week.
    assert_eq!(request(Prices { change_minutes: 10_000_000, ..plain }), MilliCpu(20_000));
}

#[test]
fn a_profile_counts_also_where_nothing_is_known_but_use() {
    // The higher the rarer, up to four cores.
    let tailed = |minute: u64| 1.0 + 3.0 * ((minute * 7919 % 1009) as f64 / 1009.0).powi(200);
    let history = history(3 * 1440, tailed);
    let requests =
        [Profile::Batch, Profile::Throughput, Profile::Balanced, Profile::Latency].map(|profile| {
            let prices = Policy::of(profile).cost;
            bet(&history, MilliCpu(20_000), Changes::default(), &prices, at(3 * 1440 - 1)).request
        });
    assert!(requests.is_sorted(), "{requests:?}");
    assert!(requests[0] < requests[2] && requests[2] < requests[3], "{requests:?}");
}

#[test]
fn exceedance_falls_from_one_and_its_area_is_the_integral() {
    let mut exceedance = [0.0; EDGES.len()];
    // All outcomes lie between the edges 1.0 and 1.02.
    let one = EDGES.iter().position(|edge| *edge == 1.0).unwrap();
    exceedance[..=one].fill(1.0);
    assert_eq!(
        [0.0, 0.5, 1.0, 1.01, 1.02, 2.0].map(|x| between_edges(&exceedance, x)),
        [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    );
    // From 0.9 to 1.0 all of it, then a triangle.
    assert!((area_above(&exceedance, 0.9) - 0.11).abs() < 1e-12);
    assert_eq!(area_above(&exceedance, 3.0), 0.0);
    assert_eq!(area_above(&exceedance, 100.0), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_has_one_finite_target_and_the_same_twice(
        samples in prop::collection::vec((1..900u64, 0.0..50.0f64), 1..400), current in 0..100_000u64
    ) {
        let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
        let mut now = START;
        for (step, cores) in samples {
            now += step;
            history.observe(Timestamp(now), cores);
        }
        let decide = || bet(&history, MilliCpu(current), Changes::default(), &Prices::default(), Timestamp(now));
        let first = decide();
        prop_assert_eq!(first, decide());
        prop_assert!(first.request.0 <= 100_000_000, "{:?}", first);
        match first.reason {
            Reason::Raised => prop_assert!(first.request.0 > current),
            Reason::Shrunk => prop_assert!(first.request.0 < current),
            Reason::Learning => prop_assert!(first.request.0 >= current),
            _ => prop_assert_eq!(first.request.0, current),
        }
    }
}
