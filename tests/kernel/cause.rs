//! Why a thread waited, in cases with one known answer; and who it was.

use std::time::Duration;

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::load::{Load, Work, until};
use sampler::read::{Reader, Start};
use sampler_common::histogram::CoarseHistogram;
use sampler_common::snapshot::{Cause, CgroupId};
use sampler_common::window::{Window, Windows};

crate::tests![own, neighbors_are_named, system, idle];

const LIMIT: Duration = Duration::from_secs(30);
/// Of a wait that has one cause by construction; the rest is what else runs on a machine, and a busy host takes its
/// CPUs away from the guest. How exact the shares are is judged by `attribution`, against the kernel's own trace.
const NEARLY_ALL: f64 = 0.8;
/// The octaves of delays of more than 1/1024 s: a turn of who held the CPU is longer than that.
const LONG: usize = 10;

/// A cgroup named as a container's, the `number`th.
fn container(number: u32) -> Cgroup {
    Cgroup::at(cgroup::root().unwrap().join(format!("docker-{number:064x}.scope"))).unwrap()
}

/// Two snapshots around a second; the reader has met all that run before.
fn window(reader: &mut Reader, of: CgroupId) -> Window {
    until("rows", LIMIT, || Ok(reader.snapshot().cgroups.contains_key(&of))).unwrap();
    let earlier = reader.snapshot();
    std::thread::sleep(Duration::from_secs(1));
    Windows::between(&earlier, &reader.snapshot()).unwrap().cgroups.remove(&of).unwrap()
}

#[track_caller]
fn must_be(window: &Window, cause: Cause) {
    let share = window.causes.share(cause).unwrap_or(0.0);
    println!(
        "     {:.1} % of {:.3} s is {}",
        share * 100.0,
        window.causes.total() as f64 / 1e9,
        cause.label()
    );
    assert!(share >= NEARLY_ALL, "{:?}", window.causes);
    let long = CoarseHistogram::from(&window.latency).from_octave(LONG);
    let its = window.coarse[cause as usize].from_octave(LONG);
    println!("     {its} of {long} long delays are {}", cause.label());
    assert!(long >= 10, "it had to wait long: {long}");
    assert!(its as f64 >= NEARLY_ALL * long as f64, "{its} of {long} long delays are {}", cause.label());
}

/// Three threads of one container on one CPU. Catches one's own threads being taken for neighbours.
fn own() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = container(1);
    let load = Load::start(Some(&cgroup), &[Work::Spin.on(0); 3]).unwrap();
    let window = window(&mut reader, cgroup.id());
    must_be(&window, Cause::Own);
    let neighbors: u64 = window.neighbors.iter().map(|(_, ns)| ns).sum();
    assert!(neighbors <= window.causes.neighbor_ns);
    drop(load);
}

/// Two containers on one CPU, a third on the other. Each of the two names the other and not the third. Catches a
/// name that is not the holder's: the one that was switched out, the waker's, or of another CPU.
fn neighbors_are_named() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let [first, second, third] = [1, 2, 3].map(container);
    let loads = [(&first, 0), (&second, 0), (&third, 1)]
        .map(|(cgroup, cpu)| Load::start(Some(cgroup), &[Work::Spin.on(cpu)]).unwrap());
    until("rows of all three", LIMIT, || {
        let snapshot = reader.snapshot();
        Ok([&first, &second, &third].into_iter().all(|cgroup| snapshot.cgroups.contains_key(&cgroup.id())))
    })
    .unwrap();
    let earlier = reader.snapshot();
    std::thread::sleep(Duration::from_secs(2));
    let windows = Windows::between(&earlier, &reader.snapshot()).unwrap();
    for (waiter, holder) in [(&first, &second), (&second, &first)] {
        let window = &windows.cgroups[&waiter.id()];
        must_be(window, Cause::Neighbor);
        let named = window.neighbors.iter().find(|(id, _)| *id == holder.id()).map_or(0, |(_, ns)| *ns);
        assert!(named as f64 >= NEARLY_ALL * window.causes.neighbor_ns as f64, "{:?}", window.neighbors);
        assert!(named <= window.causes.neighbor_ns, "never more than it held");
        assert!(window.neighbors.iter().all(|(id, _)| *id != third.id()), "{:?}", window.neighbors);
        assert!(window.neighbors.iter().all(|(id, _)| *id != waiter.id()), "{:?}", window.neighbors);
    }
    drop(loads);
}

/// A container and a process outside any, on one CPU. Catches the node's own processes being called neighbours.
fn system() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = container(1);
    let outside = Cgroup::new("agent.service").unwrap();
    let loads = [&cgroup, &outside].map(|cgroup| Load::start(Some(cgroup), &[Work::Spin.on(0)]).unwrap());
    until("a row of the other", LIMIT, || Ok(reader.snapshot().cgroups.contains_key(&outside.id()))).unwrap();
    let window = window(&mut reader, cgroup.id());
    must_be(&window, Cause::System);
    drop(loads);
}

/// One thread that sleeps and wakes on a CPU that nobody else wants. Catches the time before a wakeup, or the idle
/// task's own, being counted, and wake-up latency that goes to whoever ran last.
fn idle() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = container(1);
    let duty = Work::Duty { run: Duration::from_micros(300), period: Duration::from_millis(4) };
    let load = Load::start(Some(&cgroup), &[duty.on(1)]).unwrap();
    let window = window(&mut reader, cgroup.id());
    let (idle, total) = (window.causes.idle_ns, window.causes.total());
    println!("     {} delays, {idle} ns of {total} ns idle", window.latency.count());
    assert!(window.latency.count() >= 100, "it woke up often");
    // Each wait is short: most of them of nobody's making. What else runs on CPU 1 (this test, kernel threads) can hold
    // it up now and then, and for longer.
    let most = window.coarse[Cause::Idle as usize].count();
    assert!(most * 10 >= window.latency.count() * 7, "{most} of {} delays are idle", window.latency.count());
    assert!(total < 300_000_000, "{total} ns of wait in a second of a CPU that nobody else wants");
    drop(load);
}
