//! How much CPU a container uses: percentiles and mean, the older the less they count.

use serde::{Deserialize, Serialize};

use super::decaying::{Decaying, STEPS};
use crate::decide::units::Timestamp;

/// Bins: the first one ends at [`FIRST_EDGE_CORES`], each later one 1.25 times higher, the last at 1,270 cores.
const BINS: usize = 64;
const FIRST_EDGE_CORES: f64 = 0.001;
const RATIO: f64 = 1.25;
/// A sample that stands for more time than this says no more than one that stands for it: what happened in a gap is
/// not known.
const LONGEST_SECONDS: u64 = 300;
/// Seconds that weigh 1. The counts of a half-life fit into two bytes: 86,400 / ln 2 / 4 = 31,000.
const SECONDS_PER_WEIGHT: u64 = 4;
/// Half-life of what was used.
const HALF_LIFE_SECONDS: u64 = 86_400;

/// A decaying histogram of CPU use, weighted by time, with bins that grow by 25 %.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    histogram: Decaying<BINS>,
    /// How many steps of ageing there have been since the epoch; 0 before the first sample.
    step: u32,
}

impl Usage {
    /// Counts a use of so many cores that lasted so many seconds.
    pub fn add(&mut self, at: Timestamp, cores: f64, seconds: u64) {
        let step = u32::try_from(at.0 / (HALF_LIFE_SECONDS / STEPS)).unwrap_or(u32::MAX);
        self.histogram.age(step.saturating_sub(self.step));
        self.step = step.max(self.step);
        let weight = seconds.min(LONGEST_SECONDS).div_ceil(SECONDS_PER_WEIGHT);
        self.histogram.add(bin(cores), weight as u16);
    }

    /// Upper edge (cores) of the bin of this percentile: at most 25 % above it. `None` without samples.
    pub fn percentile(&self, q: f64) -> Option<f64> {
        self.histogram.bin_at(q).map(|bin| FIRST_EDGE_CORES * RATIO.powi(bin as i32))
    }

    /// Adds another container's, once both have the same age.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        let step = self.step.max(other.step);
        self.histogram.age(step - self.step);
        other.histogram.age(step - other.step);
        self.step = step;
        self.histogram.merge(&other.histogram);
    }
}

fn bin(cores: f64) -> usize {
    // Saturates; what is below the first edge is negative and becomes 0.
    ((cores / FIRST_EDGE_CORES).ln() / RATIO.ln() - 1e-9).ceil() as usize
}

/// Mean use, by which costs are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanUsage {
    cores: f32,
    seconds: f32,
}

/// The mean reaches back this far: older time counts for 1/e and less.
const MEAN_SECONDS: f32 = 250_000.0;

impl MeanUsage {
    /// Counts a use of so many cores that lasted so many seconds.
    pub fn add(&mut self, cores: f64, seconds: u64) {
        let seconds = seconds.clamp(1, LONGEST_SECONDS) as f32;
        self.seconds = (self.seconds + seconds).min(MEAN_SECONDS);
        self.cores += (cores as f32 - self.cores) * (seconds / self.seconds);
    }

    /// In cores; `None` without samples.
    pub fn cores(self) -> Option<f64> {
        (self.seconds > 0.0).then_some(f64::from(self.cores))
    }

    /// Adds another container's.
    pub fn merge(&mut self, other: &Self) {
        let seconds = self.seconds + other.seconds;
        if seconds > 0.0 {
            self.cores += (other.cores - self.cores) * (other.seconds / seconds);
            self.seconds = seconds.min(MEAN_SECONDS);
        }
    }
}
