//! How much CPU a container uses: percentiles and mean, the older the less they count.

use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Percentiles, Scale, Weighed};
use crate::decide::policy::HistorySettings;
use crate::decide::units::Timestamp;

/// Seconds that weigh 1.
const SECONDS_PER_COUNT: u64 = 15;
/// From 1/1024 of a core up to more than any machine has: a bin's edge is at most 9.1 % above what is in it. Eight bins in an
/// octave, as the waits have them.
pub const SCALE: Scale = Scale { exponent: -10, per_octave: 8 };

/// CPU use over the window, weighted by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usage(Blocks);

impl Usage {
    /// Nothing counted yet, for a window of so many seconds.
    pub fn new(window_seconds: u64) -> Self {
        Self(Blocks::new(window_seconds))
    }

    /// Counts a use of so many cores that lasted so many seconds.
    pub fn add(&mut self, at: Timestamp, cores: f64, seconds: u64) {
        let count = u32::try_from(seconds.div_ceil(SECONDS_PER_COUNT)).unwrap_or(u32::MAX);
        self.0.add(at, SCALE.bin(cores), count);
    }

    /// Percentiles in cores; `None` where there is nothing in the window.
    pub fn percentiles(&self, now: Timestamp, settings: &HistorySettings) -> Option<Percentiles> {
        Some(Percentiles::of(&self.weighed(now, settings)?, SCALE))
    }

    /// One percentile (0..=1) in cores; `None` where there is nothing in the window.
    pub fn percentile_at(&self, now: Timestamp, q: f64, settings: &HistorySettings) -> Option<f64> {
        Some(SCALE.edge(self.weighed(now, settings)?.bin_at(q)))
    }

    fn weighed(&self, now: Timestamp, settings: &HistorySettings) -> Option<Weighed> {
        self.0.weighed(now, settings.window.0, settings.half_life.0)
    }

    /// Takes another window's length from now on.
    pub fn set_window(&mut self, window_seconds: u64) {
        self.0.set_window(window_seconds);
    }

    /// The window's length.
    pub fn window_seconds(&self) -> u64 {
        self.0.window_seconds()
    }

    /// Adds another container's.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
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
        let seconds = seconds.max(1) as f32;
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
            // As a sum, in which neither comes first.
            self.cores = (self.cores * self.seconds + other.cores * other.seconds) / seconds;
            self.seconds = seconds;
        }
    }
}
