//! The last hours in slots of five minutes, aligned to the clock.
//!
//! A slot without a sample has what the next sample says of it, if that speaks for so long ([`super::cadence`]). When it
//! ended nobody knew that: no forecast can have been made from it then ([`Recent::is_sampled`]).

use serde::{Deserialize, Serialize};

use super::decaying::as_sequence;
use super::level::Level;
use crate::decide::units::Timestamp;

/// What happened in five minutes, if any sample speaks for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// The largest sample, in cores.
    pub max: f64,
    /// The samples' mean, in cores.
    pub mean: f64,
}

impl Slot {
    /// Its length.
    pub const SECONDS: u64 = 300;
}

/// The slots of the last 200 minutes, and the one that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// Number, since the epoch, of the slot under way; 0 before the first sample.
    current: u32,
    /// The largest sample, by the slot's number modulo their number.
    #[serde(with = "as_sequence")]
    max: [Level; Self::SLOTS],
    /// The mean in parts of 255 of the largest sample.
    #[serde(with = "as_sequence")]
    mean: [u8; Self::SLOTS],
    /// Which of them had a sample of their own: a bit each.
    sampled: u64,
    /// Of the slot under way.
    open_max: f32,
    open_sum: f32,
    open_samples: u16,
}

/// The slot of a time, in 32 bits: they last for 40,000 years.
pub(super) fn number(at: Timestamp) -> u32 {
    u32::try_from(at.0 / Slot::SECONDS).unwrap_or(u32::MAX)
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            current: 0,
            max: [Level::MISSING; Self::SLOTS],
            mean: [0; Self::SLOTS],
            sampled: 0,
            open_max: 0.0,
            open_sum: 0.0,
            open_samples: 0,
        }
    }
}

impl Recent {
    /// Slots kept: the longest forecast to be judged (24 slots) and the longest memory that one was made from (12),
    /// and some.
    pub const SLOTS: usize = 40;
    const _SAMPLED_HAS_A_BIT_FOR_EACH: () = assert!(Self::SLOTS <= u64::BITS as usize);
    /// A slot of this age is no longer part of any forecast's outcome.
    const SETTLED: u64 = 25;

    /// How many slots end before a sample of this time.
    pub(super) fn end_slots_before(&self, at: Timestamp) -> u64 {
        if self.current == 0 { 0 } else { number(at).saturating_sub(self.current).into() }
    }

    /// Ends the slot under way. If it had no sample it has what the next one says was used in it, in cores, where that says
    /// anything.
    pub(super) fn advance(&mut self, next_says: Option<f64>) {
        let place = self.current as usize % Self::SLOTS;
        (self.max[place], self.mean[place]) = match next_says {
            Some(cores) => (Level::from_cores(cores), u8::MAX),
            None => (Level::MISSING, 0),
        };
        self.sampled &= !(1 << place);
        if self.open_samples > 0 {
            self.sampled |= 1 << place;
            let mean = self.open_sum / f32::from(self.open_samples);
            self.max[place] = Level::from_cores(self.open_max.into());
            // Saturates; a slot without use has no part.
            self.mean[place] = (mean / self.open_max * 255.0).round() as u8;
        }
        (self.open_max, self.open_sum, self.open_samples) = (0.0, 0.0, 0);
        self.current = self.current.saturating_add(1);
    }

    /// Begins the slot of a sample's time; the slots before it have ended.
    pub(super) fn skip_to(&mut self, at: Timestamp) {
        self.current = self.current.max(number(at));
    }

    /// Counts a sample in the slot under way.
    pub(super) fn add(&mut self, cores: f64) {
        self.open_max = self.open_max.max(cores as f32);
        self.open_sum += cores as f32;
        self.open_samples = self.open_samples.saturating_add(1);
    }

    /// The slot that has just become too old to be part of a forecast's outcome, and when it began.
    pub(super) fn leaving(&self) -> Option<(Timestamp, Slot)> {
        let number = self.current().checked_sub(Self::SETTLED)?;
        Some((Timestamp(number * Slot::SECONDS), self.slot(number)?))
    }

    /// Number of the slot under way.
    pub fn current(&self) -> u64 {
        self.current.into()
    }

    /// An ended slot by its number; `None` where it had no sample or is not kept any more.
    pub fn slot(&self, number: u64) -> Option<Slot> {
        let current = self.current();
        let kept = number < current && number.saturating_add(Self::SLOTS as u64) >= current;
        let place = number as usize % Self::SLOTS;
        let max = self.max[place].cores().filter(|_| kept)?;
        Some(Slot { max, mean: max * f64::from(self.mean[place]) / 255.0 })
    }

    /// Whether a slot that has ended had a sample of its own: what happened in it was known when it ended.
    pub fn is_sampled(&self, number: u64) -> bool {
        self.slot(number).is_some() && self.sampled >> (number as usize % Self::SLOTS) & 1 == 1
    }

    /// The largest sample (cores) of the slots `from..to`; `None` where there was none.
    pub fn max(&self, from: u64, to: u64) -> Option<f64> {
        (from..to).filter_map(|number| self.slot(number)).map(|slot| slot.max).max_by(f64::total_cmp)
    }

    /// The mean (cores) of the slots `from..to` that have samples.
    pub fn mean(&self, from: u64, to: u64) -> Option<f64> {
        let slots = (from..to).filter_map(|number| self.slot(number));
        let (sum, slots) = slots.fold((0.0, 0u32), |(sum, slots), slot| (sum + slot.mean, slots + 1));
        (slots > 0).then(|| sum / f64::from(slots))
    }

    /// The slot under way, so far; `None` before its first sample.
    pub fn open(&self) -> Option<Slot> {
        let mean = f64::from(self.open_sum / f32::from(self.open_samples));
        (self.open_samples > 0).then(|| Slot { max: self.open_max.into(), mean })
    }

    /// Takes the larger of each slot, once the slots of both have ended alike.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        let current = self.current.max(other.current);
        for recent in [&mut *self, &mut other] {
            // Once around and one more leaves nothing of what is too old.
            for _ in 0..(current - recent.current).min(Self::SLOTS as u32 + 1) {
                recent.advance(None);
            }
            recent.current = current;
        }
        for place in 0..Self::SLOTS {
            if (other.max[place], other.mean[place]) > (self.max[place], self.mean[place]) {
                (self.max[place], self.mean[place]) = (other.max[place], other.mean[place]);
            }
        }
        self.sampled |= other.sampled;
        self.open_max = self.open_max.max(other.open_max);
        self.open_sum = self.open_sum.max(other.open_sum);
        self.open_samples = self.open_samples.max(other.open_samples);
    }
}
