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
    let mut objection = None;
    for (resource, pairs) in [
        (
            Resource::Cpu,
            [
                (current.cpu_request.map(|c| c.0), proposal.cpu_request.map(|c| c.0)),
                (current.cpu_limit.map(|c| c.0), proposal.cpu_limit.map(|c| c.0)),
            ],
        ),
        (
            Resource::Memory,
            [
                (current.memory_request.map(|m| m.0), proposal.memory_request.map(|m| m.0)),
                (current.memory_limit.map(|m| m.0), proposal.memory_limit.map(|m| m.0)),
            ],
        ),
    ] {
        let small = pairs.iter().all(|(from, to)| is_small(*from, *to, share));
        if small && !proposal.same(resource, &current) {
            left = left.with(resource, &current);
            objection = Some(Reason::Hysteresis);
        }
    }
    Ruling { sizes: left, objection }
}

fn is_small(from: Option<u64>, to: Option<u64>, share: PerMille) -> bool {
    let (Some(from), Some(to)) = (from, to) else { return from == to };
    u128::from(from.abs_diff(to)) * 1000 < u128::from(from) * u128::from(share.0) || from == to
}
