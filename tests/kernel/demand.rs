//! Demand against the truth: a load is held back, one window of 5 s is taken, and what it says the load wants is held
//! against what the load uses when nothing holds it back.
//!
//! Prints a row for each case. `LOADLINE_DEMAND=full` in the environment makes many more:
//! `cargo xtask vm 6.12 -- env LOADLINE_DEMAND=full kernel test demand`.

use std::time::{Duration, Instant};

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::load::{Load, Work};
use sampler::read::{Reader, Start};
use sampler_common::demand::{Bottleneck, Demand, estimate};
use sampler_common::window::Windows;

loadline_tests::tests![closed_loops within 1800 s, open_loop within 600 s];

const WINDOW: Duration = Duration::from_secs(5);
/// Before a window, for what went before to be over.
const SETTLE: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(100);
const CPUS: u32 = 2;
/// The point may be off by so much of the truth.
const OFF: f64 = 0.15;

/// How much is tried.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// A few cases, with the truth of a few seconds.
    Short,
    /// As many as a run of all tests has time for.
    Usual,
    /// Every one.
    Full,
}

impl Extent {
    /// The usual is tried on one kernel: the model is the same on all, and only the windows are made by the kernel.
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
        Duration::from_secs(if self == Self::Short { 8 } else { 30 })
    }

    /// Limits in percent of what is wanted.
    fn levels(self) -> &'static [u32] {
        if self == Self::Short { &[25] } else { &[10, 25, 50, 80] }
    }

    /// Weights against two busy neighbours of weight 100.
    fn weights(self) -> &'static [u32] {
        if self == Self::Full { &[10, 30, 100] } else { &[30] }
    }
}

/// Threads that do the same.
struct Wants {
    name: &'static str,
    threads: usize,
    work: Work,
}

impl Wants {
    fn all(extent: Extent) -> Vec<Self> {
        let ms = Duration::from_millis;
        // Shorter sleeps become longer where an emulated CPU sees its timer late, and then it is another load.
        let half = Work::Cycle { run: ms(50), sleep: ms(50) };
        let fifth = Work::Cycle { run: ms(10), sleep: ms(40) };
        let bursts = Work::Cycle { run: ms(60), sleep: ms(240) };
        let of = |name, threads, work| Self { name, threads, work };
        match extent {
            Extent::Short => vec![of("50/50", 1, half)],
            Extent::Usual => {
                vec![of("50/50", 1, half), of("50/50", 2, half), of("constant", 4, Work::Spin)]
            }
            Extent::Full => [("50/50", half), ("10/40", fifth), ("60/240", bursts), ("constant", Work::Spin)]
                .into_iter()
                .flat_map(|(name, work)| (1..=4).map(move |threads| of(name, threads, work)))
                .collect(),
        }
    }

    /// Whether one window tells what they want: they always work, or there is one, its pieces are many, and most of its
    /// pace is not hidden by a single wait: at a tenth of it a throttle that is on at either end of the window is a
    /// fifth of the time that the thread goes at its own pace.
    fn told(&self, level: u32) -> bool {
        match self.work {
            Work::Cycle { run, sleep } => self.threads == 1 && (run + sleep) * 50 <= WINDOW && level >= 25,
            _ => true,
        }
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
        self.container.limit_cpu(PERIOD.mul_f64(cores), PERIOD).unwrap();
        std::thread::sleep(SETTLE);
    }
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

    /// `exact`: the point is to be near the truth, and not only the truth between the bounds.
    fn case(&mut self, load: &str, by: &str, truth: f64, demand: Demand, is: Bottleneck, exact: bool) {
        let Demand { point, lower, upper, bottleneck, confidence } = demand;
        let off = point / truth - 1.0;
        let row = format!(
            "| {load} | {by} | {truth:.3} | {lower:.3} | {point:.3} | {:+.0} % | {lower:.2} to {upper:.2} | {confidence:.2} | {bottleneck:?} |",
            off * 100.0
        );
        println!("{row}");
        // The truth is a measurement too.
        let within = lower <= truth * (1.0 + OFF) && truth * (1.0 - OFF) <= upper;
        if !within || bottleneck != is || exact && off.abs() > OFF {
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
    let extent = Extent::of_this_run();
    let mut node = Node::new();
    let mut table = Table::begin();
    for wants in Wants::all(extent) {
        let name = format!("{} × {}", wants.threads, wants.name);
        let threads = vec![wants.work.anywhere(); wants.threads];
        let load = Load::start(Some(&node.container), &threads).unwrap();
        std::thread::sleep(SETTLE);
        let mut said = Vec::new();
        // One half before and one after all else: how fast an emulated machine is depends on what else the host does.
        let before = node.uses(extent.truth() / 2);
        for level in extent.levels() {
            node.limit(before * f64::from(*level) / 100.0);
            said.push((format!("{level} % limit"), Bottleneck::Quota, wants.told(*level), node.wants()));
        }
        node.container.unlimit_cpu().unwrap();
        let busy = Load::start(Some(&node.beside), &[Work::Spin.anywhere(), Work::Spin.anywhere()]).unwrap();
        for weight in extent.weights() {
            node.container.weigh_cpu(*weight).unwrap();
            std::thread::sleep(SETTLE);
            said.push((
                format!("neighbours, weight {weight}"),
                Bottleneck::Neighbors,
                wants.told(100),
                node.wants(),
            ));
        }
        node.container.weigh_cpu(100).unwrap();
        busy.park().unwrap();
        let truth = (before + node.uses(extent.truth() / 2)) / 2.0;
        load.park().unwrap();
        for (by, is, told, demand) in said {
            table.case(&name, &by, truth, demand, is, told);
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
    let levels = if extent == Extent::Full { extent.levels() } else { &[50] };
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
        table.case(name, &format!("{level} % limit"), truth, held, Bottleneck::Quota, false);
        table.case(name, "limit raised to the point", truth, raised, Bottleneck::None, true);
        load.park().unwrap();
    }
    table.end();
}
