//! A container that changes all the time is not being sized.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::sizes::Sizes;

/// Holds everything once there have been as many changes within the hour as the policy allows.
pub fn rate(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let changes = facts.state.changed.len() as u32;
    if changes < facts.policy.resize.changes_per_hour.get() {
        return Ruling::pass(proposal);
    }
    Ruling::hold(facts, proposal, Reason::ChangesPerHour(changes))
}
