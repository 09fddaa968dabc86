//! A container that is not ready: what it uses now says nothing about what it needs.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::sizes::Sizes;

/// Nothing is taken from a container that is not ready, or whose pod is not.
pub fn readiness(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    if facts.container.ready && facts.pod.ready {
        return Ruling::pass(proposal);
    }
    let left = proposal.not_below(&facts.current());
    Ruling::leave(proposal, left, Reason::NotReady)
}
