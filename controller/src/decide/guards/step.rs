//! One change goes so far and no further; the next one sees what came of it.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::share::PerMille;
use crate::decide::sizes::{Resource, Sizes};

/// Shortens steps to the policy's largest, up and down.
pub fn step(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let current = facts.current();
    let resize = &facts.policy.resize;
    let shorten = |from: Option<u64>, to: Option<u64>| {
        let (Some(from), Some(to)) = (from, to) else { return to };
        let part = |share: PerMille| (u128::from(from) * u128::from(share.0)).div_ceil(1000) as u64;
        let most = resize.max_step_up.map_or(u64::MAX, |share| from.saturating_add(part(share).max(1)));
        // Rounded so that something small still gets there.
        let least = from.saturating_sub(part(resize.max_step_down).max(1));
        Some(to.clamp(least, most))
    };
    let mut left = proposal;
    for resource in Resource::ALL {
        let ((from, from_limit), (to, to_limit)) = (current.pair(resource), proposal.pair(resource));
        let (request, limit) = (shorten(from, to), shorten(from_limit, to_limit));
        // A request that goes all the way up needs its limit there, too.
        let request = limit.map_or(request, |limit| request.map(|request| request.min(limit)));
        left = left.with_pair(resource, (request, limit));
    }
    Ruling::leave(proposal, left, Reason::StepLimit)
}
