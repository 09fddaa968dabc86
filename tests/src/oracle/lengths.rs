//! A histogram against the single lengths that it should hold, where the two sides read clocks that are a little apart.
//!
//! Which delay is which wait nobody can tell, but if every one were off by at most `apart_ns`, then in the order of
//! their lengths they could be paired off, none left over. How many are left over is how many are off by more.

/// Pairs delays in buckets off with waits of known lengths, as many as can be, and returns how many of the one and of
/// the other are left over.
///
/// `counts` is by bucket, which holds what is above the edge before its own, up to and with its own: `upper_edge_ns`.
/// The pieces of a pair are at most `apart_ns` apart, taken from the nearest length that the bucket can hold.
#[must_use]
pub fn left_over(
    counts: &[u64],
    upper_edge_ns: impl Fn(usize) -> f64,
    lengths_ns: impl Iterator<Item = u64>,
    apart_ns: u64,
) -> (u64, u64) {
    let mut lengths: Vec<_> = lengths_ns.collect();
    lengths.sort_unstable();
    let mut lengths = lengths.into_iter().map(|ns| ns as f64).peekable();
    let apart_ns = apart_ns as f64;
    let (mut delays, mut waits) = (0, 0);
    // Both ends of what a delay may be paired with grow from bucket to bucket, so the shortest goes with the shortest.
    for (bucket, &count) in counts.iter().enumerate() {
        let above = if bucket == 0 { f64::NEG_INFINITY } else { upper_edge_ns(bucket - 1) - apart_ns };
        let up_to = upper_edge_ns(bucket) + apart_ns;
        for _ in 0..count {
            while lengths.next_if(|length| *length <= above).is_some() {
                waits += 1;
            }
            delays += u64::from(lengths.next_if(|length| *length <= up_to).is_none());
        }
    }
    (delays, waits + lengths.count() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUCKETS: usize = 12;

    /// Buckets up to 1, 2, 4 … ns, and one above.
    fn edge(bucket: usize) -> f64 {
        if bucket == BUCKETS - 1 { f64::INFINITY } else { f64::from(1u32 << bucket) }
    }

    fn histogram(lengths: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; BUCKETS];
        for &ns in lengths {
            let bucket = (0..BUCKETS).find(|bucket| ns as f64 <= edge(*bucket));
            counts[bucket.unwrap_or(BUCKETS - 1)] += 1;
        }
        counts
    }

    fn of(delays: &[u64], waits: &[u64], apart_ns: u64) -> (u64, u64) {
        left_over(&histogram(delays), edge, waits.iter().copied(), apart_ns)
    }

    #[test]
    fn what_is_in_another_bucket_is_left_over_on_both_sides() {
        assert_eq!(of(&[3, 5, 100], &[3, 5, 100], 0), (0, 0));
        assert_eq!(of(&[3, 5, 100], &[3, 5, 200], 0), (1, 1));
        // 100 ns is in the bucket above 64 ns and up to 128 ns.
        assert_eq!(of(&[100], &[200], 71), (1, 1));
        assert_eq!(of(&[100], &[200], 72), (0, 0));
        assert_eq!(of(&[100], &[60], 3), (1, 1));
        assert_eq!(of(&[100], &[60], 5), (0, 0));
    }

    #[test]
    fn more_of_the_one_are_left_over() {
        assert_eq!(of(&[5, 5, 100], &[5, 100], 1), (1, 0));
        assert_eq!(of(&[5], &[5, 5, 100], 1), (0, 2));
        assert_eq!(of(&[], &[], 1), (0, 0));
    }

    proptest! {
        #[test]
        fn lengths_that_are_off_by_no_more_than_that_leave_nothing_over(
            pairs in proptest::collection::vec((0u64..3_000, -40i64..=40), 0..60),
        ) {
            let delays: Vec<_> = pairs.iter().map(|(ns, _)| *ns).collect();
            let waits: Vec<_> = pairs.iter().map(|(ns, off)| ns.saturating_add_signed(*off)).collect();
            prop_assert_eq!(of(&delays, &waits, 40), (0, 0));
        }

        #[test]
        fn as_many_are_left_over_as_are_farther_off(
            lengths in proptest::collection::vec(0u64..500, 0..40), moved in 1usize..10,
        ) {
            let mut waits = lengths.clone();
            let moved = moved.min(waits.len());
            // To where no delay is, nor one that others could be shifted to.
            waits.iter_mut().take(moved).for_each(|ns| *ns += 2_000);
            prop_assert_eq!(of(&lengths, &waits, 0), (moved as u64, moved as u64));
        }
    }
}
