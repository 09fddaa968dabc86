//! A resize that is not settled: wait for it, or take it back.

use super::support::{self, support};
use super::{Facts, Ruling};
use crate::decide::duration::Seconds;
use crate::decide::observation::{Container, ContainerKind, ResizeState};
use crate::decide::policy::Policy;
use crate::decide::reason::Reason;
use crate::decide::sizes::{Resource, Sizes};
use crate::decide::units::{MilliCpu, Timestamp};

/// CPU limits that differ by less are the same to what enforces them.
const QUOTA_GRAIN: MilliCpu = MilliCpu(10);

/// Nothing on top of a resize that is not settled, and nothing right after a change by somebody else.
pub fn under_way(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let age = |since| Seconds(facts.now.seconds_since(since));
    let reason = match facts.pod.resize {
        ResizeState::Deferred { since } => Reason::ResizeDeferred(age(since)),
        ResizeState::Infeasible { .. } => Reason::ResizeInfeasible,
        ResizeState::InProgress { .. } => Reason::ResizeInProgress,
        ResizeState::Failing { .. } => Reason::ResizeFailing,
        ResizeState::Settled => {
            let recent = facts.state.last_change.filter(|at| age(*at) < facts.policy.resize.cooldown);
            match recent {
                Some(_) if facts.state.changed_by_other => Reason::ChangedByOther,
                _ => return Ruling::pass(proposal),
            }
        }
    };
    Ruling::hold(facts, proposal, reason)
}

/// Whether a resize that was asked for has come to nothing: refused for good, or waiting or failing for longer than the policy waits.
pub fn is_over(resize: ResizeState, policy: &Policy, now: Timestamp) -> bool {
    match resize {
        ResizeState::Settled | ResizeState::InProgress { .. } => false,
        ResizeState::Infeasible { .. } => true,
        ResizeState::Deferred { since } | ResizeState::Failing { since } => {
            now.seconds_since(since) >= policy.resize.deferred_deadline.0
        }
    }
}

/// What a container goes back to whose resize has come to nothing: what its node has agreed to.
///
/// What somebody else asked for, as far as is known, is not taken back; after a cold start, when nobody knows who asked, it is. A spec
/// that asks for what is not to be had keeps others from being scheduled, and a resize that raises nothing goes
/// first in the kubelet's queue.
pub fn revert(facts: &Facts<'_>) -> Option<Sizes> {
    let over = is_over(facts.pod.resize, facts.policy, facts.now);
    let ours = facts.container.kind != ContainerKind::Init && facts.state.may_be_ours();
    if !over || !ours || !support::in_place(facts) {
        return None;
    }
    // A memory limit that its node cannot lower stays.
    let back = support(facts, agreed(facts.container)?).sizes;
    (back != facts.current()).then_some(back)
}

/// What a container's node has agreed to: its requests, and the limits in force. `None` where the node does not say.
pub fn agreed(container: &Container) -> Option<Sizes> {
    let (allocated, actual) = (container.allocated?, container.actual.unwrap_or_default());
    let current = container.desired;
    // The systemd driver rounds a quota up to 10 ms in 1 s: that much is no difference.
    let cpu_limit = actual
        .cpu_limit
        .filter(|actual| current.cpu_limit.is_some_and(|limit| actual.0.abs_diff(limit.0) >= QUOTA_GRAIN.0));
    let back = Sizes {
        cpu_request: current.cpu_request.and(allocated.cpu_request.or(current.cpu_request)),
        memory_request: current.memory_request.and(allocated.memory_request.or(current.memory_request)),
        cpu_limit: cpu_limit.or(current.cpu_limit),
        memory_limit: current.memory_limit.and(actual.memory_limit.or(current.memory_limit)),
    };
    let below = |sizes: Sizes, resource| {
        let (request, limit) = sizes.pair(resource);
        sizes.with_pair(resource, (limit.map_or(request, |limit| request.map(|size| size.min(limit))), limit))
    };
    Some(Resource::ALL.into_iter().fold(back, below))
}
