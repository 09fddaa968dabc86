//! Any text as each of a cgroup's files: refused in few words, or read as what it would be were it written again; and what
//! newer kernels add is passed over.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use loadline_fuzz::cgroup::file::Malformed;
use loadline_fuzz::cgroup::limits::{Quota, parse_bytes, parse_v1_bytes, parse_weight, weight_of_shares};
use loadline_fuzz::cgroup::stat::CpuStat;
use loadline_fuzz::cgroup::{memory, pressure};
use sampler_common::resources::MemoryEvents;

/// Characters of an error: a log must not grow with what a file says.
const LONGEST_ERROR: usize = 500;
/// A line that no kernel writes yet.
const ADDED: &str = "zswpressure_usec 1\n";

fuzz_target!(|text: &str| {
    limits(text);
    flat(text, CpuStat::parse, |stat| {
        let CpuStat { usage_ns, periods, throttled_periods, throttled_ns } = stat;
        assert_eq!((usage_ns % 1_000, throttled_ns % 1_000), (0, 0));
        let (usage_us, throttled_us) = (usage_ns / 1_000, throttled_ns / 1_000);
        format!(
            "usage_usec {usage_us}\nnr_periods {periods}\nnr_throttled {throttled_periods}\n\
             throttled_usec {throttled_us}\n"
        )
    });
    flat(text, CpuStat::parse_v1, |stat| {
        let CpuStat { usage_ns: _, periods, throttled_periods, throttled_ns } = stat;
        format!("nr_periods {periods}\nnr_throttled {throttled_periods}\nthrottled_time {throttled_ns}\n")
    });
    flat(text, memory::parse_events, |events| {
        let MemoryEvents { low, high, max, oom, oom_kill } = events;
        format!("low {low}\nhigh {high}\nmax {max}\noom {oom}\noom_kill {oom_kill}\n")
    });
    flat(text, memory::parse_v1_events, |events| format!("oom_kill {}\n", events.oom_kill));
    flat(text, |text| memory::V2.parse_inactive_file(text), |bytes| format!("inactive_file {bytes}\n"));
    flat(text, |text| memory::V1.parse_inactive_file(text), |bytes| format!("total_inactive_file {bytes}\n"));
    for file in [pressure::CPU, pressure::MEMORY] {
        flat(
            text,
            |text| pressure::parse(file, text),
            |(some, full)| {
                let line =
                    |name, ns| format!("{name} avg10=0.00 avg60=0.00 avg300=0.00 total={}\n", ns / 1_000);
                line("some", some) + &line("full", full)
            },
        );
    }
});

fn limits(text: &str) {
    alike(text, Quota::parse, |quota| match quota {
        Some(Quota { quota_us, period_us }) => format!("{quota_us} {period_us}\n"),
        None => "max 100000\n".to_owned(),
    });
    let (quota, period) = text.split_once('\0').unwrap_or((text, "100000\n"));
    alike(
        quota,
        |quota| Quota::parse_v1(quota, period),
        |quota| match quota {
            Some(Quota { quota_us, period_us }) => {
                assert_eq!(period, format!("{:0>1$}\n", period_us, period.len() - 1));
                format!("{quota_us}\n")
            }
            None => "-1\n".to_owned(),
        },
    );
    let bytes = |bytes: Option<u64>| bytes.map_or("max\n".to_owned(), |bytes| format!("{bytes}\n"));
    alike(text, |text| parse_bytes("memory.max", text), bytes);
    alike(text, parse_v1_bytes, |bytes| format!("{}\n", bytes.unwrap_or(i64::MAX as u64)));
    alike(text, parse_weight, |weight| {
        assert!((1..=10_000).contains(&weight));
        format!("{weight}\n")
    });
    if let Ok(Some(shares)) = parse_bytes("cpu.shares", text) {
        let weight = weight_of_shares(shares);
        assert!((1..=10_000).contains(&weight) && weight <= weight_of_shares(shares.saturating_add(1)));
    }
}

/// A file of lines with names: others may be added.
fn flat<T: Copy + Debug + PartialEq>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, Malformed>,
    print: impl Fn(T) -> String,
) {
    if let Some(value) = alike(text, &parse, print) {
        assert_eq!(parse(&format!("{text}{ADDED}")), Ok(value));
    }
}

/// What is read; written again, it is read alike.
fn alike<T: Copy + Debug + PartialEq>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, Malformed>,
    print: impl Fn(T) -> String,
) -> Option<T> {
    match parse(text) {
        Ok(value) => {
            assert_eq!(parse(&print(value)), Ok(value));
            Some(value)
        }
        Err(error) => {
            assert!(error.to_string().chars().count() <= LONGEST_ERROR, "{error}");
            None
        }
    }
}
