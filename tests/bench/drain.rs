//! What reading the rows costs: µs for so many containers, and how many system calls.

use std::time::Instant;

use anyhow::{Result, bail};
use sampler::kernel::layout::Key;
use sampler::kernel::load::{Options, Programs};
use sampler::read::rows::SlotRows;
use sampler_common::snapshot::Counters;

use crate::designs::conditions;
use crate::groups::Groups;
use crate::machine;
use crate::report::Report;
use crate::rounds::estimate;
use crate::traced;

/// The hidden subcommand whose system calls are counted.
pub const TRACED: &str = "drains";
const CONTAINERS: [usize; 3] = [10, 100, 1000];
const REPEATS: usize = 101;
const TRACED_DRAINS: usize = 100;

/// Reports all of it.
pub fn run(in_vm: bool, report: &mut Report) -> Result<()> {
    for containers in CONTAINERS {
        let filled = Filled::make(containers)?;
        let (changed, unchanged): (Vec<f64>, Vec<f64>) = (0..REPEATS).map(|_| filled.timed()).unzip();
        let note =
            format!("rows of {containers} containers on {} CPUs, all changed", filled.programs.cpus.len());
        report.estimate(format!("drain.{containers}"), "µs", estimate(&changed), conditions(&note, in_vm));
        let note = conditions("the same, none changed", in_vm);
        report.estimate(format!("drain.unchanged.{containers}"), "µs", estimate(&unchanged), note);
    }
    for containers in [CONTAINERS[0], CONTAINERS[2]] {
        let calls = traced::count(TRACED, containers)?;
        let note =
            format!("system calls in {TRACED_DRAINS} drains of {containers} containers, counted with ptrace");
        report.exact(format!("drain.syscalls.{containers}"), "calls", calls as f64, note);
    }
    Ok(())
}

/// Programs that have counted delays of so many containers on every CPU.
struct Filled {
    programs: Programs,
    slots: Vec<usize>,
}

impl Filled {
    /// A thread of ours goes through that many cgroups and waits for each CPU in each of them.
    fn make(containers: usize) -> Result<Self> {
        let mut programs = Programs::load(Options { key: Key::Cpu, hierarchy_id: 0, slots: Some(2048) })?;
        let groups = Groups::make(containers)?;
        let allowed = machine::allowed_cpus()?;
        programs.start()?;
        for group in 0..groups.len() {
            groups.enter(group)?;
            for &cpu in &allowed {
                machine::pin(&[cpu])?;
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        }
        groups.leave()?;
        programs.stop()?;
        machine::pin(&allowed)?;
        drop(groups);
        let slots: Vec<usize> =
            (1..programs.slots.len()).filter(|&slot| programs.slots.read(slot).serial != 0).collect();
        if slots.len() < containers {
            bail!("only {} of {containers} cgroups were counted", slots.len());
        }
        // Those of the host itself are left out.
        let counted = |slot: &usize| {
            (0..programs.cpus.len()).any(|cpu| {
                let row = programs.rows.read(cpu * programs.slots.len() + slot);
                row.latency.iter().any(|&count| count != 0)
            })
        };
        let slots: Vec<usize> = slots.into_iter().filter(counted).collect();
        let first = slots.len().saturating_sub(containers);
        Ok(Self { slots: slots[first..].to_vec(), programs })
    }

    fn new_rows(&self) -> Vec<SlotRows> {
        vec![SlotRows::new(self.programs.cpus.len()); self.slots.len()]
    }

    /// Reads all rows; returns how many had changed.
    fn drain(&self, rows: &mut [SlotRows], counters: &mut [Counters]) -> usize {
        let mut changed = 0;
        for ((&slot, rows), counters) in self.slots.iter().zip(rows).zip(counters) {
            let (slots, cycles) = (self.programs.slots.len(), &self.programs.cycles);
            let grown = rows.read(&self.programs.rows, cycles, slots, slot, counters, |holder, ns| {
                std::hint::black_box((holder, ns));
            });
            changed += usize::from(grown);
        }
        changed
    }

    /// µs to read all rows for the first time, when all have changed, and once more, when none has.
    fn timed(&self) -> (f64, f64) {
        let mut counters = vec![Counters::default(); self.slots.len()];
        // Once to touch all memory.
        self.drain(&mut self.new_rows(), &mut counters);
        let mut rows = self.new_rows();
        let mut time = |expected: usize| {
            let start = Instant::now();
            let changed = std::hint::black_box(self.drain(&mut rows, &mut counters));
            let us = start.elapsed().as_nanos() as f64 / 1e3;
            assert_eq!(changed, expected, "rows that had changed");
            us
        };
        (time(self.slots.len()), time(0))
    }
}

/// The child: ready, drains, done.
pub fn traced(containers: usize) -> Result<()> {
    let filled = Filled::make(containers)?;
    let mut rows = filled.new_rows();
    let mut counters = vec![Counters::default(); filled.slots.len()];
    traced::here(|| {
        for _ in 0..TRACED_DRAINS {
            std::hint::black_box(filled.drain(&mut rows, &mut counters));
        }
    })
}
