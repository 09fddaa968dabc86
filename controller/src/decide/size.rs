//! From what is remembered of a container to what it should have: [`super::target`], once for each resource.

use serde::{Deserialize, Serialize};

use super::observation::{Container, ContainerStatus, Qos, Reading};
use super::policy::Policy;
use super::reason::Reason;
use super::record::{Mark, Step};
use super::sizes::{Resource, Sizes};
use super::state::ContainerState;
use super::target::{self, CpuInputs, MemoryInputs, Verdict, cpu, memory};
use super::together::Known;
use super::units::{Bytes, MilliCpu, Timestamp};

/// What a container should have, before bounds.
#[derive(Clone, Debug)]
pub struct Sized {
    /// How much.
    pub sizes: Sizes,
    /// What each step came to.
    pub marks: Vec<Mark>,
    /// Why.
    pub reasons: Reasons,
    /// Resources of which nothing is known, and which stay as they are.
    pub unknown: Vec<Resource>,
}

/// Why a container should have what it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons {
    /// Of CPU.
    pub cpu: cpu::Reason,
    /// Of memory; `None` where nothing is known of it.
    pub memory: Option<memory::Reason>,
}

impl Reasons {
    /// Why nothing is to change.
    pub fn of_rest(&self) -> Reason {
        use cpu::Reason::{Holding, UsesLess, UsesMore};
        use memory::Reason::{Holding as Rests, PeaksHigher, PeaksLower, RecentPeak};
        match (self.cpu, self.memory) {
            // What would have moved something says nothing about why nothing moves.
            (Holding | UsesLess | UsesMore, None | Some(Rests | PeaksHigher | PeaksLower | RecentPeak)) => {
                Reason::OnTarget
            }
            (Holding | UsesLess | UsesMore, Some(memory)) => Reason::MemoryTarget(memory),
            (cpu, _) => Reason::CpuTarget(cpu),
        }
    }

    /// Why this resource is to change.
    pub fn of(&self, resource: Resource) -> Reason {
        match (resource, self.memory) {
            (Resource::Memory, Some(memory)) => Reason::MemoryTarget(memory),
            _ => Reason::CpuTarget(self.cpu),
        }
    }
}

/// What was last found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// How much it should have, before bounds.
    pub sizes: Sizes,
    /// Why.
    pub reasons: Reasons,
}

/// Memory as people write it: up to the next MiB.
pub fn whole_mebibytes(memory: Bytes) -> Bytes {
    const MEBIBYTE: u64 = 1 << 20;
    Bytes(memory.0.checked_next_multiple_of(MEBIBYTE).unwrap_or(u64::MAX))
}

/// What the container of a pod of this class should have.
pub fn size(
    container: &Container,
    qos: Qos,
    state: &ContainerState,
    known: &Known<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Sized {
    let current = container.desired;
    let memory_known = state.memory.latest().is_some();
    let unknown = if memory_known { Vec::new() } else { vec![Resource::Memory] };
    if let Some(Found { sizes, reasons }) = state.found.clone().filter(|_| !is_due(container, state, policy))
    {
        let mark = Mark { step: Step::Target, before: current, after: sizes, reason: Reason::TargetKept };
        let marks = if sizes == current { Vec::new() } else { vec![mark] };
        return Sized { sizes, marks, reasons, unknown };
    }

    let age = match container.status {
        ContainerStatus::Running { since } => now.seconds_since(since),
        _ => u64::MAX,
    };
    let cpu = target::cpu(&CpuInputs {
        history: known.cpu(),
        request: current.cpu(),
        limit: current.cpu_limit,
        qos,
        started_with: state.started_with.cpu(),
        signal: state.signal.as_ref(),
        changes: state.changes,
        policy,
        age_seconds: age,
        now,
    });
    let mut sizes = current;
    let mut marks = Vec::new();
    for cpu::Mark { request, limit, reason, .. } in cpu.marks {
        let after = Sizes {
            cpu_request: set(current.cpu_request, request.0).map(MilliCpu),
            cpu_limit: current.cpu_limit.and(limit),
            ..sizes
        };
        note(&mut marks, &mut sizes, after, Reason::CpuTarget(reason), reason == cpu::Reason::Holding);
    }
    let mut reasons = Reasons { cpu: cpu.reason, memory: None };
    if memory_known {
        let memory = target::memory(&MemoryInputs {
            history: known.memory(),
            request: current.memory(),
            limit: current.memory_limit,
            policy,
            now,
        });
        for memory::Mark { request, limit, reason, .. } in memory.marks {
            let limit =
                limit.map(
                    |limit| if Some(limit) == current.memory_limit { limit } else { whole_mebibytes(limit) },
                );
            let whole = whole_mebibytes(request).min(limit.unwrap_or(Bytes::MAX));
            let request = if request == current.memory() { request } else { whole };
            let after = Sizes {
                memory_request: set(current.memory_request, request.0).map(Bytes),
                memory_limit: current.memory_limit.and(limit),
                ..sizes
            };
            note(
                &mut marks,
                &mut sizes,
                after,
                Reason::MemoryTarget(reason),
                reason == memory::Reason::Holding,
            );
        }
        reasons.memory = Some(memory.reason);
    }
    Sized { sizes, marks, reasons, unknown }
}

/// A size that was not set and is 0 stays so.
fn set<Size>(current: Option<Size>, target: u64) -> Option<u64> {
    (current.is_some() || target > 0).then_some(target)
}

fn note(marks: &mut Vec<Mark>, sizes: &mut Sizes, after: Sizes, reason: Reason, silent: bool) {
    // Of two steps that say the same, the one that does something is enough.
    if marks.last().is_some_and(|last| last.reason == reason && last.before == last.after) {
        marks.pop();
    }
    if after != *sizes || !silent {
        marks.push(Mark { step: Step::Target, before: *sizes, after, reason });
    }
    *sizes = after;
}

/// Whether something may have changed: a slot of the history has ended, or it is being hurt, or it is starting.
fn is_due(container: &Container, state: &ContainerState, policy: &Policy) -> bool {
    let Some(boost) = policy.startup_boost else {
        return state.history.ended_slot() || is_urgent(container, state, policy);
    };
    let starting = |since| state.last_seen.seconds_since(since) <= 2 * boost.duration.0;
    state.history.ended_slot()
        || is_urgent(container, state, policy)
        || matches!(container.status, ContainerStatus::Running { since } if starting(since))
}

/// Whether it is being hurt now: it misses its objective, uses more than it has, or was killed for want of memory
/// since it last changed.
pub fn is_urgent(container: &Container, state: &ContainerState, policy: &Policy) -> bool {
    let missed = state
        .signal
        .as_ref()
        .is_some_and(|signal| matches!(signal.verdict(&policy.objectives), Verdict::Missed { .. }));
    let latest = container.latest();
    let current = container.desired;
    let outgrown = latest.and_then(Reading::cores).is_some_and(|cores| cores > current.cpu().cores())
        || latest.and_then(Reading::memory).is_some_and(|memory| memory > current.memory());
    let killed = container.oom_killed.is_some_and(|at| state.last_change.is_none_or(|change| at >= change));
    missed || outgrown || killed
}
