//! What a whole look costs, files of cgroups included: of those that ran, and the rarer one at limits, memory and stalls.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use sampler::read::{Reader, Start};
use sampler_common::snapshot::Snapshot;

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
    for containers in CONTAINERS {
        let calls = traced::count(RAN, containers)?;
        let note = format!(
            "system calls of one look at {containers} containers that all ran, counted with ptrace: `cpu.stat` of each, \
             and what a look at none takes"
        );
        report.exact(format!("files.{containers}"), "calls", calls as f64, note);
        let calls = traced::count(NEW, containers)?;
        let note = "the same with limits, memory, its events and PSI, which are read every 15 s and of new containers";
        report.exact(format!("files.all.{containers}"), "calls", calls as f64, note);
    }
    for containers in CONTAINERS {
        let (mut ran, mut all) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS.div_ceil(LOOKS) {
            let mut node = Node::start(containers)?;
            all.push(node.timed()?);
            for _ in 0..LOOKS {
                node.go_round()?;
                ran.push(node.timed()?);
            }
        }
        let files = if machine::has_cgroup_v2() { "v2" } else { "v1, which has fewer" };
        let note =
            format!("one look at {containers} containers that all ran, rows and files (of cgroup {files})");
        report.estimate(format!("files.us.{containers}"), "µs", estimate(&ran), conditions(&note, in_vm));
        let note = conditions("the same with limits, memory, its events and PSI", in_vm);
        report.estimate(format!("files.all.us.{containers}"), "µs", estimate(&all), note);
    }
    Ok(())
}

/// A reader, and containers that have run since its last look.
struct Node {
    reader: Reader,
    groups: Groups,
}

impl Node {
    fn start(containers: usize) -> Result<Self> {
        let start = Start { slots: Some(2048), ..Start::default() };
        let reader = Reader::start(start).context("the reader does not start")?;
        let node = Self { reader, groups: Groups::make(containers)? };
        node.go_round()?;
        Ok(node)
    }

    /// Runs in every container. A sleep may be over before the CPU has been given away, and then nothing was.
    fn go_round(&self) -> Result<()> {
        let given_away = || Ok::<_, Errno>(getrusage(UsageWho::RUSAGE_THREAD)?.voluntary_context_switches());
        for group in 0..self.groups.len() {
            self.groups.enter(group)?;
            let before = given_away()?;
            while given_away()? == before {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        self.groups.leave()
    }

    fn look(&mut self) -> Snapshot {
        self.reader.snapshot()
    }

    fn timed(&mut self) -> Result<f64> {
        let start = Instant::now();
        let snapshot = self.look();
        let us = start.elapsed().as_nanos() as f64 / 1e3;
        let seen = snapshot.cgroups.len();
        if seen < self.groups.len() {
            bail!("only {seen} of {} containers were seen", self.groups.len());
        }
        Ok(us)
    }
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
