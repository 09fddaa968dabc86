//! Guards: what must not happen now, each a small pure function with one reason.
//!
//! A guard sees a proposal and what is known, and says what is left of it. It never adds to a change, never turns its direction,
//! and looks at CPU and memory apart, so that guarding what frees room before the node is divided and guarding all
//! of it afterwards come to the same.
//!
//! | guard | what it keeps from happening |
//! |---|---|
//! | [`under_way`](fn@under_way) | a resize on top of one that is not settled, or that somebody else has just made |
//! | [`refused`](fn@refused) | asking again at once for what was refused |
//! | [`support`] | what the node cannot do |
//! | [`autoscaler`] | moving the request on whose utilisation a HorizontalPodAutoscaler scales |
//! | [`pressure`] | raising on a node that is short of something |
//! | [`readiness`] | taking from what is not ready |
//! | [`memory_peak`] | memory below its recent peak with headroom, or while that is not known |
//! | [`killed_again`] | ever more memory for what is killed whatever it gets |
//! | [`hysteresis`] | changes too small to be worth one |
//! | [`step`] | steps too large to be safe |
//! | [`cooldown`] | a change right after another, unless it cannot wait |
//! | [`rate`] | too many changes within the hour |
//! | [`recreation`] | evicting a pod that has not lived for long, unless it cannot wait |

mod autoscaler;
mod cooldown;
mod hysteresis;
mod killed_again;
mod memory_peak;
mod pressure;
mod rate;
mod readiness;
mod recreation;
pub mod refused;
mod step;
pub mod support;
pub mod under_way;

pub use autoscaler::autoscaler;
pub use cooldown::cooldown;
pub use hysteresis::hysteresis;
pub use killed_again::killed_again;
pub use memory_peak::memory_peak;
pub use pressure::pressure;
pub use rate::rate;
pub use readiness::readiness;
pub use recreation::recreation;
pub use refused::refused;
pub use step::step;
pub use support::support;
pub use under_way::{revert, under_way};

use super::duration::Seconds;
use super::node::Held;
use super::observation::{Autoscaler, Container, LimitRange, MadeBy, Node, Pod, Workload};
use super::policy::Policy;
use super::reason::Reason;
use super::size::Urgent;
use super::sizes::{Resource, Sizes};
use super::state::ContainerState;
use super::units::Timestamp;

/// What is known of a container.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Now.
    pub now: Timestamp,
    /// Its pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Its node.
    pub node: &'a Node,
    /// What all pods hold there.
    pub held: Held,
    /// The policy that acts on it.
    pub policy: &'a Policy,
    /// What is remembered of it.
    pub state: &'a ContainerState,
    /// The LimitRanges of its namespace.
    pub limit_ranges: &'a [&'a LimitRange],
    /// Who made its pod, as far as is known.
    pub made_by: MadeBy<&'a Workload>,
    /// The autoscalers of its workload; all that may be, where nobody knows who made its pod.
    pub autoscalers: &'a [&'a Autoscaler],
    /// For how long it, or the replicas that it is sized by, had been measured at its last reading.
    pub known_for: Seconds,
    /// Of what it is being hurt for want now.
    pub urgent: Urgent,
}

impl Facts<'_> {
    /// What it has.
    pub fn current(&self) -> Sizes {
        self.container.desired
    }

    /// What is left of a proposal that may only raise what cannot wait.
    pub fn only_urgent(&self, proposal: Sizes) -> Sizes {
        let (current, raised) = (self.current(), proposal.not_below(&self.current()));
        let urgent = Resource::ALL.into_iter().filter(|resource| self.urgent.of(*resource));
        urgent.fold(current, |left, resource| left.with(resource, &raised))
    }
}

/// What a guard leaves of a proposal, and why it is not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What is left.
    pub sizes: Sizes,
    /// Why; `None`: it has nothing to say.
    pub objection: Option<Reason>,
}

impl Ruling {
    /// Nothing to say.
    pub fn pass(sizes: Sizes) -> Self {
        Self { sizes, objection: None }
    }

    /// What is left of `proposal`, and why, unless that is all of it.
    pub fn leave(proposal: Sizes, left: Sizes, reason: Reason) -> Self {
        Self { sizes: left, objection: (left != proposal).then_some(reason) }
    }

    /// Nothing is left.
    pub fn hold(facts: &Facts<'_>, proposal: Sizes, reason: Reason) -> Self {
        Self::leave(proposal, facts.current(), reason)
    }
}

/// A guard.
pub type Guard = fn(&Facts<'_>, Sizes) -> Ruling;

/// All of them, in order: what forbids before what delays, and last what counts. What is worth a change is told before a step is
/// shortened: steps smaller than the hysteresis get there, too.
pub const ALL: [Guard; 13] = [
    under_way,
    refused,
    support,
    autoscaler,
    pressure,
    readiness,
    memory_peak,
    killed_again,
    hysteresis,
    step,
    cooldown,
    rate,
    recreation,
];

/// What all guards together leave of a proposal.
pub fn all(facts: &Facts<'_>, proposal: Sizes) -> Sizes {
    ALL.iter().fold(proposal, |sizes, guard| guard(facts, sizes).sizes)
}
