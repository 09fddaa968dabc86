//! The demo's course: phase by phase the workloads run, the sampler counts, and the table grows.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadline_tests::cgroup;
use loadline_tests::containers::Containerd;
use loadline_tests::load::pin;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sampler::read::{Reader, Start, StartError};
use sampler::view::table::{self, TableRow};
use sampler::view::verdict::{self, Surroundings, Verdict};
use sampler_common::identity::Owner;
use sampler_common::snapshot::{Cause, CgroupId, Durations, Snapshot};
use sampler_common::window::{Window, WindowError, Windows};
use thiserror::Error;

use crate::live::{Screen, Stop};
use crate::probe;
use crate::recording::Recording;
use crate::workloads::{Life, PHASES, Running, Slice, WORKLOADS, Workload};

/// Why there is no result.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Somebody asked it to end.
    #[error("stopped")]
    Stopped(Signal),
    /// Nothing can be measured here.
    #[error("the sampler cannot run on this machine")]
    Sampler(#[from] StartError),
    /// Two snapshots are not one after the other.
    #[error("the sampler's snapshots are out of order")]
    Order(#[from] WindowError),
    /// A workload, a cgroup or the terminal.
    #[error("the demo's workloads cannot be run")]
    Workloads(#[from] io::Error),
    /// The recording.
    #[error("the recording cannot be written")]
    Recording(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// Whether to draw while it runs.
    pub live: bool,
    /// Of the terminal.
    pub columns: usize,
    /// Of the terminal.
    pub rows: usize,
}

/// What the demo is run with.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// For how long, all phases together.
    pub length: Duration,
    /// How it is shown.
    pub show: Show,
    /// The archive of the image of which the workloads are containers, where there is a runtime.
    pub image: Option<&'a Path>,
    /// The file for a recording of it.
    pub record: Option<&'a Path>,
}

/// What a workload came to.
#[derive(Debug)]
pub struct Outcome {
    workload: &'static Workload,
    window: Window,
    /// Its largest neighbour's name.
    held_by: Option<String>,
    verdict: Verdict,
}

/// Runs all phases, and returns what became of every workload with a label.
pub fn run(settings: Settings<'_>) -> Result<Vec<Outcome>, DemoError> {
    let Settings { length, show, image, record } = settings;
    let stop = Stop::new()?;
    let reader = Reader::start(Start::default())?;
    let cpus = probe::quietest_cpus()?;
    let other_cpus = probe::allowed_cpus()?.into_iter().filter(|cpu| !cpus.contains(cpu)).collect();
    // Before the slice, so that it is gone before what containerd knows of it is removed.
    let containerd = image.map(|image| Containerd::start(NAMESPACE, image)).transpose()?;
    let mut slice = Slice::new(&cgroup::root()?, cpus)?;
    if let Some(containerd) = &containerd {
        make_containers(containerd, &mut slice, &stop)?;
    }
    be_quick()?;
    let all_cpus = reader.programs().cpus.len() as u32;
    let begin = |file| Recording::begin(file, all_cpus, Demo::REFRESH);
    let recording = record.map(begin).transpose().map_err(|error| DemoError::Recording(error.into()))?;
    let screen = if show.live { Some(Screen::new(show.columns, show.rows)?) } else { None };
    let mut demo = Demo {
        reader,
        recording,
        slice,
        stop,
        screen,
        columns: show.columns,
        begun: Instant::now(),
        cpus,
        other_cpus,
        length,
        names: BTreeMap::new(),
        measured: WORKLOADS.each_ref().map(|_| None),
        units: [const { BTreeMap::new() }; PHASES],
    };
    for phase in 0..PHASES {
        demo.phase(phase)?;
    }
    Ok(demo.outcomes())
}

/// Of containerd's; nobody else's.
const NAMESPACE: &str = "loadline-demo";

fn make_containers(containerd: &Arc<Containerd>, slice: &mut Slice, stop: &Stop) -> Result<(), DemoError> {
    let workloads: Vec<_> = WORKLOADS.iter().filter(|workload| workload.may_wait()).collect();
    let begun = Instant::now();
    let count = workloads.len();
    eprintln!("Making {count} containers (containerd and runc) …");
    for workload in workloads {
        slice.make_container(containerd, workload)?;
        if let Some(signal) = stop.wait_until(Instant::now())? {
            return Err(DemoError::Stopped(signal));
        }
    }
    eprintln!("Made {count} containers in {} s.", begun.elapsed().as_secs());
    Ok(())
}

/// Takes precedence over the workloads, which leave no CPU idle: the demo needs little, but at once. They
/// inherit it, to no effect: each is alone in a cgroup, and between cgroups it is their weights that count.
fn be_quick() -> io::Result<()> {
    const HIGHEST: i32 = -20;
    // SAFETY: takes numbers only; 0 is this process.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

struct Demo {
    // Before the slice, so that the terminal is given back at once.
    screen: Option<Screen>,
    slice: Slice,
    reader: Reader,
    recording: Option<Recording>,
    stop: Stop,
    columns: usize,
    begun: Instant,
    cpus: [usize; 2],
    other_cpus: Vec<usize>,
    length: Duration,
    /// Every workload's cgroups, also those that are gone: its place in [`WORKLOADS`].
    names: BTreeMap<CgroupId, usize>,
    /// By place in [`WORKLOADS`].
    measured: [Option<Window>; WORKLOADS.len()],
    /// CPU time (ns) of everything outside containers, by phase.
    units: [BTreeMap<String, u64>; PHASES],
}

impl Demo {
    /// From one refresh to the next.
    const REFRESH: Duration = Duration::from_secs(1);
    /// When in that time there is the refresh: while a short-lived workload runs.
    const LOOK: Duration = Duration::from_millis(700);
    /// A phase has at least so many of them, however slow the machine is.
    const ROUNDS: u32 = 2;
    /// A phase takes at most so many times its share of the time, while the causes do not show: a machine that
    /// stands still for a second makes everybody wait for whoever was on the CPU in that second.
    const PATIENCE: u32 = 4;
    /// When in that time the short-lived ones end.
    const END: Duration = Duration::from_millis(750);

    fn phase(&mut self, phase: usize) -> Result<(), DemoError> {
        let of = |life: Life| {
            WORKLOADS
                .iter()
                .enumerate()
                .filter(move |(_, workload)| workload.phase == phase && workload.life == life)
        };
        self.stay_aside(phase)?;
        let mut running = Vec::new();
        for (place, workload) in of(Life::Phase) {
            running.push(self.start(place, workload)?);
        }
        // What is before this is the beginning: processes that are made, one after the other.
        let mut earlier = self.look()?;
        let begun = Instant::now();
        let share = self.length / PHASES as u32;
        let mut rounds = 0;
        while rounds < Self::ROUNDS
            || begun.elapsed() + Self::REFRESH <= share
            || (begun.elapsed() < share * Self::PATIENCE && !surprises(&self.outcomes(), phase).is_empty())
        {
            rounds += 1;
            let begun = Instant::now();
            let mut short = Vec::new();
            for (place, workload) in of(Life::Second) {
                short.push(self.start(place, workload)?);
            }
            self.wait_until(begun + Self::LOOK)?;
            earlier = self.refresh(phase, &earlier)?;
            self.wait_until(begun + Self::END)?;
            drop(short);
            self.wait_until(begun + Self::REFRESH)?;
        }
        self.refresh(phase, &earlier)?;
        drop(running);
        Ok(())
    }

    /// Keeps the demo itself, which is a process outside any container, off the CPUs of the workloads. Where
    /// there are no others, it takes the one on which its share of the wait is smallest in this phase.
    fn stay_aside(&self, phase: usize) -> io::Result<()> {
        // Nobody waits for it while being throttled; `crowded` waits so much that it makes no difference;
        // and `beside-host` is to wait for such a process.
        const LEAST: [usize; PHASES] = [0, 1, 0];
        let least = [self.cpus[LEAST[phase]]];
        pin(Pid::from_raw(0), if self.other_cpus.is_empty() { &least } else { &self.other_cpus })
    }

    fn start(&mut self, place: usize, workload: &Workload) -> io::Result<Running> {
        let running = self.slice.start(workload)?;
        self.names.insert(running.id(), place);
        Ok(running)
    }

    fn wait_until(&self, deadline: Instant) -> Result<(), DemoError> {
        match self.stop.wait_until(deadline)? {
            Some(signal) => Err(DemoError::Stopped(signal)),
            None => Ok(()),
        }
    }

    /// The next snapshot, which is recorded where that was asked for.
    fn look(&mut self) -> Result<Snapshot, DemoError> {
        let snapshot = self.reader.snapshot();
        if let Some(recording) = &mut self.recording {
            let names = &self.names;
            let name = |id| names.get(&id).map(|place| WORKLOADS[*place].name);
            recording.append(&snapshot, name).map_err(|error| DemoError::Recording(error.into()))?;
        }
        Ok(snapshot)
    }

    /// Takes in what happened since the last snapshot, shows it, and returns the new snapshot.
    fn refresh(&mut self, phase: usize, earlier: &Snapshot) -> Result<Snapshot, DemoError> {
        let later = self.look()?;
        let windows = Windows::between(earlier, &later)?;
        let mut of_workloads: BTreeMap<usize, Window> = BTreeMap::new();
        for (id, window) in &windows.cgroups {
            if let Some(place) = self.names.get(id).filter(|place| WORKLOADS[**place].phase == phase) {
                let together = match of_workloads.remove(place) {
                    Some(other) => other.beside(window),
                    None => window.clone(),
                };
                of_workloads.insert(*place, together);
            }
            if let Owner::Unit { name } = &later.cgroups[id].identity.owner {
                let used_ns = self.units[phase].entry(name.clone()).or_default();
                *used_ns = used_ns.saturating_add(window.usage_ns);
            }
        }
        for (place, mut window) in of_workloads {
            // Of the short-lived ones there is always one, or the next is about to come.
            window.length_ns = windows.length_ns;
            let so_far = self.measured[place].take();
            self.measured[place] = Some(match so_far {
                Some(so_far) => so_far.then(&window),
                None => window,
            });
        }
        if let Some(screen) = &self.screen {
            screen.draw(&self.screen_text(phase))?;
        }
        Ok(later)
    }

    fn rows(&self) -> Vec<TableRow<'_>> {
        WORKLOADS
            .iter()
            .zip(&self.measured)
            .filter(|(workload, _)| workload.cause.is_some())
            .filter_map(|(workload, window)| {
                Some(TableRow { name: workload.name.into(), window: window.as_ref()? })
            })
            .collect()
    }

    fn screen_text(&self, phase: usize) -> String {
        let now: String = WORKLOADS
            .iter()
            .filter(|workload| workload.phase == phase)
            .map(|workload| format!("  {}: {}\n", workload.name, workload.about))
            .collect();
        format!(
            "Loadline demo, {} s of about {} s: who waits for a CPU, and what for.\n\n\
             Running now, part {} of {PHASES} (Ctrl-C ends it):\n{now}\n{}\n{LEGEND}",
            self.begun.elapsed().as_secs(),
            self.length.as_secs(),
            phase + 1,
            table::render(&self.rows(), self.columns),
        )
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let name = |id| self.names.get(&id).map(|place| WORKLOADS[*place].name.to_owned());
        let mut outcomes = Vec::new();
        for (workload, window) in WORKLOADS.iter().zip(&self.measured) {
            let Some(window) = window.as_ref().filter(|_| workload.cause.is_some()) else { continue };
            let busiest = self.units[workload.phase].iter().max_by_key(|(_, used_ns)| **used_ns);
            let system = busiest
                .filter(|(_, used_ns)| **used_ns != 0)
                .map(|(unit, used_ns)| (unit.clone(), *used_ns as f64 / window.length_ns.max(1) as f64));
            outcomes.push(Outcome {
                workload,
                held_by: window.neighbors.first().and_then(|(id, _)| name(*id)),
                verdict: verdict::verdict(workload.name, window, &Surroundings { name: &name, system }),
                window: window.clone(),
            });
        }
        outcomes.sort_by(|a, b| table::by_what_hurts(&a.window, &b.window));
        outcomes
    }
}

/// What the causes mean.
const LEGEND: &str = "\
Waited for: quota = its own CPU limit; self = its own other threads;
neighbor = another container; system = a process outside any container;
idle = nobody, it is what waking up takes; unknown = it cannot be told.
";

/// The last words: the table, and what it means.
pub fn report(outcomes: &[Outcome], columns: usize) -> String {
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| TableRow { name: outcome.workload.name.into(), window: &outcome.window })
        .collect();
    let verdicts: Vec<_> = outcomes.iter().map(|outcome| outcome.verdict.clone()).collect();
    format!(
        "Who waited for a CPU, and what for:\n\n{}\n{LEGEND}\n{}\n",
        table::render(&rows, columns),
        verdict::render(&verdicts, columns)
    )
}

/// The workloads of a phase that did not wait for what they were made to wait for, a sentence each.
pub fn surprises(outcomes: &[Outcome], phase: usize) -> Vec<String> {
    WORKLOADS
        .iter()
        .filter(|workload| workload.phase == phase)
        .filter_map(|workload| surprise(workload, workload.cause?, outcomes))
        .collect()
}

fn surprise(workload: &Workload, expected: Cause, outcomes: &[Outcome]) -> Option<String> {
    let name = workload.name;
    let Some(outcome) = outcomes.iter().find(|outcome| outcome.workload.name == name) else {
        return Some(format!("{name} was not seen at all."));
    };
    // Nobody can tell when it was throttled, and the sampler is to say just that.
    let untold =
        expected == Cause::Quota && outcome.window.throttling.durations == Durations::HooksUnavailable;
    let expected = if untold { Cause::Unknown } else { expected };
    let expected_holder = workload.held_by;
    match outcome.verdict.cause {
        // One millisecond of a kernel thread in seconds is more than all that waking up takes.
        _ if expected == Cause::Idle && outcome.verdict.hardly => None,
        Some(cause) if cause != expected => Some(format!(
            "{name} waited most because of {}, and was made to wait because of {}.",
            cause.label(),
            expected.label()
        )),
        Some(_) if expected_holder.is_some() && outcome.held_by.as_deref() != expected_holder => {
            Some(format!(
                "{name} waited most for {}, and was made to wait for {}.",
                outcome.held_by.as_deref().unwrap_or("nobody with a name"),
                expected_holder.unwrap_or_default(),
            ))
        }
        Some(_) => None,
        None => Some(format!("{name} did not wait, and was made to wait because of {}.", expected.label())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampler_common::snapshot::{Causes, Throttling};

    /// A second of `throttled`, with these causes.
    fn throttled(causes: Causes, durations: Durations) -> Outcome {
        let workload = &WORKLOADS[0];
        let window = Window {
            length_ns: 1_000_000_000,
            causes,
            throttling: Throttling { durations, ..Throttling::default() },
            ..Window::default()
        };
        let around = Surroundings { name: &|_| None, system: None };
        let verdict = verdict::verdict(workload.name, &window, &around);
        Outcome { workload, window, held_by: None, verdict }
    }

    #[track_caller]
    fn surprise_of(outcome: Option<Outcome>) -> Option<String> {
        surprise(&WORKLOADS[0], Cause::Quota, outcome.as_slice())
    }

    #[test]
    fn a_workload_that_waited_because_of_something_else_is_a_surprise() {
        let counted = Durations::default();
        let quota = Causes { quota_ns: 900, self_ns: 100, ..Causes::default() };
        assert_eq!(surprise_of(Some(throttled(quota, counted))), None);
        let own = Causes { self_ns: 900, quota_ns: 100, ..Causes::default() };
        assert_eq!(
            surprise_of(Some(throttled(own, counted))).as_deref(),
            Some("throttled waited most because of self, and was made to wait because of quota.")
        );
        assert_eq!(
            surprise_of(Some(throttled(Causes::default(), counted))).as_deref(),
            Some("throttled did not wait, and was made to wait because of quota.")
        );
        assert_eq!(surprise_of(None).as_deref(), Some("throttled was not seen at all."));
    }

    #[test]
    fn where_the_hooks_are_missing_throttling_is_to_be_called_unknown() {
        let missing = Durations::HooksUnavailable;
        let untold = Causes { untold_ns: 900, ..Causes::default() };
        assert_eq!(surprise_of(Some(throttled(untold, missing))), None);
        let quota = Causes { quota_ns: 900, ..Causes::default() };
        assert!(surprise_of(Some(throttled(quota, missing))).is_some());
    }
}
