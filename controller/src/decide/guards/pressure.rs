//! A node that is short of something.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::sizes::Sizes;

/// Nothing rises on a node under pressure; what shrinks relieves it.
pub fn pressure(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    if facts.node.pressure.is_empty() {
        return Ruling::pass(proposal);
    }
    let left = proposal.not_above(&facts.current());
    Ruling::leave(proposal, left, Reason::NodePressure)
}
