//! A change has its price; a small one is not worth it.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::share::PerMille;
use crate::decide::sizes::{Resource, Sizes};

/// Holds a resource of which neither request nor limit changes by at least the policy's share.
pub fn hysteresis(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let current = facts.current();
    let share = facts.policy.resize.hysteresis;
    let mut left = proposal;
    for resource in Resource::ALL {
        let ((from, from_limit), (to, to_limit)) = (current.pair(resource), proposal.pair(resource));
        if is_small(from, to, share) && is_small(from_limit, to_limit, share) {
            left = left.with(resource, &current);
        }
    }
    Ruling::leave(proposal, left, Reason::Hysteresis)
}

fn is_small(from: Option<u64>, to: Option<u64>, share: PerMille) -> bool {
    let (Some(from), Some(to)) = (from, to) else { return from == to };
    u128::from(from.abs_diff(to)) * 1000 < u128::from(from) * u128::from(share.0) || from == to
}
