//! A container that is killed for want of memory whatever it gets.

use super::{Facts, Ruling};
use crate::decide::reason::Reason;
use crate::decide::size::whole_mebibytes;
use crate::decide::sizes::Sizes;
use crate::decide::units::Bytes;

/// While kills go on, memory grows no further than [`Kill::most`](crate::decide::history::memory::Kill::most) says: each alone asks
/// for a fifth more, and a leak would get all that its node has within hours.
pub fn killed_again(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let kill = facts.state.memory.kill(facts.now, &facts.policy.history);
    let Some(most) = kill.and_then(|kill| kill.most(facts.now)).map(whole_mebibytes) else {
        return Ruling::pass(proposal);
    };
    let current = facts.current();
    let keep =
        |to: Option<Bytes>, from: Option<Bytes>| if to > from { to.min(from.max(Some(most))) } else { to };
    let left = Sizes {
        memory_request: keep(proposal.memory_request, current.memory_request),
        memory_limit: keep(proposal.memory_limit, current.memory_limit),
        ..proposal
    };
    Ruling::leave(proposal, left, Reason::KilledAgain(most))
}
