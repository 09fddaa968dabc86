//! A resize that is not settled: wait for it, or take it back.

use super::{Facts, Ruling};
use crate::decide::duration::Seconds;
use crate::decide::observation::ResizeState;
use crate::decide::reason::Reason;
use crate::decide::sizes::{Resource, Sizes};

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

/// What a container goes back to whose resize has come to nothing: what its node has agreed to.
///
/// Only what we asked for is taken back. A spec that asks for what is not to be had keeps others from being
/// scheduled, and a resize that raises nothing goes first in the kubelet's queue.
pub fn revert(facts: &Facts<'_>) -> Option<Sizes> {
    let deadline = facts.policy.resize.deferred_deadline.0;
    let over = match facts.pod.resize {
        ResizeState::Settled | ResizeState::InProgress { .. } => false,
        ResizeState::Infeasible { .. } => true,
        ResizeState::Deferred { since } | ResizeState::Failing { since } => {
            facts.now.seconds_since(since) >= deadline
        }
    };
    let ours = facts.state.planned == Some(facts.current());
    if !over || !ours {
        return None;
    }
    let (allocated, actual) = (facts.container.allocated?, facts.container.actual.unwrap_or_default());
    let current = facts.current();
    let back = Sizes {
        cpu_request: current.cpu_request.and(allocated.cpu_request.or(current.cpu_request)),
        memory_request: current.memory_request.and(allocated.memory_request.or(current.memory_request)),
        cpu_limit: current.cpu_limit.and(actual.cpu_limit.or(current.cpu_limit)),
        memory_limit: current.memory_limit.and(actual.memory_limit.or(current.memory_limit)),
    };
    let below = |sizes: Sizes, resource| {
        let (request, limit) = sizes.pair(resource);
        sizes.with_pair(resource, (limit.map_or(request, |limit| request.map(|size| size.min(limit))), limit))
    };
    let back = Resource::ALL.into_iter().fold(back, below);
    (back != current).then_some(back)
}
