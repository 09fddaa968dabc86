//! The demo's workloads, as the sampler recorded them on a real kernel, and what a person would do about each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use sampler_common::recording::Reader;
use sampler_common::window::{Window, Windows};

use controller::decide::history::History;
use controller::decide::observation::Qos;
use controller::decide::policy::{ControlledValues, Policy};
use controller::decide::target::cpu::{CALM, Reason};
use controller::decide::target::{Changes, CpuInputs, CpuTarget, Signal, cpu};
use controller::decide::units::{MilliCpu, Timestamp};
use sampler_common::demand::Bottleneck;

/// A window as long as a workload of a moment lives says nothing.
const SHORT_NS: u64 = 700_000_000;

/// The busiest window of each workload, by name; and the node's CPUs.
fn workloads() -> (BTreeMap<String, Window>, u32) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/demo.recording");
    let reader = Reader::open(BufReader::new(File::open(path).expect("the fixture is there")))
        .expect("it is a recording");
    let cpus = reader.header().cpus;
    let snapshots: Vec<_> = reader.map(|snapshot| snapshot.expect("it is whole")).collect();
    let mut workloads: BTreeMap<String, Window> = BTreeMap::new();
    for pair in snapshots.windows(2) {
        for (id, window) in Windows::between(&pair[0], &pair[1]).expect("snapshots are in order").cgroups {
            let busiest =
                workloads.entry(pair[1].cgroups[&id].identity.display_name().to_owned()).or_default();
            if window.length_ns > SHORT_NS && window.runnable() > busiest.runnable() {
                *busiest = window;
            }
        }
    }
    (workloads, cpus)
}

/// What becomes of a workload that has had 0.3 of a core for two days of the same.
fn sized(window: &Window, cpus: u32, controlled_values: ControlledValues) -> CpuTarget {
    let policy = Policy { controlled_values, ..Policy::default() };
    let mut signal = Signal::of(window, cpus, &policy.objectives).expect("the window has a length");
    signal.calm = CALM;
    let mut history = History::new(Timestamp(0), policy.history.window);
    for minute in 1..=2 * 1440 {
        history.observe(Timestamp(60 * minute), signal.remembered());
    }
    let request = MilliCpu(300);
    cpu(&CpuInputs {
        history: &history,
        request,
        limit: window.limits.cpu.map(|limit| MilliCpu::ceil_cores(limit.cores()).max(request)),
        qos: Qos::Burstable,
        started_with: request,
        started_limit: None,
        signal: Some(&signal),
        changes: Changes::default(),
        policy: &policy,
        age_seconds: 2 * 86_400,
        now: history.latest().expect("it has samples"),
    })
}

#[test]
fn each_workload_of_the_demo_gets_what_a_person_would_give_it() {
    let (workloads, cpus) = workloads();
    let of = |name: &str| sized(&workloads[name], cpus, ControlledValues::RequestsAndLimits);
    // It would use a core: with one window it may use that and the margin, and gets as much as it went on wanting.
    let throttled = of("throttled");
    assert_eq!(throttled.reason, Reason::LimitRaised);
    assert!((1_000..1_250).contains(&throttled.request.0), "{throttled:?}");
    let limit = throttled.limit.expect("it is raised");
    assert!(limit >= throttled.request && limit.0 < 1_250, "{throttled:?}");
    let named = sized(&workloads["throttled"], cpus, ControlledValues::RequestsOnly);
    assert_eq!((named.limit, named.reason), (None, Reason::LimitBinds));
    // One wants all of the CPU that they share, the other half of it.
    for (name, wants, reason) in [
        ("neighbor-1", 1_000, Reason::Waits(Bottleneck::Neighbors)),
        ("neighbor-2", 500, Reason::Waits(Bottleneck::Neighbors)),
        ("beside-host", 1_000, Reason::Waits(Bottleneck::System)),
    ] {
        let target = of(name);
        assert_eq!(target.reason, reason, "{name}");
        assert!((wants..wants * 5 / 4).contains(&target.request.0), "{name}: {target:?}");
    }
    // Four busy threads on one CPU get that one, and hear why more would not help.
    let crowded = of("crowded");
    assert_eq!(crowded.reason, Reason::OverThreaded);
    assert!((880..1_000).contains(&crowded.request.0), "{crowded:?}");
    assert!(crowded.reason.to_string().contains("fewer threads would"));
    let quiet = of("quiet");
    assert_eq!(quiet.reason, Reason::UsesLess);
    assert!(quiet.request.0 < 100, "{quiet:?}");
}
