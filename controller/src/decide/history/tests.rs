//! What is remembered, what is forgotten, and what it costs.

use proptest::prelude::*;

use super::errors::{FORECASTERS, HORIZONS};
use super::memory::MemoryHistory;
use super::*;
use crate::decide::policy::Policy;
use crate::decide::units::Bytes;

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

fn settings() -> HistorySettings {
    Policy::default().history
}

/// Over the window that ends with the last sample.
fn percentile(history: &History, q: f64) -> Option<f64> {
    history.percentile_at(history.latest().unwrap_or_default(), q, &settings())
}

/// Busy for 8 hours of the day.
fn office_hours(minute: u64) -> f64 {
    if (8 * 60..16 * 60).contains(&(minute % 1440)) { 4.0 } else { 0.5 }
}

#[test]
fn percentiles_lie_within_a_bin_of_the_samples() {
    // 0.01 to 1.00 cores, evenly.
    let history = history(1000, |minute| (minute % 100 + 1) as f64 / 100.0);
    for q in [0.5, 0.9, 0.95, 0.99] {
        let found = percentile(&history, q).unwrap();
        assert!(found >= q * 0.99 && found <= q * 1.091, "P{q}: {found}");
    }
    assert_eq!(percentile(&History::new(Timestamp(START), Seconds(8 * DAY)), 0.5), None);
}

#[test]
fn old_use_counts_less_and_is_forgotten() {
    // A day at 8 cores, then at 1: after a day of it the old use counts a third.
    let after = |days: u64| history(1440 * (1 + days), |minute| if minute < 1440 { 8.0 } else { 1.0 });
    assert_eq!(percentile(&after(1), 0.6), Some(1.0));
    assert_eq!(percentile(&after(1), 0.75), Some(8.0));
    // Within the window it is the highest, after it it is not there.
    assert_eq!(percentile(&after(6), 1.0), Some(8.0));
    assert_eq!(percentile(&after(8), 1.0), Some(1.0));
    assert!((after(10).mean().unwrap() - 1.0).abs() < 0.5);
}

#[test]
fn late_repeated_and_senseless_samples_change_nothing() {
    let mut history = history(100, |_| 1.0);
    let before = history.clone();
    let at = Timestamp(START + 60 * 99);
    for (at, cores) in [
        (at, 9.0),
        (Timestamp(START), 9.0),
        (at.plus_seconds(60), f64::NAN),
        (at.plus_seconds(60), f64::INFINITY),
        (at.plus_seconds(60), -1.0),
    ] {
        assert_eq!(history.observe(at, cores), Observed::Ignored);
        assert_eq!(history, before);
    }
    assert_eq!(history.observe(at.plus_seconds(60), 1.0), Observed::EndedSlot);
    assert_eq!(history.observe(at.plus_seconds(120), 1.0), Observed::Counted);
}

#[test]
fn the_last_hours_are_kept_slot_by_slot() {
    let history = history(61, |minute| minute as f64);
    let recent = history.recent();
    let next = recent.current();
    // Minutes 55 to 59 ended; minute 60 is under way.
    let newest = recent.slot(next - 1).unwrap();
    assert!((newest.max - 59.0).abs() < 0.03 && (newest.mean - 57.0).abs() < 0.2, "{newest:?}");
    assert_eq!(recent.open(), Some(Slot { max: 60.0, mean: 60.0 }));
    assert_eq!(recent.slot(next), None);
    assert_eq!(recent.slot(next - 13), None);
    assert!((recent.max(next - 12, next - 6).unwrap() - 29.0).abs() < 0.02);
}

#[test]
fn a_gap_invents_nothing_and_wipes_nothing() {
    let mut history = history(3 * 1440, office_hours);
    let before = history.clone();
    // Two days later, at noon.
    let back = Timestamp(START + 5 * DAY + DAY / 2);
    assert_eq!(history.observe(back, 4.0), Observed::EndedSlot);
    let recent = history.recent();
    let next = recent.current();
    assert!((1..=Recent::SLOTS as u64).all(|age| recent.slot(next - age).is_none()), "an old slot came back");
    for horizon in 0..HORIZONS.len() {
        // They have aged, and no outcome was added.
        let (kept, had) = (history.errors().outcomes(horizon, 0), before.errors().outcomes(horizon, 0));
        assert!(kept > 0.8 * had && kept <= had, "{kept} of {had}");
    }
    assert_eq!(history.age_seconds(), 5 * DAY + DAY / 2);
    let noon = (Timestamp(START + 12 * 3600), Timestamp(START + 13 * 3600));
    assert_eq!(history.day().max(noon.0, noon.1), before.day().max(noon.0, noon.1));
    assert!(history.day().max(noon.0, noon.1).unwrap() > 3.9);
}

/// A history of samples so many minutes apart.
fn sampled_every(minutes: u64, samples: u64, cores: impl Fn(u64) -> f64) -> History {
    let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
    for sample in 0..samples {
        history.observe(Timestamp(START + 60 * minutes * sample), cores(sample));
    }
    history
}

/// Whether each forecaster that does not know the time of day has been judged a dozen times, and by no more than so many outcomes.
fn is_judged_by_at_most(history: &History, outcomes: u64) -> bool {
    (0..HORIZONS.len()).flat_map(|horizon| (0..3).map(move |forecaster| (horizon, forecaster))).all(|at| {
        let judged_by = history.errors().outcomes(at.0, at.1);
        (12.0..=outcomes as f64).contains(&judged_by)
    })
}

#[test]
fn samples_that_are_far_apart_speak_for_the_time_between_them() {
    for minutes in [5, 6, 10, 15, 60, 90] {
        let samples = 2 * 1440 / minutes;
        let history = sampled_every(minutes, samples, |sample| (sample + 1) as f64);
        // A forecast is judged once for each sample, and not once for each slot.
        assert!(is_judged_by_at_most(&history, samples), "{minutes}: {:?}", history.errors());
        let recent = history.recent();
        let slots = recent.current() - 18..recent.current();
        assert!(slots.clone().all(|slot| recent.slot(slot).is_some()), "{minutes}");
        // What is between the last two samples is what the last one says.
        let sampled = slots.clone().filter(|slot| recent.is_sampled(*slot)).max().unwrap();
        for between in sampled + 1..recent.current() {
            assert!((recent.slot(between).unwrap().max / samples as f64 - 1.0).abs() < 0.001, "{minutes}");
        }
        assert!(history.day().max(Timestamp(START), Timestamp(START + DAY)).is_some(), "{minutes}");
    }
    // Those that are further apart than any forecast reaches speak for nothing but themselves.
    let sparse = sampled_every(120, 24, |_| 1.0);
    assert_eq!(sparse.recent().slot(sparse.recent().current() - 1), None);
    assert_eq!(sparse.errors().outcomes(0, 0), 0.0);
}

#[test]
fn a_forecast_is_not_made_from_what_later_samples_say() {
    // Now one core and now four: each forecast by the last sample is wrong, half of them by being too small.
    let history = sampled_every(60, 4 * 24, |sample| if sample % 2 == 0 { 1.0 } else { 4.0 });
    let edge = errors::EDGES.iter().position(|edge| *edge == 3.0).unwrap();
    for horizon in 0..2 {
        let outgrown = history.errors().exceedance(horizon, 0)[edge];
        assert!((0.45..0.55).contains(&outgrown), "{horizon}: {outgrown}");
    }
}

#[test]
fn a_gap_in_each_hour_leaves_most_of_a_horizon_to_judge_by() {
    let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
    for minute in (0..2 * 1440).filter(|minute| minute % 60 >= 11) {
        history.observe(Timestamp(START + 60 * minute), 1.0);
    }
    assert!(is_judged_by_at_most(&history, 576), "{:?}", history.errors());
    // Of the slots 0 and 1 of each hour nothing is known.
    let recent = history.recent();
    let hour = recent.current() / 12 * 12;
    assert_eq!([hour, hour + 1, hour + 2].map(|slot| recent.slot(slot).is_some()), [false, false, true]);
    assert_eq!(history.cadence().seconds(), 60);
}

#[test]
fn the_time_of_day_is_learned() {
    let history = history(3 * 1440, office_hours);
    let at = |hour: u64| Timestamp(START + 10 * DAY + hour * 3600);
    let (night, noon) =
        (history.day().max(at(2), at(3)).unwrap(), history.day().max(at(12), at(13)).unwrap());
    assert!((night - 0.5).abs() < 0.01 && (noon - 4.0).abs() < 0.01, "{night} {noon}");
    // An hour that ends in the morning's rise has its maximum.
    assert!(history.day().max(at(7), Timestamp(at(8).0 + 60)).unwrap() > 3.9);
    assert!((history.day().mean(at(12), at(13)).unwrap() - 4.0).abs() < 0.02);
    // A day is not known before it has passed.
    let young = super::tests::history(60, office_hours);
    assert_eq!(young.day().max(at(2), at(3)), None);
}

#[test]
fn constant_use_is_forecast_without_error() {
    let history = history(2 * 1440, |_| 2.0);
    let edge = errors::EDGES.iter().position(|edge| *edge == 1.04).unwrap();
    for horizon in 0..HORIZONS.len() {
        for forecaster in 0..FORECASTERS {
            let exceedance = history.errors().exceedance(horizon, forecaster);
            // 4 % more than forecast has never been used; what has never been seen is not impossible.
            assert!(
                exceedance[edge] > 0.0 && exceedance[edge] < 0.005,
                "{horizon} {forecaster} {exceedance:?}"
            );
            assert!(history.errors().outcomes(horizon, forecaster) > 150.0);
        }
    }
}

#[test]
fn the_clock_foresees_what_persistence_cannot() {
    let history = history(5 * 1440, office_hours);
    let errors = history.errors();
    // Ten to eight in the morning it is quiet; persistence says so, the day's profile knows better.
    let at = Timestamp(START + 5 * DAY + 8 * 3600 - 600).0 / 300;
    let bases = errors::bases(&quiet_until(&history, at), history.day(), at, None)[1];
    let bases = bases.map(|base| base.unwrap());
    assert!(bases[0] < 0.6 && bases[3] > 3.9 && bases[4] > 3.9, "{bases:?}");
    // And its errors are smaller.
    let edge = errors::EDGES.iter().position(|edge| *edge == 1.7).unwrap();
    let above = |forecaster: usize| errors.exceedance(1, forecaster)[edge];
    assert!(above(0) > 2.0 * above(4), "{} {}", above(0), above(4));
}

#[test]
fn a_season_is_heard_only_where_it_beats_persistence() {
    let heard = |history: &History| {
        [0, 1, 2].map(|horizon| history.errors().heard(horizon).contains(&(FORECASTERS - 1)))
    };
    let office = history(5 * 1440, office_hours);
    assert!(office.errors().seasonal_skill(1).unwrap() > 0.05, "{:?}", office.errors().seasonal_skill(1));
    assert!(heard(&office)[1..].iter().all(|heard| *heard));
    // Levels that last for some hours and then change, never twice at one time of the day.
    let wanders = history(5 * 1440, |minute| 1.0 + (minute / 417 * 7919 % 13) as f64);
    assert!(wanders.errors().seasonal_skill(0).unwrap() < 0.0);
    assert_eq!(heard(&wanders), [false; 3], "{:?}", [0, 1, 2].map(|h| wanders.errors().seasonal_skill(h)));
    // Before a day has passed there is no season to hear.
    assert_eq!(heard(&history(600, office_hours)), [false; 3]);
}

/// The last hours before a slot, at half a core.
fn quiet_until(history: &History, slot: u64) -> Recent {
    let mut history = history.clone();
    for minute in (slot * 5 - 120)..=slot * 5 {
        history.observe(Timestamp(60 * minute), 0.5);
    }
    history.recent().clone()
}

#[test]
fn a_checkpoint_restores_exactly_what_was_stored() {
    let history = history(3_000, |minute| office_hours(minute) * (1.0 + (minute % 7) as f64 / 10.0));
    let json = serde_json::to_string(&history).unwrap();
    let mut restored: History = serde_json::from_str(&json).unwrap();
    assert_eq!(restored, history);
    // And goes on alike.
    let mut kept = history;
    for minute in 3_000..4_000 {
        let at = Timestamp(START + 60 * minute);
        assert_eq!(kept.observe(at, 1.0), restored.observe(at, 1.0));
    }
    assert_eq!(restored, kept);
    let cut = json.replacen("[0,", "[", 1);
    assert!(serde_json::from_str::<History>(&cut).is_err(), "an array that is too short was accepted");
}

#[test]
fn a_container_takes_the_bytes_that_are_stated() {
    // Ten days, of which the window has eight.
    let bytes = |cores: fn(u64) -> f64| {
        let history = history(10 * 1440, cores);
        assert!(history.bytes() <= FIXED_BYTES + blocks::Blocks::BYTES_AT_MOST);
        history.bytes()
    };
    let noise = |minute: u64| (minute * 7919 % 997) as f64 / 997.0;
    // Steady within a tenth, and twentyfold between night and day, each hour of both with noise.
    let (steady, varied) =
        (bytes(|_| 2.0), bytes(|minute| office_hours(minute) * (0.6 + (minute * 7919 % 997) as f64 / 600.0)));
    assert!(steady <= 1_300 && varied <= 2_300, "{steady} {varied}");
    let mut memory = MemoryHistory::new(Timestamp(START), Seconds(8 * DAY));
    for minute in 0..10 * 1440 {
        memory.observe(Timestamp(START + 60 * minute), Bytes((2e8 * (1.0 + noise(minute))) as u64));
    }
    assert!(memory.bytes() <= 320, "{}", memory.bytes());
}

#[test]
fn replicas_merge_into_what_covers_both() {
    let (small, large) = (history(2_000, |_| 1.0), history(2_000, |_| 3.0));
    let mut merged = small.clone();
    merged.merge(&large);
    assert!(percentile(&merged, 0.4).unwrap() < 1.1 && percentile(&merged, 0.6).unwrap() > 2.9);
    assert!((merged.mean().unwrap() - 2.0).abs() < 0.01);
    let next = merged.recent().current();
    assert!((merged.recent().max(next - 3, next).unwrap() - 3.0).abs() < 0.01);
    let mut other_way = large;
    other_way.merge(&small);
    assert_eq!(other_way.recent(), merged.recent());
    assert_eq!(other_way.day(), merged.day());
    assert_eq!(other_way.errors(), merged.errors());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn property_13_percentiles_are_in_order_and_below_the_maximum(
        samples in prop::collection::vec(0.0..100.0f64, 1..200)
    ) {
        let history = history(samples.len() as u64, |minute| samples[minute as usize]);
        let found = history.percentiles(history.latest().unwrap(), &settings()).unwrap();
        let percentiles = [found.p50, found.p90, found.p95, found.p99, found.max];
        prop_assert!(percentiles.is_sorted(), "{percentiles:?}");
        let max = samples.iter().copied().fold(0.0, f64::max);
        prop_assert!(found.max >= max && found.max <= (max * 1.0906).max(0.001), "{found:?}, {max}");
    }

    #[test]
    fn any_samples_at_any_times_leave_a_history_that_can_be_asked(
        samples in prop::collection::vec((any::<u64>(), any::<f64>()), 0..50),
        near in prop::collection::vec((0..20_000u64, 0.0..1e9f64), 0..200)
    ) {
        let mut history = History::new(Timestamp(START), Seconds(8 * DAY));
        let mut at = START;
        for (step, cores) in near {
            at += step;
            history.observe(Timestamp(at), cores);
        }
        for (at, cores) in samples {
            history.observe(Timestamp(at), cores);
        }
        prop_assert!(percentile(&history, 0.99).is_none_or(f64::is_finite));
        prop_assert!(history.mean().is_none_or(|mean| mean.is_finite() && mean >= 0.0));
        let recent = history.recent();
        let bases = errors::bases(recent, history.day(), recent.current(), recent.open());
        prop_assert!(bases.iter().flatten().flatten().all(|base| base.is_finite() && *base >= 0.0));
    }

    #[test]
    fn replicas_merge_in_any_order(
        replicas in prop::collection::vec(prop::collection::vec((1..2_000u64, 0.0..50.0f64), 1..60), 3)
    ) {
        let [a, b, c] = [0, 1, 2].map(|index: usize| {
            let mut history = History::new(Timestamp(START + index as u64), Seconds(8 * DAY));
            let mut at = START;
            for (step, cores) in &replicas[index] {
                at += step;
                history.observe(Timestamp(at), *cores);
            }
            history
        });
        let merged = |one: &History, another: &History| {
            let mut sum = one.clone();
            sum.merge(another);
            // The mean is a float: it is looked at by itself.
            let mean = std::mem::take(&mut sum.mean);
            (History { mean: MeanUsage::default(), ..sum }, mean)
        };
        let whole = |one: &History, another: &History| {
            let (history, mean) = merged(one, another);
            History { mean, ..history }
        };
        prop_assert_eq!(merged(&a, &b).0, merged(&b, &a).0);
        let (left, right) = (merged(&whole(&a, &b), &c), merged(&a, &whole(&b, &c)));
        prop_assert_eq!(left.0, right.0);
        let (left, right) = (left.1.cores().unwrap(), right.1.cores().unwrap());
        prop_assert!((left - right).abs() <= 1e-4 * (1.0 + left), "{left} {right}");
    }
}
