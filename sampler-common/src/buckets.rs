//! The bucket of a delay: exactly the edges of Prometheus native histograms, schema 3, in seconds.
//!
//! Bucket `i` of 1..=184 holds delays in `(2^((i-1)/8 - 20), 2^(i/8 - 20)]` seconds: eight buckets
//! an octave from 2⁻²⁰ s (0.95 µs) to 2³ s, edges 9.05 % apart.
//! Bucket 0 holds everything at or below 2⁻²⁰ s (the native zero bucket), bucket 185 everything
//! above 8 s. Upper edges are inclusive, as in Prometheus.
//!
//! A delay in ns is scaled to units of 2⁻⁶⁰ s with two multiplications, which is exact to one such
//! unit; the integer part of its logarithm comes from six compare-and-shift steps, because BPF has no
//! instruction for leading zeros, and the fraction from comparing the mantissa with the seven
//! eighth-octave thresholds. No loop, no division, no table in memory.
//!
//! Source of the edges: Prometheus' [native histogram
//! specification](https://prometheus.io/docs/specs/native_histograms/#schema).

/// Buckets of a latency histogram: the underflow, 184 of eight an octave, the overflow.
pub const BUCKETS: usize = OCTAVES * PER_OCTAVE + 2;
/// Octaves between the edges 2⁻²⁰ s and 2³ s.
pub const OCTAVES: usize = 23;
/// Buckets an octave (native histogram schema 3).
pub const PER_OCTAVE: usize = 8;
/// Binary logarithm, in seconds, of the upper edge of the underflow bucket.
pub const LOWEST_EDGE_LOG2_SECONDS: i32 = -20;

/// 8 s in ns: delays above it are in the overflow bucket.
const HIGHEST_EDGE_NS: u64 = 8_000_000_000;

/// The bucket of a delay in ns, in `0..BUCKETS`.
#[inline(always)]
pub fn bucket(ns: u64) -> u32 {
    if ns > HIGHEST_EDGE_NS {
        return (BUCKETS - 1) as u32;
    }
    // ns · 2⁶⁰ / 10⁹ = ns · 1152921504.606846976, the fraction being 1303193957.8 / 2³¹.
    // At 8 s this is 2⁶³. One unit less makes the upper edge inclusive.
    let units = ns * 1_152_921_504 + ((ns * 1_303_193_958) >> 31);
    let units = units - (ns != 0) as u64;
    // The underflow ends at 2⁻²⁰ s = 2⁴⁰ units.
    if units >> 40 == 0 {
        return 0;
    }
    let (log2, mantissa) = normalize(units);
    // The thresholds are 2^(k/8) with 63 fraction bits, rounded up.
    let eighth = (mantissa >= 0x8B95_C1E3_EA8B_D6E7) as u32
        + (mantissa >= 0x9837_F051_8DB8_A970) as u32
        + (mantissa >= 0xA5FE_D6A9_B151_38EB) as u32
        + (mantissa >= 0xB504_F333_F9DE_6485) as u32
        + (mantissa >= 0xC567_2A11_5506_DADE) as u32
        + (mantissa >= 0xD744_FCCA_D69D_6AF5) as u32
        + (mantissa >= 0xEAC0_C6E7_DD24_392F) as u32;
    (log2 - 40) * PER_OCTAVE as u32 + eighth + 1
}

/// `floor(log2(units))`, and `units` shifted so that its highest one leads.
#[inline(always)]
fn normalize(units: u64) -> (u32, u64) {
    let mut log2 = 63;
    let mut rest = units;
    let mut shift = |bits: u32| {
        let short = (rest >> (64 - bits) == 0) as u32 * bits;
        rest <<= short;
        log2 -= short;
    };
    // After `units >> 40 != 0` at most 23 leading zeros are left.
    shift(16);
    shift(8);
    shift(4);
    shift(2);
    shift(1);
    (log2, rest)
}

/// The octave of a bucket, in `0..OCTAVES`, for the coarse histograms: the underflow counts with the
/// lowest octave and the overflow with the highest.
#[inline(always)]
pub fn octave(bucket: u32) -> u32 {
    let octave = (bucket.saturating_sub(1)) / PER_OCTAVE as u32;
    if octave < OCTAVES as u32 { octave } else { OCTAVES as u32 - 1 }
}

/// Upper edge of a bucket in seconds; infinite for the overflow.
#[cfg(feature = "user")]
pub fn upper_edge_seconds(bucket: usize) -> f64 {
    if bucket >= BUCKETS - 1 {
        return f64::INFINITY;
    }
    (bucket as f64 / PER_OCTAVE as f64 + f64::from(LOWEST_EDGE_LOG2_SECONDS)).exp2()
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bucket by definition, in floating point: wrong only within rounding of an edge.
    fn by_definition(ns: u64) -> usize {
        let seconds = ns as f64 / 1e9;
        (0..BUCKETS).find(|&i| seconds <= upper_edge_seconds(i)).expect("the last edge is infinite")
    }

    #[test]
    fn the_last_ns_below_and_the_first_above_every_edge_are_apart() {
        for i in 0..BUCKETS - 1 {
            // f64 holds the edge in ns to 1e-6 ns, and no edge but the whole octaves lies on a ns.
            let edge_ns = upper_edge_seconds(i) * 1e9;
            let below = edge_ns.floor() as u64;
            assert_eq!(bucket(below) as usize, i, "{below} ns, at or below edge {i}");
            assert_eq!(bucket(below + 1) as usize, i + 1, "{} ns, above edge {i}", below + 1);
        }
    }

    #[test]
    fn whole_octaves_belong_to_the_bucket_that_they_close() {
        assert_eq!(bucket(1_000_000_000), 160);
        assert_eq!(bucket(1_000_000_001), 161);
        assert_eq!(bucket(8_000_000_000), 184);
        assert_eq!(bucket(8_000_000_001), 185);
        assert_eq!(bucket(u64::MAX), 185);
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(953), 0);
        assert_eq!(bucket(954), 1);
    }

    proptest! {
        #[test]
        fn the_bucket_is_the_one_by_definition(exponent in 0u32..34, mantissa in 0u64..u64::MAX) {
            let ns = mantissa % (1u64 << exponent).max(1) + (1u64 << exponent) - 1;
            prop_assert_eq!(bucket(ns) as usize, by_definition(ns));
        }

        #[test]
        fn an_octave_holds_eight_buckets(bucket in 1u32..185) {
            prop_assert_eq!(octave(bucket), (bucket - 1) / 8);
        }
    }

    #[test]
    fn the_ends_count_with_the_nearest_octave() {
        assert_eq!(octave(0), 0);
        assert_eq!(octave(185), 22);
    }
}
