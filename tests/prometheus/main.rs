//! Real Prometheus servers scrape the real sampler, and are asked what they have understood. The sampler replays a
//! recording that is made here, so that every number is known beforehand.
//!
//! ```text
//! prometheus test [FILTER...]
//! ```
//!
//! needs the programs named by `LOADLINE_SAMPLER`, `LOADLINE_PROMETHEUS` (any 2.40 or later: classic histograms) and
//! `LOADLINE_PROMETHEUS_NATIVE` (the newest: native histograms). No privileges. (`cargo xtask test`)
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

mod containers;
mod server;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use loadline_tests::daemon::Daemon;
use loadline_tests::{runner, tests};
use sampler_common::buckets::{BUCKETS, PER_OCTAVE, upper_edge_seconds};
use sampler_common::histogram::LatencyHistogram;
use sampler_common::identity::{Identity, Owner};
use sampler_common::recording::{Header, Writer};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Counters, Snapshot};

use crate::server::{Histograms, Server};

tests![
    classic_histograms within 120 s,
    native_histograms within 120 s,
    every_metric_is_accepted within 120 s,
];

fn tests() -> impl Iterator<Item = &'static runner::Test> {
    TESTS.iter().chain(containers::TESTS)
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let code = match arguments[..] {
        ["test", ref filters @ ..] => runner::run_each(tests(), filters, runner::in_child),
        _ => {
            eprintln!("usage: prometheus test [FILTER...]");
            2
        }
    };
    std::process::exit(code)
}

const SECOND: u64 = 1_000_000_000;
/// The unit whose histogram is compared.
const UNIT: &str = "measured.service";

/// Delays from below a microsecond to above 8 s, more of the short ones: the same in each run.
fn delays(count: u64) -> LatencyHistogram {
    let mut random = fastrand::Rng::with_seed(42);
    let mut latency = LatencyHistogram::default();
    for _ in 0..count {
        let octaves = random.f64() * random.f64() * 34.0;
        latency.record(octaves.exp2() as u64);
    }
    latency
}

/// A recording of two snapshots, a second apart.
fn recording(latency: &LatencyHistogram) -> PathBuf {
    let path = std::env::temp_dir().join(format!("prometheus-{}.recording", std::process::id()));
    let header = Header { cpus: 4, interval_ns: SECOND, sampler: "0".to_owned(), ..Header::default() };
    let mut writer = Writer::create(File::create(&path).unwrap(), header).unwrap();
    for (second, latency) in [(1, &LatencyHistogram::default()), (2, latency)] {
        let mut counters =
            Counters { latency: latency.clone(), usage_ns: (2 + second) * SECOND, ..Counters::default() };
        counters.causes.system_ns = latency.sum_ns();
        let owner = Owner::Unit { name: UNIT.to_owned() };
        let cgroup = CgroupCounters {
            counters,
            identity: Identity { path: format!("system.slice/{UNIT}"), owner },
            ..CgroupCounters::default()
        };
        let cgroups = BTreeMap::from([(CgroupId(7), cgroup)]);
        writer
            .append(&Snapshot {
                at_ns: second * SECOND,
                throttle_hooks: true,
                cgroups,
                ..Snapshot::default()
            })
            .unwrap();
    }
    path
}

fn replay(latency: &LatencyHistogram) -> Daemon {
    let recording = recording(latency);
    let started = Daemon::start(&["--replay", recording.to_str().unwrap()], || Ok(())).unwrap();
    started.unwrap_or_else(|ended| panic!("{ended:?}"))
}

const LATENCY: &str = "loadline_container_runq_latency_seconds";

/// Catches counts, sums, edges or labels that Prometheus reads otherwise than they were meant.
fn classic_histograms() {
    let latency = delays(100_000);
    let daemon = replay(&latency);
    let server = Server::start("LOADLINE_PROMETHEUS", daemon.address(), Histograms::Classic);
    let labels = format!("{{namespace=\"\",pod=\"\",container=\"{UNIT}\"}}");
    let count = server.value_once(&format!("{LATENCY}_count{labels}"), |count| count > 0.0);
    let sum = server.value(&format!("{LATENCY}_sum{labels}")).unwrap();
    assert_eq!(count, latency.count() as f64);
    assert_eq!(sum, latency.sum_ns() as f64 / 1e9);
    let buckets = server.query(&format!("{LATENCY}_bucket{labels}"));
    assert_eq!(buckets.len(), 25);
    for (labels, value) in buckets {
        let edge: f64 = labels["le"].as_str().unwrap().replace("+Inf", "inf").parse().unwrap();
        let below = latency.counts().iter().enumerate();
        let below = below.filter(|(bucket, _)| upper_edge_seconds(*bucket) <= edge).map(|(_, count)| count);
        assert_eq!(value, below.sum::<u64>() as f64, "le {edge}");
    }
    let p99 = server.value(&format!("histogram_quantile(0.99, {LATENCY}_bucket{labels})")).unwrap();
    let ours = latency.quantile(0.99).unwrap() as f64 / 1e9;
    println!("     {}: p99 {p99} s of {count} delays; ours {ours} s", server.version());
    assert!((0.5..=2.0).contains(&(p99 / ours)), "an octave is a factor of two");
}

/// Catches native buckets that are shifted, miscounted or refused.
fn native_histograms() {
    let latency = delays(100_000);
    let daemon = replay(&latency);
    let server = Server::start("LOADLINE_PROMETHEUS_NATIVE", daemon.address(), Histograms::Native);
    let selector = format!("{LATENCY}{{container=\"{UNIT}\"}}");
    let count = server.value_once(&format!("histogram_count({selector})"), |count| count > 0.0);
    assert_eq!(count, latency.count() as f64);
    assert_eq!(server.value(&format!("histogram_sum({selector})")), Some(latency.sum_ns() as f64 / 1e9));
    // Every single bucket: [kind, lower, upper, count]; the zero bucket reaches as far below zero as above.
    let buckets = server.native_buckets(&selector);
    let mut expected: Vec<_> =
        latency.counts().iter().enumerate().filter(|(_, count)| **count != 0).collect();
    assert_eq!(buckets.len(), expected.len());
    expected.sort();
    for ((upper, counted), (bucket, count)) in buckets.into_iter().zip(expected) {
        let edge = if bucket == BUCKETS - 1 {
            8.0 * (1.0 / PER_OCTAVE as f64).exp2()
        } else {
            upper_edge_seconds(bucket)
        };
        assert!((upper / edge - 1.0).abs() < 1e-12, "{upper} is not {edge}");
        assert_eq!(counted, *count as f64, "up to {edge} s");
    }
    // Two thirds lie in the zero bucket, of which nobody knows more.
    for quantile in [0.7, 0.9, 0.99] {
        let theirs = server.value(&format!("histogram_quantile({quantile}, {selector})")).unwrap();
        let ours = latency.quantile(quantile).unwrap() as f64 / 1e9;
        println!("     {}: quantile {quantile} is {theirs} s; ours {ours} s", server.version());
        assert!((theirs / ours - 1.0).abs() < 0.0905, "both lie in one bucket, whose edges are 9.05 % apart");
    }
}

/// By both formats: a scrape is refused whole for one sample that cannot be.
fn every_metric_is_accepted() {
    let daemon = replay(&delays(1000));
    for (program, histograms) in
        [("LOADLINE_PROMETHEUS", Histograms::Classic), ("LOADLINE_PROMETHEUS_NATIVE", Histograms::Native)]
    {
        let server = Server::start(program, daemon.address(), histograms);
        assert_eq!(server.value_once("up", |up| up == 1.0), 1.0);
        let scraped = server.value_once("scrape_samples_scraped", |samples| samples > 10.0);
        let kept = server.value("scrape_samples_post_metric_relabeling").unwrap();
        let metrics = server.query("count by (__name__) ({__name__=~\"loadline_.+\"})").len();
        println!("     {}: {scraped} samples, {metrics} metrics", server.version());
        assert_eq!(scraped, kept);
        assert!(metrics > 25, "{metrics}");
        assert_eq!(server.query("loadline_sampler_build_info").len(), 1);
    }
}
