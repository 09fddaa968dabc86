//! Numbers that look random and are the same in every run with the same seed.

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>. Small, fast, good enough for loads, and its whole state is one
/// number, so that every stream can have a seed of its own.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed; a different `stream` of the same seed is another one.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        // Seeds that differ in few bits begin alike.
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1, 53 bits of it.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In 0..`below`; 0 where that is 0.
    pub fn below(&mut self, below: u64) -> u64 {
        // The high half of a product: unbiased to 2⁻⁶⁴ · below.
        ((u128::from(self.next()) * u128::from(below)) >> 64) as u64
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponentially distributed with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Normally distributed, mean 0, deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream_and_streams_differ() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.below(1 << 40), random.below(1 << 40)]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn distributions_have_their_means_and_deviations() {
        const DRAWS: usize = 100_000;
        let mut random = Random::new(7, 0);
        let mut moments = |draw: fn(&mut Random) -> f64| {
            let drawn: Vec<f64> = (0..DRAWS).map(|_| draw(&mut random)).collect();
            let mean = drawn.iter().sum::<f64>() / DRAWS as f64;
            let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DRAWS as f64;
            (mean, variance.sqrt())
        };
        let near = |(mean, deviation): (f64, f64), expected: (f64, f64)| {
            assert!(
                (mean - expected.0).abs() < 0.02 && (deviation - expected.1).abs() < 0.02,
                "{mean} {deviation}"
            );
        };
        near(moments(|random| random.exponential(2.0) / 2.0), (1.0, 1.0));
        near(moments(Random::normal), (0.0, 1.0));
        near(moments(Random::unit), (0.5, 1.0 / 12f64.sqrt()));
        near(moments(|random| random.below(10) as f64 / 10.0), (0.45, 8.25f64.sqrt() / 10.0));
    }
}
