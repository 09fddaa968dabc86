//! One change goes so far and no further; the next one sees what came of it.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::share::PerMille;
use crate::decide::sizes::Sizes;
use crate::decide::units::{Bytes, MilliCpu};

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
    let cpu = |from: Option<MilliCpu>, to: Option<MilliCpu>| {
        shorten(from.map(|size| size.0), to.map(|size| size.0)).map(MilliCpu)
    };
    let memory = |from: Option<Bytes>, to: Option<Bytes>| {
        shorten(from.map(|size| size.0), to.map(|size| size.0)).map(Bytes)
    };
    let left = Sizes {
        cpu_request: cpu(current.cpu_request, proposal.cpu_request),
        cpu_limit: cpu(current.cpu_limit, proposal.cpu_limit),
        memory_request: memory(current.memory_request, proposal.memory_request),
        memory_limit: memory(current.memory_limit, proposal.memory_limit),
    };
    // A request that goes all the way up needs its limit there, too.
    let left = Sizes {
        cpu_request: below(left.cpu_request, left.cpu_limit),
        memory_request: below(left.memory_request, left.memory_limit),
        ..left
    };
    Ruling::leave(proposal, left, Reason::StepLimit)
}

fn below<Size: Ord + Copy>(request: Option<Size>, limit: Option<Size>) -> Option<Size> {
    match limit {
        Some(limit) => request.map(|request| request.min(limit)),
        None => request,
    }
}
