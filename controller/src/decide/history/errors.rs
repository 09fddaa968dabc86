//! Forecasts of the largest use that is to come, and how wrong each has been.
//!
//! A forecaster names a base for a horizon: "the largest use of the next hour will be so much". None is right.
//! What is kept of each is the distribution of (largest use ÷ base), so that past errors say how far above its
//! base one has to stay to be outgrown with a given probability. A biased forecaster is as good as any other, if it is so
//! evenly. Those that looked best lately are often those that have not yet seen what is to come, so a sharp forecaster
//! counts more by no more than its sharpness. Only those that know the time of day are left out where
//! none of them has been sharper than the best of the others: that day has no seasons
//! ([`ForecastErrors::seasonal_skill`]).

use serde::{Deserialize, Serialize};

use super::cadence::Cadence;
use super::day::DayProfile;
use super::decaying::{Decaying, STEPS};
use super::level::SMALLEST_CORES;
use super::recent::{Recent, Slot};
use crate::decide::units::Timestamp;

/// How far ahead, in slots: 10, 30 and 90 minutes.
pub const HORIZONS: [u64; 3] = [2, 6, 18];
/// The last so many slots' maximum is what will come.
const PERSISTENCE: [u64; 3] = [1, 4, 12];
/// What the day's profile shows, as it is; or times how much more than in the profile the last so many
/// slots have been.
const SEASONAL: [Option<u64>; 3] = [None, Some(1), Some(6)];
/// Kinds of forecasts.
pub const FORECASTERS: usize = PERSISTENCE.len() + SEASONAL.len();
/// Upper edges of (largest use ÷ base); what is above the last is in a bin of its own.
pub const EDGES: [f64; 16] =
    [0.5, 0.7, 0.85, 0.93, 0.98, 1.0, 1.02, 1.04, 1.08, 1.12, 1.2, 1.3, 1.7, 2.2, 3.0, 8.0];
const BINS: usize = EDGES.len() + 1;
/// Weight of one outcome: 576 outcomes of a half-life, over ln 2, fit into two bytes.
const WEIGHT: u16 = 64;
/// Half-life of errors, in slots: two days. Where samples are further apart than slots are long it is as much longer, since a tail is
/// known from so many outcomes and not from so many days; at most [`LONGEST_HALF_LIFE`] times.
const HALF_LIFE_SLOTS: u64 = 2 * 86_400 / Slot::SECONDS;
/// Eight days: a week is in them for the most part.
const LONGEST_HALF_LIFE: u64 = 4;
/// What is counted in each bin beforehand when sharpness is asked for: half an outcome.
const UNSEEN: f64 = WEIGHT as f64 / 2.0;
/// For how wide the two bins without an edge are taken on the logarithmic scale.
const OPEN_WIDTH: f64 = 1.5;
/// The largest factor by which a day's profile is adapted to the last minutes.
const LARGEST_ADAPTION: f64 = 20.0;

/// For each horizon and forecaster the distribution of its errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastErrors {
    ratios: [[Decaying<BINS>; FORECASTERS]; HORIZONS.len()],
}

/// What each forecaster says at one moment, by horizon, in cores; `None` for one that has nothing to say.
pub type Bases = [[Option<f64>; FORECASTERS]; HORIZONS.len()];

/// The forecasts at the end of the slot before `next`; with `open`, what the slot `next` has shown so far.
pub fn bases(recent: &Recent, day: &DayProfile, next: u64, open: Option<Slot>) -> Bases {
    HORIZONS.map(|slots| at_horizon(recent, day, next, slots, open))
}

fn at_horizon(
    recent: &Recent,
    day: &DayProfile,
    next: u64,
    slots: u64,
    open: Option<Slot>,
) -> [Option<f64>; FORECASTERS] {
    // The newest slot must be there: what is older alone says nothing about now.
    let newest = open.or_else(|| recent.slot(next.checked_sub(1)?));
    let mut bases = [None; FORECASTERS];
    let (persistent, seasonal) = bases.split_at_mut(PERSISTENCE.len());
    for (base, memory) in persistent.iter_mut().zip(PERSISTENCE) {
        let ended = recent.max(next.saturating_sub(memory), next);
        *base = newest.map(|newest| ended.unwrap_or(0.0).max(newest.max));
    }
    let start = |slot: u64| Timestamp(slot * Slot::SECONDS);
    let coming = day.max(start(next), start(next + slots));
    for (base, adapted) in seasonal.iter_mut().zip(SEASONAL) {
        *base = coming.zip(newest).and_then(|(coming, newest)| {
            let Some(memory) = adapted else { return Some(coming.max(newest.mean)) };
            let from = next.saturating_sub(memory);
            let usual = day.mean(start(from), start(next))?.max(SMALLEST_CORES);
            let lately = recent.mean(from, next).unwrap_or(newest.mean).max(newest.mean);
            Some(lately * (coming / usual).min(LARGEST_ADAPTION))
        });
    }
    bases
}

impl ForecastErrors {
    /// Judges the forecasts whose horizon ends with the slot that has just ended: those that were made when there was a sample
    /// to make them from, and of whose horizon most is known. Samples come as this cadence has it.
    pub(super) fn judge(&mut self, recent: &Recent, day: &DayProfile, cadence: Cadence) {
        let end = recent.current();
        let longer = (cadence.seconds() / Slot::SECONDS).clamp(1, LONGEST_HALF_LIFE);
        if end.is_multiple_of(longer * HALF_LIFE_SLOTS / STEPS) {
            self.ratios.iter_mut().flatten().for_each(|ratios| ratios.age(1));
        }
        for (slots, ratios) in HORIZONS.into_iter().zip(&mut self.ratios) {
            let Some(next) = end.checked_sub(slots) else { continue };
            let made = next.checked_sub(1).is_some_and(|newest| recent.is_sampled(newest));
            let known = (next..end).filter(|slot| recent.slot(*slot).is_some()).count() as u64;
            let (true, Some(largest)) = (made && 2 * known > slots, recent.max(next, end)) else { continue };
            let bases = at_horizon(recent, day, next, slots, None);
            for (base, ratios) in bases.into_iter().zip(ratios) {
                if let Some(base) = base {
                    let ratio = largest / base;
                    ratios.add(EDGES.partition_point(|edge| *edge < ratio), WEIGHT);
                }
            }
        }
    }

    /// How many outcomes a forecaster has been judged by, the older the less they count.
    pub fn outcomes(&self, horizon: usize, forecaster: usize) -> f64 {
        self.ratios[horizon][forecaster].total() as f64 / f64::from(WEIGHT)
    }

    /// For each edge the probability that the largest use is above base × edge. Half an outcome above all, and half
    /// below, are added: what has never been seen is not impossible.
    pub fn exceedance(&self, horizon: usize, forecaster: usize) -> [f64; EDGES.len()] {
        let counts = self.ratios[horizon][forecaster].counts();
        let weight = f64::from(WEIGHT);
        let total = self.ratios[horizon][forecaster].total() as f64 + weight;
        let mut above = weight / 2.0;
        let mut exceedance = [0.0; EDGES.len()];
        for (edge, share) in exceedance.iter_mut().enumerate().rev() {
            above += f64::from(counts[edge + 1]);
            *share = above / total;
        }
        exceedance
    }

    /// How sharply a forecaster's errors are known: e^(−H), where H is the entropy (nats) of their distribution on a
    /// logarithmic scale. One whose errors spread twice as far has half of it.
    pub fn sharpness(&self, horizon: usize, forecaster: usize) -> f64 {
        let counts = self.ratios[horizon][forecaster].counts().map(|count| f64::from(count) + UNSEEN);
        let total: f64 = counts.iter().sum();
        let widths = (0..BINS).map(|bin| match bin {
            0 => OPEN_WIDTH,
            _ if bin == BINS - 1 => OPEN_WIDTH,
            _ => (EDGES[bin] / EDGES[bin - 1]).ln(),
        });
        let terms = counts.iter().zip(widths).map(|(count, width)| {
            let share = count / total;
            share * (share / width).ln()
        });
        terms.sum::<f64>().exp()
    }

    /// By how much the best forecaster that knows the time of day beats the best that does not: the ratio of their
    /// sharpness, less 1. 0 is no better; `None` before both have been judged.
    pub fn seasonal_skill(&self, horizon: usize) -> Option<f64> {
        let sharpest = |forecasters: std::ops::Range<usize>| {
            let judged = forecasters.filter(|forecaster| self.outcomes(horizon, *forecaster) > 0.0);
            judged.map(|forecaster| self.sharpness(horizon, forecaster)).max_by(f64::total_cmp)
        };
        let (persistent, seasonal) =
            (sharpest(0..PERSISTENCE.len())?, sharpest(PERSISTENCE.len()..FORECASTERS)?);
        Some(seasonal / persistent - 1.0)
    }

    /// Which forecasters are listened to: those that know the time of day only where that has been of use.
    pub fn heard(&self, horizon: usize) -> std::ops::Range<usize> {
        let seasons = self.seasonal_skill(horizon).is_some_and(|skill| skill > 0.0);
        0..if seasons { FORECASTERS } else { PERSISTENCE.len() }
    }

    /// Adds another container's.
    pub(super) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.ratios.iter_mut().flatten().zip(other.ratios.iter().flatten()) {
            ours.merge(theirs);
        }
    }
}
