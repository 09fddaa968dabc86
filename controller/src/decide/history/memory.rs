//! What is remembered of a container's memory: its peaks.
//!
//! Memory that is short is a kill, not a wait, so what counts is how high use went and not for how long: the peak of each hour
//! goes into a histogram over the window, and the peaks of the last day are kept exactly.

use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Percentiles, Scale, Weighed};
use crate::decide::duration::Seconds;
use crate::decide::policy::HistorySettings;
use crate::decide::units::{Bytes, Timestamp};

/// From 4 MiB to 10 TiB: a bin's edge is at most 5.9 % above what is in it.
pub const SCALE: Scale = Scale { exponent: 22, per_octave: 12 };
/// A peak is counted of so much time.
const HOUR_SECONDS: u64 = 3600;
/// For so long at least a peak is recent, and for a slot's length more at most: what peaks once a day peaks again before it is
/// forgotten.
pub const RECENT_SECONDS: u64 = 24 * HOUR_SECONDS;
/// Slots of the exact peaks, the one under way included, and their length.
const SLOTS: u64 = RECENT_SECONDS / SLOT_SECONDS + 1;
const SLOT_SECONDS: u64 = 3 * HOUR_SECONDS;
/// After an OOM kill the memory that it had is to grow to this, or by [`LEAST_BUMP`], as VPA does it.
const BUMP: (u64, u64) = (6, 5);
/// 100 MiB.
const LEAST_BUMP: Bytes = Bytes(100 << 20);
/// Kills that are further apart are not of one row.
const ROW_SECONDS: u64 = 86_400;
/// For a row of kills it is given so many times what it had before them, or [`ENOUGH`] more, and as much again each day.
const MOST_TIMES: u64 = 8;
/// 4 GiB.
const ENOUGH: Bytes = Bytes(4 << 30);

/// What is remembered of the memory of one container, or of a workload's containers of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryHistory {
    since: Timestamp,
    latest: Option<Timestamp>,
    /// Peaks of the hours that have ended.
    peaks: Blocks,
    /// The hour under way, since the epoch, and its peak so far.
    hour: u64,
    peak: u64,
    /// Number, since the epoch, of the newest slot; and the peaks (bytes) by the slot's number modulo theirs.
    slot: u64,
    slots: [u64; SLOTS as usize],
    kill: Option<Kill>,
}

/// OOM kills: when the last one was, and what all of them take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kill {
    /// When.
    pub at: Timestamp,
    /// What it takes not to be killed again for the same, in bytes.
    pub needed_bytes: u64,
    /// When the first one of this row was.
    pub first_at: Timestamp,
    /// What it had then, in bytes.
    pub first_bytes: u64,
}

impl Kill {
    /// What it may have got by `now` for being killed, while the row goes on: who is killed whatever it gets has a leak, and
    /// would take all that its node has. `None` where it has not been killed for a day.
    pub fn most(&self, now: Timestamp) -> Option<Bytes> {
        let days = now.seconds_since(self.first_at) / 86_400;
        let first = Bytes(self.first_bytes);
        let a_day = first.scale_up(MOST_TIMES, 1).max(first.saturating_add(ENOUGH));
        (now.seconds_since(self.at) <= ROW_SECONDS).then(|| a_day.scale_up(1 + days, 1))
    }
}

impl MemoryHistory {
    /// Nothing remembered yet.
    pub fn new(since: Timestamp, window: Seconds) -> Self {
        Self {
            since,
            latest: None,
            peaks: Blocks::new(window.0),
            hour: 0,
            peak: 0,
            slot: 0,
            slots: [0; SLOTS as usize],
            kill: None,
        }
    }

    /// Counts a sample: the working set at `at`, or its peak since the sample before. One that is not later than the one
    /// before changes nothing; returns whether it was counted.
    pub fn observe(&mut self, at: Timestamp, memory: Bytes) -> bool {
        if self.latest.is_some_and(|latest| at <= latest) {
            return false;
        }
        self.latest = Some(at);
        self.begin_hour(at.0 / HOUR_SECONDS);
        self.peak = self.peak.max(memory.0);
        self.begin_slot(at.0 / SLOT_SECONDS);
        let slot = &mut self.slots[(self.slot % SLOTS) as usize];
        *slot = memory.0.max(*slot);
        true
    }

    /// Counts an OOM kill of a container that had so much, and used all of it. One that is not later than the one before
    /// changes nothing: a kill counts once, however often it is seen.
    ///
    /// What it takes instead is not use, and is in no percentile: a margin upon it would be a second bump.
    pub fn killed(&mut self, at: Timestamp, had: Bytes, settings: &HistorySettings) {
        if self.kill.is_some_and(|kill| kill.at >= at) {
            return;
        }
        let needed = had.scale_up(BUMP.0, BUMP.1).max(had.saturating_add(LEAST_BUMP)).0;
        let before = self.kill(at, settings).map_or(0, |kill| kill.needed_bytes);
        let row = self.kill.filter(|kill| at.seconds_since(kill.at) <= ROW_SECONDS);
        let (first_at, first_bytes) = row.map_or((at, had.0), |kill| (kill.first_at, kill.first_bytes));
        self.kill = Some(Kill { at, needed_bytes: needed.max(before), first_at, first_bytes });
        let number = at.0 / SLOT_SECONDS;
        self.begin_slot(number);
        if number + SLOTS > self.slot {
            let slot = &mut self.slots[(number % SLOTS) as usize];
            *slot = had.0.max(*slot);
        }
    }

    /// Percentiles of the hours' peaks, in bytes: at most 5.9 % more than they were. `None` without samples in the window.
    pub fn percentiles(&self, now: Timestamp, settings: &HistorySettings) -> Option<Percentiles> {
        Some(Percentiles::of(&self.weighed(now, settings)?, SCALE))
    }

    /// The percentile `q` (0..=1) of the hours' peaks; `None` without samples in the window.
    pub fn percentile_at(&self, now: Timestamp, q: f64, settings: &HistorySettings) -> Option<Bytes> {
        Some(Bytes(SCALE.edge(self.weighed(now, settings)?.bin_at(q)).ceil() as u64))
    }

    fn weighed(&self, now: Timestamp, settings: &HistorySettings) -> Option<Weighed> {
        let mut peaks = self.peaks.clone();
        if self.latest.is_some() {
            // The hour under way counts as well.
            peaks.add(Timestamp(self.hour * HOUR_SECONDS), SCALE.bin(self.peak as f64), 1);
        }
        peaks.weighed(now, settings.window.0, settings.half_life.0)
    }

    /// The highest sample of the last day, and of up to three hours before it, exactly; `None` where there was none.
    pub fn recent_peak(&self, now: Timestamp) -> Option<Bytes> {
        let from = (now.0 / SLOT_SECONDS + 1).saturating_sub(SLOTS);
        let numbers = from.max((self.slot + 1).saturating_sub(SLOTS))..=self.slot;
        let peak = numbers.map(|number| self.slots[(number % SLOTS) as usize]).max()?;
        (self.latest.is_some() && peak > 0).then_some(Bytes(peak))
    }

    /// The last OOM kill, if it was within the window.
    pub fn kill(&self, now: Timestamp, settings: &HistorySettings) -> Option<Kill> {
        self.kill.filter(|kill| now.seconds_since(kill.at) <= settings.window.0)
    }

    /// When the last sample was taken.
    pub fn latest(&self) -> Option<Timestamp> {
        self.latest
    }

    /// For how long there have been samples, in seconds.
    pub fn age_seconds(&self) -> u64 {
        self.latest.map_or(0, |latest| latest.seconds_since(self.since))
    }

    /// Takes another window's length from now on.
    pub fn set_window(&mut self, window: Seconds) {
        self.peaks.set_window(window.0);
    }

    /// Adds what is remembered of another replica.
    pub fn merge(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.latest = self.latest.max(other.latest);
        self.peaks.merge(&other.peaks);
        // What one replica was killed for, the others need as well.
        self.kill = match (self.kill, other.kill) {
            (Some(one), Some(other)) => {
                let first = |kill: Kill| (kill.first_at, kill.first_bytes);
                let (first_at, first_bytes) = first(one).min(first(other));
                Some(Kill {
                    at: one.at.max(other.at),
                    needed_bytes: one.needed_bytes.max(other.needed_bytes),
                    first_at,
                    first_bytes,
                })
            }
            (one, other) => one.or(other),
        };
        // Each replica's hour under way is a peak of its own; the later, then larger one stays under way.
        let (stays, counts) = match (self.hour, self.peak) >= (other.hour, other.peak) {
            true => ((self.hour, self.peak), (other.hour, other.peak)),
            false => ((other.hour, other.peak), (self.hour, self.peak)),
        };
        (self.hour, self.peak) = stays;
        if counts.0 > 0 {
            self.peaks.add(Timestamp(counts.0 * HOUR_SECONDS), SCALE.bin(counts.1 as f64), 1);
        }
        self.begin_slot(other.slot);
        for number in (other.slot + 1).saturating_sub(SLOTS)..=other.slot {
            let place = (number % SLOTS) as usize;
            if number + SLOTS > self.slot {
                self.slots[place] = self.slots[place].max(other.slots[place]);
            }
        }
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() - size_of::<Blocks>() + self.peaks.bytes()
    }

    fn begin_hour(&mut self, hour: u64) {
        if hour > self.hour {
            if self.hour > 0 {
                self.peaks.add(Timestamp(self.hour * HOUR_SECONDS), SCALE.bin(self.peak as f64), 1);
            }
            (self.hour, self.peak) = (hour, 0);
        }
    }

    fn begin_slot(&mut self, slot: u64) {
        for number in (self.slot + 1..=slot).rev().take(SLOTS as usize) {
            self.slots[(number % SLOTS) as usize] = 0;
        }
        self.slot = self.slot.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::policy::Policy;

    const WINDOW: Seconds = Seconds(8 * 86_400);
    const START: u64 = 1_700_006_400;

    fn history(samples: &[(u64, u64)]) -> MemoryHistory {
        let mut history = MemoryHistory::new(Timestamp(START), WINDOW);
        let mut at = START;
        for (step, bytes) in samples {
            at += step;
            history.observe(Timestamp(at), Bytes(*bytes));
        }
        history
    }

    fn samples() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((1..20_000u64, 1..1u64 << 40), 1..80)
    }

    /// The largest of the samples of the last so many seconds.
    fn peak(samples: &[(u64, u64)], now: Timestamp, seconds: u64) -> Option<u64> {
        let mut at = START;
        let placed = samples.iter().map(|(step, bytes)| {
            at += step;
            (at, *bytes)
        });
        placed.filter(|(at, _)| at + seconds > now.0).map(|(_, bytes)| bytes).max()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn property_13_peaks_are_in_order_and_within_the_stated_error(samples in samples()) {
            let history = history(&samples);
            let (now, settings) = (history.latest().unwrap(), Policy::default().history);
            let found = history.percentiles(now, &settings).unwrap();
            prop_assert!([found.p50, found.p90, found.p95, found.p99, found.max].is_sorted());
            // The window drops an eighth of itself at a time.
            let least = peak(&samples, now, WINDOW.0 / 8 * 7).unwrap() as f64;
            let most = (peak(&samples, now, WINDOW.0).unwrap() as f64).max(SCALE.edge(0)) * SCALE.ratio();
            prop_assert!(found.max >= least && found.max <= most * (1.0 + 1e-9), "{least} {most} {found:?}");
        }

        #[test]
        fn the_recent_peak_is_exact_for_a_day_and_gone_after_27_hours(samples in samples()) {
            let history = history(&samples);
            let now = history.latest().unwrap();
            let found = history.recent_peak(now).unwrap().0;
            prop_assert!(found >= peak(&samples, now, RECENT_SECONDS).unwrap());
            prop_assert!(found <= peak(&samples, now, RECENT_SECONDS + SLOT_SECONDS).unwrap());
        }

        #[test]
        fn replicas_merge_in_any_order(replicas in prop::collection::vec(samples(), 3)) {
            let [a, b, c] = [0, 1, 2].map(|index: usize| history(&replicas[index]));
            let merged = |one: &MemoryHistory, another: &MemoryHistory| {
                let mut sum = one.clone();
                sum.merge(another);
                sum
            };
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        }

        #[test]
        fn a_checkpoint_restores_exactly_what_was_stored(samples in samples()) {
            let history = history(&samples);
            let json = serde_json::to_string(&history).unwrap();
            prop_assert_eq!(serde_json::from_str::<MemoryHistory>(&json).unwrap(), history);
        }
    }

    #[test]
    fn a_peak_that_comes_daily_is_remembered_until_it_comes_again() {
        // At 11 in the morning each day, and little else.
        let mut remembered = MemoryHistory::new(Timestamp(START), WINDOW);
        for sample in 0..3 * 144 {
            let peaks = sample % 144 == 66;
            remembered.observe(Timestamp(START + 600 * sample), Bytes(if peaks { 8 << 30 } else { 1 << 30 }));
            if sample > 66 {
                let now = remembered.latest().unwrap();
                assert_eq!(remembered.recent_peak(now), Some(Bytes(8 << 30)), "sample {sample}");
            }
        }
    }

    #[test]
    fn late_samples_change_nothing_and_a_gap_wipes_nothing() {
        let mut remembered = history(&[(60, 100 << 20), (60, 300 << 20)]);
        let before = remembered.clone();
        assert!(!remembered.observe(remembered.latest().unwrap(), Bytes(u64::MAX)));
        assert_eq!(remembered, before);
        // Five days later.
        let later = Timestamp(START + 5 * 86_400);
        assert!(remembered.observe(later, Bytes(50 << 20)));
        let settings = Policy::default().history;
        assert!(remembered.percentiles(later, &settings).unwrap().max >= (300u64 << 20) as f64);
        assert_eq!(remembered.recent_peak(later), Some(Bytes(50 << 20)));
        // Beyond the window it is gone.
        let much_later = Timestamp(START + 9 * 86_400);
        remembered.observe(much_later, Bytes(50 << 20));
        assert!(remembered.percentiles(much_later, &settings).unwrap().max < (60u64 << 20) as f64);
    }

    #[test]
    fn a_kill_is_remembered_as_long_as_the_window() {
        let mut remembered = history(&[(60, 200 << 20)]);
        let at = remembered.latest().unwrap();
        let settings = Policy::default().history;
        remembered.killed(at, Bytes(1 << 30), &settings);
        let kill = remembered.kill(at.plus_seconds(WINDOW.0), &settings).unwrap();
        assert_eq!(kill.needed_bytes, Bytes(1 << 30).scale_up(6, 5).0);
        assert_eq!(remembered.kill(at.plus_seconds(WINDOW.0 + 1), &settings), None);
        // Seen again, when it has been given more, it is the same kill.
        remembered.killed(at, Bytes(2 << 30), &settings);
        assert_eq!(remembered.kill(at, &settings), Some(kill));
        // It used what it had, and not what it takes.
        assert_eq!(remembered.recent_peak(at), Some(Bytes(1 << 30)));
        assert_eq!(
            remembered.percentile_at(at, 1.0, &settings),
            history(&[(60, 200 << 20)]).percentile_at(at, 1.0, &settings)
        );
    }
}
