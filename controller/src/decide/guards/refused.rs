//! What was refused for good is not asked for again: only less of it is, or another node.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::sizes::{Resource, Sizes};

/// Holds a resource that would rise to what this node has refused, or beyond.
pub fn refused(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let Some(refusal) = facts.state.refused else { return Ruling::pass(proposal) };
    if (refusal.node_cpu, refusal.node_memory) != (facts.node.cpu, facts.node.memory) {
        return Ruling::pass(proposal);
    }
    let (current, asked) = (facts.current(), refusal.asked);
    let mut left = proposal;
    if proposal.cpu() > current.cpu() && proposal.cpu() >= asked.cpu() {
        left = left.with(Resource::Cpu, &current);
    }
    if proposal.memory() > current.memory() && proposal.memory() >= asked.memory() {
        left = left.with(Resource::Memory, &current);
    }
    Ruling::leave(proposal, left, Reason::RefusedBefore)
}
