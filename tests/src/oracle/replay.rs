//! The replay: a trace of the scheduler's events → every wait, cut exactly by who or what held its CPU.
//!
//! Each moment of a wait has one cause, by the first of these that is so on the CPU where the thread is queued:
//! 1. its cgroup or an ancestor is throttled there: `quota`, whoever runs;
//! 2. nobody runs: `idle`, the latency of the wakeup itself;
//! 3. the thread's own row runs: `self`;
//! 4. a row runs that the assignment calls system: `system`;
//! 5. another container runs: `neighbor`, by its row.
//!
//! The thread's cgroup and row are those that it has when it is switched in, as is the row that the wait is charged to.
//! Up to 6.17 a throttled cgroup's threads stay queued; from 6.18 they are parked as they return to user space, switched
//! out runnable. In both cases they wait until they are switched in, so one rule serves.

use std::collections::{BTreeMap, HashMap};

use super::assignment::{Assignment, Role, Row};
use super::timeline::{Holder, Interval, Part, Segment, Timeline, arrange};
use super::trace::{CgroupId, Cpu, Tid, Trace, Window};

/// Nanoseconds of wait by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CauseNs {
    /// The cgroup or an ancestor was throttled by its CPU limit.
    pub quota: u64,
    /// The container's own threads held the CPU.
    pub self_: u64,
    /// Another container held it.
    pub neighbor: u64,
    /// Something outside any pod held it.
    pub system: u64,
    /// Nobody held it.
    pub idle: u64,
}

impl CauseNs {
    /// The causes in the order of the fields.
    #[must_use]
    pub fn as_array(&self) -> [u64; 5] {
        let Self { quota, self_, neighbor, system, idle } = *self;
        [quota, self_, neighbor, system, idle]
    }

    /// All of them together: the wait.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.as_array().into_iter().sum()
    }
}

impl std::ops::AddAssign for CauseNs {
    fn add_assign(&mut self, other: Self) {
        self.quota += other.quota;
        self.self_ += other.self_;
        self.neighbor += other.neighbor;
        self.system += other.system;
        self.idle += other.idle;
    }
}

/// One wait, from runnable to switched in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who waited.
    pub thread: Tid,
    /// When it was switched in, in nanoseconds of the trace clock.
    pub ended_ns: u64,
    /// What it waited for; the total is the wait's length.
    pub causes: CauseNs,
}

/// The waits of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowWaits {
    /// Nanoseconds by cause, over all waits.
    pub causes: CauseNs,
    /// The `neighbor` part by the row that held the CPU, in nanoseconds.
    pub neighbors: BTreeMap<String, u64>,
    /// Every wait, in the order in which they ended; those of no length too.
    pub waits: Vec<Wait>,
}

impl RowWaits {
    /// The lengths of the waits in nanoseconds, to hold a histogram against.
    pub fn lengths_ns(&self) -> impl Iterator<Item = u64> + '_ {
        self.waits.iter().map(|wait| wait.causes.total())
    }
}

/// What the replay could not judge, and how well the trace held together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAside {
    /// Waits of unknown length, as they began before the trace did (or behind a contradiction).
    pub begun_before: u64,
    /// Waits that had not ended when the trace did.
    pub unfinished: u64,
    /// Nanoseconds that those had lasted by then.
    pub unfinished_ns: u64,
    /// Waits with a part on a CPU that the trace never shows anybody on.
    pub holder_unseen: u64,
    /// Waits that are counted, but whose wakeup the trace does not show: they are taken from where the thread left.
    pub wakeups_unseen: u64,
    /// Threads whose cgroup nobody told: they are taken as the root's.
    pub strangers: u64,
    /// Events that cannot follow one another: a CPU left by a thread that was not on it, or a thread switched in where
    /// it was not queued. A sound trace has none.
    pub contradictions: u64,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The waits of each row that had any, by the row's path.
    pub rows: BTreeMap<String, RowWaits>,
    /// The lengths of each thread's waits in nanoseconds, in order; of all that had its id one after the other.
    pub threads: BTreeMap<Tid, Vec<u64>>,
    /// What was left out, over the whole trace.
    pub set_aside: SetAside,
}

/// Replays a trace: the waits that end inside the window, by row and cause.
#[must_use]
pub fn replay(trace: &Trace, assignment: &Assignment, window: Window) -> Replay {
    let Timeline { holders, throttled, waits, set_aside } = arrange(trace);
    let mut cutter = Cutter::new(trace, assignment, holders, throttled);
    let mut result = Replay { set_aside, ..Replay::default() };
    for wait in waits {
        let ended_ns = wait.parts.last().map_or(0, |part| part.span.to_ns);
        if !window.holds(ended_ns) {
            continue;
        }
        let Some(pieces) = cutter.cut(wait.cgroup, &wait.parts) else {
            result.set_aside.holder_unseen += 1;
            continue;
        };
        let row = result.rows.entry(cutter.row(wait.cgroup).path.clone()).or_default();
        let mut causes = CauseNs::default();
        for (cause, ns) in pieces {
            match cause {
                Cause::Quota => causes.quota += ns,
                Cause::Own => causes.self_ += ns,
                Cause::System => causes.system += ns,
                Cause::Idle => causes.idle += ns,
                Cause::Neighbor(who) => {
                    causes.neighbor += ns;
                    *row.neighbors.entry(who.path.clone()).or_default() += ns;
                }
            }
        }
        row.causes += causes;
        row.waits.push(Wait { thread: wait.thread, ended_ns, causes });
        result.threads.entry(wait.thread).or_default().push(causes.total());
    }
    result
}

enum Cause<'a> {
    Quota,
    Own,
    Neighbor(&'a Row),
    System,
    Idle,
}

/// Second pass: cuts waits along the timeline.
struct Cutter<'a> {
    trace: &'a Trace,
    assignment: &'a Assignment,
    ids_by_path: HashMap<&'a str, Vec<CgroupId>>,
    holders: HashMap<Cpu, Vec<Segment>>,
    throttled: HashMap<(CgroupId, Cpu), Vec<Interval>>,
    /// The throttles of a cgroup and its ancestors on a CPU, merged when they are first asked for.
    merged: HashMap<(CgroupId, Cpu), Vec<Interval>>,
    rows: HashMap<CgroupId, &'a Row>,
}

impl<'a> Cutter<'a> {
    fn new(
        trace: &'a Trace,
        assignment: &'a Assignment,
        holders: HashMap<Cpu, Vec<Segment>>,
        throttled: HashMap<(CgroupId, Cpu), Vec<Interval>>,
    ) -> Self {
        let mut ids_by_path: HashMap<&str, Vec<CgroupId>> = HashMap::new();
        for (&id, path) in &trace.cgroups {
            ids_by_path.entry(path).or_default().push(id);
        }
        Self {
            trace,
            assignment,
            ids_by_path,
            holders,
            throttled,
            merged: HashMap::new(),
            rows: HashMap::new(),
        }
    }

    fn path(&self, cgroup: CgroupId) -> &'a str {
        self.trace.cgroups.get(&cgroup).map_or("/", String::as_str)
    }

    fn row(&mut self, cgroup: CgroupId) -> &'a Row {
        let path = self.path(cgroup);
        self.rows.entry(cgroup).or_insert_with(|| self.assignment.row_of(path))
    }

    /// The pieces of a wait; `None` when the trace never shows who held one of its CPUs.
    fn cut(&mut self, cgroup: CgroupId, parts: &[Part]) -> Option<Vec<(Cause<'a>, u64)>> {
        let own = self.row(cgroup);
        let mut pieces = Vec::new();
        for part in parts {
            let held = overlapping(self.holders.get(&part.cpu)?, part.span);
            let throttled = self.throttles_over(cgroup, part);
            let quota: u64 = throttled.iter().map(Interval::length).sum();
            if quota > 0 {
                pieces.push((Cause::Quota, quota));
            }
            for (span, holder) in held {
                let quota: u64 =
                    throttled.iter().filter_map(|stop| stop.within(span)).map(|stop| stop.length()).sum();
                let cause = match holder {
                    Holder::Idle => Cause::Idle,
                    Holder::Of(cgroup) => match self.row(cgroup) {
                        row if row == own => Cause::Own,
                        row if row.role == Role::System => Cause::System,
                        row => Cause::Neighbor(row),
                    },
                };
                if span.length() > quota {
                    pieces.push((cause, span.length() - quota));
                }
            }
        }
        Some(pieces)
    }

    /// The stretches of a part in which the cgroup or an ancestor was throttled on the part's CPU.
    ///
    /// The kernel's own walk already reports an ancestor's throttle for each cgroup below it that has a CPU controller;
    /// asking the ancestors as well covers those that have none or that were made while it held.
    fn throttles_over(&mut self, cgroup: CgroupId, part: &Part) -> Vec<Interval> {
        let path = self.path(cgroup);
        let Self { merged, ids_by_path, throttled, .. } = self;
        let merged = merged.entry((cgroup, part.cpu)).or_insert_with(|| {
            let ids = self_and_ancestors(path).filter_map(|path| ids_by_path.get(path)).flatten();
            let stops = ids.filter_map(|&id| throttled.get(&(id, part.cpu))).flatten();
            merge(stops.copied().collect())
        });
        let first = merged.partition_point(|stop| stop.to_ns <= part.span.from_ns);
        merged[first..].iter().map_while(|stop| stop.within(part.span)).collect()
    }
}

impl Interval {
    fn length(&self) -> u64 {
        self.to_ns - self.from_ns
    }

    /// The part of this stretch that lies within another, if any.
    fn within(&self, other: Self) -> Option<Self> {
        let from_ns = self.from_ns.max(other.from_ns);
        let to_ns = self.to_ns.min(other.to_ns);
        (from_ns < to_ns).then_some(Self { from_ns, to_ns })
    }
}

/// The segments of a CPU that overlap a stretch, cut to it.
fn overlapping(segments: &[Segment], span: Interval) -> Vec<(Interval, Holder)> {
    let first = segments.partition_point(|segment| segment.from_ns <= span.from_ns).saturating_sub(1);
    let mut pieces = Vec::new();
    for (index, segment) in segments.iter().enumerate().skip(first) {
        let to_ns = segments.get(index + 1).map_or(u64::MAX, |next| next.from_ns);
        if segment.from_ns >= span.to_ns {
            break;
        }
        pieces.extend(
            Interval { from_ns: segment.from_ns, to_ns }.within(span).map(|cut| (cut, segment.holder)),
        );
    }
    pieces
}

/// Joins stretches that overlap or touch, in the order of time.
fn merge(mut stretches: Vec<Interval>) -> Vec<Interval> {
    stretches.sort_unstable_by_key(|stretch| stretch.from_ns);
    let mut joined: Vec<Interval> = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        match joined.last_mut() {
            Some(last) if stretch.from_ns <= last.to_ns => last.to_ns = last.to_ns.max(stretch.to_ns),
            _ => joined.push(stretch),
        }
    }
    joined
}

/// `/a/b`, `/a`, `/`.
fn self_and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rfind('/')? {
        0 if path.len() > 1 => Some("/"),
        0 => None,
        cut => Some(&path[..cut]),
    })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
