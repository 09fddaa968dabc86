//! A sampler's recording through the whole pipeline.
//!
//! A recording knows what containers waited for, and not what they requested: a container with a CPU limit is taken to request
//! as much, as Kubernetes fills it in, any other what the caller says; and every one the memory that it has. And it
//! answers nothing back, so that nothing is applied: each decision is about what was in force when its window was recorded.
//!
//! What it would have cost is judged as it is of traces: the request that was decided after one window against the use of the
//! next. It leaves out that a container that gets more may use more, and the time in which it does not work.
//!
//! Sizes are decided by hours and days of history. A recording of less than [`LONG_ENOUGH_SECONDS`] is therefore played slowly: each of
//! its windows comes again every five minutes, so often that all of it takes [`SLOW_SECONDS`]. Days are then such days, also that
//! of [`Terms::of_recording`] and those that changes are counted by.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use sampler_common::identity::Names;
use sampler_common::recording::{Reader, RecordingError};
use sampler_common::resources::Memory;
use sampler_common::window::{Window, WindowError, Windows};

use super::one_node::{Name, OneNode};
use super::score::{Played, Run, Terms};
use super::trace::Trace;
use crate::decide::check::Unsafe;
use crate::decide::observation::Reading;
use crate::decide::policy::MemoryBounds;
use crate::decide::record::DecisionRecord;
use crate::decide::scope::PolicyObject;
use crate::decide::sizes::Sizes;
use crate::decide::units::{Bytes, MilliCpu, Timestamp};

/// A recording of a day is played as it was.
const LONG_ENOUGH_SECONDS: u64 = 86_400;
/// A shorter one is played for so long: on its first day nothing shrinks, and a container may be at work in a third of it only.
const SLOW_SECONDS: u64 = 4 * LONG_ENOUGH_SECONDS;
/// How far apart it is played that a window comes again.
const SLOW_STEP_SECONDS: u64 = 300;
const SECOND_NS: u64 = 1_000_000_000;
/// A window of less says little, such as that between the end of one phase of a demo and the beginning of the next.
const SHORTEST_NS: u64 = SECOND_NS / 2;
/// A container that uses less than this (cores) is not at work yet, or no more: it waits to be told to begin, or ends.
const LEAST_CORES: f64 = 0.001;

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// Two snapshots are not one after the other.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// A decision was not safe.
    #[error("the plan at {at} s is not safe")]
    Unsafe {
        /// Seconds since the beginning of the recording.
        at: u64,
        /// What is wrong with it.
        source: Unsafe,
    },
}

/// A decision about one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Seconds since the beginning of the recording.
    pub at_seconds: u64,
    /// Which.
    pub name: Name,
    /// CPU that it used in the window that was just played, in cores; `None` where it did not work in it.
    pub used_cores: Option<f64>,
    /// What, and why.
    pub record: DecisionRecord,
}

/// Plays a recording; every decision about every container, in order of time. `request` is what a container without a CPU
/// limit is taken to request.
pub fn replay(
    recording: impl Read,
    policy: PolicyObject,
    request: MilliCpu,
) -> Result<Vec<Decision>, ReplayError> {
    let mut reader = Reader::open(recording)?;
    let header = reader.header().clone();
    let mut snapshots = Vec::new();
    for snapshot in &mut reader {
        snapshots.push(snapshot?);
    }
    let length_ns = match (snapshots.first(), snapshots.last()) {
        (Some(first), Some(last)) => last.at_ns.saturating_sub(first.at_ns),
        _ => 0,
    };
    let steps = snapshots.len().saturating_sub(1).max(1) as u64;
    let slowly = (length_ns / SECOND_NS < LONG_ENOUGH_SECONDS)
        .then_some((SLOW_SECONDS / SLOW_STEP_SECONDS).div_ceil(steps));
    let mut node = OneNode::new(header.cpus, MilliCpu(u64::from(header.cpus) * 1000), policy);
    let mut now = Timestamp(header.started_unix_ns / SECOND_NS);
    let mut decisions = Vec::new();
    for pair in snapshots.windows(2) {
        let windows = Windows::between(&pair[0], &pair[1])?;
        let at_seconds = (pair[1].at_ns - snapshots[0].at_ns) / SECOND_NS;
        let there: BTreeMap<Name, &Window> = windows
            .cgroups
            .iter()
            .filter(|(_, window)| {
                let works = window.used_cores().is_some_and(|cores| cores >= LEAST_CORES);
                window.length_ns >= SHORTEST_NS && works
            })
            .filter_map(|(id, window)| {
                let names = pair[1].cgroups.get(id)?.identity.container()?.names.as_ref()?;
                let Names { namespace, pod, container } = names.clone();
                let container = container.filter(|name| name != Names::SANDBOX)?;
                Some((Name { namespace, pod, container }, window))
            })
            .collect();
        node.keep(&there.keys().cloned().collect::<BTreeSet<_>>());
        let step_seconds = slowly.map_or(windows.length_ns / SECOND_NS, |_| SLOW_STEP_SECONDS);
        for _ in 0..slowly.unwrap_or(1) {
            now = now.plus_seconds(step_seconds.max(1));
            for (name, window) in &there {
                let limit = window.limits.cpu.map(|limit| MilliCpu::ceil_cores(limit.cores()));
                let sizes = Sizes {
                    cpu_request: Some(limit.unwrap_or(request)),
                    cpu_limit: limit,
                    memory_request: window.memory.map(requested_memory),
                    memory_limit: None,
                };
                let reading = Reading::Window { until: now, window: Box::new(Window::clone(window)) };
                node.read(name, sizes, reading);
            }
            let decided =
                node.decide(now).map_err(|source| ReplayError::Unsafe { at: at_seconds, source })?;
            decisions.extend(decided.records.into_iter().map(|record| {
                let of = &record.container;
                let name = Name {
                    namespace: of.namespace.clone(),
                    pod: of.pod.clone(),
                    container: of.container.clone(),
                };
                let used_cores = there.get(&name).and_then(|window| window.used_cores());
                Decision { at_seconds, name, used_cores, record }
            }));
        }
    }
    Ok(decisions)
}

/// Memory that a container is taken to request.
fn requested_memory(memory: Memory) -> Bytes {
    Bytes(memory.peak_bytes.unwrap_or(0).max(memory.working_set_bytes)).max(MemoryBounds::LEAST)
}

/// What each container is called: `pod/container`, with its namespace before that where another has the same.
pub fn series_names(decisions: &[Decision]) -> BTreeMap<&Name, String> {
    let all: BTreeSet<&Name> = decisions.iter().map(|decision| &decision.name).collect();
    let mut times: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for Name { pod, container, .. } in &all {
        *times.entry((pod, container)).or_default() += 1;
    }
    let called = |name: &Name| {
        let Name { namespace, pod, container } = name;
        match times[&(pod.as_str(), container.as_str())] {
            1 => format!("{pod}/{container}"),
            _ => format!("{namespace}/{pod}/{container}"),
        }
    };
    all.iter().map(|name| (*name, called(name))).collect()
}

/// Judges what was decided about each container that worked at all, in the order of their names. Each begins with what it had.
pub fn played(decisions: &[Decision]) -> Vec<Played> {
    let mut of: BTreeMap<&Name, Vec<&Decision>> = BTreeMap::new();
    for decision in decisions {
        of.entry(&decision.name).or_default().push(decision);
    }
    let one = |(name, label): (&Name, String)| {
        let first_request = of[name].first()?.record.current.cpu();
        let (mut samples, mut allocated, mut current) = (Vec::new(), Vec::new(), first_request);
        for Decision { used_cores, record, .. } in &of[name] {
            if let Some(cores) = *used_cores {
                samples.push((record.at, cores));
                allocated.push(current);
            }
            current = record.result.cpu();
        }
        if samples.is_empty() {
            return None;
        }
        let trace = Trace { name: label, samples };
        let terms = Terms::of_recording(&trace, first_request);
        Some(Played { run: Run::of(&trace, terms, allocated), trace, terms })
    };
    series_names(decisions).into_iter().filter_map(one).collect()
}

/// What was decided about one container most of the time.
#[derive(Clone, Debug)]
pub struct Usual<'a> {
    /// Its last decision of this kind.
    pub last: &'a Decision,
    /// How many of its decisions were of this kind.
    pub times: usize,
    /// How many there were.
    pub of: usize,
}

/// For each container the kind of decision (reason, and which way its CPU request and limit go) that there was most often.
pub fn usual(decisions: &[Decision]) -> Vec<Usual<'_>> {
    type Kind = (String, String, Ordering, Ordering);
    let mut all: BTreeMap<&Name, BTreeMap<Kind, (usize, &Decision)>> = BTreeMap::new();
    for decision in decisions {
        let DecisionRecord { reason, current, result, .. } = &decision.record;
        let request = result.cpu_request.cmp(&current.cpu_request);
        let kind = (reason.name(), reason.to_string(), request, result.cpu_limit.cmp(&current.cpu_limit));
        let of = all.entry(&decision.name).or_default().entry(kind).or_insert((0, decision));
        *of = (of.0 + 1, decision);
    }
    let usuals = all.into_values().filter_map(|kinds| {
        let of = kinds.values().map(|(times, _)| times).sum();
        let (times, last) = kinds.into_values().max_by_key(|(times, _)| *times)?;
        Some(Usual { last, times, of })
    });
    usuals.collect()
}
