//! The memory target of one container: request and limit, each step leaving its mark.
//!
//! | step | what it does |
//! |---|---|
//! | use | the 99th percentile of the hours' peaks over the window × (1 + margin), exactly, or the policy's if that is higher |
//! | cold start | with less than a day of history it only raises |
//! | recent peak | never below the highest use of the last day × (1 + headroom) |
//! | OOM | after a kill at least 1.2 × what it had and 100 MiB more, for as long as the window reaches back; that takes no measurement |
//! | limit | a request is never above the limit; a limit that the policy controls shrinks with its request, and never below the window's highest use × (1 + headroom), nor does a request that equals it |
//!
//! # Invariants
//!
//! * A limit changes only under `RequestsAndLimits`. Where it is what binds and may not change, the reason says so.
//! * `request ≤ limit`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Target;
use crate::decide::history::memory::MemoryHistory;
use crate::decide::policy::{ControlledValues, Policy};
use crate::decide::share::PerMille;
use crate::decide::units::{Bytes, Timestamp};

/// Memory that is short is a kill, so a policy's percentile, which is chosen for CPU, counts only where it is higher.
const PERCENTILE: f64 = 0.99;
/// Peaks of less than this know nothing of some hours of the day.
pub const WARM_SECONDS: u64 = 86_400;
/// Memory is read less often than CPU; samples older than this say nothing about now.
const STALE_SECONDS: u64 = 1800;

/// What a memory target depends on.
#[derive(Clone, Copy, Debug)]
pub struct MemoryInputs<'a> {
    /// What it used, and whether it was killed for it.
    pub history: &'a MemoryHistory,
    /// Whether what it used is known well enough to go by.
    pub measured: bool,
    /// The request in force.
    pub request: Bytes,
    /// The limit in force.
    pub limit: Option<Bytes>,
    /// What is wanted.
    pub policy: &'a Policy,
    /// Now.
    pub now: Timestamp,
}

/// What a container should have of memory. Samples of a day are all the confidence that it takes.
pub type MemoryTarget = Target<Bytes, Step, Reason>;
/// What a step came to.
pub type Mark = super::Mark<Bytes, Step, Reason>;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// By the peaks of the window.
    Use,
    /// Little is known of it.
    ColdStart,
    /// By the peak of the last day.
    RecentPeak,
    /// By an OOM kill.
    OutOfMemory,
    /// The limit in force.
    Limit,
}

/// Why a memory target is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// There is no sample yet, or none of the last half hour.
    NoData,
    /// Too little is known to shrink.
    Learning,
    /// It is what it should be.
    Holding,
    /// Its peaks are higher.
    PeaksHigher,
    /// Its peaks are lower.
    PeaksLower,
    /// Its peak of the last day is what keeps it from being smaller.
    RecentPeak,
    /// Its limit, which equals the request, has to hold the window's peak.
    WindowPeak,
    /// It was killed for want of memory.
    OutOfMemory,
    /// It needs more than its memory limit, and the policy leaves limits alone.
    LimitBinds,
}

impl Reason {
    /// Whether what it says is for somebody to do: no request of ours would help.
    pub fn is_for_others(self) -> bool {
        self == Self::LimitBinds
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoData => "there is no recent sample of its memory",
            Self::Learning => "too little is known of its memory to shrink it",
            Self::Holding => "it is what it should be",
            Self::PeaksHigher => "its peaks are higher than its request",
            Self::PeaksLower => "its peaks are lower than its request",
            Self::RecentPeak => "its highest use of the last day keeps it from being smaller",
            Self::WindowPeak => {
                "its highest use within the history's window keeps its limit, and the request that equals it, from being smaller"
            }
            Self::OutOfMemory => "it was killed for want of memory",
            Self::LimitBinds => {
                "it needs more than its memory limit, and the policy leaves limits alone: \
                 `controlledValues: RequestsAndLimits` would let it be raised"
            }
        })
    }
}

/// The memory target.
pub fn memory(inputs: &MemoryInputs<'_>) -> MemoryTarget {
    let mut sizing = Sizing {
        inputs,
        request: inputs.request,
        limit: inputs.limit,
        reason: Reason::Holding,
        marks: Vec::with_capacity(4),
    };
    if inputs.measured {
        sizing.by_use();
        sizing.by_recent_peak();
    }
    sizing.by_kill();
    sizing.with_limit();
    let limit = sizing.limit.filter(|limit| Some(*limit) != inputs.limit);
    let confidence = inputs.history.age_seconds().min(WARM_SECONDS) * 1000 / WARM_SECONDS;
    MemoryTarget {
        request: sizing.request,
        limit,
        reason: sizing.reason,
        confidence: PerMille(confidence as u32),
        marks: sizing.marks,
    }
}

/// This and a margin.
fn with(margin: PerMille, memory: Bytes) -> Bytes {
    let whole = u64::from(PerMille::WHOLE.0);
    memory.scale_up(whole + u64::from(margin.0), whole)
}

/// A target in the making.
struct Sizing<'a> {
    inputs: &'a MemoryInputs<'a>,
    request: Bytes,
    limit: Option<Bytes>,
    reason: Reason,
    marks: Vec<Mark>,
}

impl Sizing<'_> {
    fn step(&mut self, step: Step, request: Bytes, limit: Option<Bytes>, reason: Reason) {
        (self.request, self.limit, self.reason) = (request, limit, reason);
        self.marks.push(Mark { step, request, limit, reason });
    }

    fn by_use(&mut self) {
        let &MemoryInputs { history, request, policy, now, .. } = self.inputs;
        let settings = &policy.history;
        let fresh = history.latest().is_some_and(|latest| now.seconds_since(latest) <= STALE_SECONDS);
        let q = settings.percentile.map_or(PERCENTILE, |percentile| percentile.fraction().max(PERCENTILE));
        let Some(peak) = history.percentile_at(now, q, settings).filter(|_| fresh) else {
            return self.step(Step::Use, request, self.limit, Reason::NoData);
        };
        let target = with(settings.margin, peak);
        let reason = match target.cmp(&request) {
            std::cmp::Ordering::Greater => Reason::PeaksHigher,
            std::cmp::Ordering::Equal => Reason::Holding,
            std::cmp::Ordering::Less => Reason::PeaksLower,
        };
        self.step(Step::Use, target, self.limit, reason);
        if target < request && history.age_seconds() < WARM_SECONDS.min(settings.window.0) {
            self.step(Step::ColdStart, request, self.limit, Reason::Learning);
        }
    }

    /// What the highest use of the last day takes.
    fn recent_peak(&self) -> Option<Bytes> {
        let peak = self.inputs.history.recent_peak(self.inputs.now)?;
        Some(with(self.inputs.policy.objectives.memory_headroom, peak))
    }

    fn by_recent_peak(&mut self) {
        if let Some(least) = self.recent_peak().filter(|least| *least > self.request) {
            let higher = least > self.inputs.request;
            let reason = if higher { Reason::PeaksHigher } else { Reason::RecentPeak };
            self.step(Step::RecentPeak, least, self.limit, reason);
        }
    }

    fn by_kill(&mut self) {
        let kill = self.inputs.history.kill(self.inputs.now, &self.inputs.policy.history);
        let Some(needed) = kill.map(|kill| Bytes(kill.needed_bytes)) else { return };
        // Also where its peaks take more than that: that it was killed is what cannot wait.
        if needed > self.request.min(self.inputs.request) {
            self.step(Step::OutOfMemory, needed.max(self.request), self.limit, Reason::OutOfMemory);
        }
    }

    fn with_limit(&mut self) {
        let &MemoryInputs { request, limit, policy, .. } = self.inputs;
        let Some(limit) = limit else { return };
        if policy.controlled_values == ControlledValues::RequestsOnly {
            if self.request > limit {
                self.step(Step::Limit, limit, Some(limit), Reason::LimitBinds);
            }
            return;
        }
        // Where they are equal they stay so. Else a limit keeps its proportion to a request that shrinks, and is at least the request.
        let equal = limit == request;
        let wanted = match self.request.cmp(&request) {
            _ if equal => self.request,
            std::cmp::Ordering::Less => limit.scale_up(self.request.0, request.0).max(self.request),
            _ => limit.max(self.request),
        };
        let held = if wanted < limit { wanted.max(self.window_peak()).min(limit) } else { wanted };
        let (request, reason) = match equal && held > wanted {
            true => (held, Reason::WindowPeak),
            false => (self.request, self.reason),
        };
        if (request, held) != (self.request, limit) {
            self.step(Step::Limit, request, Some(held), reason);
        }
    }

    /// What the highest use of the whole window takes, however rare it is: above its limit it is killed.
    fn window_peak(&self) -> Bytes {
        let &MemoryInputs { history, policy, now, .. } = self.inputs;
        let peak = history.percentile_at(now, 1.0, &policy.history);
        peak.map_or(Bytes::MAX, |peak| with(policy.objectives.memory_headroom, peak))
    }
}

#[cfg(test)]
mod tests;
