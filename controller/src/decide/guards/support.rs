//! What a node can do to a running container.

use super::{Facts, Ruling};
use crate::decide::observation::{Qos, ResizeSupport};
use crate::decide::policy::Fallback;
use crate::decide::reason::Reason;
use crate::decide::sizes::{Resource, Sizes};

/// Whether the container can be resized in place at all: its node can, and says what runs.
pub fn in_place(facts: &Facts<'_>) -> bool {
    facts.node.resize >= ResizeSupport::NoMemoryDecrease && facts.container.actual.is_some()
}

/// Holds everything where the node cannot resize and the policy allows nothing else, and a memory limit that would shrink where
/// only that is beyond the node.
pub fn support(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let recreate = facts.policy.resize.fallback == Fallback::Recreate;
    if !in_place(facts) {
        return if recreate {
            Ruling::pass(proposal)
        } else {
            let never = facts.node.resize == ResizeSupport::NotLinux;
            let reason = if never { Reason::NotLinux } else { Reason::ResizeUnsupported };
            Ruling::hold(facts, proposal, reason)
        };
    }
    let current = facts.current();
    let shrinks = proposal.memory_limit < current.memory_limit;
    let restarts = facts.container.resize_policy.restarts(Resource::Memory);
    if shrinks && !restarts && facts.node.resize == ResizeSupport::NoMemoryDecrease {
        // The request may shrink, but not that of a Guaranteed pod, which is its limit.
        let left = match facts.pod.qos {
            Qos::Guaranteed => proposal.with(Resource::Memory, &current),
            _ => Sizes { memory_limit: current.memory_limit, ..proposal },
        };
        return Ruling::leave(proposal, left, Reason::MemoryDecreaseUnsupported);
    }
    Ruling::pass(proposal)
}
