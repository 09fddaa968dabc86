//! From what is remembered of a container to what it should have: [`super::target`], once for each resource.

use serde::{Deserialize, Serialize};

use super::guards::Facts;
use super::history::History;
use super::history::recent::Slot;
use super::observation::{Container, ContainerKind, ContainerStatus, Qos, Reading};
use super::policy::{ControlledValues, HistorySettings, Policy};
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
    /// How much, and why.
    pub found: Found,
    /// What each step came to.
    pub marks: Vec<Mark>,
    /// Resources of which nothing is known, and which stay as they are.
    pub unknown: Vec<Resource>,
    /// What nothing goes below where what it uses is not measured; `None` where it is.
    pub unmeasured: Option<Sizes>,
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
    /// The policy's [fingerprint](Policy::fingerprint): by another one it is found anew.
    pub policy: u32,
    /// When.
    pub at: Timestamp,
    /// By how many thousandths forecasts by the time of day are sharper than those that do not know it; `None` before both have
    /// been judged, and where nothing is forecast.
    pub seasonal_skill: Option<i16>,
}

impl Found {
    /// Whether a slot of the history by which it was found has ended since, the last one within the policy's interval.
    pub fn is_outdated(&self, history: &History, settings: &HistorySettings, now: Timestamp) -> bool {
        let is_last = now.seconds_since(self.at) + Slot::SECONDS > settings.interval.0;
        history.ended_slot_since(self.at) && is_last
    }
}

/// Memory as people write it: up to the next MiB.
pub fn whole_mebibytes(memory: Bytes) -> Bytes {
    const MEBIBYTE: u64 = 1 << 20;
    Bytes(memory.0.checked_next_multiple_of(MEBIBYTE).unwrap_or(u64::MAX))
}

/// What the container of a pod of this class should have. Where what it uses is not `measured` well enough to go by, that is what
/// takes no measurement ([`is_sized_unmeasured`]).
pub fn size(
    container: &Container,
    qos: Qos,
    state: &ContainerState,
    known: &Known<'_>,
    measured: bool,
    policy: &Policy,
    now: Timestamp,
) -> Sized {
    let current = container.desired;
    // What was not measured itself has a right only to what was done to itself.
    let of_kills = if measured { known.memory() } else { &state.memory };
    let killed = of_kills.kill(now, &policy.history).is_some();
    let memory_known = measured && state.memory.latest().is_some() || killed;
    let unknown = if memory_known { Vec::new() } else { vec![Resource::Memory] };
    let fingerprint = policy.fingerprint();
    let kept = |found: &Found| {
        measured && found.policy == fingerprint && !is_due(found, container, state, policy, now)
    };
    if let Some(found) = state.found.clone().filter(kept) {
        let sizes = found.sizes;
        let mark = Mark { step: Step::Target, before: current, after: sizes, reason: Reason::TargetKept };
        let marks = if sizes == current { Vec::new() } else { vec![mark] };
        return Sized { found, marks, unknown, unmeasured: None };
    }

    let starting = is_starting(container, state, policy, now);
    let age = match container.status {
        ContainerStatus::Running { since } if starting => now.seconds_since(since),
        _ => u64::MAX,
    };
    // Once it has started, it is sized as if it had never been given more for that.
    let unboosted = state.boosted_from.as_deref().filter(|_| !starting);
    let base = unboosted.map_or(current, |from| current.with(Resource::Cpu, from));
    let nothing;
    let history = if measured {
        known.cpu()
    } else {
        nothing = History::new(now, policy.history.window);
        &nothing
    };
    let cpu = target::cpu(&CpuInputs {
        history,
        request: base.cpu(),
        limit: base.cpu_limit,
        qos,
        started_with: state.started_with.cpu(),
        started_limit: state.started_with.cpu_limit,
        signal: state.signal.as_ref().filter(|_| measured),
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
            measured: measured && state.memory.latest().is_some(),
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
    let unknown = match measured {
        true => unknown,
        false => Resource::ALL.into_iter().filter(|resource| sizes.same(*resource, &current)).collect(),
    };
    let forecast = measured && policy.history.percentile.is_none();
    // Of more than 32 times sharper nobody asks how much.
    let per_mille = |skill: f64| (1000.0 * skill).round() as i16;
    let seasonal_skill = history.seasonal_skill().filter(|_| forecast).map(per_mille);
    let found = Found { sizes, reasons, policy: fingerprint, at: now, seasonal_skill };
    Sized { found, marks, unknown, unmeasured: (!measured).then_some(base) }
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

/// Whether what was found has to be found anew: it is outdated, or the container is being hurt, or it is starting or has just
/// started.
fn is_due(
    found: &Found,
    container: &Container,
    state: &ContainerState,
    policy: &Policy,
    now: Timestamp,
) -> bool {
    found.is_outdated(&state.history, &policy.history, now)
        || state.boosted_from.is_some()
        || is_starting(container, state, policy, now)
        || urgent(container, state, policy, now).any()
}

/// Whether it is in the time for which its policy gives it more to start with. Of one that was running already when it was first
/// seen nobody knows what it was started with.
fn is_starting(container: &Container, state: &ContainerState, policy: &Policy, now: Timestamp) -> bool {
    let (Some(boost), ContainerStatus::Running { since }) = (policy.startup_boost, container.status) else {
        return false;
    };
    let seen_start = state.first_seen.seconds_since(since) <= policy.history.interval.0;
    seen_start && now.seconds_since(since) < boost.duration.0
}

/// What it had before it was given more to start with, to be remembered until it has what it should have without.
pub fn boosted_from(facts: &Facts<'_>, found: &Found, planned: Option<Sizes>) -> Option<Box<Sizes>> {
    let Facts { container, state, policy, now, .. } = *facts;
    let current = facts.current();
    let starting = is_starting(container, state, policy, now);
    if let Some(from) = &state.boosted_from {
        return (starting || found.sizes.cpu() < current.cpu()).then(|| from.clone());
    }
    let boosts = starting && found.reasons.cpu == cpu::Reason::StartupBoost;
    planned.filter(|planned| boosts && planned.cpu() > current.cpu()).map(|_| Box::new(current))
}

/// Whether there is something to say of which nothing has to be measured: more to start with, and its end, and memory after an
/// OOM kill.
///
/// A container that is down gets its memory in place, too: it counts on its next start. Kubelets of 1.34 before the mend of
/// kubernetes#138760 do not raise the pod's cgroup with it: there it is killed again, and what it is given is bounded by
/// `maxAllowed`, the changes of an hour, and what a container gets that is killed whatever it gets.
pub fn is_sized_unmeasured(
    container: &Container,
    state: &ContainerState,
    policy: &Policy,
    now: Timestamp,
) -> bool {
    let Sizes { memory_request: request, memory_limit: limit, .. } = container.desired;
    let killed = state
        .memory
        .kill(now, &policy.history)
        .is_some_and(|kill| request.into_iter().chain(limit).any(|has| has.0 < kill.needed_bytes));
    container.kind != ContainerKind::Init
        && (killed || state.boosted_from.is_some() || is_starting(container, state, policy, now))
}

/// The resources of which a container is short, so that it is being hurt now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgent {
    /// It misses its objective, or uses more CPU than it has.
    pub cpu: bool,
    /// It uses more memory than it has, or was killed and has not got what it takes.
    pub memory: bool,
}

impl Urgent {
    /// Whether it is short of any.
    pub fn any(self) -> bool {
        self.cpu || self.memory
    }

    /// Whether it is short of this one.
    pub fn of(self, resource: Resource) -> bool {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
        }
    }
}

/// Of what it is short now: until it has got it, or does not want it any more.
pub fn urgent(container: &Container, state: &ContainerState, policy: &Policy, now: Timestamp) -> Urgent {
    let missed = state
        .signal
        .as_ref()
        .is_some_and(|signal| matches!(signal.verdict(&policy.objectives), Verdict::Missed { .. }));
    let latest = container.latest_by(now);
    let current = container.desired;
    let outgrown = latest.and_then(Reading::cores).is_some_and(|cores| cores > current.cpu().cores());
    let outgrown_memory = latest.and_then(Reading::memory).is_some_and(|memory| memory > current.memory());
    Urgent {
        cpu: missed || outgrown,
        memory: outgrown_memory || is_short_after_kill(container, state, policy, now),
    }
}

/// Whether it was killed for want of memory, and could get more of what that takes.
fn is_short_after_kill(
    container: &Container,
    state: &ContainerState,
    policy: &Policy,
    now: Timestamp,
) -> bool {
    let Some(kill) = state.memory.kill(now, &policy.history) else { return false };
    let Sizes { memory_limit: limit, .. } = container.desired;
    let needed = Bytes(kill.needed_bytes).min(policy.memory.max_allowed);
    match policy.controlled_values {
        ControlledValues::RequestsOnly => {
            container.desired.memory() < needed.min(limit.unwrap_or(Bytes::MAX))
        }
        ControlledValues::RequestsAndLimits => {
            container.desired.memory() < needed || limit.is_some_and(|limit| limit < needed)
        }
    }
}
