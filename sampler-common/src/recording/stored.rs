//! Stored bytes hold the format still: a recording that an earlier version wrote is read today as it was.

use std::path::Path;

use super::*;
use crate::identity::{Container, Identity, Names, Owner, Pod, QosClass, Runtime};
use crate::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use crate::snapshot::{
    Causes, CgroupCounters, CgroupId, Counters, Cycles, Durations, Losses, Presence, Snapshot, Throttling,
    Unmet,
};

const SECOND: u64 = 1_000_000_000;

/// What is stored in `recording-v1`. Every field has a value of its own, so that no two can be mixed up.
fn stored() -> (Header, Vec<Snapshot>) {
    let header = Header {
        started_unix_ns: 1_790_000_000_123_456_789,
        started_ns: 100 * SECOND,
        interval_ns: 15 * SECOND,
        kernel: "6.12.30+deb13-cloud-amd64".to_owned(),
        cpus: 2,
        node: Some("node-1".to_owned()),
        sampler: "0.1.0".to_owned(),
    };
    let first = Snapshot {
        epoch: 0xF00D_F00D_F00D_F00D,
        since_ns: 99 * SECOND,
        at_ns: 101 * SECOND,
        throttle_hooks: true,
        cgroups: [(CgroupId(77), web()), (CgroupId(1 << 40), unit())].into(),
        other: counted(500),
        losses: Losses::from_parts(std::array::from_fn(|at| 900 + at as u64)),
        switches: 123_456,
    };
    let mut second = first.clone();
    second.at_ns += 15 * SECOND;
    second.switches += 1_000;
    let web = second.cgroups.get_mut(&CgroupId(77)).unwrap();
    web.presence = Presence::Removed;
    web.counters.merge(&counted(3));
    web.counters.neighbors.remove(&CgroupId(1 << 40));
    web.counters.throttling.durations = Durations::HooksUnavailable;
    web.counters.pressure = None;
    web.limits.cpu = None;
    web.memory = None;
    let owner = Owner::Outside;
    let outside = CgroupCounters {
        since_ns: 110 * SECOND,
        identity: Identity { path: "user.slice".to_owned(), owner },
        ..CgroupCounters::default()
    };
    second.cgroups.insert(CgroupId(78), outside);
    second.cgroups.remove(&CgroupId(1 << 40));
    // A restart: everything is less than it was.
    let third = Snapshot { epoch: 5, since_ns: 2, at_ns: 3, ..Snapshot::default() };
    (header, vec![first, second, third])
}

/// Counters of which each is its place and `from`.
fn counted(from: u64) -> Counters {
    let mut counters = Counters {
        causes: Causes::from_parts(std::array::from_fn(|at| from + at as u64)),
        unmet: Some(Unmet { paced_ns: from + 80, busy_ns: from + 81 }),
        cycles: Some(Cycles::from_parts(std::array::from_fn(|at| from + 90 + at as u64))),
        neighbors: [(CgroupId(9), from + 10), (CgroupId(1 << 40), from + 11)].into(),
        usage_ns: from + 12,
        throttling: Throttling::from_parts(
            std::array::from_fn(|at| from + 13 + at as u64),
            Durations::Counted(std::array::from_fn(|at| from + 20 + at as u64)),
        ),
        memory_events: Some(MemoryEvents::from_parts(std::array::from_fn(|at| from + 40 + at as u64))),
        pressure: Some(Pressure::from_parts(std::array::from_fn(|at| from + 50 + at as u64))),
        ..Counters::default()
    };
    let delays = (0..60).map(|step| 700 << (step / 2));
    delays.for_each(|delay_ns| counters.latency.record(delay_ns));
    for (at, of_cause) in counters.coarse.iter_mut().enumerate() {
        of_cause.counts[at * 4] = from + 60 + at as u64;
        of_cause.counts[22] = from + 70 + at as u64;
    }
    counters
}

fn web() -> CgroupCounters {
    let container = Container {
        id: "0f3c5b8e9a7d6c4b".repeat(4).try_into().unwrap(),
        runtime: Some(Runtime::CriO),
        pod: Some(Pod {
            uid: "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60".to_owned().try_into().unwrap(),
            qos: Some(QosClass::Burstable),
        }),
        names: Some(Names {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            container: Some("nginx".to_owned()),
        }),
    };
    CgroupCounters {
        presence: Presence::Live,
        since_ns: 100 * SECOND,
        counters: counted(1_000_000),
        identity: Identity {
            path: "kubepods.slice/crio-0f3c.scope".to_owned(),
            owner: Owner::Container(Box::new(container)),
        },
        limits: Limits {
            cpu: Some(CpuLimit { quota_us: 50_000, period_us: 100_000, of: LimitOf::Ancestor }),
            cpu_weight: Some(79),
            memory_max_bytes: Some(512 << 20),
            memory_high_bytes: Some(400 << 20),
        },
        memory: Some(Memory {
            current_bytes: 300 << 20,
            working_set_bytes: 200 << 20,
            peak_bytes: Some(310 << 20),
            read_ns: 100 * SECOND + 7,
        }),
    }
}

fn unit() -> CgroupCounters {
    CgroupCounters {
        identity: Identity {
            path: "system.slice/cron.service".to_owned(),
            owner: Owner::Unit { name: "cron.service".to_owned() },
        },
        counters: Counters {
            throttling: Throttling { durations: Durations::HooksUnavailable, ..Throttling::default() },
            ..Counters::default()
        },
        memory: Some(Memory { current_bytes: 1, working_set_bytes: 2, peak_bytes: None, read_ns: 3 }),
        ..CgroupCounters::default()
    }
}

/// Without what an earlier version could not say.
fn without(mut snapshots: Vec<Snapshot>, forget: impl Fn(&mut Counters)) -> Vec<Snapshot> {
    for snapshot in &mut snapshots {
        forget(&mut snapshot.other);
        snapshot.cgroups.values_mut().for_each(|cgroup| forget(&mut cgroup.counters));
    }
    snapshots
}

/// What is in the file that a version has written. To store what a new [`VERSION`] writes, add its test: it writes the
/// file, and fails once.
fn read(version: u32) -> (Header, Vec<Snapshot>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/recording-v{version}"));
    if !path.exists() {
        assert_eq!(VERSION, version, "only this version is written");
        let (header, snapshots) = stored();
        let mut writer = Writer::create(std::fs::File::create(&path).unwrap(), header).unwrap();
        for snapshot in &snapshots {
            writer.append(snapshot).unwrap();
        }
        panic!("{} was missing and has been written: commit it", path.display());
    }
    let reader = Reader::open(std::fs::File::open(path).unwrap()).unwrap();
    (reader.header().clone(), reader.map(Result::unwrap).collect())
}

#[test]
fn a_recording_of_version_1_is_read_as_it_was_written() {
    let (header, snapshots) = stored();
    let snapshots = without(snapshots, |counters| {
        counters.unmet = None;
        counters.cycles = None;
    });
    assert_eq!(read(1), (header, snapshots));
}

#[test]
fn a_recording_of_version_2_is_read_as_it_was_written() {
    let (header, snapshots) = stored();
    assert_eq!(read(2), (header, without(snapshots, |counters| counters.cycles = None)));
}

#[test]
fn a_recording_of_version_3_is_read_as_it_was_written() {
    assert_eq!(read(3), stored());
}
