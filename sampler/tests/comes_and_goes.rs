//! Memory of the daemon while containers come and go by the thousand: what one leaves behind, however little, would fill a
//! node in the months for which the daemon runs. Counts the bytes that are in use, of all that is kept between two windows:
//! what is known of cgroups, series, and what is scraped. The cgroups are made up; so are the windows, of 15 s each.
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

use std::alloc::{GlobalAlloc, Layout as Size, System};
use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use sampler::cgroup::Format as Version;
use sampler::cgroup::layout::{self, Controller, Layout};
use sampler::cgroup::path::classify;
use sampler::pods::{State, Status};
use sampler::publish::{Format, Publisher};
use sampler::read::cgroups::Cgroups;
use sampler::read::events::Event;
use sampler::source::Health;
use sampler_common::identity::{Identity, Names, Owner};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Presence, Snapshot};

/// Counts what this thread has in use.
struct Counting;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: the system's, with a number beside it that needs no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, size: Size) -> *mut u8 {
        IN_USE.set(IN_USE.get() + size.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, size: Size) {
        IN_USE.set(IN_USE.get() - size.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WINDOW_NS: u64 = 15_000_000_000;
/// Containers that come in each window, and stay for [`STAY`] of them.
const COME: u64 = 25;
const STAY: u64 = 3;
/// In which they come once more.
const WINDOWS: u64 = 120;
/// Of those that are gone series stay for 20 windows at most, and what is known of cgroups for one.
const UNTIL_ALL_IS_OVER: u64 = 25;

/// A daemon without its kernel.
struct Daemon {
    publisher: Publisher,
    cgroups: Cgroups,
    window: u64,
    _root: tempfile::TempDir,
}

impl Daemon {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.procs"), "").unwrap();
        let cpu = Controller { root: root.path().to_owned(), format: Version::V2 };
        let (cpuacct, memory) = (cpu.root.clone(), Some(cpu.clone()));
        let layout = Layout { version: layout::Version::V2, hierarchy_id: 0, cpu, cpuacct, memory };
        let publisher = Publisher::new(2, 1_000, Duration::from_nanos(WINDOW_NS));
        Self { publisher, cgroups: Cgroups::find(layout).unwrap(), window: 0, _root: root }
    }

    /// So many windows, in each of which containers come or do not; the most that was in use between two.
    fn windows(&mut self, windows: u64, come: bool) -> isize {
        let one = |_| {
            self.window += 1;
            self.one_window(come);
            IN_USE.get()
        };
        (0..windows).map(one).max().unwrap()
    }

    fn one_window(&mut self, come: bool) {
        let at_ns = self.window * WINDOW_NS;
        let made = |window: u64| window * COME..(window + 1) * COME;
        let (first, last) = (made(self.window.saturating_sub(STAY)), made(self.window));
        for number in last.clone().filter(|_| come) {
            self.cgroups.apply(Event::Made(CgroupId(number), Some(path(number))), at_ns);
        }
        for id in first.clone().map(CgroupId) {
            self.cgroups.apply(Event::OomKill(id), at_ns);
            self.cgroups.apply(Event::Removed(id), at_ns);
        }
        self.cgroups.catch_up(0, std::iter::empty(), at_ns);
        let known: Vec<_> =
            (first.start..last.end).map(CgroupId).filter(|id| self.cgroups.is_known(*id)).collect();
        self.cgroups.read_use(known.iter().copied());
        self.cgroups.read_resources(known.iter().copied(), at_ns);
        self.cgroups.take_oom_kills(|_| true);
        let counted = |id: CgroupId| {
            let age = self.window - id.0 / COME;
            let presence = if self.cgroups.is_removed(id) { Presence::Removed } else { Presence::Live };
            // Its name comes later than itself.
            let (identity, since_ns) = (identity(id.0, age > 0), at_ns - age * WINDOW_NS);
            let mut cgroup = CgroupCounters { presence, since_ns, identity, ..CgroupCounters::default() };
            (0..=age).for_each(|_| cgroup.counters.latency.record(5_000_000));
            cgroup.counters.neighbors.insert(CgroupId(id.0 + 1), age);
            (id, cgroup)
        };
        let cgroups = known.iter().map(|id| counted(*id)).collect();
        let names = Status { state: State::Watching, ..Status::default() };
        let health = Health { pods: Some(names), ..Health::default() };
        self.publisher.observe(Snapshot { at_ns, cgroups, ..Snapshot::default() }, health).unwrap();
        if self.window.is_multiple_of(8) {
            let is_modern = self.window.is_multiple_of(16);
            let format = if is_modern { Format::Protobuf } else { Format::OpenMetrics };
            self.publisher.scrape(format).unwrap();
        }
        // What was removed has been in its last snapshot.
        self.cgroups.forget(at_ns, |_| false);
    }
}

fn path(number: u64) -> PathBuf {
    let pod = format!("3c1a5f0e_8d2b_4c7a_9e6f_{number:012x}");
    format!("kubepods.slice/kubepods-pod{pod}.slice/cri-containerd-{number:064x}.scope").into()
}

fn identity(number: u64, named: bool) -> Identity {
    let mut identity = classify(&path(number)).identity(&path(number));
    let Owner::Container(container) = &mut identity.owner else { panic!("{identity:?}") };
    let names = || Names {
        namespace: "shop".into(),
        pod: format!("web-{number:08}"),
        container: Some("nginx".into()),
    };
    container.names = named.then(names);
    identity
}

#[test]
fn what_is_in_use_is_what_it_was_when_thousands_have_come_and_gone() {
    let mut daemon = Daemon::new();
    let first_most = daemon.windows(40, true);
    daemon.windows(UNTIL_ALL_IS_OVER, false);
    let before = IN_USE.get();
    let most = daemon.windows(WINDOWS, true);
    daemon.windows(UNTIL_ALL_IS_OVER, false);
    let after = IN_USE.get();
    let more = WINDOWS * COME;
    println!("in use: {before} bytes, at most {first_most}; {more} more: at most {most}, then {after}");
    // Tables keep the room that they once needed; this much for each that has gone would be a leak.
    const ROOM: isize = (WINDOWS * COME * 4) as isize;
    assert!(after - before < ROOM, "{before} became {after}");
    assert!(most - first_most < ROOM, "{first_most} became {most}");
    assert!(first_most > before + (1 << 20), "what is in use is not counted");
}
