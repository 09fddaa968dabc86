//! Numbers with their units, as they are shown everywhere.

use sampler_common::buckets::BUCKETS;
use sampler_common::histogram::LatencyHistogram;

/// A length of time with three significant digits, in the unit in which it is 1 to 1000: `62.5 ms`.
pub fn duration(seconds: f64) -> String {
    // Where rounding would make 1000 of it, the next unit begins.
    const UP: f64 = 999.5;
    match seconds {
        0.0 => "0 s".into(),
        s if s * 1e6 < UP => format!("{} µs", three_digits(s * 1e6)),
        s if s * 1e3 < UP => format!("{} ms", three_digits((s * 1e3).max(1.0))),
        s => format!("{} s", three_digits(s.max(1.0))),
    }
}

/// A length of time in ns, as [`duration`] shows it.
pub fn duration_ns(ns: u64) -> String {
    duration(ns as f64 / 1e9)
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        n if n < 0.9995 => 3,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// A part of a whole, 0..=1, in whole percent: `97 %`. What is more than nothing is not shown as 0, and what
/// is less than all not as 100.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 1.0 => "<1 %".into(),
        p if p > 99.0 && p < 100.0 => ">99 %".into(),
        p => format!("{p:.0} %"),
    }
}

/// CPUs' worth of time: `0.25 CPU`.
pub fn cores(cores: f64) -> String {
    format!("{cores:.2} CPU")
}

/// CPUs' worth of time where there is little room: `0.25`, `12.5`, `128`.
pub fn cores_number(cores: f64) -> String {
    let decimals = match cores {
        c if c < 9.995 => 2,
        c if c < 99.95 => 1,
        _ => 0,
    };
    format!("{cores:.decimals$}")
}

/// Memory with three significant digits, in the unit in which it is 1 to 1024: `62.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1024.0;
    let mut unit = 0;
    // Where rounding would make 1024 of it, the next unit begins.
    while number >= 1023.5 {
        number /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(number), UNITS[unit])
}

/// What is shown of delays in the underflow bucket, which ends at 0.954 µs.
const SHORTEST: &str = "< 1 µs";

/// The delay at a quantile; `None` without delays. At the ends of the histogram it is known to be below or
/// above the end, and shown so.
pub fn quantile(latency: &LatencyHistogram, q: f64) -> Option<String> {
    let bucket = latency.bucket_at(q)?;
    let delay = duration_ns(latency.quantile(q)?);
    Some(match bucket {
        0 => SHORTEST.into(),
        b if b == BUCKETS - 1 => format!("> {delay}"),
        _ => delay,
    })
}

/// The upper edge of the highest bucket, `≤ 62.5 ms`: no delay was longer. `None` without delays.
pub fn highest(latency: &LatencyHistogram) -> Option<String> {
    let edge = latency.highest_edge_seconds()?;
    Some(match latency.bucket_at(1.0)? {
        0 => SHORTEST.into(),
        b if b == BUCKETS - 1 => "> 8.00 s".into(),
        _ => format!("≤ {}", duration(edge)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_in_the_unit_that_fits() {
        let shown = [
            (0, "0 s"),
            (1, "0.001 µs"),
            (953, "0.953 µs"),
            (999, "0.999 µs"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (99_960, "100 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (62_500_000, "62.5 ms"),
            (999_600_000, "1.00 s"),
            (1_234_567_890, "1.23 s"),
            (75_000_000_000, "75.0 s"),
            (4_000_000_000_000, "4000 s"),
        ];
        for (ns, text) in shown {
            assert_eq!(duration_ns(ns), text, "{ns} ns");
        }
    }

    #[test]
    fn cores_and_memory_have_three_digits() {
        let shown = [
            (0.0, "0.00"),
            (0.254, "0.25"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (128.4, "128"),
        ];
        for (cores, text) in shown {
            assert_eq!(cores_number(cores), text);
        }
        let shown = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.00 MiB"),
            (65_536_000, "62.5 MiB"),
            (1 << 34, "16.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (amount, text) in shown {
            assert_eq!(bytes(amount), text, "{amount}");
        }
    }

    #[test]
    fn a_share_is_not_rounded_to_nothing_or_all() {
        let shown = [(0.0, "0 %"), (0.001, "<1 %"), (0.494, "49 %"), (0.996, ">99 %"), (1.0, "100 %")];
        for (share, text) in shown {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn delays_beyond_the_histograms_ends_are_bounds() {
        let mut latency = LatencyHistogram::default();
        assert_eq!((quantile(&latency, 0.5), highest(&latency)), (None, None));
        latency.record(5);
        assert_eq!(quantile(&latency, 0.5).unwrap(), "< 1 µs");
        assert_eq!(highest(&latency).unwrap(), "< 1 µs");
        latency.record(60_000_000);
        assert_eq!(quantile(&latency, 0.99).unwrap(), "59.8 ms");
        assert_eq!(highest(&latency).unwrap(), "≤ 62.5 ms");
        latency.record(9_000_000_000);
        assert_eq!(quantile(&latency, 0.99).unwrap(), "> 8.00 s");
        assert_eq!(highest(&latency).unwrap(), "> 8.00 s");
    }
}
