//! The reader above the programs: snapshots and windows, in which nothing is lost and from which nothing leaks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loadline_tests::cgroup::Cgroup;
use loadline_tests::load::{Load, Process, Schedstat, Work, until};
use sampler::read::{Reader, Start};
use sampler_common::snapshot::{Cause, CgroupId, Presence, Snapshot};
use sampler_common::window::Windows;

use crate::runq::sum_of_ended;

crate::tests![
    of_a_cgroup,
    cgroup_that_vanished,
    cgroups_within_a_container,
    cgroups_10_000 within 900 s,
];

const LIMIT: Duration = Duration::from_secs(30);

fn counted(snapshot: &Snapshot, id: CgroupId) -> (u64, u64) {
    let counters = &snapshot.cgroups[&id].counters;
    (counters.latency.count(), counters.causes.total())
}

/// Between two snapshots with all threads stopped a window is the difference of two schedstats, and of two
/// `cpu.stat`s. Catches a row that is read twice or torn, and files that are read wrong.
fn of_a_cgroup() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = Cgroup::new("window").unwrap();
    let period = Duration::from_millis(100);
    cgroup.limit_cpu(period / 2, period).unwrap();
    let works = [Work::Spin.anywhere(), Work::Spin.anywhere(), Work::Sleep.anywhere()];
    let load = Load::start(Some(&cgroup), &works).unwrap();
    let mut windows = 0;
    let mut last: Option<(Snapshot, Schedstat)> = None;
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        load.process().stop().unwrap();
        let kernel = Schedstat::of_threads(load.pid()).unwrap();
        let snapshot = reader.snapshot();
        load.process().go_on().unwrap();
        if let Some((earlier, kernel_earlier)) = &last {
            let window = &Windows::between(earlier, &snapshot).unwrap().cgroups[&cgroup.id()];
            let grown = kernel - *kernel_earlier;
            assert_eq!((window.latency.count(), window.causes.total()), (grown.switch_ins, grown.wait_ns));
            windows += 1;
        }
        last = Some((snapshot, kernel));
    }
    assert_eq!(windows, 3);
    load.park().unwrap();
    let stat = cgroup.settled(period, LIMIT).unwrap();
    let snapshot = reader.snapshot();
    let counters = &snapshot.cgroups[&cgroup.id()].counters;
    assert_eq!(Duration::from_nanos(counters.throttling.throttled_ns), stat.throttled);
    assert_eq!(counters.throttling.throttled_periods, stat.throttled_periods);
    assert!(stat.throttled_periods > 0 && counters.causes.of(Cause::Quota) > 0);
    assert!(counters.usage_ns <= stat.usage.as_nanos() as u64 && counters.usage_ns > 500_000_000);
    assert!(reader.path(cgroup.id()).is_some_and(|path| cgroup.path().ends_with(path)), "it has its name");
}

/// Cgroups with the cpu controller within a container, as Docker in Docker makes them: one is there before the sampler,
/// one comes later. Catches what runs in them being counted elsewhere or twice, and their being each other's
/// neighbours; and slots that stay taken.
fn cgroups_within_a_container() {
    let pod = Cgroup::new("pod").unwrap();
    let container = pod.child(&format!("docker-{}.scope", "0123456789abcdef".repeat(4))).unwrap();
    let spin = || Work::Spin.on(0);
    let before = container.child("before").unwrap();
    let first = Load::start(Some(&before), &[spin()]).unwrap();
    let mut reader = Reader::start(Start::default()).unwrap();
    let slots = |reader: &Reader| {
        let records = &reader.programs().slots;
        (0..records.len()).filter(|slot| records.read(*slot).serial != 0).count()
    };
    let later = container.child("later").unwrap();
    let second = Load::start(Some(&later), &[spin(), spin()]).unwrap();
    // Until it has been seen, the later one counts as a container of its own.
    until("the later one's first wait", LIMIT, || Ok(Schedstat::of_threads(second.pid())?.wait_ns > 0))
        .unwrap();
    reader.snapshot();
    let mut look = || {
        for load in [&first, &second] {
            load.process().stop().unwrap();
        }
        let kernel = [&first, &second].map(|load| Schedstat::of_threads(load.pid()).unwrap());
        let snapshot = reader.snapshot();
        for load in [&first, &second] {
            load.process().go_on().unwrap();
        }
        (snapshot, kernel[0], kernel[1])
    };
    let earlier = look();
    std::thread::sleep(Duration::from_secs(1));
    let (snapshot, one, two) = look();

    let windows = Windows::between(&earlier.0, &snapshot).unwrap();
    for inner in [&before, &later] {
        assert!(!snapshot.cgroups.contains_key(&inner.id()), "what is within is counted with the container");
    }
    let window = &windows.cgroups[&container.id()];
    let kernel = [one - earlier.1, two - earlier.2];
    let waited = (kernel[0].switch_ins + kernel[1].switch_ins, kernel[0].wait_ns + kernel[1].wait_ns);
    assert_eq!((window.latency.count(), window.causes.total()), waited);
    let own = window.share(Cause::Own).unwrap();
    println!("     {:.2} % of {:.3} s is self", own * 100.0, waited.1 as f64 / 1e9);
    // How much the rest of the machine had is not for this test to judge.
    assert!(window.causes.self_ns > 0 && window.causes.neighbor_ns == 0, "{:?}", window.causes);

    let taken = slots(&reader);
    until("the slot of the later one given back", LIMIT, || {
        reader.snapshot();
        Ok(slots(&reader) < taken)
    })
    .unwrap();
    drop((first, second, before, later));
    until("the container's end", LIMIT, || Ok(container.remove().is_ok())).unwrap();
    until("its row's end", LIMIT, || Ok(!reader.snapshot().cgroups.contains_key(&container.id()))).unwrap();
}

/// A cgroup that is gone before anybody has looked is in one snapshot at least, removed, with its name and all its
/// counts; and its last counts are not lost if more come after its removal. Then it goes, and after a while its name.
fn cgroup_that_vanished() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = Cgroup::new("brief").unwrap();
    let name = cgroup.path().file_name().unwrap().to_owned();
    let process = Process::spawn(Some(&cgroup), || 0).unwrap();
    let kernel = sum_of_ended(std::slice::from_ref(&process));
    until("removal", LIMIT, || Ok(cgroup.remove().is_ok())).unwrap();
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.cgroups[&cgroup.id()].presence, Presence::Removed);
    assert_eq!(counted(&snapshot, cgroup.id()), (kernel.switch_ins, kernel.wait_ns));
    assert_eq!(reader.path(cgroup.id()).and_then(|path| path.file_name()), Some(name.as_os_str()));
    until("the row's end", LIMIT, || Ok(!reader.snapshot().cgroups.contains_key(&cgroup.id()))).unwrap();
    // A thread that comes late is still counted under it.
    until("the name's end", LIMIT, || {
        reader.snapshot();
        Ok(reader.path(cgroup.id()).is_none())
    })
    .unwrap();
}

/// 10,000 cgroups, each of which runs something for a moment. Catches counts that are lost when a slot changes hands,
/// slots that do not come back, and memory that is kept for those that are gone.
fn cgroups_10_000() {
    const CGROUPS: usize = 10_000;
    const AT_ONCE: usize = 50;
    // A slot is given back after three seconds: with the usual number of them the test would mostly wait for that.
    let mut reader = Reader::start(Start { slots: Some(2048), ..Start::default() }).unwrap();
    let slots = reader.programs().slots.len();
    let taken = |reader: &Reader| {
        let records = &reader.programs().slots;
        (0..records.len()).filter(|slot| records.read(*slot).serial != 0).count()
    };
    let before = taken(&reader);
    // What was last seen of each of ours that is not finished, and what the finished ones came to.
    let mut seen: BTreeMap<CgroupId, (u64, u64)> = BTreeMap::new();
    let mut finished = (0, 0);
    let mut ours: BTreeMap<CgroupId, ()> = BTreeMap::new();
    let mut missed = 0;
    let mut look = |reader: &mut Reader, ours: &mut BTreeMap<CgroupId, ()>| {
        let snapshot = reader.snapshot();
        let now: BTreeMap<_, _> = snapshot
            .cgroups
            .keys()
            .filter(|id| ours.contains_key(id))
            .map(|id| (*id, counted(&snapshot, *id)))
            .collect();
        for (id, (count, ns)) in &seen {
            match now.get(id) {
                Some((later, later_ns)) => assert!(later >= count && later_ns >= ns, "{id} went back"),
                None => {
                    finished = (finished.0 + count, finished.1 + ns);
                    ours.remove(id);
                }
            }
        }
        seen = now;
        (snapshot.losses, seen.len(), finished)
    };
    let mut kernel = Schedstat::default();
    let mut memory = Vec::new();
    let begun = Instant::now();
    for batch in 0..CGROUPS / AT_ONCE {
        let cgroups: Vec<_> = (0..AT_ONCE).map(|_| Cgroup::new("short").unwrap()).collect();
        ours.extend(cgroups.iter().map(|cgroup| (cgroup.id(), ())));
        let processes: Vec<_> = cgroups
            .iter()
            .map(|cgroup| {
                Process::spawn(Some(cgroup), || {
                    std::thread::yield_now();
                    0
                })
                .unwrap()
            })
            .collect();
        kernel += sum_of_ended(&processes);
        drop(processes);
        cgroups.iter().for_each(|cgroup| until("removal", LIMIT, || Ok(cgroup.remove().is_ok())).unwrap());
        // The reader looks seldom, as in life, but often enough for the slots to suffice.
        if batch % 2 == 1 {
            let (_, in_use, _) = look(&mut reader, &mut ours);
            if in_use > slots / 2 {
                until("slots that come back", LIMIT, || Ok(look(&mut reader, &mut ours).1 < slots / 4))
                    .unwrap();
            }
        }
        if (batch + 1) % (CGROUPS / AT_ONCE / 4) == 0 {
            memory.push(resident_kib());
        }
    }
    let mut end = None;
    until("all slots back", LIMIT, || {
        let (losses, in_use, finished) = look(&mut reader, &mut ours);
        end = Some((losses, finished));
        Ok(in_use == 0 && taken(&reader) <= before + 2)
    })
    .unwrap();
    missed += ours.len();
    let (losses, finished) = end.unwrap();
    println!(
        "     {} delays of {:.3} s in {:.0} s; {} slots taken before, {} after; {memory:?} KiB resident after each quarter",
        finished.0,
        finished.1 as f64 / 1e9,
        begun.elapsed().as_secs_f64(),
        before,
        taken(&reader)
    );
    assert_eq!(losses.slots_exhausted, 0, "there were slots enough");
    assert_eq!(missed, 0, "each was in a snapshot");
    assert_eq!(
        finished,
        (kernel.switch_ins, kernel.wait_ns),
        "(switch-ins, ns) in snapshots and in schedstat"
    );
    // As it grows to the size of what is in use at once, and not by the cgroup, each of which has some 4 KiB of counters:
    // 5,000 of them are a half.
    assert!(memory[3] < memory[1] + 4_096, "{memory:?} KiB after each quarter");
}

/// Memory of this process.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
