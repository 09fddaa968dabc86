//! The CPU target of one container: request and limit, each step leaving its mark.
//!
//! | step | what it does |
//! |---|---|
//! | use | the policy's percentile × (1 + margin), exactly; without a percentile the priced [`bet`](super::bet), or, where after a day no forecast could be judged, the 99th percentile |
//! | cold start | with less than a day of history it only raises |
//! | objective | nobody keeps it waiting: no more than what it goes on using × (1 + margin). Missed: nothing shrinks, and what would help is raised, at once to the demand × (1 + margin). Met: it shrinks only after [`CALM`] with room |
//! | limit | a request is never above the limit |
//! | boost | while the container starts at least its first request × factor |
//!
//! # Invariants
//!
//! * A limit changes only under `RequestsAndLimits`. Where it is what binds and may not change, the reason says so.
//! * Without a signal (windows that say only what was used) the objective step does nothing, and no limit falls.
//! * `request ≤ limit`.

use std::cmp::Ordering;
use std::fmt;

use sampler_common::demand::Bottleneck;
use serde::{Deserialize, Serialize};

use super::Target;
use super::bet::{self, Changes, bet};
use super::signal::{Signal, Verdict};
use crate::decide::duration::Seconds;
use crate::decide::history::History;
use crate::decide::observation::Qos;
use crate::decide::policy::{ControlledValues, Percentile, Policy};
use crate::decide::share::PerMille;
use crate::decide::units::{MilliCpu, Timestamp};

/// For so long the objective must have been met with room before anything shrinks: one slot of the history.
pub const CALM: Seconds = Seconds(300);
/// After somebody has kept it waiting, so long the request covers its bursts.
const PRESSED: Seconds = Seconds(86_400);
/// What is saved by a smaller request is saved for so long: the longest horizon of a forecast.
const KEPT_MINUTES: f64 = 90.0;
/// What it is sized to where its forecasts cannot be judged, as with samples that are hours apart, or mostly missing.
const UNJUDGED: Percentile = Percentile::new(99).unwrap();
/// A percentile of less than this knows nothing of some hours of the day.
const WARM_SECONDS: u64 = 86_400;
/// Samples older than this say nothing about now.
const STALE_SECONDS: u64 = 600;

/// What a CPU target depends on.
#[derive(Clone, Copy, Debug)]
pub struct CpuInputs<'a> {
    /// What it used. Samples of what was held back are [`Signal::remembered`].
    pub history: &'a History,
    /// The request in force.
    pub request: MilliCpu,
    /// The limit in force.
    pub limit: Option<MilliCpu>,
    /// The pod's class: of one that is Guaranteed, request and limit are one.
    pub qos: Qos,
    /// The request that the container was started with.
    pub started_with: MilliCpu,
    /// The limit that it was started with.
    pub started_limit: Option<MilliCpu>,
    /// The last window; `None` for windows that say only what was used.
    pub signal: Option<&'a Signal>,
    /// How often its request has changed lately.
    pub changes: Changes,
    /// What is wanted.
    pub policy: &'a Policy,
    /// For how long the container has been running.
    pub age_seconds: u64,
    /// Now.
    pub now: Timestamp,
}

/// What a container should have of CPU. Samples of a day are all the confidence that it takes.
pub type CpuTarget = Target<MilliCpu, Step, Reason>;
/// What a step came to.
pub type Mark = super::Mark<MilliCpu, Step, Reason>;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// By what it used.
    Use,
    /// Little is known of it.
    ColdStart,
    /// By what it waited for.
    Objective,
    /// The limit in force.
    Limit,
    /// It is starting.
    StartupBoost,
}

/// Why a CPU target is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// There is no sample yet, or none of the last minutes.
    NoData,
    /// Too little is known to shrink.
    Learning,
    /// It is what it should be, or a change would cost more than it brings.
    Holding,
    /// It uses more, or is likely to.
    UsesMore,
    /// It uses less.
    UsesLess,
    /// It would shrink, but has changed too often lately.
    TooManyChanges,
    /// It would shrink, but misses its objective or has not met it with room for long enough.
    NotCalm,
    /// It waits for what this bottleneck withholds, and more request gives it a larger share.
    Waits(Bottleneck),
    /// It waits though its request covers all that it could use: the node is what is short.
    WaitsDespiteRequest(Bottleneck),
    /// Its CPU limit held it back, and is raised.
    LimitRaised,
    /// Its CPU limit holds it back, and the policy leaves limits alone.
    LimitBinds,
    /// The CPU limit of a cgroup above it holds it back.
    AncestorLimitBinds,
    /// Its threads wait for each other: there are more that run at a time than CPUs for them.
    OverThreaded,
    /// It is starting.
    StartupBoost,
}

impl Reason {
    /// Whether what it says is for somebody to do: no request of ours would help, or not enough.
    pub fn is_for_others(self) -> bool {
        matches!(
            self,
            Self::OverThreaded | Self::LimitBinds | Self::AncestorLimitBinds | Self::WaitsDespiteRequest(_)
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoData => "there is no recent sample of its use",
            Self::Learning => "too little is known of its use to shrink it",
            Self::Holding => "any change would cost more than it brings",
            Self::UsesMore => "it uses more, or is likely to",
            Self::UsesLess => "it uses less than it has",
            Self::TooManyChanges => "it would shrink, but has changed too often lately",
            Self::NotCalm => "it would shrink, but has not met its objective with room for long enough",
            Self::Waits(Bottleneck::Neighbors) => {
                "it waits for other containers: a larger request is a larger share"
            }
            Self::Waits(Bottleneck::System) => {
                "it waits for processes of the node: a larger request is a larger share"
            }
            Self::Waits(_) => "it waits too long for CPU: a larger request is a larger share",
            Self::WaitsDespiteRequest(_) => {
                "it waits too long though its request covers all that it could use: the node is short of CPU"
            }
            Self::LimitRaised => "its CPU limit held it back",
            Self::LimitBinds => {
                "its CPU limit holds it back, and the policy leaves limits alone: \
                 `controlledValues: RequestsAndLimits` would let it be raised"
            }
            Self::AncestorLimitBinds => "the CPU limit of a cgroup above it holds it back: raise that one",
            Self::OverThreaded => {
                "its own threads wait for each other: it runs more threads than there are CPUs for them, \
                 and a higher limit, or a request above what it uses, would not help; fewer threads would"
            }
            Self::StartupBoost => "it is starting, and gets more until it has",
        })
    }
}

/// The CPU target. Worth asking for when a slot of the history has ended ([`History::ended_slot_since`]), when more is used than
/// requested, and when the objective is missed.
pub fn cpu(inputs: &CpuInputs<'_>) -> CpuTarget {
    let mut sizing = Sizing::new(inputs);
    sizing.by_use();
    sizing.by_objective();
    sizing.within_limit();
    sizing.boost();
    let limit = sizing.limit.filter(|limit| Some(*limit) != inputs.limit);
    let confidence = inputs.history.age_seconds().min(WARM_SECONDS) * 1000 / WARM_SECONDS;
    CpuTarget {
        request: sizing.request,
        limit,
        reason: sizing.reason,
        confidence: PerMille(confidence as u32),
        marks: sizing.marks,
    }
}

/// A target in the making.
struct Sizing<'a> {
    inputs: &'a CpuInputs<'a>,
    request: MilliCpu,
    limit: Option<MilliCpu>,
    reason: Reason,
    marks: Vec<Mark>,
}

impl<'a> Sizing<'a> {
    fn new(inputs: &'a CpuInputs<'a>) -> Self {
        let &CpuInputs { request, limit, .. } = inputs;
        Self { inputs, request, limit, reason: Reason::Holding, marks: Vec::with_capacity(4) }
    }

    fn step(&mut self, step: Step, request: MilliCpu, limit: Option<MilliCpu>, reason: Reason) {
        (self.request, self.limit, self.reason) = (request, limit, reason);
        self.marks.push(Mark { step, request, limit, reason });
    }

    /// So much and the policy's margin.
    fn with_margin(&self, cores: f64) -> MilliCpu {
        MilliCpu::ceil_cores(cores * (1.0 + self.inputs.policy.history.margin.fraction()))
    }

    fn by_use(&mut self) {
        match self.inputs.policy.history.percentile {
            Some(percentile) => self.by_percentile(percentile),
            None => self.by_bet(),
        }
        let &CpuInputs { history, request, policy, .. } = self.inputs;
        if self.request < request && history.age_seconds() < WARM_SECONDS.min(policy.history.window.0) {
            self.step(Step::ColdStart, request, self.limit, Reason::Learning);
        }
    }

    fn by_bet(&mut self) {
        let &CpuInputs { history, request, changes, policy, now, .. } = self.inputs;
        let bet = bet(history, request, changes, &policy.cost, now);
        if bet.reason == bet::Reason::Learning && history.age_seconds() >= WARM_SECONDS {
            self.by_percentile(UNJUDGED);
            if bet.request > request.max(self.request) {
                self.step(Step::Use, bet.request, self.limit, Reason::UsesMore);
            }
            return;
        }
        let reason = match bet.reason {
            bet::Reason::NoData => Reason::NoData,
            bet::Reason::Learning if bet.request > request => Reason::UsesMore,
            bet::Reason::Learning => Reason::Learning,
            bet::Reason::Holding => Reason::Holding,
            bet::Reason::Raised => Reason::UsesMore,
            bet::Reason::Shrunk => Reason::UsesLess,
            bet::Reason::TooManyChanges => Reason::TooManyChanges,
        };
        self.step(Step::Use, bet.request, self.limit, reason);
    }

    fn by_percentile(&mut self, percentile: Percentile) {
        let &CpuInputs { history, request, policy, now, .. } = self.inputs;
        let fresh = history.latest().is_some_and(|latest| now.seconds_since(latest) <= STALE_SECONDS);
        let found = history.percentile_at(now, percentile.fraction(), &policy.history).filter(|_| fresh);
        let Some(cores) = found else {
            return self.step(Step::Use, request, self.limit, Reason::NoData);
        };
        let target = self.with_margin(cores);
        let reason = match target.cmp(&request) {
            Ordering::Greater => Reason::UsesMore,
            Ordering::Equal => Reason::Holding,
            Ordering::Less => Reason::UsesLess,
        };
        self.step(Step::Use, target, self.limit, reason);
    }

    fn by_objective(&mut self) {
        let Some(signal) = self.inputs.signal else { return };
        let covered = self.by_sustained_use(signal);
        match signal.verdict(&self.inputs.policy.objectives) {
            Verdict::Missed { throttled, .. } => self.missed(signal, throttled, covered),
            Verdict::Met | Verdict::Room if signal.calm >= CALM => self.lower_limit(),
            Verdict::Met | Verdict::Room if self.request < self.inputs.request => {
                self.step(Step::Objective, self.inputs.request, self.limit, Reason::NotCalm);
            }
            Verdict::Met | Verdict::Room => {}
        }
    }

    /// Where nobody keeps it waiting, bursts are covered by CPUs that are idle, up to the limit: the request is for what
    /// it goes on using, and being outgrown for minutes hurts nobody. Once somebody has kept it waiting, the bet holds for a day.
    /// Whether it is so.
    fn by_sustained_use(&mut self, signal: &Signal) -> bool {
        let &CpuInputs { history, request, changes, policy, now, .. } = self.inputs;
        let pressed = signal.unpressed.is_some_and(|unpressed| unpressed < PRESSED);
        let bet = policy.history.percentile.is_none() && self.reason != Reason::NoData;
        if !bet || pressed || self.is_guaranteed() {
            return false;
        }
        let Some(mean) = history.mean() else { return false };
        // Before a slot has ended, what it has used for sure: what has piled up does not go on.
        let sustained = history.sustained().unwrap_or(signal.demand.lower);
        let enough = self.with_margin(sustained);
        if self.request <= enough {
            return true;
        }
        if request.cores() < sustained {
            self.step(Step::Objective, enough, self.limit, Reason::UsesMore);
            return true;
        }
        let saved = (request.cores() - enough.cores()) * KEPT_MINUTES;
        let worth = saved > bet::change_price(mean, changes, &policy.cost, now);
        let known = self.reason != Reason::Learning && bet::may_shrink(changes, &policy.cost, now);
        let (to, reason) = match worth && known {
            true => (enough, Reason::UsesLess),
            false => (self.request.min(request), Reason::Holding),
        };
        if to != self.request {
            self.step(Step::Objective, to, self.limit, reason);
        }
        true
    }

    fn is_guaranteed(&self) -> bool {
        self.inputs.qos == Qos::Guaranteed && self.inputs.limit == Some(self.inputs.request)
    }

    /// The objective is missed: nothing shrinks, and what would help is raised. Where bursts are `covered`, a limit that binds
    /// is the only thing that keeps it from what it wants.
    fn missed(&mut self, signal: &Signal, throttled: bool, covered: bool) {
        let least = self.request.max(self.inputs.request);
        let wanted = self.with_margin(signal.wanted());
        // Where the limit may rise it is the cure, and the request need not cover what has piled up.
        let may_rise = self.inputs.policy.controlled_values == ControlledValues::RequestsAndLimits;
        let with_limit = match may_rise {
            true if covered => least,
            true if !signal.is_sure() => self.with_margin(signal.demand.lower),
            _ => wanted,
        };
        let bottleneck = signal.demand.bottleneck;
        match (bottleneck, self.limit) {
            (Bottleneck::AncestorQuota, _) => {
                self.step(Step::Objective, least, self.limit, Reason::AncestorLimitBinds);
            }
            (Bottleneck::Quota, Some(limit)) if wanted > limit => {
                self.against_limit(least, limit, with_limit, wanted);
            }
            // Not for want of CPU on the whole, but in bursts.
            (_, Some(limit)) if throttled => {
                let raised = wanted.max(self.with_margin(unthrottled(signal, limit)));
                self.against_limit(least, limit, with_limit, raised);
            }
            (Bottleneck::Own, _) => self.step(Step::Objective, least, self.limit, Reason::OverThreaded),
            _ if wanted > least => {
                self.step(Step::Objective, wanted, self.limit, Reason::Waits(bottleneck));
            }
            // What it uses has raised it already, or nothing of its own is left to raise.
            _ if least > self.inputs.request => self.step(Step::Objective, least, self.limit, self.reason),
            _ => self.step(Step::Objective, least, self.limit, Reason::WaitsDespiteRequest(bottleneck)),
        }
    }

    /// The limit is what holds it back: it is raised to all that may be wanted. Where it may not be, the request is no more.
    fn against_limit(&mut self, least: MilliCpu, limit: MilliCpu, request: MilliCpu, raised: MilliCpu) {
        match self.inputs.policy.controlled_values {
            ControlledValues::RequestsAndLimits => {
                let request = least.max(request);
                self.step(
                    Step::Objective,
                    request,
                    Some(limit.max(raised).max(request)),
                    Reason::LimitRaised,
                );
            }
            ControlledValues::RequestsOnly => {
                let request = least.max(request.min(limit));
                self.step(Step::Objective, request, Some(limit), Reason::LimitBinds);
            }
        }
    }

    /// A limit that the policy controls keeps its proportion to a request that shrinks, as VPA does it, and where the request
    /// stays, goes back to that with which it was started, if it was raised since. But it stays above everything that was used
    /// within the window.
    fn lower_limit(&mut self) {
        let &CpuInputs { history, request, limit, started_with, started_limit, policy, now, .. } =
            self.inputs;
        let controlled = policy.controlled_values == ControlledValues::RequestsAndLimits;
        let (Some(limit), true) = (limit, controlled) else { return };
        let (in_proportion, reason) = match self.request.cmp(&request) {
            Ordering::Less => (limit.scale_up(self.request.0, request.0), self.reason),
            Ordering::Equal if started_with > MilliCpu(0) => {
                let started = started_limit.map(|started| started.scale_up(request.0, started_with.0));
                (started.unwrap_or(limit), Reason::UsesLess)
            }
            _ => return,
        };
        let used = history.percentile_at(now, 1.0, &policy.history).unwrap_or(f64::INFINITY);
        let lower = match self.is_guaranteed() {
            // Guaranteed: they stay equal.
            true => self.request,
            false => in_proportion.max(self.with_margin(used)).max(self.request),
        };
        if lower < limit {
            self.step(Step::Objective, self.request, Some(lower), reason);
        }
    }

    fn within_limit(&mut self) {
        let &CpuInputs { limit, policy, .. } = self.inputs;
        let (Some(before), Some(now)) = (limit, self.limit) else { return };
        let controlled = policy.controlled_values == ControlledValues::RequestsAndLimits;
        if controlled && self.is_guaranteed() {
            // Guaranteed: they stay equal.
            let both = if now > before { now.max(self.request) } else { self.request };
            if (both, both) != (self.request, now) {
                self.step(Step::Limit, both, Some(both), self.reason);
            }
        } else if self.request > now && controlled {
            self.step(Step::Limit, self.request, Some(self.request), self.reason);
        } else if self.request > now {
            self.step(Step::Limit, now, Some(now), self.reason);
        }
    }

    fn boost(&mut self) {
        let &CpuInputs { started_with, age_seconds, policy, .. } = self.inputs;
        let Some(boost) = policy.startup_boost.filter(|boost| age_seconds < boost.duration.0) else { return };
        let boosted = started_with.scale_up(boost.factor.0.into(), PerMille::WHOLE.0.into());
        let boosted = match (policy.controlled_values, self.limit) {
            (ControlledValues::RequestsOnly, Some(limit)) => boosted.min(limit),
            _ => boosted,
        };
        if boosted > self.request {
            let limit = self.limit.map(|limit| limit.max(boosted));
            self.step(Step::StartupBoost, boosted, limit, Reason::StartupBoost);
        }
    }
}

/// CPU (cores) at which the container used up its quota in a throttled period: as much in the part of the period that was
/// left. At most four times its limit, and no more than the node has.
fn unthrottled(signal: &Signal, limit: MilliCpu) -> f64 {
    let left = 1.0 - signal.throttled_depth.fraction();
    (limit.cores() / left.max(0.25)).min(f64::from(signal.node_cpus))
}

#[cfg(test)]
mod closed_loop;
#[cfg(test)]
mod tests;
