//! What is remembered of a container's CPU: enough to forecast it, in a bounded number of bytes.
//!
//! ```text
//! sample (cores, when) ─▶ usage:   how much, as a histogram over the window → P50 … P99, max
//!                      ─▶ recent:  maximum and mean of each of the last 40 slots of 5 minutes
//!                      ─▶ day:     the same by the time of day, over the last days
//!                      ─▶ errors:  how wrong each forecast was, each time a slot ends
//! ```
//!
//! Everything is counted in whole numbers, so that a [`checkpoint`] restores exactly what was stored. [`memory`] is the
//! same for memory, in short; [`workload`] keeps what replicas did beyond their life.
//!
//! # Invariants
//!
//! * A container takes at most [`FIXED_BYTES`] + [`blocks::Blocks::BYTES_AT_MOST`], however long it lives and however often
//!   it is sampled ([`History::bytes`]).
//! * Samples that are late or come twice change nothing that has been counted. A gap is a gap: nothing is invented for
//!   it, and nothing that came before it is forgotten sooner than by its age. Samples that are always far apart are no
//!   gaps: each speaks for the time since the one before ([`cadence`]).
//! * A forecast is judged by what happened after it was made, never by what it was made from.

pub mod blocks;
pub mod cadence;
pub mod checkpoint;
pub mod day;
pub mod decaying;
pub mod errors;
pub mod level;
pub mod memory;
pub mod recent;
pub mod usage;
pub mod workload;

use serde::{Deserialize, Serialize};

use self::blocks::Percentiles;
use self::cadence::Cadence;
use self::day::DayProfile;
use self::errors::ForecastErrors;
use self::memory::MemoryHistory;
use self::recent::{Recent, Slot};
use self::usage::{MeanUsage, Usage};
use super::duration::Seconds;
use super::policy::HistorySettings;
use super::units::Timestamp;

/// What one container's history of CPU takes but for its histogram of use, which has 4 bytes for each bin of a day in which it
/// was: 100 for one that is steady, 1,000 for one that varies twentyfold. That of memory takes some 300 in all.
pub const FIXED_BYTES: usize = size_of::<History>() - size_of::<Usage>();
const _: () = assert!(FIXED_BYTES <= 1_216 && size_of::<MemoryHistory>() <= 216);

/// The horizon, half an hour, for which use is called sustained.
const SUSTAINED_HORIZON: usize = 1;
const SUSTAINED_SLOTS: u64 = errors::HORIZONS[SUSTAINED_HORIZON];

/// What is remembered of one container, or of a workload's containers of one name ([`History::merge`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    since: Timestamp,
    latest: Option<Timestamp>,
    cadence: Cadence,
    usage: Usage,
    mean: MeanUsage,
    recent: Recent,
    day: DayProfile,
    errors: ForecastErrors,
}

/// What a sample was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It was counted.
    Counted,
    /// It was counted and ended a slot: forecasts were judged, and a new one can be made.
    EndedSlot,
    /// It is not later than the one before, or no number of cores that a machine has: it was left out.
    Ignored,
}

impl History {
    /// Nothing remembered yet; percentiles will be asked for over a window of this length.
    pub fn new(since: Timestamp, window: Seconds) -> Self {
        Self {
            since,
            latest: None,
            cadence: Cadence::default(),
            usage: Usage::new(window.0),
            mean: MeanUsage::default(),
            recent: Recent::default(),
            day: DayProfile::default(),
            errors: ForecastErrors::default(),
        }
    }

    /// Counts a sample: CPU used, in cores, until `at`.
    pub fn observe(&mut self, at: Timestamp, cores: f64) -> Observed {
        let late = self.latest.is_some_and(|latest| at <= latest);
        if late || !(0.0..=level::LARGEST_CORES).contains(&cores) {
            return Observed::Ignored;
        }
        let step = self.latest.map(|latest| at.seconds_since(latest));
        let seconds = step.map_or(cadence::LEAST_SECONDS, |step| self.cadence.step(step));
        let between = Some(cores).filter(|_| step == Some(seconds));
        self.latest = Some(at);
        self.usage.add(at, cores, seconds);
        self.mean.add(cores, seconds);
        let ended = self.recent.end_slots_before(at);
        // After a long gap, once around and one more, so that no old slot is taken for a new one.
        for _ in 0..ended.min(Recent::SLOTS as u64 + 1) {
            // One slot at a time: what a slot ends must be judged before the next one is there.
            self.recent.advance(between);
            self.errors.judge(&self.recent, &self.day, self.cadence);
            if let Some((start, slot)) = self.recent.leaving() {
                self.day.add(start, slot);
            }
        }
        self.recent.skip_to(at);
        self.recent.add(cores);
        if ended > 0 { Observed::EndedSlot } else { Observed::Counted }
    }

    /// Percentiles of use in cores, at most 9.1 % more than they were; `None` without samples in the window.
    pub fn percentiles(&self, now: Timestamp, settings: &HistorySettings) -> Option<Percentiles> {
        self.usage.percentiles(now, settings)
    }

    /// The percentile `q` (0..=1) of use in cores; `None` without samples in the window.
    pub fn percentile_at(&self, now: Timestamp, q: f64, settings: &HistorySettings) -> Option<f64> {
        self.usage.percentile_at(now, q, settings)
    }

    /// Takes another window's length from now on. What is forecast does not depend on it.
    pub fn set_window(&mut self, window: Seconds) {
        self.usage.set_window(window.0);
    }

    /// The window's length.
    pub fn window(&self) -> Seconds {
        Seconds(self.usage.window_seconds())
    }

    /// Since when there have been samples; `None` without any.
    pub fn since(&self) -> Option<Timestamp> {
        self.latest.map(|_| self.since)
    }

    /// Whether a slot has ended after this moment and before the last sample: forecasts were judged, and a new bet can be made.
    pub fn ended_slot_since(&self, at: Timestamp) -> bool {
        self.latest.is_some_and(|latest| recent::number(latest) > recent::number(at))
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        FIXED_BYTES + self.usage.bytes()
    }

    /// Mean use in cores over the last days; `None` without samples.
    pub fn mean(&self) -> Option<f64> {
        self.mean.cores()
    }

    /// How far apart its samples are.
    pub fn cadence(&self) -> Cadence {
        self.cadence
    }

    /// The last hours, slot by slot.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Use by the time of day.
    pub fn day(&self) -> &DayProfile {
        &self.day
    }

    /// What it goes on using, in cores: the mean of the last slot, or, if that is more, of half an hour: the next one where
    /// the time of day has told what comes, else the last one. `None` before the last slot has ended.
    pub fn sustained(&self) -> Option<f64> {
        let next = self.recent.current();
        let since = |slots: u64| self.recent.mean(next.saturating_sub(slots), next);
        let last = since(1)?;
        let slot = |number: u64| Timestamp(number * Slot::SECONDS);
        let coming = self.day.mean(slot(next), slot(next + SUSTAINED_SLOTS));
        let seasons = self.seasonal_skill().is_some_and(|skill| skill > 0.0);
        Some(last.max(coming.filter(|_| seasons).or_else(|| since(SUSTAINED_SLOTS)).unwrap_or(last)))
    }

    /// By how much forecasts of half an hour by the time of day are sharper than those that do not know it, as
    /// [`ForecastErrors::seasonal_skill`] has it.
    pub fn seasonal_skill(&self) -> Option<f64> {
        self.errors.seasonal_skill(SUSTAINED_HORIZON)
    }

    /// How wrong the forecasts were.
    pub fn errors(&self) -> &ForecastErrors {
        &self.errors
    }

    /// When the last sample was taken.
    pub fn latest(&self) -> Option<Timestamp> {
        self.latest
    }

    /// For how long there have been samples, in seconds.
    pub fn age_seconds(&self) -> u64 {
        self.latest.map_or(0, |latest| latest.seconds_since(self.since))
    }

    /// Adds what is remembered of another replica. Counts add up; the last hours and the day take the larger of
    /// each slot, since one size must do for both.
    pub fn merge(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.latest = self.latest.max(other.latest);
        self.cadence.merge(other.cadence);
        self.usage.merge(&other.usage);
        self.mean.merge(&other.mean);
        self.recent.merge(&other.recent);
        self.day.merge(&other.day);
        self.errors.merge(&other.errors);
    }
}

#[cfg(test)]
mod tests;
