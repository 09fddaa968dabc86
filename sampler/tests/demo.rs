//! The recording of the demo, made on Linux 6.12 (`cargo xtask demo --vm --record tests/fixtures/demo.recording`): what
//! each workload was made to wait for is what is told of it, by the windows, by the demand model and in words.
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

use std::collections::BTreeMap;
use std::fs::File;

use sampler::view::verdict::{Surroundings, verdict};
use sampler_common::demand::{Bottleneck, Demand, estimate};
use sampler_common::recording::Reader;
use sampler_common::snapshot::{Cause, Snapshot};
use sampler_common::window::{Window, Windows};

const CPUS: u32 = 2;

fn snapshots() -> Vec<Snapshot> {
    let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/demo.recording")).unwrap();
    let mut reader = Reader::open(file).unwrap();
    assert_eq!(reader.header().cpus, CPUS);
    assert!(reader.header().kernel.starts_with("6.12"));
    reader.by_ref().map(Result::unwrap).collect()
}

/// Each workload's windows while it ran, as one: without the first and the last, in which it was told to begin and to stop.
fn workloads() -> BTreeMap<String, Window> {
    let snapshots = snapshots();
    let mut all = BTreeMap::<String, Vec<Window>>::new();
    for pair in snapshots.windows(2) {
        let windows = Windows::between(&pair[0], &pair[1]).unwrap();
        assert!(windows.throttle_hooks && windows.missed.is_empty());
        for (id, window) in windows.cgroups.iter().filter(|(_, window)| window.usage_ns > 0) {
            let Some(container) = pair[1].cgroups[id].identity.container() else { continue };
            let Some(names) = &container.names else { continue };
            all.entry(names.pod.clone()).or_default().push(window.clone());
        }
    }
    let whole = |(name, windows): (String, Vec<Window>)| {
        let (_, windows) = windows.split_first()?;
        let (_, windows) = windows.split_last()?;
        let (first, more) = windows.split_first()?;
        Some((name, more.iter().fold(first.clone(), Window::then)))
    };
    all.into_iter().filter_map(whole).collect()
}

fn largest(window: &Window) -> Cause {
    let wait = |cause: &Cause| window.causes.of(*cause);
    Cause::ALL.into_iter().max_by_key(wait).unwrap()
}

/// The first words of what is told of it, and what would help.
fn words(name: &str, window: &Window) -> (String, String) {
    let told = verdict(name, window, &Surroundings { name: &|_| None, system: None });
    (told.why, told.help)
}

#[test]
fn each_workload_waited_for_what_it_was_made_to_wait_for() {
    let workloads = workloads();
    for (name, cause, why, help) in [
        ("throttled", Cause::Quota, "Its CPU limit held it back", "Raise its CPU limit"),
        ("crowded", Cause::Own, "its own other threads held the CPU", "More CPUs or fewer threads"),
        ("neighbor-1", Cause::Neighbor, "another container held the CPU", "Raise its CPU request"),
        ("neighbor-2", Cause::Neighbor, "another container held the CPU", "Raise its CPU request"),
        ("beside-host", Cause::System, "processes outside any container", "Reserve CPU for the system"),
        ("quiet", Cause::Idle, "nobody held the CPU", "Nothing to do"),
    ] {
        let window = &workloads[name];
        assert_eq!(largest(window), cause, "{name}: {:?}", window.causes);
        let told = words(name, window);
        let one_line = told.0.replace('\n', " ");
        assert!(one_line.contains(why), "{name}: {told:?}");
        assert!(told.1.starts_with(help), "{name}: {told:?}");
    }
}

#[test]
fn demand_says_what_each_would_use_and_what_is_in_the_way() {
    let workloads = workloads();
    let of = |name: &str| estimate(&workloads[name], CPUS);
    let within = |demand: Demand, cores: f64| (demand.point - cores).abs() <= 0.15 * cores;
    // One thread that never sleeps, under a limit of a fifth of a core: it wants all of one.
    let throttled = of("throttled");
    assert_eq!(throttled.bottleneck, Bottleneck::Quota);
    assert!(within(throttled, 1.0) && throttled.lower < 0.25, "{throttled:?}");
    // Such a thread and one that works half of the time, on one CPU; and one beside a process of the host.
    for (name, bottleneck, cores) in [
        ("neighbor-1", Bottleneck::Neighbors, 1.0),
        ("neighbor-2", Bottleneck::Neighbors, 0.5),
        ("beside-host", Bottleneck::System, 1.0),
    ] {
        let demand = of(name);
        assert_eq!(demand.bottleneck, bottleneck, "{name}: {demand:?}");
        assert!(within(demand, cores), "{name}: {demand:?}");
    }
    // Its threads are more than the one CPU that they are pinned to: no more of the node would help.
    assert_eq!(of("crowded").bottleneck, Bottleneck::Own);
    let quiet = of("quiet");
    assert_eq!(quiet.bottleneck, Bottleneck::None);
    assert!(quiet.point < 0.2 && quiet.confidence > 0.9, "{quiet:?}");
}

#[test]
fn short_lived_containers_are_each_in_a_snapshot_with_their_last_counts() {
    let snapshots = snapshots();
    let mut lives = BTreeMap::<_, u64>::new();
    for cgroup in snapshots.iter().flat_map(|snapshot| snapshot.cgroups.values()) {
        let Some(container) = cgroup.identity.container() else { continue };
        if container.names.as_ref().is_some_and(|names| names.pod == "short-lived") {
            let delays = lives.entry(container.id.clone()).or_default();
            *delays = cgroup.counters.latency.count();
        }
    }
    assert!(lives.len() >= 2, "{lives:?}");
    assert!(lives.values().all(|delays| *delays > 0), "{lives:?}");
}
