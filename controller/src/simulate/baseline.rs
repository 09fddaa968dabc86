//! What others do, as they publish it: the measure that ours is held against.
//!
//! * [`Vpa`]: the Vertical Pod Autoscaler's CPU recommendation and its updater's gate
//!   (<https://github.com/kubernetes/autoscaler/tree/master/vertical-pod-autoscaler>: `recommender/model`,
//!   `recommender/logic/estimator.go`, `updater/priority`), with its default flags.
//! * [`Window`]: the 90th percentile of the last 24 hours times 1.2, as fixed-window tools have it, looked at once an hour.
//! * [`Static`]: what somebody once wrote into a manifest and nobody changes.

use std::collections::VecDeque;

use super::Sizer;
use crate::decide::units::{MilliCpu, Timestamp};

/// The recommender of VPA and the gate of its updater.
pub struct Vpa {
    histogram: VpaHistogram,
    first: Option<Timestamp>,
    samples: u64,
    applied: Option<Timestamp>,
    looked: Option<Timestamp>,
}

/// CPU histogram of VPA: `NewExponentialHistogramOptions(1000.0, 0.01, 1.05, …)`: bucket i begins at
/// 0.01·(1.05ⁱ − 1)/0.05 cores.
struct VpaHistogram {
    weights: Vec<f64>,
    /// Weights of samples double every half-life from here on, instead of halving all others.
    reference: Timestamp,
}

impl VpaHistogram {
    const FIRST_BUCKET_CORES: f64 = 0.01;
    const RATIO: f64 = 1.05;
    const MAX_CORES: f64 = 1000.0;
    const HALF_LIFE_SECONDS: f64 = 86_400.0;

    fn new(reference: Timestamp) -> Self {
        // ⌈log₁.₀₅(…)⌉ + 1 of them.
        Self { weights: vec![0.0; Self::bucket(Self::MAX_CORES) + 2], reference }
    }

    fn bucket(cores: f64) -> usize {
        if cores < Self::FIRST_BUCKET_CORES {
            return 0;
        }
        let steps = cores * (Self::RATIO - 1.0) / Self::FIRST_BUCKET_CORES + 1.0;
        (steps.ln() / Self::RATIO.ln()).floor() as usize
    }

    fn start_of(bucket: usize) -> f64 {
        Self::FIRST_BUCKET_CORES * (Self::RATIO.powi(bucket as i32) - 1.0) / (Self::RATIO - 1.0)
    }

    fn add(&mut self, at: Timestamp, cores: f64, weight: f64) {
        let age = at.seconds_since(self.reference) as f64 / Self::HALF_LIFE_SECONDS;
        // VPA moves the reference after 100 half-lives; traces are shorter, replays of years are not.
        if age > 100.0 {
            let factor = (-age).exp2();
            self.weights.iter_mut().for_each(|weight| *weight *= factor);
            self.reference = at;
        }
        let age = at.seconds_since(self.reference) as f64 / Self::HALF_LIFE_SECONDS;
        let last = self.weights.len() - 1;
        self.weights[Self::bucket(cores).min(last)] += weight * age.exp2();
    }

    /// The end of the bucket that holds the percentile.
    fn percentile(&self, q: f64) -> f64 {
        let threshold = q * self.weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let last = self.weights.len() - 1;
        let bucket = self.weights.iter().position(|weight| {
            sum += weight;
            sum >= threshold
        });
        let bucket = bucket.unwrap_or(last);
        if bucket < last { Self::start_of(bucket + 1) } else { Self::start_of(bucket) }
    }
}

/// What VPA recommends, in cores.
struct Recommendation {
    lower: f64,
    target: f64,
    upper: f64,
}

impl Vpa {
    /// The smallest weight of a sample (`minSampleWeight`), in cores of request.
    const MIN_SAMPLE_WEIGHT: f64 = 0.1;
    /// `pod-recommendation-min-cpu-millicores`.
    const MIN_CORES: f64 = 0.025;
    const SAFETY_MARGIN: f64 = 1.15;
    const SAMPLES_A_DAY: f64 = 1440.0;
    /// The updater looks once a minute, and lets a pod that is inside the bounds live 12 hours before it considers
    /// a change of at least 10 %.
    const LOOK_SECONDS: u64 = 60;
    const SHORTEST_LIFE_SECONDS: u64 = 12 * 3600;
    const SMALLEST_CHANGE: f64 = 0.1;

    /// Nothing known yet.
    pub fn new() -> Self {
        let histogram = VpaHistogram::new(Timestamp::default());
        Self { histogram, first: None, samples: 0, applied: None, looked: None }
    }

    fn recommendation(&self, now: Timestamp) -> Recommendation {
        let days = self.first.map_or(0.0, |first| now.seconds_since(first) as f64 / 86_400.0);
        let confidence = days.min(self.samples as f64 / Self::SAMPLES_A_DAY);
        let with_margin = |q| self.histogram.percentile(q) * Self::SAFETY_MARGIN;
        // confidenceMultiplier: (1 + multiplier / confidence) ^ exponent.
        let lower = with_margin(0.5) * (1.0 + 0.001 / confidence).powi(-2);
        let upper = with_margin(0.95) * (1.0 + 1.0 / confidence);
        Recommendation {
            lower: lower.max(Self::MIN_CORES),
            target: with_margin(0.9).max(Self::MIN_CORES),
            upper: upper.max(Self::MIN_CORES),
        }
    }
}

impl Vpa {
    /// Counts a sample, and changes nothing: what the recommender does with usage from before it was asked.
    pub fn learn(&mut self, at: Timestamp, cores: f64, current: MilliCpu) {
        if self.first.is_none() {
            self.histogram = VpaHistogram::new(at);
            self.first = Some(at);
        }
        self.samples += 1;
        self.histogram.add(at, cores, current.cores().max(Self::MIN_SAMPLE_WEIGHT));
    }
}

impl Default for Vpa {
    fn default() -> Self {
        Self::new()
    }
}

impl Sizer for Vpa {
    fn next(&mut self, at: Timestamp, cores: f64, current: MilliCpu) -> MilliCpu {
        self.learn(at, cores, current);
        if self.looked.is_some_and(|looked| at.seconds_since(looked) < Self::LOOK_SECONDS) {
            return current;
        }
        self.looked = Some(at);
        let Recommendation { lower, target, upper } = self.recommendation(at);
        let request = current.cores();
        let outside = request < lower || request > upper;
        let born = self.applied.or(self.first).unwrap_or(at);
        let old = at.seconds_since(born) >= Self::SHORTEST_LIFE_SECONDS;
        let differs = (target - request).abs() >= Self::SMALLEST_CHANGE * request;
        let target = MilliCpu::ceil_cores(target);
        if (outside || old && differs) && target != current {
            self.applied = Some(at);
            target
        } else {
            current
        }
    }
}

/// The 90th percentile of the last 24 hours × 1.2, every hour.
#[derive(Default)]
pub struct Window {
    samples: VecDeque<(Timestamp, f64)>,
    looked: Option<Timestamp>,
}

impl Sizer for Window {
    fn next(&mut self, at: Timestamp, cores: f64, current: MilliCpu) -> MilliCpu {
        const SECONDS: u64 = 86_400;
        const LOOK_SECONDS: u64 = 3_600;
        self.samples.push_back((at, cores));
        while self.samples.front().is_some_and(|(first, _)| at.seconds_since(*first) >= SECONDS) {
            self.samples.pop_front();
        }
        if self.looked.is_some_and(|looked| at.seconds_since(looked) < LOOK_SECONDS) {
            return current;
        }
        self.looked = Some(at);
        let mut sorted: Vec<f64> = self.samples.iter().map(|(_, cores)| *cores).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (0.9 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map_or(current, |p90| MilliCpu::ceil_cores(p90 * 1.2))
    }
}

/// Never changes.
pub struct Static;

impl Sizer for Static {
    fn next(&mut self, _: Timestamp, _: f64, current: MilliCpu) -> MilliCpu {
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        sizer: &mut dyn Sizer,
        start: u64,
        minutes: u64,
        current: u64,
        cores: impl Fn(u64) -> f64,
    ) -> MilliCpu {
        (0..minutes).fold(MilliCpu(current), |current, minute| {
            sizer.next(Timestamp(start + 60 * minute), cores(minute), current)
        })
    }

    #[test]
    fn vpa_s_buckets_are_those_of_its_source() {
        // histogram_options_test.go: buckets of 0.01, then 1.05 times wider each.
        assert_eq!(VpaHistogram::bucket(0.0), 0);
        assert_eq!(VpaHistogram::bucket(0.009), 0);
        assert_eq!(VpaHistogram::bucket(0.011), 1);
        assert!((VpaHistogram::start_of(2) - 0.0205).abs() < 1e-12);
        assert_eq!(VpaHistogram::new(Timestamp(0)).weights.len(), 175 + 1);
    }

    #[test]
    fn vpa_recommends_the_90th_percentile_and_15_percent() {
        let mut vpa = Vpa::new();
        // 1 core: the end of its bucket is 1.0399, × 1.15 = 1.196. Far outside the bounds, it is applied at once.
        let request = run(&mut vpa, 1_000_000, 2 * 1440, 100, |_| 1.0);
        let end = VpaHistogram::start_of(VpaHistogram::bucket(1.0) + 1);
        assert_eq!(request, MilliCpu::ceil_cores(end * 1.15));
    }

    #[test]
    fn vpa_s_gate_leaves_what_is_inside_the_bounds_for_12_hours() {
        let mut vpa = Vpa::new();
        let steady = run(&mut vpa, 1_000_000, 1440, 100, |_| 1.0);
        // 40 % more than recommended: below the upper bound of the first days, so it waits until it is 12 hours old.
        let mut young = Vpa::new();
        let high = steady.0 * 14 / 10;
        assert_eq!(run(&mut young, 1_000_000, 11 * 60, high, |_| 1.0), MilliCpu(high));
        assert_eq!(run(&mut young, 1_000_000 + 11 * 3600, 120, high, |_| 1.0), steady);
        // And 5 % is never worth it.
        let near = steady.0 * 105 / 100;
        assert_eq!(run(&mut Vpa::new(), 1_000_000, 3 * 1440, near, |_| 1.0), MilliCpu(near));
    }

    #[test]
    fn a_window_is_its_90th_percentile_and_20_percent_each_hour() {
        // Of the minutes 1 to 60 the 90th percentile is the 54th of 60.
        let mut window = Window::default();
        let request = run(&mut window, 3_600_000, 61, 100, |minute| (minute + 1) as f64);
        // 61 samples: the 55th.
        assert_eq!(request, MilliCpu::ceil_cores(55.0 * 1.2));
        assert_eq!(run(&mut Static, 0, 100, 700, |_| 9.0), MilliCpu(700));
    }
}
