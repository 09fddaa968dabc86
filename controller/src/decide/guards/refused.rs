//! What was refused for good is not asked for again: only less of something is, or another node.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::sizes::Sizes;

/// Holds what is nowhere smaller than what was refused by this node.
pub fn refused(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let Some(refusal) = facts.state.refused else { return Ruling::pass(proposal) };
    let same_node = refusal.node_cpu == facts.node.cpu && refusal.node_memory == facts.node.memory;
    let smaller = proposal.cpu_request < refusal.asked.cpu_request
        || proposal.memory_request < refusal.asked.memory_request
        || proposal.cpu_limit < refusal.asked.cpu_limit
        || proposal.memory_limit < refusal.asked.memory_limit;
    if same_node && !smaller {
        Ruling::hold(facts, proposal, Reason::RefusedBefore)
    } else {
        Ruling::pass(proposal)
    }
}
