//! What a whole look costs, files of cgroups included: of those that ran, and the rarer one at limits, memory and stalls.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use sampler::read::{Reader, Start};
use sampler_common::snapshot::Snapshot;

use crate::containers::{Containers, Life};
use crate::designs::conditions;
use crate::groups::Groups;
use crate::machine;
use crate::report::Report;
use crate::rounds::estimate;
use crate::traced;

/// The hidden subcommands whose system calls are counted: a look at containers that ran, and the first at new ones.
pub const RAN: &str = "look-ran";
/// See [`RAN`].
pub const NEW: &str = "look-new";
const CONTAINERS: [usize; 3] = [10, 100, 1000];
const REPEATS: usize = 21;
/// Looks of 1,000 containers in one life: limits and memory are not read again meanwhile.
const LOOKS: usize = 4;

/// Reports all of it.
pub fn run(in_vm: bool, report: &mut Report) -> Result<()> {
    let (of_one, all) = if machine::has_cgroup_v2() {
        (
            "`cpu.stat` of each, of the pods and of the slices",
            "limits, memory, its events and PSI, which are read every 15 s and of new containers",
        )
    } else {
        (
            "`cpu.stat` of each, of cgroup v1 (it is in no cpuacct hierarchy, so that its use is looked for in vain)",
            "CPU limit and weight, which are read every 15 s and of new containers (it is in no memory hierarchy, so that \
             memory and its events are looked for in vain; cgroup v1 has no PSI)",
        )
    };
    for containers in CONTAINERS {
        let calls = traced::count(RAN, containers)?;
        let note = format!(
            "system calls of one look at {containers} containers that all ran, counted with ptrace: {of_one}, \
             and what a look at none takes"
        );
        report.exact(format!("files.{containers}"), "calls", calls as f64, note);
        let calls = traced::count(NEW, containers)?;
        report.exact(
            format!("files.all.{containers}"),
            "calls",
            calls as f64,
            format!("the same with {all}"),
        );
    }
    for containers in CONTAINERS {
        let (mut ran, mut new) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS.div_ceil(LOOKS) {
            let mut node = Node::start(containers)?;
            new.push(node.timed()?);
            for _ in 0..LOOKS {
                node.go_round()?;
                ran.push(node.timed()?);
            }
        }
        let note = format!("one look at {containers} containers that all ran, rows and files: {of_one}");
        report.estimate(format!("files.us.{containers}"), "µs", estimate(&ran), conditions(&note, in_vm));
        let note = conditions(&format!("the same with {all}"), in_vm);
        report.estimate(format!("files.all.us.{containers}"), "µs", estimate(&new), note);
    }
    Ok(())
}

/// A reader, and containers that have run since its last look.
struct Node {
    reader: Reader,
    made: Made,
}

/// Containers as they can be made here.
enum Made {
    /// As a kubelet makes them, with all controllers and a process in each: on v2.
    Whole(Containers),
    /// With the cpu controller only, for one thread that goes round: on v1, where each controller has a hierarchy of its own.
    OfCpu(Groups),
}

impl Made {
    fn len(&self) -> usize {
        match self {
            Self::Whole(containers) => containers.paths().len(),
            Self::OfCpu(groups) => groups.len(),
        }
    }
}

impl Node {
    fn start(containers: usize) -> Result<Self> {
        let start = Start { slots: Some(2048), ..Start::default() };
        let reader = Reader::start(start).context("the reader does not start")?;
        let made = if machine::has_cgroup_v2() {
            Made::Whole(Containers::make(containers, Life::OnCall)?)
        } else {
            Made::OfCpu(Groups::make(containers)?)
        };
        let node = Self { reader, made };
        node.go_round()?;
        if let Made::OfCpu(groups) = &node.made {
            // There are hosts whose kernel tells no tracer, its own included, of switches from the agent that looks after them:
            // who is switched in after that one for the first time is not met yet, and the second time hardly also is.
            run_in_each(groups)?;
        }
        Ok(node)
    }

    /// Lets every container run.
    fn go_round(&self) -> Result<()> {
        match &self.made {
            Made::Whole(containers) => containers.call(),
            Made::OfCpu(groups) => run_in_each(groups),
        }
    }

    fn look(&mut self) -> Snapshot {
        self.reader.snapshot()
    }

    fn timed(&mut self) -> Result<f64> {
        let start = Instant::now();
        let snapshot = self.look();
        let us = start.elapsed().as_nanos() as f64 / 1e3;
        let whole = matches!(self.made, Made::Whole(_));
        let seen = snapshot.cgroups.values().filter(|cgroup| !whole || cgroup.memory.is_some()).count();
        if seen < self.made.len() {
            let what = if whole { " with their memory" } else { "" };
            bail!("only {seen} of {} containers were seen{what}; {:?}", self.made.len(), snapshot.losses);
        }
        Ok(us)
    }
}

/// Runs in each. A sleep may be over before the CPU has been given away, and then nothing was.
fn run_in_each(groups: &Groups) -> Result<()> {
    let given_away = || Ok::<_, Errno>(getrusage(UsageWho::RUSAGE_THREAD)?.voluntary_context_switches());
    for group in 0..groups.len() {
        groups.enter(group)?;
        let before = given_away()?;
        while given_away()? == before {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    groups.leave()
}

/// The child: a look at containers that have all run.
pub fn traced_ran(containers: usize) -> Result<()> {
    let mut node = Node::start(containers)?;
    node.look();
    node.go_round()?;
    traced::here(|| drop(std::hint::black_box(node.look())))
}

/// The child: the first look at all of them.
pub fn traced_new(containers: usize) -> Result<()> {
    let mut node = Node::start(containers)?;
    traced::here(|| drop(std::hint::black_box(node.look())))
}
