//! From snapshots to what is scraped, by both formats.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{MetricFamily, MetricType};
use prost::Message as _;
use sampler_common::abi;
use sampler_common::identity::{Identity, Names, Owner};
use sampler_common::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Counters, Durations, Presence};

use super::families::FAMILIES;
use super::*;

const SECOND: u64 = 1_000_000_000;

/// A container with delays of 1 ms up to `delays` ms, and everything else that can be known.
fn container(number: u64, delays: u64) -> CgroupCounters {
    let mut counters = Counters { usage_ns: delays * 2_000_000, ..Counters::default() };
    for ms in 1..=delays {
        counters.latency.record(ms * 1_000_000);
        counters.causes.self_ns += ms * 1_000_000;
        let octave = sampler_common::buckets::octave(sampler_common::buckets::bucket(ms * 1_000_000));
        counters.coarse[abi::Cause::Own as usize].counts[octave as usize] += 1;
    }
    let throttling = &mut counters.throttling;
    (throttling.periods, throttling.throttled_periods, throttling.throttled_ns) = (10, 4, 40_000_000);
    let mut durations = [0; sampler_common::throttle::DURATIONS];
    durations[7] = 4;
    throttling.durations = Durations::Counted(durations);
    counters.memory_events = Some(MemoryEvents { high: 3, ..MemoryEvents::default() });
    counters.pressure = Some(Pressure { cpu_some_ns: 7_000_000, ..Pressure::default() });
    let names = Names {
        namespace: "shop".into(),
        pod: format!("web-{number}"),
        container: Some("say \"hi\"\\\n".into()),
    };
    let container = sampler_common::identity::Container {
        id: format!("{number:064x}").try_into().unwrap(),
        runtime: Some(sampler_common::identity::Runtime::Containerd),
        pod: None,
        names: Some(names),
    };
    CgroupCounters {
        counters,
        identity: Identity { path: format!("c{number}"), owner: Owner::Container(Box::new(container)) },
        limits: Limits {
            cpu: Some(CpuLimit { quota_us: 50_000, period_us: 100_000, of: LimitOf::Own }),
            cpu_weight: Some(79),
            memory_max_bytes: Some(1 << 30),
            memory_high_bytes: None,
        },
        memory: Some(Memory {
            current_bytes: 300 << 20,
            working_set_bytes: 200 << 20,
            peak_bytes: Some(400 << 20),
            read_ns: 1,
        }),
        ..CgroupCounters::default()
    }
}

fn publisher(containers: u64, limit: usize) -> Publisher {
    let publisher = Publisher::new(4, limit, Duration::from_secs(5));
    for (second, delays) in [(1, 2), (6, 100)] {
        let cgroups = (1..=containers).map(|number| (CgroupId(number), container(number, delays))).collect();
        let mut snapshot = Snapshot { at_ns: second * SECOND, cgroups, ..Snapshot::default() };
        snapshot.throttle_hooks = true;
        snapshot.switches = second * 1000;
        snapshot.losses.no_baseline = second;
        publisher.observe(snapshot, Health::default()).unwrap();
    }
    publisher
}

/// Series of a text, each with its value.
fn series(text: &str) -> BTreeMap<&str, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

fn text(publisher: &Publisher) -> String {
    String::from_utf8(publisher.scrape(Format::OpenMetrics).unwrap().to_vec()).unwrap()
}

fn families(publisher: &Publisher) -> BTreeMap<String, MetricFamily> {
    let mut bytes = publisher.scrape(Format::Protobuf).unwrap();
    let mut families = BTreeMap::new();
    while !bytes.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut bytes).unwrap();
        assert!(families.insert(family.name.clone(), family).is_none(), "a family twice");
    }
    families
}

#[test]
fn what_has_to_make_room_while_a_scrape_is_encoded_is_not_in_the_rest_too() {
    let publisher = publisher(1, 1);
    let (under_way, _) = publisher.handed_out();
    let [one, rest] = &under_way.series[..] else { panic!("{}", under_way.series.len()) };
    assert_eq!((one.total.latency.count(), rest.total.latency.count()), (100, 0));
    // It goes, and another takes its place.
    let gone = CgroupCounters { presence: Presence::Removed, ..container(1, 100) };
    for (second, id, cgroup) in [(7, 1, gone), (8, 2, container(2, 3))] {
        let cgroups = [(CgroupId(id), cgroup)].into();
        let snapshot =
            Snapshot { at_ns: second * SECOND, cgroups, throttle_hooks: true, ..Snapshot::default() };
        publisher.observe(snapshot, Health::default()).unwrap();
    }
    let text = text(&publisher);
    let count = |labels: &str| {
        series(&text)[format!("loadline_container_runq_latency_seconds_count{{{labels}}}").as_str()]
    };
    assert_eq!(count(&LABELS.replace("web-1", "web-2")), 3.0);
    assert_eq!(count(r#"namespace="",pod="",container="_other""#), 0.0);
}

const LABELS: &str = r#"namespace="shop",pod="web-1",container="say \"hi\"\\\n""#;

#[test]
fn a_scrape_says_what_was_counted() {
    let publisher = publisher(1, 10);
    let text = text(&publisher);
    let series = series(&text);
    let of = |name: &str| series.get(format!("{name}{{{LABELS}}}").as_str()).copied();
    let by = |name: &str, more: &str| series.get(format!("{name}{{{LABELS},{more}}}").as_str()).copied();
    assert_eq!(of("loadline_container_runq_latency_seconds_count"), Some(100.0));
    assert_eq!(of("loadline_container_runq_latency_seconds_sum"), Some(5.05));
    let bucket = |le: &str| {
        series
            .get(format!("loadline_container_runq_latency_seconds_bucket{{le=\"{le}\",{LABELS}}}").as_str())
            .copied()
    };
    assert_eq!(
        (bucket("0.0009765625"), bucket("0.0625"), bucket("+Inf")),
        (Some(0.0), Some(62.0), Some(100.0)),
        "{text}"
    );
    assert_eq!(by("loadline_container_runq_wait_seconds_total", "cause=\"self\""), Some(5.05));
    assert_eq!(by("loadline_container_runq_wait_seconds_total", "cause=\"quota\""), Some(0.0));
    assert_eq!(by("loadline_container_runq_slow_delays_total", "cause=\"self\""), Some(93.0));
    assert_eq!(by("loadline_container_runq_slow_delays_total", "cause=\"unknown\""), Some(0.0));
    assert_eq!(of("loadline_container_cpu_usage_seconds_total"), Some(0.2));
    assert_eq!(of("loadline_container_cpu_throttled_periods_total"), Some(4.0));
    assert_eq!(of("loadline_container_cpu_throttled_seconds_total"), Some(0.04));
    assert_eq!(of("loadline_container_cpu_throttle_seconds_count"), Some(4.0));
    assert_eq!(of("loadline_container_cpu_limit_cores"), Some(0.5));
    assert_eq!(of("loadline_container_cpu_weight"), Some(79.0));
    assert_eq!(of("loadline_container_memory_limit_bytes"), Some(f64::from(1 << 30)));
    assert_eq!(of("loadline_container_memory_high_bytes"), None);
    assert_eq!(of("loadline_container_memory_working_set_bytes"), Some(f64::from(200 << 20)));
    assert_eq!(of("loadline_container_memory_peak_bytes"), Some(f64::from(400 << 20)));
    assert_eq!(by("loadline_container_memory_events_total", "event=\"high\""), Some(3.0));
    assert_eq!(of("loadline_container_pressure_cpu_waiting_seconds_total"), Some(0.007));
    let [lower, point, upper] = ["_lower_cores", "_cores", "_upper_cores"]
        .map(|part| of(&format!("loadline_container_cpu_demand{part}")).unwrap());
    assert!(lower > 0.0 && lower <= point && point <= upper && upper <= 4.0, "{lower} {point} {upper}");
    assert_eq!(series.get("loadline_sampler_switches_total"), Some(&6000.0));
    assert_eq!(series.get("loadline_sampler_losses_total{loss=\"no_baseline\"}"), Some(&6.0));
    assert_eq!(series.get("loadline_sampler_throttle_hooks_attached"), Some(&1.0));
    assert_eq!(series.get("loadline_sampler_series"), Some(&1.0));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn both_formats_say_the_same_and_every_family_is_in_both() {
    let publisher = publisher(3, 10);
    let text = text(&publisher);
    let series = series(&text);
    let families = families(&publisher);
    for family in FAMILIES {
        assert!(families.contains_key(family.name), "{} in protobuf", family.name);
        let base =
            family.name.strip_suffix("_total").or(family.name.strip_suffix("_info")).unwrap_or(family.name);
        let type_line = format!("# TYPE {base} {}\n", family.of.kind());
        assert!(text.contains(&type_line), "{type_line}");
    }
    assert_eq!(families.len(), FAMILIES.len());
    let mut compared = 0;
    for family in families.values() {
        for metric in &family.metric {
            let labels: Vec<_> = metric
                .label
                .iter()
                .map(|pair| {
                    let value = pair.value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    format!("{}=\"{value}\"", pair.name)
                })
                .collect();
            let suffix = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let (name, value) = match (&metric.counter, &metric.gauge, &metric.histogram) {
                (Some(counter), ..) => (format!("{}{suffix}", family.name), counter.value),
                (_, Some(gauge), _) => (format!("{}{suffix}", family.name), gauge.value),
                (.., Some(histogram)) => {
                    (format!("{}_count{suffix}", family.name), histogram.sample_count as f64)
                }
                _ => panic!("{family:?}"),
            };
            // Of the time of the scrape itself.
            if !family.name.starts_with("loadline_sampler_scrapes") {
                assert_eq!(series.get(name.as_str()), Some(&value), "{name}");
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn a_native_histogram_has_our_buckets() {
    let families = families(&publisher(1, 10));
    let latency = &families["loadline_container_runq_latency_seconds"];
    assert_eq!(latency.r#type, MetricType::Histogram as i32);
    let histogram = latency.metric[0].histogram.as_ref().unwrap();
    assert_eq!((histogram.schema, histogram.zero_threshold, histogram.zero_count), (3, 2f64.powi(-20), 0));
    // 1 ms lies between 2^(-80/8) and 2^(-79/8) s.
    assert_eq!(histogram.positive_span[0].offset, -79);
    let (mut count, mut sum) = (0, 0);
    for delta in &histogram.positive_delta {
        count += delta;
        sum += count;
    }
    assert_eq!((sum, histogram.sample_count, histogram.bucket.len()), (100, 100, 25));
    let throttles = &families["loadline_container_cpu_throttle_seconds"].metric[0];
    assert_eq!(throttles.histogram.as_ref().unwrap().zero_threshold, 0.0, "a classic one only");
}

#[test]
fn a_container_has_as_many_series_as_the_readme_says() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let publisher = publisher(1, 10);
    let text = text(&publisher);
    let all = series(&text).keys().filter(|name| name.contains("pod=\"web-1\"")).count();
    let of_throttles = series(&text).keys().filter(|name| name.contains("cpu_throttle_seconds")).count();
    // `memory.high` is not set here, and has a series where it is.
    let (without, with) = (all - of_throttles, all + 1);
    let said =
        format!("A container has {without} classic series at most without a CPU limit and {with} with one");
    assert!(readme.contains(&said), "{said}");
}

#[test]
fn five_hundred_containers_are_written_in_a_bounded_size() {
    let publisher = publisher(500, 1000);
    let begun = Instant::now();
    let text = publisher.scrape(Format::OpenMetrics).unwrap();
    let text_time = begun.elapsed();
    let begun = Instant::now();
    let protobuf = publisher.scrape(Format::Protobuf).unwrap();
    println!(
        "text: {} bytes in {text_time:?}; protobuf: {} bytes in {:?}",
        text.len(),
        protobuf.len(),
        begun.elapsed()
    );
    assert!(text.len() < 500 * 12_000, "{}", text.len());
    assert!(protobuf.len() < 500 * 9_000, "{}", protobuf.len());
}

#[test]
fn no_series_is_there_twice() {
    let publisher = publisher(50, 20);
    let text = text(&publisher);
    let names: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(text.contains("loadline_sampler_left_out 30"));
    // Sums over everything stay right: 50 containers with 100 delays each.
    let sum: f64 = series(&text)
        .iter()
        .filter(|(name, _)| name.starts_with("loadline_container_runq_latency_seconds_count"))
        .map(|(_, value)| value)
        .sum();
    assert_eq!(sum, 5000.0);
}

#[test]
fn the_rest_has_the_cpu_time_that_is_known_and_its_help_says_what_is_not() {
    let publisher = publisher(2, 1);
    let mut snapshot = Snapshot { at_ns: 11 * SECOND, ..Snapshot::default() };
    snapshot.other = container(0, 7).counters;
    snapshot.other.usage_ns = 0;
    publisher.observe(snapshot, Health::default()).unwrap();
    let text = text(&publisher);
    let rest = |name: &str| {
        series(&text)[format!("{name}{{namespace=\"\",pod=\"\",container=\"_other\"}}").as_str()]
    };
    assert_eq!(rest("loadline_container_runq_latency_seconds_count"), 107.0);
    assert_eq!(rest("loadline_container_cpu_usage_seconds_total"), 0.2, "of the one that has a slot");
    let help = text.lines().find(|line| line.starts_with("# HELP loadline_container_cpu_usage_seconds"));
    assert!(help.unwrap().contains("_other"), "{help:?}");
}

#[test]
fn scrapes_at_one_time_share_a_body_and_show_the_same() {
    let publisher = publisher(2, 10);
    let first = publisher.scrape(Format::OpenMetrics).unwrap();
    let second = publisher.scrape(Format::OpenMetrics).unwrap();
    assert_eq!(first.as_ptr(), second.as_ptr(), "one body");
    publisher.observe(Snapshot { at_ns: 11 * SECOND, ..Snapshot::default() }, Health::default()).unwrap();
    assert!(text(&publisher).contains("loadline_sampler_scrapes_total 2"));
}

#[test]
fn a_daemon_is_ready_after_its_first_whole_window() {
    let publisher = Publisher::new(1, 10, Duration::from_secs(5));
    assert_eq!((publisher.pulse().readiness().is_ok(), publisher.pulse().health().is_ok()), (false, true));
    publisher.observe(Snapshot { at_ns: 1, ..Snapshot::default() }, Health::default()).unwrap();
    assert!(publisher.pulse().readiness().is_err());
    publisher.observe(Snapshot { at_ns: 5 * SECOND, ..Snapshot::default() }, Health::default()).unwrap();
    assert!(publisher.pulse().readiness().is_ok());
}

#[test]
fn a_daemon_without_names_is_ready_and_says_why_it_has_none() {
    let publisher = Publisher::new(1, 10, Duration::from_secs(5));
    let trouble = pods::Trouble::Unreachable("connection refused".into());
    for (second, state, note) in [
        (1, pods::State::Starting, None),
        (5, pods::State::Watching, None),
        (10, pods::State::Troubled(trouble.clone()), Some(trouble.to_string())),
        (15, pods::State::Watching, None),
    ] {
        let status = pods::Status { state, ..pods::Status::default() };
        let health = Health { pods: Some(status), ..Health::default() };
        publisher.observe(Snapshot { at_ns: second * SECOND, ..Snapshot::default() }, health).unwrap();
        if second == 1 {
            continue;
        }
        let said = publisher.pulse().readiness().unwrap();
        assert_eq!(said.is_some(), note.is_some());
        assert!(said.unwrap_or_default().ends_with(&note.unwrap_or_default()));
    }
}

#[test]
fn probes_are_answered_while_a_window_is_taken_in_and_a_scrape_encoded() {
    let publisher = Arc::new(publisher(1, 10));
    let (_observing, _encoding) = (lock(&publisher.state), lock(&publisher.bodies));
    let (say, said) = std::sync::mpsc::channel();
    let asked = publisher.clone();
    std::thread::spawn(move || say.send((asked.pulse().health(), asked.pulse().readiness())));
    // An answer comes at once. One that never does is waited for so long.
    assert_eq!(said.recv_timeout(Duration::from_secs(30)), Ok((Ok(()), Ok(None))));
}

#[test]
fn a_snapshot_out_of_order_changes_nothing() {
    let publisher = publisher(1, 10);
    let before = text(&publisher);
    let late = Snapshot { at_ns: 3 * SECOND, ..Snapshot::default() };
    assert!(publisher.observe(late, Health::default()).is_err());
    assert_eq!(text(&publisher), before);
}
