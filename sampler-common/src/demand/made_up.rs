//! How much of what its threads would have run while they waited a container makes up for by itself.
//!
//! A thread that sleeps until a time sleeps the less the longer it has waited ([`crate::cycles`]): lifting its waits would
//! bring nothing. The sums of a window's cycles give the slope of sleep on wait, and its standard error, which follows from
//! how much sleeps differ anyway.

use crate::snapshot::Cycles;

/// With fewer cycles nothing is known.
const LEAST: u64 = 3;
/// Differences of consecutive cycles are not independent: each sleep is in two of them, and so is each wait. That makes the
/// variance of the slope 3/2 of what independent ones would have.
const SHARED: f64 = 1.5;
/// Variance of a difference of two times that are cut off to whole units.
const CUT_OFF: f64 = 1.0 / 3.0;
/// The slope may be off by so many standard errors.
const ERRORS: f64 = 2.0;
/// A slope that may be off by so much or more says nothing: of many windows in which it is, it is far from 0 by chance in some.
const KNOWN: f64 = 0.5;
/// A slope that is not surely above this may be that of threads of both kinds. Those that sleep until a time may be many and miss
/// little, and the one that goes on as long as it is let may miss almost all: so it is no part of what they missed.
const MIXED: f64 = 0.7;
/// One that is surely above this is of threads that all sleep until a time; in between it is believed in part.
const ALIKE: f64 = 0.9;

/// A part of what threads with a pace missed, in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MadeUp {
    /// That much of it they make up for,
    pub part: f64,
    /// at least so much,
    pub least: f64,
    /// and at most so much.
    pub most: f64,
}

impl MadeUp {
    /// Nothing is known: it may be all or none.
    pub(super) const UNKNOWN: Self = Self { part: 0.0, least: 0.0, most: 1.0 };

    /// What the cycles of a window say.
    pub(super) fn of(cycles: &Cycles) -> Self {
        if cycles.count < LEAST || cycles.waits == 0 {
            return Self::UNKNOWN;
        }
        let [count, waits, sleeps, sums] = cycles.parts().map(|sum| sum as f64);
        let products = (sums - waits - sleeps) / 2.0;
        let slope = -products / waits;
        let rest = (sleeps - products * products / waits).max(0.0);
        let variance = SHARED * (rest / (count - 1.0) + CUT_OFF) / waits;
        let off = ERRORS * variance.sqrt();
        // Nobody sleeps less by more than was waited more: that is chance.
        if slope > 2.0 - ALIKE + off {
            return Self::UNKNOWN;
        }
        let surely = if off < KNOWN { slope - off } else { 0.0 };
        let part = ((surely - MIXED) / (ALIKE - MIXED)).clamp(0.0, 1.0);
        Self { part, least: surely.clamp(0.0, part), most: (slope + off).clamp(part, 1.0) }
    }
}

#[cfg(test)]
mod tests;
