//! Memory that is taken away from what needs it again ends in a kill or an eviction.

use super::{Facts, Ruling};
use crate::decide::observation::Reading;
use crate::decide::reason::Reason;
use crate::decide::share::PerMille;
use crate::decide::size::whole_mebibytes;
use crate::decide::sizes::Sizes;
use crate::decide::target::memory;
use crate::decide::units::Bytes;

/// The least memory that is safe: the recent peak, or what is in use now, with the policy's headroom.
pub fn least_safe(facts: &Facts<'_>) -> Option<Bytes> {
    let peak = facts.state.memory.recent_peak(facts.now);
    let used = facts.container.latest().and_then(Reading::memory);
    let whole = u64::from(PerMille::WHOLE.0);
    let headroom = u64::from(facts.policy.objectives.memory_headroom.0);
    Some(whole_mebibytes(peak.max(used)?.scale_up(whole + headroom, whole)))
}

/// A request or limit of memory that shrinks stops at the least that is safe; without a day of samples it does not shrink, whatever
/// bounds say: they are about what is asked for, and its peak may be still to come.
pub fn memory_peak(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let current = facts.current();
    let known = facts.known_for.0 >= memory::WARM_SECONDS.min(facts.policy.history.window.0);
    let (least, reason) = match least_safe(facts).filter(|_| known) {
        Some(least) => (least, Reason::MemoryPeak(least)),
        None => (Bytes::MAX, Reason::MemoryTarget(memory::Reason::Learning)),
    };
    let keep =
        |to: Option<Bytes>, from: Option<Bytes>| if to < from { to.max(Some(least)).min(from) } else { to };
    let left = Sizes {
        memory_request: keep(proposal.memory_request, current.memory_request),
        memory_limit: keep(proposal.memory_limit, current.memory_limit),
        ..proposal
    };
    Ruling::leave(proposal, super::super::bounds::equal_limits(facts.pod, left), reason)
}
