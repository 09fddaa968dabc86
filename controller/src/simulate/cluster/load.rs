//! What a made-up container would use: a level of its own, the hours of the day, noise that lasts some minutes, and bursts.

use std::f64::consts::TAU;

use crate::decide::units::{Bytes, Timestamp};
use crate::simulate::random::Random;

const DAY_SECONDS: f64 = 86_400.0;

/// How one container behaves.
#[derive(Clone, Debug)]
pub struct Load {
    random: Random,
    /// CPU on average, in cores.
    mean_cores: f64,
    /// Part of the mean by which the day swings, 0..1, and when it is highest (part of a day).
    day: (f64, f64),
    /// Deviation of the noise, as a part of the level.
    noise: f64,
    /// The noise now; it forgets half of itself in some minutes.
    drift: f64,
    /// Probability that a burst begins in a minute, and by how much it multiplies.
    burst: (f64, f64),
    burst_minutes_left: u32,
    /// Working set when it does nothing, and what each core adds.
    memory: (u64, f64),
}

impl Load {
    /// A container of this mean.
    pub fn new(mut random: Random, mean_cores: f64) -> Self {
        let day = (if random.happens(0.7) { random.unit() * 0.8 } else { 0.0 }, random.unit());
        let noise = 0.02 + 0.25 * random.unit() * random.unit();
        let burst =
            (if random.happens(0.4) { random.unit() / 120.0 } else { 0.0 }, 1.5 + 2.5 * random.unit());
        let memory = ((32 << 20) + random.below(512 << 20), (64 << 20) as f64 * random.unit());
        Self { random, mean_cores, day, noise, drift: 0.0, burst, burst_minutes_left: 0, memory }
    }

    /// What it would use in the minute that ends at `at` if nothing held it back: cores, and its working set.
    pub fn minute(&mut self, at: Timestamp) -> (f64, Bytes) {
        let (swing, peak) = self.day;
        let hour = (at.0 as f64 / DAY_SECONDS - peak) * TAU;
        let level = self.mean_cores * (1.0 + swing * hour.cos());
        self.drift = 0.8 * self.drift + 0.6 * self.random.normal();
        match self.burst_minutes_left {
            0 if self.random.happens(self.burst.0) => {
                self.burst_minutes_left = 1 + self.random.below(20) as u32;
            }
            left => self.burst_minutes_left = left.saturating_sub(1),
        }
        let burst = if self.burst_minutes_left > 0 { self.burst.1 } else { 1.0 };
        let cores = (level * (1.0 + self.noise * self.drift) * burst).max(0.0);
        let memory = self.memory.0 as f64 + self.memory.1 * cores.min(64.0);
        (cores, Bytes(memory as u64))
    }
}
