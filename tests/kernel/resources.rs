//! Limits, memory and stalls in snapshots, against what was set, allocated and killed.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline_tests::cgroup::Cgroup;
use loadline_tests::load::{Load, Process, Work, until};
use sampler::read::{Reader, Start};
use sampler_common::resources::{CpuLimit, LimitOf};
use sampler_common::snapshot::Snapshot;
use sampler_common::window::Windows;

crate::tests![
    limits_of_a_cgroup_and_of_those_above_it,
    memory_that_was_allocated,
    a_process_killed_for_its_memory,
    killed_for_its_memory_and_removed_at_once,
    stalls_by_a_limit,
];

const LIMIT: Duration = Duration::from_secs(40);
const MIB: usize = 1 << 20;

/// Pages of an anonymous mapping that have been written to: that much is the cgroup's.
fn touch(bytes: usize) -> Vec<u8> {
    let mut pages = vec![0u8; bytes];
    for page in pages.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(pages)
}

/// A pod's limits hold for its container, which has wider ones or none. Catches a limit that is read off the container
/// alone, and one that goes unseen until the next time all are read.
fn limits_of_a_cgroup_and_of_those_above_it() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let pod = Cgroup::new("pod").unwrap();
    let period = Duration::from_millis(50);
    let container = pod.child("container").unwrap();
    pod.limit_cpu(period / 2, period).unwrap();
    pod.write("memory.max", "67108864").unwrap();
    container.limit_cpu(period * 2, period * 2).unwrap();
    container.write("memory.high", "33554432").unwrap();
    container.weigh_cpu(39).unwrap();
    let _load = Load::start(Some(&container), &[Work::Sleep.anywhere()]).unwrap();
    let limits = reader.snapshot().cgroups[&container.id()].limits;
    assert_eq!(limits.cpu, Some(CpuLimit { quota_us: 25_000, period_us: 50_000, of: LimitOf::Ancestor }));
    assert_eq!(limits.cpu_weight, Some(39));
    assert_eq!(limits.memory_max_bytes, Some(64 << 20));
    assert_eq!(limits.memory_high_bytes, Some(32 << 20));
}

/// Catches figures of another cgroup, in another unit, or without what is below it.
fn memory_that_was_allocated() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = Cgroup::new("memory").unwrap();
    let process = Process::spawn(Some(&cgroup), || {
        let pages = touch(24 * MIB);
        loop {
            std::thread::sleep(Duration::from_millis(10));
            std::hint::black_box(&pages);
        }
    })
    .unwrap();
    let current = || cgroup.read("memory.current").unwrap().trim().parse::<u64>().unwrap();
    until("the pages", LIMIT, || Ok(current() >= 24 * MIB as u64)).unwrap();
    process.stop().unwrap();
    let expected = current();
    let snapshot = reader.snapshot();
    let memory = snapshot.cgroups[&cgroup.id()].memory.expect("the controller is on");
    println!("     {memory:?}; memory.current said {expected}");
    assert!(memory.current_bytes.abs_diff(expected) <= MIB as u64, "{memory:?}, {expected}");
    // All of it is anonymous, so nothing of it is inactive file.
    assert!(memory.working_set_bytes <= memory.current_bytes);
    assert!(memory.working_set_bytes >= 24 * MIB as u64, "{memory:?}");
    // Linux 5.19 brought memory.peak.
    assert!(memory.peak_bytes.is_some_and(|peak| peak >= memory.working_set_bytes), "{memory:?}");
    assert_eq!(memory.read_ns, snapshot.at_ns);
}

/// Catches a kill that is not counted, or counted for all time and not since the reader came.
fn a_process_killed_for_its_memory() {
    let cgroup = Cgroup::new("killed").unwrap();
    cgroup.write("memory.max", "16777216").unwrap();
    // The guest has no swap; where there is one, this keeps the test's pages out of it.
    let _ = cgroup.write("memory.swap.max", "0");
    let kill = || {
        let process = Process::spawn(Some(&cgroup), || {
            std::hint::black_box(touch(64 * MIB));
            0
        });
        process.unwrap().ended().unwrap();
    };
    kill();
    let mut reader = Reader::start(Start::default()).unwrap();
    let _load = Load::start(Some(&cgroup), &[Work::Sleep.anywhere()]).unwrap();
    let earlier = reader.snapshot();
    assert_eq!(earlier.cgroups[&cgroup.id()].counters.memory_events.map(|events| events.oom_kill), Some(0));
    kill();
    let read_ns = |snapshot: &Snapshot| snapshot.cgroups[&cgroup.id()].memory.map(|memory| memory.read_ns);
    let kills = |later: &Snapshot| {
        let window = &Windows::between(&earlier, later).unwrap().cgroups[&cgroup.id()];
        window.memory_events.map(|events| events.oom_kill)
    };
    assert_eq!(kills(&reader.snapshot()), Some(1), "the kernel tells at once");
    let mut later = Snapshot::default();
    until("the next time that all is read", LIMIT, || {
        later = reader.snapshot();
        Ok(read_ns(&later) > read_ns(&earlier))
    })
    .unwrap();
    assert_eq!(kills(&later), Some(1), "one since the reader came, also by the file");
    assert!(cgroup.read("memory.events").unwrap().contains("oom_kill 2\n"), "and one before");
}

/// Containers as runtimes treat them whose first process was killed: gone before anybody could look, with all their files.
/// Catches a kill that is not counted, is counted by the event and by the file, or is another end of a process.
fn killed_for_its_memory_and_removed_at_once() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let earlier = reader.snapshot();
    let container = |pages: usize| {
        let cgroup = Cgroup::new("short").unwrap();
        cgroup.write("memory.max", "16777216").unwrap();
        let _ = cgroup.write("memory.swap.max", "0");
        let process = Process::spawn(Some(&cgroup), || {
            // With a thread beside it, which is killed too.
            std::thread::spawn(|| std::thread::sleep(LIMIT));
            std::hint::black_box(touch(pages * MIB));
            nix::unistd::pause();
            0
        });
        (cgroup, process.unwrap())
    };
    let removed = |cgroup: &Cgroup| until("removal", LIMIT, || Ok(cgroup.remove().is_ok())).unwrap();
    let (killed, process) = container(64);
    process.ended().unwrap();
    removed(&killed);
    let (ended, process) = container(1);
    until("its pages", LIMIT, || {
        Ok(ended.read("memory.current")?.trim().parse::<usize>().is_ok_and(|bytes| bytes >= MIB))
    })
    .unwrap();
    process.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    process.ended().unwrap();
    removed(&ended);
    let (stays, process) = container(64);
    process.ended().unwrap();

    // Slots go their way meanwhile, and the last of it is long over.
    let mut kills = BTreeMap::<_, u64>::new();
    let mut earlier = earlier;
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(600));
        reader.tend();
        let later = reader.snapshot();
        let windows = Windows::between(&earlier, &later).unwrap();
        let all = windows.cgroups.iter().map(|(id, window)| (Some(*id), window));
        for (id, window) in all.chain([(None, &windows.other)]) {
            *kills.entry(id).or_default() += window.memory_events.map_or(0, |events| events.oom_kill);
        }
        earlier = later;
    }
    kills.retain(|_, kills| *kills != 0);
    assert_eq!(kills, BTreeMap::from([(Some(killed.id()), 1), (Some(stays.id()), 1)]));
}

/// A thread that is throttled most of the time stalls, by the kernel's own account. Catches PSI in another unit.
fn stalls_by_a_limit() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = Cgroup::new("stalled").unwrap();
    let period = Duration::from_millis(100);
    cgroup.limit_cpu(period / 5, period).unwrap();
    let load = Load::start(Some(&cgroup), &[Work::Spin.on(0)]).unwrap();
    let earlier = reader.snapshot();
    let mut stalled = (0, 0);
    until("the next time that all is read", LIMIT, || {
        let later = reader.snapshot();
        let window = &Windows::between(&earlier, &later).unwrap().cgroups[&cgroup.id()];
        let Some(pressure) = window.pressure else {
            assert!(cgroup.read("cpu.pressure").is_err(), "the kernel has PSI and no window has");
            return Ok(true);
        };
        stalled = (pressure.cpu_some_ns, window.causes.total());
        Ok(stalled.0 > 0)
    })
    .unwrap();
    let (psi, ours) = (Duration::from_nanos(stalled.0), Duration::from_nanos(stalled.1));
    println!("     PSI says {psi:?}, its thread waited {ours:?}");
    // One thread: some stall is its wait. PSI is brought up to date some time before it is read.
    assert!(psi.abs_diff(ours) < ours / 10 + 5 * period, "{psi:?}, {ours:?}");
    drop(load);
}
