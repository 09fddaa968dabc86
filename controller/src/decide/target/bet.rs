//! CPU from its use alone: a bet.
//!
//! Windows may say only what was used: no objective, no wait. Sizing is then a bet: what is
//! reserved and not used is lost, what is used beyond it is a breach, and every change has its price. The bet is
//! placed where it costs least on average, by the container's own past errors of forecast.
//!
//! # Method
//!
//! Let S(x, t) be the probability that an allocation x is not outgrown for t, from [`ForecastErrors`], mixed over the
//! forecasters, the sharper ones counting more. Holding x until it is outgrown, at most to the horizon T, lasts E[τ] = ∫ S(x, t) dt on average. By
//! renewal reward the cost per minute of living so is
//!
//! ```text
//! g(x) = x + (change + breach·(1 − S(x, T)) + unmet·E[(largest use − x)⁺]) / E[τ]
//! ```
//!
//! with prices in minutes of the container's mean use ([`Prices`]), `breach` and `unmet` for as long as it takes to notice: a minute,
//! or the time from one sample to the next where that is longer. The best x has the least g. The allocation in force
//! costs the same without `change`, since it is there; it is replaced when even so it costs more. That one comparison
//! is hysteresis, safety margin and anticipation at once: it meets a rise that comes every morning ahead, shrinks only when
//! what is saved outweighs the expected regret, leaves alone what is small against the mean, and rests
//! where errors are small.
//!
//! A change becomes dearer as the container has had more of them lately ([`Changes`]), and at the allowed
//! rate it shrinks no more: whoever oscillates ends up with room.

use serde::{Deserialize, Serialize};

use crate::decide::history::History;
use crate::decide::history::errors::{self, Bases, EDGES, FORECASTERS, ForecastErrors, HORIZONS};
use crate::decide::history::recent::Slot;
use crate::decide::units::{MilliCpu, Timestamp};

/// What things cost against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Prices {
    /// A change is worth so many minutes of mean use reserved for nothing.
    pub change_minutes: u32,
    /// A minute in which more is used than allocated is worth so many of mean use reserved for nothing.
    pub breach_minutes: u32,
    /// A core-minute that was used above the allocation is worth so many reserved for nothing.
    pub unmet: u32,
    /// Changes a day from which on it shrinks no more.
    pub changes_per_day: u32,
}

impl Default for Prices {
    fn default() -> Self {
        Self { change_minutes: 21, breach_minutes: 11, unmet: 20, changes_per_day: 40 }
    }
}

/// How often an allocation has changed lately; what was 12 hours ago counts half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    count: f32,
    at: Timestamp,
}

impl Changes {
    const HALF_LIFE_SECONDS: f32 = 43_200.0;
    /// Days whose changes are in the count, all in all: half-life ÷ ln 2.
    const DAYS: f32 = 0.721_35;

    /// Counts a change.
    pub fn add(&mut self, now: Timestamp) {
        *self = Self { count: self.decayed(now) + 1.0, at: now };
    }

    /// Changes a day.
    pub fn per_day(self, now: Timestamp) -> f64 {
        f64::from(self.decayed(now) / Self::DAYS)
    }

    fn decayed(self, now: Timestamp) -> f32 {
        self.count * (-(now.seconds_since(self.at) as f32) / Self::HALF_LIFE_SECONDS).exp2()
    }
}

/// Why the bet is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// There is no sample yet, or none of the last minutes: nothing moves.
    NoData,
    /// There are too few judged forecasts to bet on: only what has been outgrown is raised.
    Learning,
    /// Any change would cost more than it brings.
    Holding,
    /// It is likely to be outgrown, or has been.
    Raised,
    /// What is saved outweighs what may have to be paid.
    Shrunk,
    /// It would shrink, but has changed too often lately.
    TooManyChanges,
}

/// A bet, with why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bet {
    /// The request that it should have.
    pub request: MilliCpu,
    /// Why.
    pub reason: Reason,
}

/// Forecasters of which each horizon has judged fewer outcomes are not listened to: two hours' worth.
const FEWEST_OUTCOMES: f64 = 12.0;
/// While learning, what is outgrown is raised to so much above the largest use.
const LEARNING_HEADROOM: f64 = 1.3;
/// Allocations that are weighed against each other.
const CANDIDATES: usize = 48;
/// A change counts once it has happened: its price when none has, or far too many.
const CHEAPEST: f64 = 0.5;
const DEAREST: f64 = 100.0;

/// What a change costs in core-minutes, for a container that uses `mean` cores: the more, the more often it has changed lately.
pub fn change_price(mean: f64, changes: Changes, prices: &Prices, now: Timestamp) -> f64 {
    let rate = rate(changes, prices, now);
    f64::from(prices.change_minutes) * mean * (rate * rate).clamp(CHEAPEST, DEAREST)
}

/// Whether it has changed seldom enough to shrink.
pub fn may_shrink(changes: Changes, prices: &Prices, now: Timestamp) -> bool {
    rate(changes, prices, now) < 1.0
}

/// Changes a day in parts of those that are allowed.
fn rate(changes: Changes, prices: &Prices, now: Timestamp) -> f64 {
    changes.per_day(now) / f64::from(prices.changes_per_day.max(1))
}

/// The bet at `now`, for a container that has `current`.
pub fn bet(history: &History, current: MilliCpu, changes: Changes, prices: &Prices, now: Timestamp) -> Bet {
    let hold = |reason| Bet { request: current, reason };
    let fresh = history.latest().is_some_and(|latest| now.seconds_since(latest) <= 2 * Slot::SECONDS);
    let (true, Some(mean)) = (fresh, history.mean()) else {
        return hold(Reason::NoData);
    };
    let recent = history.recent();
    let bases = errors::bases(recent, history.day(), recent.current(), recent.open());
    let Some(outlook) = Outlook::new(&bases, history.errors()) else {
        return match recent.open() {
            Some(slot) if slot.max > current.cores() => {
                Bet { request: MilliCpu::ceil_cores(slot.max * LEARNING_HEADROOM), reason: Reason::Learning }
            }
            _ => hold(Reason::Learning),
        };
    };

    let change = change_price(mean, changes, prices, now);
    // Until the next sample nobody knows that it was outgrown.
    let look = (history.cadence().seconds() as f64 / 60.0).max(1.0);
    let breach = f64::from(prices.breach_minutes) * mean * look;
    let unmet = f64::from(prices.unmet) * look;
    let cost = |cores: f64, change: f64| outlook.cost(cores, change, breach, unmet, look);

    let lowest = outlook.lowest.max(mean * 0.02);
    let highest = (outlook.highest * 2.5).max(lowest * 1.5);
    let step = (highest / lowest).powf(1.0 / (CANDIDATES - 1) as f64);
    // What is in force is kept unless something costs less. No allocation costs less than itself, so those above the
    // least cost so far need no look.
    let (mut best, mut least) = (current, cost(current.cores(), 0.0));
    for cores in (0..CANDIDATES).map(|index| lowest * step.powi(index as i32)) {
        if cores >= least {
            break;
        }
        let cost = cost(cores, change);
        if cost < least {
            (best, least) = (MilliCpu::ceil_cores(cores), cost);
        }
    }
    if best == current {
        hold(Reason::Holding)
    } else if best > current {
        Bet { request: best, reason: Reason::Raised }
    } else if may_shrink(changes, prices, now) {
        Bet { request: best, reason: Reason::Shrunk }
    } else {
        hold(Reason::TooManyChanges)
    }
}

/// What one forecaster says of one horizon.
#[derive(Clone, Copy)]
struct View {
    /// The largest use that it expects, in cores.
    base: f64,
    /// The probabilities that base × edge is outgrown, by its past errors.
    exceedance: [f64; EDGES.len()],
    /// How much it is listened to.
    weight: f64,
}

/// What may come, as the forecasters whose errors are known see it.
struct Outlook {
    /// By horizon: the views of those that have one of each horizon; their weights add up to 1.
    views: [Vec<View>; HORIZONS.len()],
    /// From where on allocations are worth a look, in cores.
    lowest: f64,
    /// The largest use that any of them expects, in cores.
    highest: f64,
}

impl Outlook {
    /// `None` where no forecaster has been judged often enough.
    fn new(bases: &Bases, errors: &ForecastErrors) -> Option<Self> {
        let known = |&forecaster: &usize| {
            (0..HORIZONS.len()).all(|horizon| errors.outcomes(horizon, forecaster) >= FEWEST_OUTCOMES)
        };
        let known: Vec<usize> = (0..FORECASTERS).filter(known).collect();
        let views: [_; HORIZONS.len()] = std::array::from_fn(|horizon| {
            let heard = errors.heard(horizon);
            let mut views: Vec<View> = known
                .iter()
                .filter(|forecaster| heard.contains(forecaster))
                .filter_map(|&forecaster| {
                    Some(View {
                        base: bases[horizon][forecaster]?,
                        exceedance: errors.exceedance(horizon, forecaster),
                        weight: errors.sharpness(horizon, forecaster),
                    })
                })
                .collect();
            let sum: f64 = views.iter().map(|view| view.weight).sum();
            views.iter_mut().for_each(|view| view.weight /= sum);
            views
        });
        if views.iter().any(Vec::is_empty) {
            return None;
        }
        let bases = || views.iter().flatten().map(|view| view.base);
        let lowest = bases().fold(f64::INFINITY, f64::min) * 0.6;
        let highest = bases().fold(0.0, f64::max);
        Some(Self { views, lowest, highest })
    }

    /// The probability that `cores` are outgrown within a horizon.
    fn exceedance(&self, horizon: usize, cores: f64) -> f64 {
        let views = self.views[horizon].iter();
        views.map(|view| view.weight * between_edges(&view.exceedance, cores / view.base)).sum()
    }

    /// By how much (cores) the largest use within the longest horizon exceeds `cores`, on average.
    fn excess(&self, cores: f64) -> f64 {
        let views = self.views[HORIZONS.len() - 1].iter();
        views.map(|view| view.weight * view.base * area_above(&view.exceedance, cores / view.base)).sum()
    }

    /// The cost per minute of holding `cores`, in cores, with a sample every `look` minutes.
    fn cost(&self, cores: f64, change: f64, breach: f64, unmet: f64, look: f64) -> f64 {
        let (mut minutes, mut from, mut survival) = (0.0, 0.0, 1.0);
        for (horizon, slots) in HORIZONS.into_iter().enumerate() {
            let to = (slots * Slot::SECONDS) as f64 / 60.0;
            let at_end = 1.0 - self.exceedance(horizon, cores);
            minutes += (to - from) * (survival + at_end) / 2.0;
            (from, survival) = (to, at_end);
        }
        let regret = change + breach * (1.0 - survival) + unmet * self.excess(cores);
        // What is outgrown at once still stands until the next sample.
        cores + regret / minutes.max(look)
    }
}

/// Exceedance at a ratio between the edges.
fn between_edges(exceedance: &[f64; EDGES.len()], ratio: f64) -> f64 {
    let above = EDGES.partition_point(|edge| *edge <= ratio);
    match above {
        0 => 1.0 + (exceedance[0] - 1.0) * ratio / EDGES[0],
        _ if above == EDGES.len() => exceedance[above - 1],
        _ => {
            let part = (ratio - EDGES[above - 1]) / (EDGES[above] - EDGES[above - 1]);
            exceedance[above - 1] + (exceedance[above] - exceedance[above - 1]) * part
        }
    }
}

/// E[(ratio of the largest use − ratio)⁺], the integral of the exceedance from `ratio` to the last edge.
fn area_above(exceedance: &[f64; EDGES.len()], ratio: f64) -> f64 {
    let above = EDGES.partition_point(|edge| *edge <= ratio);
    let (mut from, mut at, mut area) = (ratio, between_edges(exceedance, ratio), 0.0);
    for edge in above..EDGES.len() {
        area += (EDGES[edge] - from) * (at + exceedance[edge]) / 2.0;
        (from, at) = (EDGES[edge], exceedance[edge]);
    }
    area
}

#[cfg(test)]
mod tests;
