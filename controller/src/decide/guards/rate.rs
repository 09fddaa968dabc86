//! A container that changes all the time is not being sized.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::sizes::Sizes;

/// Holds everything once there have been as many changes within the hour as the policy allows. The last of them, where there are
/// several, is kept for what is being hurt.
pub fn rate(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let changes = facts.state.changed.len() as u32;
    let allowed = facts.policy.resize.changes_per_hour.get();
    if changes < (allowed - 1).max(1) {
        return Ruling::pass(proposal);
    }
    let left = if changes < allowed { facts.only_urgent(proposal) } else { facts.current() };
    Ruling::leave(proposal, left, Reason::ChangesPerHour(changes))
}
