//! Our latency buckets as a Prometheus native histogram, and as a classic one. Nothing is counted anew: the edges are
//! the same (schema 3), so that a bucket keeps its count.
//!
//! The underflow is the native zero bucket. The overflow goes into the bucket above 8 s, since a native histogram has
//! no infinite one: delays above 8.7 s seem shorter there than they were (the sum is exact, and
//! `loadline_sampler_latency_overflow_total` counts them).

use prometheus_client::encoding::{NativeHistogram, NativeHistogramBuckets};
use sampler_common::buckets::{BUCKETS, LOWEST_EDGE_LOG2_SECONDS, OCTAVES, PER_OCTAVE, upper_edge_seconds};
use sampler_common::histogram::LatencyHistogram;
use std::time::SystemTime;

/// Native buckets have powers of 2^(2^-3) s as edges: eight an octave.
const SCHEMA: i32 = 3;
/// Index of the native bucket whose upper edge is that of the underflow: 2^(INDEX/8) s.
const FIRST: i32 = LOWEST_EDGE_LOG2_SECONDS * PER_OCTAVE as i32;
/// So many empty buckets are cheaper to write than a new span.
const GAP: usize = 2;

/// The buckets of a native histogram, sparse, as spans and differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Native {
    zero_count: u64,
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
}

impl From<&LatencyHistogram> for Native {
    fn from(latency: &LatencyHistogram) -> Self {
        let [zero_count, counts @ ..] = latency.counts();
        let mut native = Self { zero_count: *zero_count, ..Self::default() };
        // The place after the last bucket that was written, and its count.
        let (mut next, mut before) = (0, 0i64);
        for (place, count) in counts.iter().enumerate().filter(|(_, count)| **count != 0) {
            let empty = place - next;
            match native.spans.last_mut() {
                Some((_, length)) if empty <= GAP => {
                    for _ in 0..empty {
                        native.deltas.push(-before);
                        before = 0;
                    }
                    *length += empty as u32 + 1;
                }
                // The first span begins at an index, the others so many buckets after the one before.
                Some(_) => native.spans.push((empty as i32, 1)),
                None => native.spans.push((FIRST + 1 + place as i32, 1)),
            }
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            native.deltas.push(count - before);
            (next, before) = (place + 1, count);
        }
        native
    }
}

impl Native {
    /// As the encoder wants it.
    pub fn encodable(&self, created: SystemTime) -> NativeHistogram<'_> {
        NativeHistogram {
            schema: SCHEMA,
            zero_threshold: upper_edge_seconds(0),
            zero_count: self.zero_count,
            negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
            positive: NativeHistogramBuckets { spans: &self.spans, deltas: &self.deltas },
            created: Some(created),
        }
    }
}

/// Upper edges (s) and counts of the classic buckets: one an octave, and the last without end.
pub fn classic(latency: &LatencyHistogram) -> [(f64, u64); OCTAVES + 2] {
    let counts = latency.counts();
    std::array::from_fn(|place| {
        let last = (place * PER_OCTAVE).min(BUCKETS - 1);
        let first = match place {
            0 => 0,
            _ => (place - 1) * PER_OCTAVE + 1,
        };
        (upper_edge_seconds(last), counts[first..=last].iter().sum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Count of each native bucket by its index, read from spans and differences as Prometheus does.
    fn read(native: &Native) -> Vec<(i32, i64)> {
        let mut deltas = native.deltas.iter();
        let (mut index, mut count) = (0, 0);
        let mut all = Vec::new();
        for (offset, length) in &native.spans {
            index += offset;
            for _ in 0..*length {
                count += deltas.next().expect("a difference for each bucket");
                all.push((index, count));
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        all.retain(|(_, count)| *count != 0);
        all
    }

    fn latency(counts: &[(usize, u64)]) -> LatencyHistogram {
        let mut all = [0; BUCKETS];
        for (bucket, count) in counts {
            all[*bucket] += count;
        }
        LatencyHistogram::new(all, 0)
    }

    #[test]
    fn an_edge_is_where_the_native_schema_has_it() {
        // 1 s is 2^(0/8) s: the upper edge of the native bucket 0 and of our bucket 160.
        let native = Native::from(&latency(&[(160, 7)]));
        assert_eq!(read(&native), [(0, 7)]);
        assert_eq!(upper_edge_seconds(160), 1.0);
        // And so for every bucket: 2^(index/8).
        for bucket in 1..BUCKETS - 1 {
            let index = read(&Native::from(&latency(&[(bucket, 1)])))[0].0;
            assert_eq!(upper_edge_seconds(bucket), (f64::from(index) / 8.0).exp2(), "bucket {bucket}");
        }
    }

    #[test]
    fn the_underflow_is_the_zero_bucket_and_the_overflow_lies_above_8_s() {
        let native = Native::from(&latency(&[(0, 5), (185, 3)]));
        assert_eq!((native.zero_count, read(&native)), (5, vec![(25, 3)]));
        assert_eq!(native.encodable(SystemTime::UNIX_EPOCH).zero_threshold, 2f64.powi(-20));
    }

    #[test]
    fn small_gaps_are_filled_and_large_ones_begin_a_span() {
        let native = Native::from(&latency(&[(10, 1), (13, 4), (17, 2)]));
        assert_eq!(native.spans, [(-150, 4), (3, 1)]);
        assert_eq!(native.deltas, [1, -1, 0, 4, -2]);
    }

    #[test]
    fn nothing_counted_is_an_empty_histogram() {
        assert_eq!(Native::from(&LatencyHistogram::default()), Native::default());
    }

    proptest! {
        #[test]
        fn no_count_is_lost_or_moved(
            counts in prop::collection::vec((0..BUCKETS, 0u64..1 << 40), 0..60),
        ) {
            let latency = latency(&counts);
            let native = Native::from(&latency);
            let expected: Vec<_> = latency.counts().iter().enumerate().skip(1)
                .filter(|(_, count)| **count != 0)
                .map(|(bucket, count)| (bucket as i32 - 160, *count as i64)).collect();
            prop_assert_eq!(read(&native), expected);
            prop_assert_eq!(native.zero_count, latency.counts()[0]);
            let classic = classic(&latency);
            prop_assert_eq!(classic.iter().map(|(_, count)| count).sum::<u64>(), latency.count());
        }

        #[test]
        fn classic_buckets_hold_what_is_at_or_below_their_edge(ns in 0u64..20_000_000_000) {
            let mut latency = LatencyHistogram::default();
            latency.record(ns);
            let place = classic(&latency).iter().position(|(_, count)| *count == 1).unwrap();
            let edges = classic(&latency).map(|(edge, _)| edge);
            let seconds = ns as f64 / 1e9;
            prop_assert!(seconds <= edges[place] && (place == 0 || seconds > edges[place - 1]));
            prop_assert!(edges.is_sorted() && edges[0] == 2f64.powi(-20) && edges[23] == 8.0);
            prop_assert!(edges[24].is_infinite());
        }
    }
}
