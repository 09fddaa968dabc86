//! What a context switch costs more with a design attached.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

use crate::designs::{Design, Designs, conditions};
use crate::machine;
use crate::report::Report;
use crate::rounds::{Random, estimate, median, ratio};

/// Something that switches, and knows how often.
pub trait Workload {
    /// One round: ns per switch.
    fn ns_per_switch(&mut self) -> Result<f64>;
}

/// Parts of a round: its result is their median, so that a disturbance shorter than half of it does not show.
const PARTS: u32 = 20;

/// ns per switch of a step that switches so often, done so many times.
///
/// These are ns of CPU time of all who take part, as the scheduler counts it: what else runs on the CPU
/// meanwhile is not in it, and a switch costs one side or the other. Nobody of them is ever idle.
pub fn in_parts(
    clocks: &[ClockId],
    steps: u32,
    switches: f64,
    mut step: impl FnMut() -> Result<()>,
) -> Result<f64> {
    let now = || -> Result<f64> {
        let mut ns = 0.0;
        for &clock in clocks {
            let time = clock_gettime(clock).context("a CPU clock cannot be read")?;
            ns += time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64;
        }
        Ok(ns)
    };
    let steps = (steps / PARTS).max(1);
    let mut parts = Vec::new();
    for _ in 0..PARTS {
        let start = now()?;
        for _ in 0..steps {
            step()?;
        }
        parts.push((now()? - start) / (f64::from(steps) * switches));
    }
    Ok(median(&parts))
}

/// How rounds are made and named.
pub struct Series<'a> {
    /// First part of the figures' names: `switch.added`.
    pub name: &'a str,
    /// What is done, for the notes.
    pub what: &'a str,
    /// How many rounds.
    pub rounds: usize,
    /// In a virtual machine.
    pub in_vm: bool,
}

/// Rounds of all designs, in an order that changes from round to round, each compared with nothing attached in
/// the same round.
pub fn run(
    designs: &mut Designs,
    workload: &mut dyn Workload,
    series: &Series<'_>,
    report: &mut Report,
) -> Result<()> {
    let mut order = designs.all();
    let mut random = Random::new(1);
    let mut times: BTreeMap<Design, Vec<f64>> = BTreeMap::new();
    let load_before = machine::load();
    // The first round warms up and does not count.
    for round in 0..=series.rounds {
        random.shuffle(&mut order);
        for &design in &order {
            let ns = designs.with(design, || workload.ns_per_switch())?;
            if round != 0 {
                times.entry(design).or_default().push(ns);
            }
        }
        if round % 20 == 0 {
            eprintln!("{}: round {round} of {}", series.name, series.rounds);
        }
    }
    let nothing = times.remove(&Design::Nothing).unwrap_or_default();
    let added: BTreeMap<Design, Vec<f64>> = times
        .into_iter()
        .map(|(design, with)| {
            (design, with.iter().zip(&nothing).map(|(with, without)| with - without).collect())
        })
        .collect();

    let how = format!("{}, {} rounds, load before {load_before}", series.what, series.rounds);
    let note = conditions(&how, series.in_vm);
    for (&design, added) in &added {
        let note = match design {
            Design::Noop => format!("{note}; {:.0} ns per switch with nothing attached", median(&nothing)),
            Design::Loadline => format!("{note}; {}", designs.in_words()),
            Design::Runqlat => format!("{note}; default flags"),
            Design::Nothing => continue,
        };
        let name = format!("{}.{}", series.name, design.name());
        report.estimate(name, "ns", estimate(added), note);
    }
    for (other, aim) in [(Design::Noop, "aim: at most 2"), (Design::Runqlat, "aim: at most 0.2")] {
        let name = format!("{}.loadline/{}", series.name, other.name());
        match (added.get(&Design::Loadline), added.get(&other)) {
            (Some(loadline), Some(added)) => report.estimate(name, "×", ratio(loadline, added), aim),
            _ => eprintln!("{name}: not measured: {}", designs.no_runqlat().unwrap_or("?")),
        }
    }
    Ok(())
}
