//! Histograms of run-queue delays in user space: what a cgroup's kernel rows add up to.
//!
//! The kernel counts in u32s, per CPU; here the counts of all CPUs are u64s in one place. They keep the
//! buckets of [`crate::buckets`], so merging loses nothing and two cumulative histograms can be
//! subtracted. Only quantiles leave the buckets: they are middles of buckets, wrong by 4.4 % at most.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::buckets::{self, BUCKETS, OCTAVES};

/// Delays up to this length (ns) have a bucket with two edges: 8 s.
const HIGHEST_FINITE_NS: u64 = 8_000_000_000;
/// Significant decimal digits that an [`Histogram`] keeps: an error of at most 0.1 %.
const HDR_DIGITS: u8 = 3;

/// A cumulative counter is smaller in the later of two snapshots: they are of two lives of whatever
/// counts, or in the wrong order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("counter {counter} went back from {earlier} to {later}")]
pub struct WentBack {
    /// Which one.
    pub counter: &'static str,
    /// Its value in the earlier snapshot.
    pub earlier: u64,
    /// Its value in the later one.
    pub later: u64,
}

/// How much a cumulative counter grew.
pub(crate) fn growth(counter: &'static str, earlier: u64, later: u64) -> Result<u64, WentBack> {
    later.checked_sub(earlier).ok_or(WentBack { counter, earlier, later })
}

/// Growth of an array of cumulative counters.
pub(crate) fn growths<const N: usize>(
    counter: &'static str,
    earlier: &[u64; N],
    later: &[u64; N],
) -> Result<[u64; N], WentBack> {
    let mut grown = *later;
    for (grown, earlier) in grown.iter_mut().zip(earlier) {
        *grown = growth(counter, *earlier, *grown)?;
    }
    Ok(grown)
}

/// Adds counters to counters. They stop at `u64::MAX`, which ns reach after 584 years.
pub(crate) fn add_all<T: Copy + Into<u64>>(counts: &mut [u64], more: &[T]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count = count.saturating_add((*more).into());
    }
}

/// Delays by [`buckets::bucket`], and their sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyHistogram {
    #[serde(with = "as_sequence")]
    counts: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum_ns: 0 }
    }
}

impl LatencyHistogram {
    /// Delays by bucket, with their exact sum in ns.
    pub fn new(counts: [u64; BUCKETS], sum_ns: u64) -> Self {
        Self { counts, sum_ns }
    }

    /// Counts one delay.
    pub fn record(&mut self, delay_ns: u64) {
        self.add_count(buckets::bucket(delay_ns) as usize, 1);
        self.sum_ns = self.sum_ns.saturating_add(delay_ns);
    }

    fn add_count(&mut self, bucket: usize, more: u64) {
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(more);
        }
    }

    /// Adds what a kernel row grew by: delays by bucket and their sum in ns.
    pub fn add_row(&mut self, counts: &[u32; BUCKETS], wait_ns: u64) {
        add_all(&mut self.counts, counts);
        self.sum_ns = self.sum_ns.saturating_add(wait_ns);
    }

    /// Adds all of another histogram: the result is as if both had been counted in one.
    pub fn merge(&mut self, other: &Self) {
        add_all(&mut self.counts, &other.counts);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// What was counted since `earlier`, an older state of this same histogram.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        Ok(Self {
            counts: growths("latency", &earlier.counts, &self.counts)?,
            sum_ns: growth("latency_sum_ns", earlier.sum_ns, self.sum_ns)?,
        })
    }

    /// Delays by [`buckets::bucket`].
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// Number of delays.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Sum of the delays in ns: the wait.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Delays longer than 8 s, of which the histogram knows no more than that.
    pub fn overflow(&self) -> u64 {
        self.counts[BUCKETS - 1]
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Upper edge (s) of the highest bucket with a delay: no delay was longer. Shown with `≤`; infinite
    /// when a delay was longer than 8 s. `None` without delays.
    pub fn highest_edge_seconds(&self) -> Option<f64> {
        self.counts.iter().rposition(|count| *count != 0).map(buckets::upper_edge_seconds)
    }

    /// The bucket that holds the delay at quantile `q` of 0..=1: the smallest one such that at least
    /// this share of the delays is in it or below. `None` without delays.
    pub fn bucket_at(&self, q: f64) -> Option<usize> {
        let count = self.count();
        // The rank as hdrhistogram has it: the float rounds to a neighbouring delay at worst.
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0u64;
        self.counts.iter().position(|count| {
            below = below.saturating_add(*count);
            below >= rank
        })
    }

    /// The delay (ns) at quantile `q` of 0..=1, at most 4.4 % from the exact one between 1 µs and 8 s:
    /// it is [`midpoint_ns`] of its bucket. `None` without delays.
    ///
    /// [`Self::to_hdr`] answers the same to 0.1 %, but an HDR histogram of this range is 192 KiB: building
    /// one for each question costs 60 times as much.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        self.bucket_at(q).map(midpoint_ns)
    }

    /// The same delays as an HDR histogram of ns, three significant digits, each delay at
    /// [`midpoint_ns`] of its bucket: at most 4.4 % + 0.1 % from where it was.
    pub fn to_hdr(&self) -> Histogram<u64> {
        let mut hdr = Histogram::new_with_bounds(1, HIGHEST_FINITE_NS, HDR_DIGITS)
            .expect("constant bounds that HDR accepts");
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count != 0) {
            hdr.saturating_record_n(midpoint_ns(bucket), *count);
        }
        hdr
    }
}

/// Where the delays of a bucket are taken to lie (ns): in the middle of its edges, such that a delay at
/// either edge is off by the same 4.33 % (their harmonic mean; the geometric one is off by 4.43 %
/// at the lower). Delays of the underflow are at its upper edge (953 ns, never less than they were),
/// those of the overflow at its lower one (8 s, never more).
pub fn midpoint_ns(bucket: usize) -> u64 {
    match bucket {
        0 => (buckets::upper_edge_seconds(0) * 1e9) as u64,
        b if b >= BUCKETS - 1 => HIGHEST_FINITE_NS,
        b => {
            let (lower, upper) = (buckets::upper_edge_seconds(b - 1), buckets::upper_edge_seconds(b));
            (2.0 * lower * upper / (lower + upper) * 1e9).round() as u64
        }
    }
}

/// Delays by [`buckets::octave`]: those with one and the same largest cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoarseHistogram {
    /// Delays of each octave.
    pub counts: [u64; OCTAVES],
}

impl CoarseHistogram {
    /// Adds what a kernel row grew by.
    pub fn add_row(&mut self, counts: &[u32; OCTAVES]) {
        add_all(&mut self.counts, counts);
    }

    /// Adds all of another histogram.
    pub fn merge(&mut self, other: &Self) {
        add_all(&mut self.counts, &other.counts);
    }

    /// What was counted since `earlier`, an older state of this same histogram.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        Ok(Self { counts: growths("coarse", &earlier.counts, &self.counts)? })
    }

    /// Number of delays.
    pub fn count(&self) -> u64 {
        self.from_octave(0)
    }

    /// Number of delays in this octave or a higher one.
    pub fn from_octave(&self, octave: usize) -> u64 {
        self.counts.iter().skip(octave).fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl From<&LatencyHistogram> for CoarseHistogram {
    fn from(fine: &LatencyHistogram) -> Self {
        let mut coarse = Self::default();
        for (bucket, count) in fine.counts.iter().enumerate() {
            add_all(&mut coarse.counts[buckets::octave(bucket as u32) as usize..][..1], &[*count]);
        }
        coarse
    }
}

/// Counts as a sequence: serde has no arrays this long.
mod as_sequence {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::BUCKETS;

    pub(super) fn serialize<S: Serializer>(counts: &[u64; BUCKETS], to: S) -> Result<S::Ok, S::Error> {
        counts.as_slice().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u64; BUCKETS], D::Error> {
        let counts = Vec::<u64>::deserialize(from)?;
        let length = counts.len();
        counts.try_into().map_err(|_| D::Error::invalid_length(length, &"one count for each bucket"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUANTILES: [f64; 9] = [0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0];

    /// Delays that are as likely in any octave, underflow and overflow included.
    fn delay() -> impl Strategy<Value = u64> {
        (0u32..35, any::<u64>()).prop_map(|(log2, ns)| ns & ((1 << log2) - 1) | (1 << log2) >> 1)
    }

    /// Delays that lie where quantiles are promised: 1 µs to 8 s.
    fn delay_within_edges() -> impl Strategy<Value = u64> {
        (1e3f64.ln()..8e9f64.ln()).prop_map(|ln| ln.exp().round() as u64)
    }

    fn delays() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(delay(), 0..300)
    }

    fn of(delays: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::default();
        for delay in delays {
            histogram.record(*delay);
        }
        histogram
    }

    fn exact_quantile(delays: &[u64], q: f64) -> u64 {
        let mut sorted = delays.to_vec();
        sorted.sort_unstable();
        sorted[((q * sorted.len() as f64).ceil() as usize).max(1) - 1]
    }

    fn error(approximate: u64, exact: u64) -> f64 {
        (approximate as f64 - exact as f64).abs() / exact as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn merging_is_counting_together(one in delays(), other in delays()) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }

        #[test]
        fn a_difference_is_what_came_between(before in delays(), between in delays()) {
            let later = of(&[before.clone(), between.clone()].concat());
            prop_assert_eq!(later.since(&of(&before)), Ok(of(&between)));
        }

        #[test]
        fn a_difference_the_wrong_way_round_is_an_error(before in delays(), more in delay()) {
            let earlier = of(&before);
            let mut later = earlier.clone();
            later.record(more);
            prop_assert!(earlier.since(&later).is_err());
        }

        #[test]
        fn count_and_sum_are_exact(delays in delays()) {
            let histogram = of(&delays);
            prop_assert_eq!(histogram.count(), delays.len() as u64);
            prop_assert_eq!(histogram.count(), histogram.counts().iter().sum::<u64>());
            prop_assert_eq!(histogram.sum_ns(), delays.iter().sum::<u64>());
            prop_assert_eq!(histogram.is_empty(), delays.is_empty());
            prop_assert_eq!(histogram.to_hdr().len(), delays.len() as u64);
        }

        #[test]
        fn rows_are_counted_in_full(delays in delays()) {
            let mut row = [0u32; BUCKETS];
            for delay in &delays {
                row[buckets::bucket(*delay) as usize] += 1;
            }
            let mut histogram = LatencyHistogram::default();
            histogram.add_row(&row, delays.iter().sum());
            prop_assert_eq!(histogram, of(&delays));
        }

        #[test]
        fn quantiles_are_within_four_and_a_half_percent_of_the_exact_ones(
            delays in prop::collection::vec(delay_within_edges(), 1..300),
            q in 0.0f64..=1.0,
        ) {
            let histogram = of(&delays);
            let hdr = histogram.to_hdr();
            for q in QUANTILES.into_iter().chain([q]) {
                let exact = exact_quantile(&delays, q);
                let walked = histogram.quantile(q).unwrap();
                prop_assert!(error(walked, exact) <= 0.044, "{walked} for {exact} at {q}");
                let of_hdr = hdr.value_at_quantile(q);
                prop_assert!(error(of_hdr, exact) <= 0.045, "{of_hdr} for {exact} at {q} by HDR");
            }
        }

        #[test]
        fn quantiles_are_those_of_the_hdr_histogram(
            delays in prop::collection::vec(delay(), 1..300),
            q in 0.0f64..=1.0,
        ) {
            let histogram = of(&delays);
            let hdr = histogram.to_hdr();
            for q in QUANTILES.into_iter().chain([q]) {
                prop_assert!(error(histogram.quantile(q).unwrap(), hdr.value_at_quantile(q)) <= 0.001);
            }
        }

        #[test]
        fn quantiles_never_fall(delays in prop::collection::vec(delay(), 1..300), steps in 1u32..200) {
            let histogram = of(&delays);
            let quantiles: Vec<_> =
                (0..=steps).map(|i| histogram.quantile(f64::from(i) / f64::from(steps))).collect();
            prop_assert!(quantiles.is_sorted());
        }

        #[test]
        fn no_delay_is_above_the_highest_edge(delays in prop::collection::vec(delay(), 1..300)) {
            let longest = delays.iter().copied().max().unwrap() as f64 / 1e9;
            let edge = of(&delays).highest_edge_seconds().unwrap();
            prop_assert!(longest <= edge);
            // It is the edge of that very delay's bucket: an eighth of an octave at most.
            prop_assert!(edge.is_infinite() || longest <= 0.5f64.powi(20) || edge <= longest * 1.0906);
        }

        #[test]
        fn coarse_is_fine_by_octave(delays in delays()) {
            let mut coarse = CoarseHistogram::default();
            for delay in &delays {
                coarse.counts[buckets::octave(buckets::bucket(*delay)) as usize] += 1;
            }
            prop_assert_eq!(CoarseHistogram::from(&of(&delays)), coarse);
            prop_assert_eq!(coarse.count(), delays.len() as u64);
        }
    }

    #[test]
    fn without_delays_there_is_no_quantile_and_no_edge() {
        let none = LatencyHistogram::default();
        assert_eq!(none.quantile(0.5), None);
        assert_eq!(none.highest_edge_seconds(), None);
        assert_eq!(none.to_hdr().len(), 0);
    }

    #[test]
    fn a_quantile_that_is_no_number_in_0_to_1_is_that_of_an_end() {
        let histogram = of(&[5_000, 80_000]);
        assert_eq!(histogram.quantile(-1.0), histogram.quantile(0.0));
        assert_eq!(histogram.quantile(7.0), histogram.quantile(1.0));
        assert_eq!(histogram.quantile(f64::NAN), histogram.quantile(0.0));
    }

    #[test]
    fn what_lies_outside_the_edges_is_never_overstated_as_a_length() {
        let short = of(&[1, 2, 3]);
        assert_eq!(short.quantile(1.0), Some(953));
        let long = of(&[9_000_000_000, u64::MAX / 4]);
        assert_eq!(long.quantile(0.5), Some(8_000_000_000));
        assert_eq!(long.overflow(), 2);
        assert_eq!(long.highest_edge_seconds(), Some(f64::INFINITY));
    }

    #[test]
    fn counters_stop_at_their_end() {
        let mut full = LatencyHistogram::new([u64::MAX; BUCKETS], u64::MAX);
        full.merge(&full.clone());
        assert_eq!(full.count(), u64::MAX);
        assert_eq!(full.quantile(1.0), Some(midpoint_ns(0)), "the sum of all stops in the first bucket");
    }

    #[test]
    fn an_error_names_the_counter_and_both_values() {
        let error = of(&[]).since(&of(&[1_000_000_000])).unwrap_err();
        assert_eq!(error, WentBack { counter: "latency", earlier: 1, later: 0 });
        assert_eq!(error.to_string(), "counter latency went back from 1 to 0");
    }

    #[test]
    fn counts_of_another_length_are_refused() {
        use serde::de::value::{Error, SeqDeserializer};
        let read = |length: u64| {
            as_sequence::deserialize(SeqDeserializer::<_, Error>::new(0..length)).map(|counts| counts[185])
        };
        assert_eq!(read(186).unwrap(), 185);
        assert!(read(185).unwrap_err().to_string().contains("length 185"));
        assert!(read(187).is_err());
    }
}
