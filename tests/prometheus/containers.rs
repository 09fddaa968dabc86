//! Several containers with everything that can be known of them, and the demo's recording, as Prometheus understands
//! them: by the questions that somebody would ask.

use std::collections::BTreeMap;
use std::fs::File;

use loadline_tests::daemon::Daemon;
use sampler::publish::families::{FAMILIES, Of};
use sampler_common::identity::{Container, Identity, Names, Owner, Pod, QosClass, Runtime};
use sampler_common::recording::{Header, Writer};
use sampler_common::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Counters, Durations, Snapshot, Throttling};
use sampler_common::throttle::{DURATIONS, duration_bucket};

use crate::server::{Histograms, Server};

loadline_tests::tests![
    several_containers_with_all_that_can_be_known within 150 s,
    the_demo_is_told_by_its_causes within 240 s,
];

const SERVERS: [(&str, Histograms); 2] =
    [("LOADLINE_PROMETHEUS", Histograms::Classic), ("LOADLINE_PROMETHEUS_NATIVE", Histograms::Native)];
const SECOND: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;
const POD: &str = "namespace=\"shop\",pod=\"web-0\"";

fn replay(recording: &str) -> Daemon {
    let started = Daemon::start(&["--replay", recording], || Ok(())).unwrap();
    started.unwrap_or_else(|ended| panic!("{ended:?}"))
}

/// A container of the pod `web-0`, which has nothing yet.
fn container(name: &str, digit: char) -> CgroupCounters {
    let uid = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60".to_owned().try_into().unwrap();
    let names = Names { namespace: "shop".into(), pod: "web-0".into(), container: Some(name.into()) };
    let container = Container {
        id: digit.to_string().repeat(64).try_into().unwrap(),
        runtime: Some(Runtime::Containerd),
        pod: Some(Pod { uid, qos: Some(QosClass::Burstable) }),
        names: Some(names),
    };
    let identity = Identity { path: name.to_owned(), owner: Owner::Container(Box::new(container)) };
    CgroupCounters { identity, ..CgroupCounters::default() }
}

/// `nginx` after so many seconds: it uses half a core, which is its limit, and waits for the rest of the time.
fn limited(second: u64) -> CgroupCounters {
    let mut counters = Counters { usage_ns: second * SECOND / 2, ..Counters::default() };
    for _ in 0..10 * second {
        counters.latency.record(50_000_000);
        counters.causes.quota_ns += 50_000_000;
    }
    let mut durations = [0; DURATIONS];
    durations[duration_bucket(50_000_000)] = 10 * second;
    counters.throttling = Throttling {
        periods: 10 * second,
        throttled_periods: 9 * second,
        throttled_ns: second * SECOND / 2,
        ancestors_throttled_periods: second,
        durations: Durations::Counted(durations),
    };
    counters.memory_events =
        Some(MemoryEvents { low: 0, high: 3 * second, max: 2 * second, oom: second, oom_kill: second });
    counters.pressure = Some(Pressure {
        cpu_some_ns: second * 500_000_000,
        cpu_full_ns: second * 400_000_000,
        memory_some_ns: second * 20_000_000,
        memory_full_ns: second * 10_000_000,
    });
    CgroupCounters {
        counters,
        limits: Limits {
            cpu: Some(CpuLimit { quota_us: 50_000, period_us: 100_000, of: LimitOf::Own }),
            cpu_weight: Some(20),
            memory_max_bytes: Some(256 * MIB),
            memory_high_bytes: Some(200 * MIB),
        },
        memory: Some(Memory {
            current_bytes: (100 + second) * MIB,
            working_set_bytes: (80 + second) * MIB,
            peak_bytes: Some(150 * MIB),
            read_ns: second * SECOND,
        }),
        ..container("nginx", 'a')
    }
}

/// `log` after so many seconds: a quarter of a core, no limit, hardly any wait, and what is known of old kernels.
fn unlimited(second: u64) -> CgroupCounters {
    let mut counters = Counters { usage_ns: second * SECOND / 4, ..Counters::default() };
    (0..4 * second).for_each(|_| counters.latency.record(1_000));
    counters.causes.idle_ns = counters.latency.sum_ns();
    let memory = Memory {
        current_bytes: 10 * MIB,
        working_set_bytes: 5 * MIB,
        peak_bytes: None,
        read_ns: second * SECOND,
    };
    CgroupCounters { counters, memory: Some(memory), ..container("log", 'b') }
}

/// Both, after a second and after three, with a sandbox and a unit beside them.
fn recording() -> String {
    let path = std::env::temp_dir().join(format!("containers-{}.recording", std::process::id()));
    let header = Header { cpus: 4, interval_ns: SECOND, sampler: "0".to_owned(), ..Header::default() };
    let mut writer = Writer::create(File::create(&path).unwrap(), header).unwrap();
    for second in [1, 2, 3] {
        let unit = Identity {
            path: "system.slice/ssh.service".into(),
            owner: Owner::Unit { name: "ssh.service".into() },
        };
        let unit = CgroupCounters { identity: unit, ..CgroupCounters::default() };
        let cgroups = [container("POD", 'c'), limited(second), unlimited(second), unit];
        let snapshot = Snapshot {
            at_ns: second * SECOND,
            throttle_hooks: true,
            cgroups: (7..).map(CgroupId).zip(cgroups).collect(),
            ..Snapshot::default()
        };
        writer.append(&snapshot).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

/// Catches a family that Prometheus does not get, or gets of another container or in another unit; and one that is there
/// where nothing is known, which would be a wrong zero.
fn several_containers_with_all_that_can_be_known() {
    let daemon = replay(&recording());
    for (program, histograms) in SERVERS {
        let server = Server::start(program, daemon.address(), histograms);
        let version = server.version_once();
        let usage = format!("loadline_container_cpu_usage_seconds_total{{{POD},container=\"nginx\"}}");
        // The last of the recording.
        server.value_once(&usage, |seconds| seconds == 1.5);
        let of = |name: &str, container: &str, more: &str| {
            server.value(&format!("loadline_container_{name}{{{POD},container=\"{container}\"{more}}}"))
        };
        let mib = |mib: u64| Some((mib * MIB) as f64);
        for (name, more, nginx, log) in [
            ("cpu_limit_cores", "", Some(0.5), None),
            ("cpu_weight", "", Some(20.0), None),
            ("cpu_periods_total", "", Some(30.0), Some(0.0)),
            ("cpu_throttled_periods_total", "", Some(27.0), Some(0.0)),
            ("cpu_throttled_seconds_total", "", Some(1.5), Some(0.0)),
            ("cpu_ancestor_throttled_periods_total", "", Some(3.0), Some(0.0)),
            ("memory_limit_bytes", "", mib(256), None),
            ("memory_high_bytes", "", mib(200), None),
            ("memory_usage_bytes", "", mib(103), mib(10)),
            ("memory_working_set_bytes", "", mib(83), mib(5)),
            ("memory_peak_bytes", "", mib(150), None),
            ("memory_events_total", ",event=\"high\"", Some(9.0), None),
            ("memory_events_total", ",event=\"oom_kill\"", Some(3.0), None),
            ("pressure_cpu_waiting_seconds_total", "", Some(1.5), None),
            ("pressure_cpu_stalled_seconds_total", "", Some(1.2), None),
            ("pressure_memory_waiting_seconds_total", "", Some(0.06), None),
            ("pressure_memory_stalled_seconds_total", "", Some(0.03), None),
            ("runq_wait_seconds_total", ",cause=\"quota\"", Some(1.5), Some(0.0)),
            ("runq_slow_delays_total", ",cause=\"quota\"", Some(0.0), Some(0.0)),
            ("cpu_bottleneck", ",bottleneck=\"quota\"", Some(1.0), None),
            ("cpu_bottleneck", ",bottleneck=\"none\"", None, Some(1.0)),
        ] {
            let said = [of(name, "nginx", more), of(name, "log", more)];
            assert_eq!(said, [nginx, log], "{version}: {name}{more}");
        }
        let throttles = match histograms {
            Histograms::Classic => of("cpu_throttle_seconds_count", "nginx", ""),
            Histograms::Native => server.value(&format!(
                "histogram_count(loadline_container_cpu_throttle_seconds{{{POD},container=\"nginx\"}})"
            )),
        };
        // As a native one it has classic buckets alone.
        let throttles = throttles.or_else(|| of("cpu_throttle_seconds_count", "nginx", ""));
        assert_eq!(throttles, Some(30.0), "{version}");

        // What it would use is what an operator compares with the limit: a question over two families.
        let demand = |part: &str, container: &str| of(&format!("cpu_demand_{part}"), container, "").unwrap();
        for container in ["nginx", "log"] {
            let [lower, point, upper] =
                ["lower_cores", "cores", "upper_cores"].map(|part| demand(part, container));
            assert!(lower <= point && point <= upper, "{version}: {container} {lower} {point} {upper}");
        }
        assert!(
            (demand("cores", "log") - 0.25).abs() < 0.01,
            "nothing holds it back: {}",
            demand("cores", "log")
        );
        let short = server.query(
            "loadline_container_cpu_demand_cores > on(namespace,pod,container) loadline_container_cpu_limit_cores",
        );
        assert_eq!(short.len(), 1, "{version}: {short:?}");
        assert_eq!(short[0].0["container"], "nginx");
        let filled = server.query(
            "loadline_container_memory_working_set_bytes / on(namespace,pod,container) group_left(qos) \
             (loadline_container_memory_limit_bytes * on(namespace,pod,container) group_left(qos) \
             loadline_container_info)",
        );
        assert_eq!(filled.len(), 1, "{version}: {filled:?}");
        assert_eq!((filled[0].1, &filled[0].0["qos"]), (83.0 / 256.0, &"Burstable".into()));
        let pod = format!("sum(loadline_container_memory_usage_bytes{{{POD}}})");
        assert_eq!(server.value(&pod), mib(113), "{version}");

        let mut families = 0;
        for family in FAMILIES.iter().filter(|family| family.of.is_of_containers()) {
            let name = match (&family.of, histograms) {
                (Of::Histogram(_), Histograms::Classic) => format!("{}_count", family.name),
                // One that is native has one series, which is no number.
                (Of::Histogram(_), Histograms::Native) => {
                    format!("count({{__name__=~\"{}(_count)?\"}})", family.name)
                }
                _ => family.name.to_owned(),
            };
            assert!(!server.query(&name).is_empty(), "{version}: no {name}");
            families += 1;
        }
        println!("     {version}: {families} families of containers");
    }
}

/// The recording of the demo, to its end. Catches a cause that is another's, and containers that share a series.
fn the_demo_is_told_by_its_causes() {
    let daemon = replay(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.recording"));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !daemon.said().unwrap().contains("the recording is over") {
        assert!(std::time::Instant::now() < until, "it goes on and on: {}", daemon.said().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    // Of their whole lives: one that hardly waits has waited most while it was being started.
    let expected = [
        ("beside-host", "system"),
        ("crowded", "self"),
        ("neighbor-1", "neighbor"),
        ("neighbor-2", "neighbor"),
        ("throttled", "quota"),
    ];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(pod, cause)| (pod.to_owned(), cause.to_owned())).collect();
    for (program, histograms) in SERVERS {
        let server = Server::start(program, daemon.address(), histograms);
        let version = server.version_once();
        let wait = "loadline_container_runq_wait_seconds_total{namespace=\"loadline-demo\",pod!~\"short-lived|quiet\"}";
        server.value_once(&format!("count({wait})"), |count| count == 5.0 * 6.0);
        let largest = server.query(&format!("topk by (pod) (1, {wait})"));
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let told: BTreeMap<_, _> =
            largest.iter().map(|(labels, _)| (text(&labels["pod"]), text(&labels["cause"]))).collect();
        assert_eq!(told, expected, "{version}");
    }
}
