//! A histogram that forgets: what was counted a half-life ago counts half.

use serde::{Deserialize, Serialize};

/// Counts by bin, each in two bytes. The bins' edges are the caller's.
///
/// Counts do not shrink continuously but in steps of 2^(-1/8), eight in a half-life ([`Decaying::age`]), so a
/// weight is off by less than 9 %. All that is asked of it are shares, in which that mostly cancels out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decaying<const BINS: usize> {
    #[serde(with = "as_sequence")]
    counts: [u16; BINS],
}

/// Steps in a half-life.
pub const STEPS: u64 = 8;

impl<const BINS: usize> Default for Decaying<BINS> {
    fn default() -> Self {
        Self { counts: [0; BINS] }
    }
}

impl<const BINS: usize> Decaying<BINS> {
    /// Counts so much in a bin; a bin beyond the last one is the last.
    pub fn add(&mut self, bin: usize, weight: u16) {
        if let Some(count) = self.counts.get_mut(bin.min(BINS - 1)) {
            *count = count.saturating_add(weight);
        }
    }

    /// Lets so many eighths of a half-life pass.
    pub fn age(&mut self, steps: u32) {
        /// 2^(-1/8) in 1/65536.
        const FACTOR: u32 = 60_097;
        // After 16 half-lives nothing is left of any count.
        for _ in 0..steps.min(16 * STEPS as u32) {
            for count in &mut self.counts {
                *count = ((u32::from(*count) * FACTOR) >> 16) as u16;
            }
        }
    }

    /// Everything that is counted.
    pub fn total(&self) -> u32 {
        self.counts.iter().map(|count| u32::from(*count)).sum()
    }

    /// What is counted, by bin.
    pub fn counts(&self) -> &[u16; BINS] {
        &self.counts
    }

    /// The lowest bin such that at least this share of all is in it or below; `None` when empty.
    pub fn bin_at(&self, q: f64) -> Option<usize> {
        let total = self.total();
        let wanted = (q.clamp(0.0, 1.0) * f64::from(total)).ceil().max(1.0) as u32;
        let mut sum = 0;
        self.counts.iter().position(|count| {
            sum += u32::from(*count);
            total > 0 && sum >= wanted
        })
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }
}

/// Arrays of any length, as serde has them up to 32 only.
pub(super) mod as_sequence {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer, const N: usize>(
        array: &[T; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(array)
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[T; N], D::Error> {
        let values = Vec::<T>::deserialize(deserializer)?;
        let found = values.len();
        values.try_into().map_err(|_| D::Error::invalid_length(found, &"as many as were stored"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_a_half_life_ago_counts_half() {
        let mut histogram = Decaying::<4>::default();
        histogram.add(0, 10_000);
        histogram.age(STEPS as u32);
        // Each step rounds down.
        assert!((4_990..=5_000).contains(&histogram.counts()[0]), "{:?}", histogram.counts());
        histogram.age(u32::MAX);
        assert_eq!(histogram.total(), 0);
    }

    #[test]
    fn percentiles_are_the_lowest_bin_that_has_enough_below() {
        let mut histogram = Decaying::<4>::default();
        assert_eq!(histogram.bin_at(0.5), None);
        histogram.add(0, 50);
        histogram.add(2, 49);
        histogram.add(9, 1);
        let at = [0.0, 0.5, 0.51, 0.99, 0.991, 1.0].map(|q| histogram.bin_at(q).unwrap());
        assert_eq!(at, [0, 0, 2, 2, 3, 3]);
    }

    #[test]
    fn counts_stop_at_the_end_of_their_range() {
        let mut histogram = Decaying::<2>::default();
        histogram.add(0, u16::MAX);
        histogram.add(0, 1);
        let other = histogram.clone();
        histogram.merge(&other);
        assert_eq!(histogram.total(), u32::from(u16::MAX));
    }
}
