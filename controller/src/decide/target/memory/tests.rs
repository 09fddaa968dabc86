//! What each step does to a memory target.

use super::*;
use crate::decide::duration::Seconds;
use crate::decide::policy::Percentile;

const MIB: u64 = 1 << 20;
const DAY: u64 = 86_400;
const START: u64 = 1_700_006_400;

/// A history of a sample every ten minutes.
fn history(samples: u64, mebibytes: impl Fn(u64) -> u64) -> MemoryHistory {
    let mut history = MemoryHistory::new(Timestamp(START), Seconds(8 * DAY));
    for sample in 0..samples {
        history.observe(Timestamp(START + 600 * sample), Bytes(mebibytes(sample) * MIB));
    }
    history
}

fn sized(history: &MemoryHistory, request: u64, limit: Option<u64>, policy: &Policy) -> MemoryTarget {
    memory(&MemoryInputs {
        history,
        measured: true,
        request: Bytes(request * MIB),
        limit: limit.map(|limit| Bytes(limit * MIB)),
        policy,
        now: history.latest().unwrap_or(Timestamp(START)),
    })
}

fn both() -> Policy {
    Policy { controlled_values: ControlledValues::RequestsAndLimits, ..Policy::default() }
}

#[test]
fn peaks_with_their_margin_are_what_it_gets() {
    let policy = Policy::default();
    // 256 MiB is an edge: its bin is exact.
    let steady = history(3 * 144, |_| 256);
    let target = sized(&steady, 4_096, None, &policy);
    assert_eq!((target.request, target.reason), (Bytes(256 * MIB).scale_up(115, 100), Reason::PeaksLower));
    let target = sized(&steady, 100, None, &policy);
    assert_eq!((target.request, target.reason), (Bytes(256 * MIB).scale_up(115, 100), Reason::PeaksHigher));
    // One sample an hour is enough to be its peak.
    let peaks = history(3 * 144, |sample| if sample % 6 == 3 { 512 } else { 16 });
    assert_eq!(sized(&peaks, 4_096, None, &policy).request, Bytes(512 * MIB).scale_up(115, 100));
}

#[test]
fn a_recent_peak_keeps_it_whatever_the_percentile() {
    // Seven days have 168 hours, of which one is not in the 99th percentile where all count alike.
    let mut policy = Policy::default();
    policy.history.half_life = Seconds(u64::from(u32::MAX));
    let peak_at = |peak: u64| history(7 * 144, move |sample| if sample == peak { 1_000 } else { 256 });
    let target = sized(&peak_at(7 * 144 - 140), 4_096, None, &policy);
    assert_eq!((target.request, target.reason), (Bytes(1_000 * MIB).scale_up(115, 100), Reason::RecentPeak));
    assert_eq!(target.marks[0].request, Bytes(256 * MIB).scale_up(115, 100));
    assert_eq!(sized(&peak_at(5 * 144), 4_096, None, &policy).reason, Reason::PeaksLower);
}

#[test]
fn a_percentile_that_is_thrifty_with_cpu_is_not_so_with_memory() {
    // Twice as much in every third hour.
    let varies = history(3 * 144, |sample| if sample / 6 % 3 == 0 { 512 } else { 256 });
    let request = |percentile| {
        let mut policy = Policy::default();
        policy.history.percentile = percentile;
        sized(&varies, 4_096, None, &policy).marks[0].request
    };
    assert_eq!(request(None), Bytes(512 * MIB).scale_up(115, 100));
    for percent in [50, 90, 99, 100] {
        assert_eq!(request(Percentile::new(percent)), request(None));
    }
}

#[test]
fn a_young_one_only_grows() {
    let young = history(100, |_| 256);
    let target = sized(&young, 4_096, None, &Policy::default());
    assert_eq!((target.request, target.reason), (Bytes(4_096 * MIB), Reason::Learning));
    assert_eq!(sized(&young, 10, None, &Policy::default()).reason, Reason::PeaksHigher);
}

#[test]
fn without_recent_samples_nothing_moves() {
    let none = history(0, |_| 0);
    let target = sized(&none, 64, None, &Policy::default());
    assert_eq!((target.request, target.reason), (Bytes(64 * MIB), Reason::NoData));
}

#[test]
fn after_a_kill_there_is_a_fifth_more_and_at_least_100_mib_and_that_once() {
    let settings = Policy::default().history;
    for (had, needed) in [(256, 356), (2_000, 2_400)] {
        // It was killed by a spike that no sample saw.
        let mut history = history(3 * 144, |_| had / 2);
        history.killed(history.latest().unwrap(), Bytes(had * MIB), &settings);
        let target = sized(&history, had, Some(had), &both());
        assert_eq!((target.request, target.limit), (Bytes(needed * MIB), Some(Bytes(needed * MIB))));
        assert_eq!(target.reason, Reason::OutOfMemory);
        // It has what it takes: nothing is added to it.
        let target = sized(&history, needed, Some(needed), &both());
        assert_eq!((target.request, target.limit), (Bytes(needed * MIB), None));
        let target = sized(&history, had, Some(had), &Policy::default());
        assert_eq!((target.request, target.limit), (Bytes(had * MIB), None));
        assert_eq!(target.reason, Reason::LimitBinds);
        assert!(target.reason.to_string().contains("controlledValues: RequestsAndLimits"));
    }
}

#[test]
fn a_kill_takes_no_measurement() {
    let policy = both();
    let mut history = history(3 * 144, |_| 1_000);
    let now = history.latest().unwrap();
    history.killed(now, Bytes(256 * MIB), &policy.history);
    let inputs = MemoryInputs {
        history: &history,
        measured: false,
        request: Bytes(256 * MIB),
        limit: Some(Bytes(256 * MIB)),
        policy: &policy,
        now,
    };
    let target = memory(&inputs);
    assert_eq!((target.request, target.reason), (Bytes(356 * MIB), Reason::OutOfMemory));
}

#[test]
fn a_controlled_limit_keeps_its_proportion() {
    let steady = history(3 * 144, |_| 256);
    let target = sized(&steady, 1_000, Some(2_000), &both());
    assert_eq!(target.limit, Some(target.request.scale_up(2, 1)));
    let target = sized(&steady, 100, Some(200), &both());
    assert_eq!((target.limit, target.request), (Some(target.request), Bytes(256 * MIB).scale_up(115, 100)));
}

#[test]
fn a_controlled_limit_holds_what_is_used_once_a_week() {
    // An hour of each week at 8 GiB, the other ones at 1: on each later day up to the next time.
    let policy = both();
    // Two days later the hour is no longer in the 99th percentile.
    for days in 3..=7 {
        let weekly = history(144 * days, |sample| if sample < 6 { 8_192 } else { 1_024 });
        let held = Bytes(8_192 * MIB).scale_up(115, 100);
        let target = sized(&weekly, 6_000, Some(12_000), &policy);
        assert!(target.request < Bytes(1_200 * MIB), "{days}: {target:?}");
        assert_eq!(target.limit, Some(held), "{days}");
        // It does not shrink, and is not raised for a peak that it has held.
        assert_eq!(sized(&weekly, 6_000, Some(9_000), &policy).limit, None, "{days}");
        // Request and limit that are equal stay so.
        let target = sized(&weekly, 12_000, Some(12_000), &policy);
        assert_eq!((target.request, target.limit), (held, Some(held)), "{days}");
        assert_eq!(target.reason, Reason::WindowPeak, "{days}");
        let target = sized(&weekly, 9_000, Some(9_000), &policy);
        assert_eq!((target.request, target.limit), (Bytes(9_000 * MIB), None), "{days}");
    }
    // What was used before the window is forgotten.
    let long_ago = history(144 * 10, |sample| if sample < 6 { 8_192 } else { 1_024 });
    assert!(sized(&long_ago, 6_000, Some(12_000), &policy).limit < Some(Bytes(2_500 * MIB)));
}
