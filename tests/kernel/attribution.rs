//! A labelled bench of causes, single and mixed, judged by an off-line replay of the kernel's own trace of the same
//! run (`loadline_tests::oracle`). In each case at least 95 % of the wait of all its containers must be under the
//! right cause; what we could not tell is spread in proportion, and shown. The histograms must hold the lengths of the
//! replayed waits, and no neighbour may be named for longer than it held a CPU.
//!
//! Wake-up latency on an idle CPU, a few µs, is below this oracle's resolution: its stamps are taken when an event
//! is written, under emulation tens of µs after the scheduler has looked at its clock. So no case is labelled with it:
//! `cause::idle` judges it.

use std::time::Duration;

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::load::{Load, Thread, Work};
use loadline_tests::oracle::assignment::Assignment;
use loadline_tests::oracle::lengths::left_over;
use loadline_tests::oracle::replay::{CauseNs, Replay, RowWaits, replay};
use loadline_tests::oracle::score::{Measured, score};
use loadline_tests::oracle::tracefs::{Recording, Tracing};
use sampler::read::{Reader, Start};
use sampler_common::buckets::upper_edge_seconds;
use sampler_common::snapshot::{Causes, CgroupId};
use sampler_common::window::{Window, Windows};

crate::tests![
    quota,
    quota_above,
    quota_of_many_threads,
    own_threads,
    one_neighbour,
    two_neighbours,
    system,
    quota_and_own_threads,
    quota_and_neighbour,
    own_threads_and_neighbour,
    system_and_neighbour,
    short_bursts,
    migrations,
    everything,
];

/// Right in each case.
const ENOUGH: f64 = 0.95;
/// A cause that a case is labelled with must have at least this share of its wait by the oracle: or it is another case.
/// Well above what may be wrong: were it missing altogether, the case would fail.
const LABELLED: f64 = 0.1;
/// At most so much of it may be spread.
const UNTOLD: f64 = 0.05;
/// A wait and a delay may be so far apart: the trace's stamps are taken later than the scheduler's, under emulation by
/// tens of µs. (`runq::each_delay_in_its_bucket` compares with the kernel's own lengths, to the ns.)
const CLOCKS_APART: Duration = Duration::from_micros(200);
const RUN: Duration = Duration::from_secs(2);
const PERIOD: Duration = Duration::from_millis(100);

/// What runs in a case.
#[derive(Default)]
struct Case {
    containers: Vec<Container>,
    /// Threads of a process outside any container.
    outside: Vec<Thread>,
    /// CPU time in each [`PERIOD`] of all containers together.
    pod_quota: Option<Duration>,
}

struct Container {
    threads: Vec<Thread>,
    /// CPU time in each [`PERIOD`].
    quota: Option<Duration>,
}

impl Case {
    fn container(self, threads: impl Into<Vec<Thread>>) -> Self {
        self.with(Container { threads: threads.into(), quota: None })
    }

    fn limited(self, quota_ms: u64, threads: impl Into<Vec<Thread>>) -> Self {
        self.with(Container { threads: threads.into(), quota: Some(Duration::from_millis(quota_ms)) })
    }

    fn with(mut self, container: Container) -> Self {
        self.containers.push(container);
        self
    }

    fn outside(mut self, threads: impl Into<Vec<Thread>>) -> Self {
        self.outside = threads.into();
        self
    }

    fn pod_limited(mut self, quota_ms: u64) -> Self {
        self.pod_quota = Some(Duration::from_millis(quota_ms));
        self
    }

    /// Runs it, traced and measured at once, and judges the one by the other. `labels` are the causes that it is made of.
    /// Returns what [`verdict`] does.
    fn judge(self, labels: &[fn(&CauseNs) -> u64]) -> f64 {
        let root = cgroup::root().unwrap();
        let pod = Cgroup::at(root.join("kubepods-pod0.slice")).unwrap();
        if let Some(quota) = self.pod_quota {
            pod.limit_cpu(quota, PERIOD).unwrap();
        }
        let service = Cgroup::at(root.join("outside.service")).unwrap();
        let cgroups: Vec<_> = (0..self.containers.len())
            .map(|n| pod.child(&format!("cri-containerd-{n:064x}.scope")).unwrap())
            .collect();
        for (cgroup, container) in cgroups.iter().zip(&self.containers) {
            if let Some(quota) = container.quota {
                cgroup.limit_cpu(quota, PERIOD).unwrap();
            }
        }
        // First the trace: listeners are called in the order in which they came, and our work is not to be in its times.
        let tracing = Tracing::start(Recording::default()).unwrap();
        let mut reader = Reader::start(Start::default()).unwrap();
        let everybody = || cgroups.iter().chain([&service]);
        // One switch-in each, so that the programs can be told what is a container and what is not.
        let _known: Vec<_> = everybody().map(|cgroup| Load::start(Some(cgroup), &[]).unwrap()).collect();
        reader.snapshot();
        // All work lies between the two looks and between the two marks: on a slow machine they are far apart.
        let before = reader.snapshot();
        tracing.mark("begin").unwrap();
        let work = self.containers.iter().map(|container| &container.threads).chain([&self.outside]);
        let loads: Vec<_> = everybody()
            .zip(work)
            .filter(|(_, threads)| !threads.is_empty())
            .map(|(cgroup, threads)| Load::start(Some(cgroup), threads).unwrap())
            .collect();
        std::thread::sleep(RUN);
        for load in &loads {
            load.park().unwrap();
        }
        tracing.mark("end").unwrap();
        let after = reader.snapshot();
        let trace = tracing.stop().unwrap();
        drop(loads);

        let paths: Vec<_> = cgroups
            .iter()
            .map(|cgroup| format!("/{}", cgroup.path().strip_prefix(&root).unwrap().display()))
            .collect();
        let assignment = paths.iter().fold(Assignment::default(), |all, path| all.container(path));
        let window = trace.between("begin", "end").unwrap();
        let truth = replay(&trace, &assignment, window);
        let mut windows = Windows::between(&before, &after).unwrap();
        let judged = paths.into_iter().zip(&cgroups).map(|(path, cgroup)| {
            let window = windows.cgroups.remove(&cgroup.id()).expect("every container has a window");
            Judged { path, id: cgroup.id(), window }
        });
        verdict(&judged.collect::<Vec<_>>(), &truth, labels)
    }
}

/// A container of a case, as it was measured.
struct Judged {
    /// By which the oracle calls it.
    path: String,
    id: CgroupId,
    window: Window,
}

/// Adds the containers up, each weighing as much as it waited. Returns how right the neighbours are named, each container
/// weighing as much as it waited for them: one that hardly did has hardly any to be named.
fn verdict(containers: &[Judged], truth: &Replay, labels: &[fn(&CauseNs) -> u64]) -> f64 {
    let mut all = CauseNs::default();
    let (mut right_ns, mut unknown_ns, mut named_ns) = (0.0, 0.0, 0.0);
    for Judged { path, window, .. } in containers {
        let Some(row) = truth.rows.get(path).filter(|row| row.causes.total() > 0) else { continue };
        let oracle = row.causes;
        let measured = measured(&window.causes);
        let score = score(&measured, &oracle).unwrap();
        println!(
            "     {:.1} % right, {:.1} % not told ({:.0} ms too long ago, {:.0} ms elsewhere): counted {}; replayed {}; \
             cpu.stat says throttled {:.0} ms",
            score.right * 100.0,
            score.unknown * 100.0,
            window.causes.beyond_ns as f64 / 1e6,
            window.causes.away_ns as f64 / 1e6,
            shares(&measured.causes),
            shares(&oracle),
            window.throttling.throttled_ns as f64 / 1e6
        );
        right_ns += score.right * oracle.total() as f64;
        unknown_ns += score.unknown * oracle.total() as f64;
        all += oracle;
        lengths_must_agree(window, row);
        let right = named_right(containers, window, row);
        if oracle.neighbor > 0 {
            println!("     neighbours are named {:.1} % right", right * 100.0);
        }
        named_ns += right * oracle.neighbor as f64;
    }
    let total_ns = all.total() as f64;
    assert!(total_ns > 0.0, "nothing waited");
    for label in labels {
        let share = label(&all) as f64 / total_ns;
        assert!(
            share >= LABELLED,
            "a cause that the case is labelled with has {share:.2} of {}",
            shares(&all)
        );
    }
    let (right, untold) = (right_ns / total_ns, unknown_ns / total_ns);
    assert!(untold <= UNTOLD, "{untold:.3} not told");
    assert!(right >= ENOUGH, "{right:.3} right, {untold:.3} not told; set aside: {:?}", truth.set_aside);
    named_ns / all.neighbor.max(1) as f64
}

/// The histogram holds the waits of the replay.
fn lengths_must_agree(window: &Window, row: &RowWaits) {
    let edge_ns = |bucket| upper_edge_seconds(bucket) * 1e9;
    let (delays, waits) =
        left_over(window.latency.counts(), edge_ns, row.lengths_ns(), CLOCKS_APART.as_nanos() as u64);
    let (count, replayed) = (window.latency.count(), row.waits.len() as u64);
    println!("     {delays} of {count} delays and {waits} of {replayed} waits are not of the same length");
    assert!(
        delays.max(waits) <= 4 + replayed / 16,
        "{delays} of {count} delays and {waits} of {replayed} waits are more than {CLOCKS_APART:?} apart"
    );
}

/// How much of the time for which others held the CPUs is under the right name: as a [`score`], of which it is not told
/// whose what has no name is.
fn named_right(containers: &[Judged], window: &Window, row: &RowWaits) -> f64 {
    let (mut apart_ns, mut all_ns) = (0, 0);
    for Judged { path, id, .. } in containers {
        let named_ns = window.neighbors.iter().find(|(named, _)| named == id).map_or(0, |(_, ns)| *ns);
        let held_ns = row.neighbors.get(path).copied().unwrap_or(0);
        assert!(
            named_ns <= held_ns + held_ns / 10 + row.causes.total() / 20,
            "{path} is named for {named_ns} ns and held the CPUs for {held_ns} ns"
        );
        apart_ns += named_ns.abs_diff(held_ns);
        all_ns += held_ns;
    }
    1.0 - apart_ns as f64 / (2 * all_ns).max(1) as f64
}

fn measured(causes: &Causes) -> Measured {
    Measured {
        causes: CauseNs {
            quota: causes.quota_ns,
            self_: causes.self_ns,
            neighbor: causes.neighbor_ns,
            system: causes.system_ns,
            idle: causes.idle_ns,
        },
        unknown_ns: causes.unknown_ns(),
    }
}

fn shares(causes: &CauseNs) -> String {
    let total = causes.total().max(1) as f64;
    let [quota, own, neighbor, system, idle] = causes.as_array().map(|ns| ns as f64 / total * 100.0);
    let ms = total / 1e6;
    format!(
        "{ms:.0} ms: quota {quota:.1} self {own:.1} neighbor {neighbor:.1} system {system:.1} idle {idle:.1} %;"
    )
}

const QUOTA: fn(&CauseNs) -> u64 = |causes| causes.quota;
const SELF: fn(&CauseNs) -> u64 = |causes| causes.self_;
const NEIGHBOR: fn(&CauseNs) -> u64 = |causes| causes.neighbor;
const SYSTEM: fn(&CauseNs) -> u64 = |causes| causes.system;

fn spin(cpu: usize) -> Thread {
    Work::Spin.on(cpu)
}

fn roam() -> Thread {
    Work::Spin.anywhere()
}

fn duty(run_us: u64, period_us: u64) -> Work {
    Work::Duty { run: Duration::from_micros(run_us), period: Duration::from_micros(period_us) }
}

fn quota() {
    Case::default().limited(20, [spin(0)]).judge(&[QUOTA]);
}

/// The limit is the pod's, not the container's.
fn quota_above() {
    Case::default().pod_limited(30).container([spin(0)]).container([spin(1)]).judge(&[QUOTA]);
}

/// A wait spans several throttles. (With many more threads it spans more than are remembered, and is not told.)
fn quota_of_many_threads() {
    Case::default().limited(40, [roam(); 4]).judge(&[QUOTA]);
}

fn own_threads() {
    Case::default().container([spin(0), spin(0), spin(0)]).judge(&[SELF]);
}

fn one_neighbour() {
    Case::default().container([spin(0)]).container([spin(0)]).judge(&[NEIGHBOR]);
}

/// The two have unequal parts: one that is taken for the other has the wrong one.
fn two_neighbours() {
    let part = duty(3_000, 12_000).on(0);
    let named =
        Case::default().container([spin(0)]).container([spin(0)]).container([part]).judge(&[NEIGHBOR]);
    assert!(named >= 0.9, "neighbours are named {named:.3} right");
}

fn system() {
    Case::default().container([spin(0)]).outside([spin(0)]).judge(&[SYSTEM]);
}

fn quota_and_own_threads() {
    Case::default().limited(60, [spin(0), spin(0)]).judge(&[QUOTA, SELF]);
}

fn quota_and_neighbour() {
    Case::default().limited(25, [spin(0)]).container([spin(0)]).judge(&[QUOTA, NEIGHBOR]);
}

fn own_threads_and_neighbour() {
    Case::default().container([spin(0), spin(0)]).container([spin(0)]).judge(&[SELF, NEIGHBOR]);
}

fn system_and_neighbour() {
    Case::default().container([spin(0)]).container([spin(0)]).outside([spin(0)]).judge(&[SYSTEM, NEIGHBOR]);
}

/// Waits of microseconds, woken often, from both ends of a busy CPU.
fn short_bursts() {
    Case::default()
        .container([duty(300, 2_000).on(0), duty(300, 2_000).on(0)])
        .container([duty(700, 3_000).on(0)])
        .outside([duty(500, 5_000).on(0)])
        .judge(&[NEIGHBOR]);
}

/// More threads than CPUs, none pinned: the balancer moves them while they are queued.
fn migrations() {
    Case::default().container([roam(); 3]).container([roam(); 2]).judge(&[SELF, NEIGHBOR]);
}

fn everything() {
    Case::default()
        .limited(30, [spin(0), spin(0), spin(1)])
        .container([spin(0), spin(0), spin(0), duty(2_000, 10_000).on(1)])
        .outside([spin(0), spin(1)])
        .judge(&[QUOTA, SELF, NEIGHBOR, SYSTEM]);
}
