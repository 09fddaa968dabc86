//! Use by the time of day: what a container that works by the clock will do next.

use serde::{Deserialize, Serialize};

use super::decaying::as_sequence;
use super::level::Level;
use super::recent::Slot;
use crate::decide::units::Timestamp;

/// Bins of a day.
const BINS: usize = 96;
const DAY_SECONDS: u64 = 86_400;
/// Their length.
pub const BIN_SECONDS: u64 = DAY_SECONDS / BINS as u64;
/// Part of the newest day in a bin: a week is in it for the most part.
const NEWEST: f64 = 0.25;

/// Maximum and mean of the use in each quarter of an hour of the (UTC) day, averaged over the last days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DayProfile {
    #[serde(with = "as_sequence")]
    max: [Level; BINS],
    /// In parts of 255 of the maximum.
    #[serde(with = "as_sequence")]
    mean: [u8; BINS],
    /// Of the bin that is being filled: its number since the epoch, largest sample, sum of means, slots.
    open: u32,
    open_max: f32,
    open_sum: f32,
    open_slots: u16,
}

impl Default for DayProfile {
    fn default() -> Self {
        Self {
            max: [Level::MISSING; BINS],
            mean: [0; BINS],
            open: 0,
            open_max: 0.0,
            open_sum: 0.0,
            open_slots: 0,
        }
    }
}

impl DayProfile {
    /// Adds a slot that began at `start`. Slots come in the order of their time.
    pub(super) fn add(&mut self, start: Timestamp, slot: Slot) {
        let bin = u32::try_from(start.0 / BIN_SECONDS).unwrap_or(u32::MAX);
        if bin != self.open {
            self.fold();
            (self.open, self.open_max, self.open_sum, self.open_slots) = (bin, 0.0, 0.0, 0);
        }
        self.open_max = self.open_max.max(slot.max as f32);
        self.open_sum += slot.mean as f32;
        self.open_slots += 1;
    }

    /// Adds the bin that was being filled to the same bin of the days before.
    fn fold(&mut self) {
        if self.open_slots == 0 {
            return;
        }
        let bin = self.open as usize % BINS;
        let now = (f64::from(self.open_max), f64::from(self.open_sum) / f64::from(self.open_slots));
        let average = |before: f64, now: f64| before + (now - before) * NEWEST;
        let (max, mean) =
            self.bin(bin).map_or(now, |before| (average(before.0, now.0), average(before.1, now.1)));
        // Saturates; a bin without use has no part.
        (self.max[bin], self.mean[bin]) = (Level::from_cores(max), (mean / max * 255.0).round() as u8);
    }

    /// Maximum and mean (cores) of a bin; `None` where it was never seen.
    fn bin(&self, bin: usize) -> Option<(f64, f64)> {
        let max = self.max[bin].cores()?;
        Some((max, max * f64::from(self.mean[bin]) / 255.0))
    }

    /// The largest use (cores) that past days had at this time of day; `None` where one bin of it was never seen.
    pub fn max(&self, from: Timestamp, to: Timestamp) -> Option<f64> {
        let mut largest = 0.0f64;
        for bin in bins(from, to) {
            largest = largest.max(self.bin(bin)?.0);
        }
        Some(largest)
    }

    /// The mean use (cores) that past days had at this time of day; `None` where one bin of it was never seen.
    pub fn mean(&self, from: Timestamp, to: Timestamp) -> Option<f64> {
        let (mut sum, mut number) = (0.0, 0.0);
        for bin in bins(from, to) {
            sum += self.bin(bin)?.1;
            number += 1.0;
        }
        (number > 0.0).then(|| sum / number)
    }

    /// Takes the larger of each bin; of the bins that are being filled the later one.
    pub(super) fn merge(&mut self, other: &Self) {
        for bin in 0..BINS {
            if (other.max[bin], other.mean[bin]) > (self.max[bin], self.mean[bin]) {
                (self.max[bin], self.mean[bin]) = (other.max[bin], other.mean[bin]);
            }
        }
        let open = |day: &Self| (day.open, day.open_max, day.open_sum, day.open_slots);
        if open(other) > open(self) {
            (self.open, self.open_max) = (other.open, other.open_max);
            (self.open_sum, self.open_slots) = (other.open_sum, other.open_slots);
        }
    }
}

/// The bins that `from..to` touches.
fn bins(from: Timestamp, to: Timestamp) -> impl Iterator<Item = usize> {
    (from.0 / BIN_SECONDS..to.0.div_ceil(BIN_SECONDS)).take(BINS).map(|bin| bin as usize % BINS)
}
