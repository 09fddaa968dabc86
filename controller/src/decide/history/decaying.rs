//! A histogram that forgets: what was counted a half-life ago counts half.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counts by bin. The bins' edges are the caller's.
///
/// Counts do not shrink continuously but in steps of 2^(-1/8), eight in a half-life ([`Decaying::age`]), so a
/// weight is off by less than 9 %. All that is asked of it are shares, in which that mostly cancels out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decaying<const BINS: usize> {
    counts: Counts<BINS>,
}

/// Steps in a half-life.
pub const STEPS: u64 = 8;

impl<const BINS: usize> Decaying<BINS> {
    /// Counts so much in a bin; a bin beyond the last one is the last.
    pub fn add(&mut self, bin: usize, weight: u16) {
        let bin = bin.min(BINS - 1);
        if let Counts::Few(counts) = &mut self.counts
            && let Some(more) = counts[bin].checked_add(weight)
        {
            counts[bin] = more;
            return;
        }
        let mut counts = self.counts();
        counts[bin] = counts[bin].saturating_add(weight.into());
        self.counts = Counts::of(counts);
    }

    /// Lets so many eighths of a half-life pass.
    pub fn age(&mut self, steps: u32) {
        /// 2^(-1/8) in 1/65536.
        const FACTOR: u64 = 60_097;
        // After 32 half-lives nothing is left of any count.
        let steps = steps.min(32 * STEPS as u32);
        let aged = |count| (0..steps).fold(count, |count, _| ((u64::from(count) * FACTOR) >> 16) as u32);
        self.counts = Counts::of(self.counts().map(aged));
    }

    /// Everything that is counted.
    pub fn total(&self) -> u64 {
        self.counts().into_iter().map(u64::from).sum()
    }

    /// What is counted, by bin.
    pub fn counts(&self) -> [u32; BINS] {
        match &self.counts {
            Counts::Few(counts) => counts.map(u32::from),
            Counts::Many(counts) => **counts,
        }
    }

    /// Adds what another one counted: in whichever order several are added, the sum is the same.
    pub fn merge(&mut self, other: &Self) {
        let mut counts = self.counts();
        for (count, more) in counts.iter_mut().zip(other.counts()) {
            *count = count.saturating_add(more);
        }
        self.counts = Counts::of(counts);
    }
}

/// In two bytes each, which is enough for one container's, or where that is not, in four: those of many that were merged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Counts<const BINS: usize> {
    Few([u16; BINS]),
    /// At least one takes more than two bytes.
    Many(Box<[u32; BINS]>),
}

impl<const BINS: usize> Counts<BINS> {
    fn of(counts: [u32; BINS]) -> Self {
        let mut few = [0; BINS];
        for (few, count) in few.iter_mut().zip(counts) {
            let Ok(count) = u16::try_from(count) else { return Self::Many(Box::new(counts)) };
            *few = count;
        }
        Self::Few(few)
    }
}

impl<const BINS: usize> Default for Counts<BINS> {
    fn default() -> Self {
        Self::Few([0; BINS])
    }
}

impl<const BINS: usize> Serialize for Counts<BINS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Few(counts) => as_sequence::serialize(counts, serializer),
            Self::Many(counts) => as_sequence::serialize(counts, serializer),
        }
    }
}

impl<'de, const BINS: usize> Deserialize<'de> for Counts<BINS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        as_sequence::deserialize(deserializer).map(Self::of)
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
    fn many_that_are_merged_count_as_one_that_counted_for_all() {
        let mut one = Decaying::<3>::default();
        (0..800).for_each(|_| one.add(0, 64));
        (0..40).for_each(|_| one.add(9, 64));
        let mut all = Decaying::default();
        (0..5000).for_each(|_| all.merge(&one));
        assert_eq!(all.counts(), one.counts().map(|count| 5000 * count));
        let restored: Decaying<3> = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(restored, all);
        // Where two bytes are enough again, it is held as if they had always been.
        all.age(20 * STEPS as u32);
        let mut few = Decaying::default();
        few.merge(&all);
        assert_eq!((all.total() < 65_536, &all), (true, &few));
        assert!(matches!(all.counts, Counts::Few(_)));
    }

    #[test]
    fn counts_stop_at_the_end_of_their_range() {
        let mut histogram = Decaying::<2> { counts: Counts::of([u32::MAX, 0]) };
        histogram.add(0, 1);
        let other = histogram.clone();
        histogram.merge(&other);
        assert_eq!(histogram.counts(), [u32::MAX, 0]);
    }
}
