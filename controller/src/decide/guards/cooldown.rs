//! A change needs time to show what it has done.

use super::{Facts, Ruling};
use crate::decide::duration::Seconds;
use crate::decide::reason::Reason;
use crate::decide::sizes::Sizes;

/// For the policy's cooldown after a change nothing moves but what is being hurt, and that only upwards.
pub fn cooldown(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let since = facts.state.last_change.map(|at| facts.now.seconds_since(at));
    let left = since.map_or(0, |since| facts.policy.resize.cooldown.0.saturating_sub(since));
    if left == 0 {
        return Ruling::pass(proposal);
    }
    Ruling::leave(proposal, facts.only_urgent(proposal), Reason::Cooldown(Seconds(left)))
}
