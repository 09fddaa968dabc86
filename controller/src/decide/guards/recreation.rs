//! A pod that is made anew costs more than one that is resized.

use super::{Facts, Ruling, support};
use crate::decide::duration::Seconds;
use crate::decide::reason::Reason;
use crate::decide::sizes::Sizes;

/// For so long a pod that was born, or first seen, is not evicted for what it is not short of; as VPA's updater has it
/// (`podLifetimeUpdateThreshold` of its `update_priority_calculator.go`).
const LIFETIME: Seconds = Seconds(12 * 3600);

/// A pod that would have to be evicted lives for a while first, unless it is being hurt.
pub fn recreation(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let left = LIFETIME.0.saturating_sub(facts.now.seconds_since(facts.state.first_seen));
    if left == 0 || support::in_place(facts) {
        return Ruling::pass(proposal);
    }
    Ruling::leave(proposal, facts.only_urgent(proposal), Reason::RecreatedEarly(Seconds(left)))
}
