//! Demand against the truth: a load is held back, one window of 5 s is taken, and what it says the load wants is held
//! against what the load uses when nothing holds it back.
//!
//! Prints a row for each case, a few of the README's. `LOADLINE_DEMAND=full` in the environment makes all of the README:
//! `cargo xtask vm 6.12 -- env LOADLINE_DEMAND=full kernel test demand`, which takes some 25 min.

use std::time::{Duration, Instant};

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::load::{Load, Work};
use sampler::read::{Reader, Start};
use sampler_common::demand::{Bottleneck, Demand, estimate};
use sampler_common::window::Windows;

loadline_tests::tests![
    closed_loops within { limit_s(240, 1800) } s,
    fixed_times within { limit_s(180, 900) } s,
    open_loop within { limit_s(120, 600) } s,
];

/// Limits of a test as it is run with all others, which have 40 min together (`cargo xtask test`), and of its full extent, for
/// which `cargo xtask vm` has an hour.
fn limit_s(with_others: u64, full: u64) -> u64 {
    if Extent::of_this_run() == Extent::Full { full } else { with_others }
}

const WINDOW: Duration = Duration::from_secs(5);
/// Before a window, for what went before to be over.
const SETTLE: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(100);
const CPUS: u32 = 2;
/// The point may be off by so much of the truth, and the bounds where nothing holds back, since both are the use itself then.
const OFF: f64 = 0.15;
/// The bounds of what is held back may miss the truth by so much of it: the truth is a measurement of another time, on a machine
/// that is not always equally fast.
const TRUTH_OFF: f64 = 0.05;
/// Confidence above this is of threads whose pace is known.
const SURE: f64 = 0.7;

/// How much is tried.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// A few cases: the model is the same on all kernels, and only the windows are made by the kernel.
    Short,
    /// As many as a run of all tests has time for.
    Usual,
    /// Every one, with the truth of 30 s.
    Full,
}

impl Extent {
    /// The usual is tried on one kernel.
    fn of_this_run() -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        match std::env::var("LOADLINE_DEMAND") {
            Ok(extent) if extent == "full" => Self::Full,
            _ if kernel.starts_with("6.12.") => Self::Usual,
            _ => Self::Short,
        }
    }

    /// How long is looked at what is used, in all.
    fn truth(self) -> Duration {
        Duration::from_secs(if self == Self::Full { 30 } else { 10 })
    }

    fn closed_loops(self) -> Vec<Wants> {
        const ALL: &[u32] = &[10, 25, 50, 80];
        match self {
            Self::Short => vec![Wants::new("50/50", 2).held(&[25], &[30])],
            Self::Usual => vec![
                Wants::new("50/50", 2).held(&[10], &[30]),
                Wants::new("20/50", 3).held(&[25, 80], &[]),
                Wants::new("50/50", 1).held(&[80], &[]),
                Wants::new("5/100", 1).held(&[50], &[]),
                Wants::new("constant", 4).held(&[10, 50], &[]),
            ],
            Self::Full => ["50/50", "20/50", "5/100", "constant"]
                .into_iter()
                .flat_map(|name| (1..=4).map(move |threads| Wants::new(name, threads).held(ALL, &[30, 100])))
                .collect(),
        }
    }

    /// Usually what is told best. Else also limits that delay each piece of work, by times that differ because periods are no
    /// part of what is between pieces, and let it be done before the next one comes.
    fn fixed_times(self) -> Vec<Wants> {
        match self {
            Self::Short | Self::Usual => vec![Wants::new("20@270", 4).held(&[], &[60])],
            Self::Full => ["20@270", "10@130"]
                .into_iter()
                .flat_map(|name| {
                    (1..=4).map(move |threads| Wants::new(name, threads).held(&[150, 200], &[60, 100]))
                })
                .collect(),
        }
    }
}

/// Threads that do the same, anywhere: pinned ones would be held back by each other.
struct Wants {
    name: &'static str,
    threads: usize,
    work: Work,
    /// Limits in percent of what is wanted.
    levels: &'static [u32],
    /// Weights against two busy neighbours of weight 100.
    weights: &'static [u32],
}

impl Wants {
    /// By its name: how many ms it works, and then sleeps (`/`), or for how many it works every so many ms (`@`).
    fn new(name: &'static str, threads: usize) -> Self {
        let ms = |text: &str| Duration::from_millis(text.parse().unwrap());
        let parts = |by| name.split_once(by).map(|(run, time)| (ms(run), ms(time)));
        let work = match (parts('/'), parts('@')) {
            (Some((run, sleep)), _) => Work::Cycle { run, sleep },
            (_, Some((run, every))) => Work::Serve { run, every, backlog: 10 },
            _ => Work::Spin,
        };
        Self { name, threads, work, levels: &[], weights: &[] }
    }

    fn held(self, levels: &'static [u32], weights: &'static [u32]) -> Self {
        Self { levels, weights, ..self }
    }

    /// What is asked of what is said of it.
    fn expected(&self) -> Expected {
        match self.work {
            Work::Spin => Expected::Near,
            _ => Expected::NearAndSure,
        }
    }

    /// Whether it would use more.
    fn goes_on(&self) -> bool {
        matches!(self.work, Work::Cycle { .. } | Work::Spin)
    }
}

/// A container, and another beside it.
struct Node {
    reader: Reader,
    container: Cgroup,
    beside: Cgroup,
    _pod: Cgroup,
}

impl Node {
    fn new() -> Self {
        let pod = Cgroup::at(cgroup::root().unwrap().join("kubepods-pod0.slice")).unwrap();
        let container = |n: u32| pod.child(&format!("cri-containerd-{n:064x}.scope")).unwrap();
        let (container, beside) = (container(1), container(2));
        Self { reader: Reader::start(Start::default()).unwrap(), container, beside, _pod: pod }
    }

    /// CPU that the container uses.
    fn uses(&self, length: Duration) -> f64 {
        let used = || self.container.cpu_stat().unwrap().usage;
        let (begun, before) = (Instant::now(), used());
        std::thread::sleep(length);
        (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
    }

    /// What one window says of it.
    fn wants(&mut self) -> Demand {
        let earlier = self.reader.snapshot();
        std::thread::sleep(WINDOW);
        let windows = Windows::between(&earlier, &self.reader.snapshot()).unwrap();
        estimate(&windows.cgroups[&self.container.id()], CPUS)
    }

    fn limit(&self, cores: f64) {
        // The kernel takes no quota below 1 ms.
        let period = PERIOD.max(Duration::from_millis(1).div_f64(cores));
        self.container.limit_cpu(period.mul_f64(cores), period).unwrap();
        std::thread::sleep(SETTLE);
    }
}

/// What is asked of a case. The truth lies between the bounds in each.
#[derive(Clone, Copy)]
enum Expected {
    /// And it says that the point may be wrong.
    Within,
    /// And the point is near it.
    Near,
    /// And it says so.
    NearAndSure,
}

/// Cases, printed as they come.
#[derive(Default)]
struct Table {
    wrong: Vec<String>,
}

impl Table {
    fn begin() -> Self {
        println!("| load | held back by | truth | used | point | off | bounds | confidence | bottleneck |");
        println!("|---|---|---|---|---|---|---|---|---|");
        Self::default()
    }

    fn case(
        &mut self,
        load: &str,
        by: &str,
        truth: f64,
        demand: Demand,
        is: Option<Bottleneck>,
        expected: Expected,
    ) {
        let Demand { point, lower, upper, bottleneck, confidence } = demand;
        let off = point / truth - 1.0;
        let row = format!(
            "| {load} | {by} | {truth:.3} | {lower:.3} | {point:.3} | {:+.0} % | {lower:.2} to {upper:.2} | {confidence:.2} | {bottleneck:?} |",
            off * 100.0
        );
        println!("{row}");
        let slack = match is {
            Some(Bottleneck::Quota | Bottleneck::Neighbors) => TRUTH_OFF,
            _ => OFF,
        };
        let within = lower <= truth * (1.0 + slack) && truth * (1.0 - slack) <= upper;
        let right = match expected {
            Expected::Within => within && confidence < SURE,
            Expected::Near => within && off.abs() <= OFF,
            Expected::NearAndSure => within && off.abs() <= OFF && confidence > SURE,
        };
        if !right || is.is_some_and(|is| is != bottleneck) {
            self.wrong.push(row);
        }
    }

    #[track_caller]
    fn end(self) {
        assert!(self.wrong.is_empty(), "wrong:\n{}", self.wrong.join("\n"));
    }
}

/// Threads that work and sleep, or only work, each at its own pace: held back by a limit, then by neighbours. Catches a
/// demand that is usage, or wait, and causes that do not lead to the bottleneck.
fn closed_loops() {
    hold_back(Extent::of_this_run(), Extent::closed_loops);
}

/// Threads whose work arrives by itself and that keep up though they wait: they would use no more. Catches a demand that
/// takes them for closed loops, which is off by more than 20 %.
fn fixed_times() {
    hold_back(Extent::of_this_run(), Extent::fixed_times);
}

/// Holds loads back by a limit, then by neighbours.
fn hold_back(extent: Extent, loads: impl Fn(Extent) -> Vec<Wants>) {
    let mut node = Node::new();
    let mut table = Table::begin();
    for wants in loads(extent) {
        let name = format!("{} × {}", wants.threads, wants.name);
        let threads = vec![wants.work.anywhere(); wants.threads];
        let load = Load::start(Some(&node.container), &threads).unwrap();
        std::thread::sleep(SETTLE);
        let mut said = Vec::new();
        // One half before and one after all else: how fast an emulated machine is depends on what else the host does.
        let before = node.uses(extent.truth() / 2);
        for level in wants.levels {
            node.limit(before * f64::from(*level) / 100.0);
            said.push((
                format!("{level} % limit"),
                wants.goes_on().then_some(Bottleneck::Quota),
                node.wants(),
            ));
        }
        node.container.unlimit_cpu().unwrap();
        let busy = vec![Work::Spin.anywhere(); if wants.weights.is_empty() { 0 } else { CPUS as usize }];
        let busy = Load::start(Some(&node.beside), &busy).unwrap();
        for weight in wants.weights {
            node.container.weigh_cpu(*weight).unwrap();
            std::thread::sleep(SETTLE);
            // With as much weight as they a small load is hardly held back, and a large one as much by itself.
            let is = (wants.goes_on() && *weight < 100).then_some(Bottleneck::Neighbors);
            said.push((format!("neighbours, weight {weight}"), is, node.wants()));
        }
        node.container.weigh_cpu(100).unwrap();
        busy.park().unwrap();
        let truth = (before + node.uses(extent.truth() / 2)) / 2.0;
        load.park().unwrap();
        for (by, is, demand) in said {
            table.case(&name, &by, truth, demand, is, wants.expected());
        }
    }
    table.end();
}

/// Work that arrives at a fixed rate and piles up while it is held back. That cannot be told from a thread that always
/// has work, so the truth is only to lie between the bounds, until the limit is raised to what the first window said.
fn open_loop() {
    let extent = Extent::of_this_run();
    let ms = Duration::from_millis;
    let mut node = Node::new();
    let mut table = Table::begin();
    let wanted = 0.4;
    let levels: &[u32] = if extent == Extent::Full { &[10, 25, 50, 80] } else { &[50] };
    for level in levels {
        let work = Work::Serve { run: ms(20), every: ms(50), backlog: 10 };
        let load = Load::start(Some(&node.container), &[work.anywhere()]).unwrap();
        node.limit(wanted * f64::from(*level) / 100.0);
        let held = node.wants();
        node.limit(held.point);
        let raised = node.wants();
        node.container.unlimit_cpu().unwrap();
        let truth = node.uses(extent.truth());
        let name = "1 × 20 ms every 50 ms";
        table.case(name, &format!("{level} % limit"), truth, held, Some(Bottleneck::Quota), Expected::Within);
        table.case(name, "limit raised to the point", truth, raised, Some(Bottleneck::None), Expected::Near);
        load.park().unwrap();
    }
    table.end();
}
