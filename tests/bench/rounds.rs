//! Statistics of rounds: what a design adds, against nothing attached in the same round.
//!
//! Medians, because a neighbour on the machine disturbs a few rounds by a lot; intervals that assume no
//! distribution, for the same reason.

/// A median with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The median of some samples. Its interval is between two of them: so many lie on either side of the true
/// median with a probability that the binomial distribution gives. Too few samples (below six) have no
/// such interval: it is then their range. `None` without samples.
pub fn estimate(samples: &[f64]) -> Option<Estimate> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let outside = outside_interval(sorted.len());
    let (low, high) = (*sorted.get(outside)?, *sorted.get(sorted.len().checked_sub(1 + outside)?)?);
    Some(Estimate { median: middle(&sorted), low, high })
}

/// How many samples may be left out at either end, so that the median of what they are drawn from is between
/// the others with at least 95 %.
fn outside_interval(samples: usize) -> usize {
    let mut ways = 0.5f64.powi(samples as i32);
    let mut below = 0.0;
    for left_out in 0..samples / 2 {
        below += ways;
        if 2.0 * below > 0.05 {
            return left_out.saturating_sub(1);
        }
        ways *= (samples - left_out) as f64 / (left_out + 1) as f64;
    }
    0
}

/// The ratio of the medians of two series whose `i`-th samples are of one round. Its interval is from drawing
/// the rounds anew 2,000 times.
pub fn ratio(above: &[f64], below: &[f64]) -> Option<Estimate> {
    const DRAWS: usize = 2000;
    let rounds = above.len().min(below.len());
    if rounds == 0 {
        return None;
    }
    let of = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        middle(samples)
    };
    let mut random = Random::new(1);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<usize> = (0..rounds).map(|_| random.below(rounds)).collect();
            of(&mut drawn.iter().map(|&i| above[i]).collect())
                / of(&mut drawn.iter().map(|&i| below[i]).collect())
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = of(&mut above[..rounds].to_vec()) / of(&mut below[..rounds].to_vec());
    Some(Estimate { median, low: ratios[DRAWS / 40], high: ratios[DRAWS - 1 - DRAWS / 40] })
}

/// The median of some samples; 0 without any.
pub fn median(samples: &[f64]) -> f64 {
    estimate(samples).map_or(0.0, |estimate| estimate.median)
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// Numbers that look random and are the same in each run (xorshift64).
pub struct Random(u64);

impl Random {
    /// A series that depends on `seed` only.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * end as u128) >> 64) as usize
    }

    /// Puts items into an order of its own.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_the_interval_are_those_of_the_tables() {
        // Two-sided sign test, 5 %: critical values from the usual tables.
        for (samples, outside) in
            [(5, 0), (6, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7), (61, 22), (100, 39)]
        {
            assert_eq!(outside_interval(samples), outside, "{samples} samples");
        }
    }

    #[test]
    fn the_interval_holds_the_median_of_the_distribution_in_95_of_100_runs() {
        let mut random = Random::new(7);
        let held = (0..2000)
            .filter(|_| {
                let samples: Vec<f64> =
                    (0..61).map(|_| (random.below(1_000_001) as f64 / 1e6).powi(3)).collect();
                let estimate = estimate(&samples).unwrap();
                (estimate.low..=estimate.high).contains(&0.125)
            })
            .count();
        assert!((1890..=1960).contains(&held), "{held} of 2000");
    }

    #[test]
    fn a_ratio_is_that_of_the_medians() {
        let below: Vec<f64> = (1..=61).map(f64::from).collect();
        let above: Vec<f64> = below.iter().map(|x| 2.0 * x).collect();
        let ratio = ratio(&above, &below).unwrap();
        assert!(
            (ratio.median - 2.0).abs() < 1e-12
                && (ratio.low - 2.0).abs() < 1e-12
                && ratio.high <= 2.0 + 1e-12
        );
    }

    #[test]
    fn no_samples_have_no_estimate() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(ratio(&[], &[]), None);
        assert_eq!(estimate(&[3.0]), Some(Estimate { median: 3.0, low: 3.0, high: 3.0 }));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..20).collect();
        Random::new(3).shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
