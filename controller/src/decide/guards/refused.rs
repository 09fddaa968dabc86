//! What was refused is not asked for again at once: only less of it is, or once something is otherwise.
//!
//! # Terms
//!
//! * **refused**: asked for by us, and infeasible, or deferred or failing for longer than the policy waits
//!   ([`is_over`](super::under_way::is_over)).
//! * **blamed**: a node takes or refuses what is asked for a pod as a whole. Of what the ask moved, the resource is blamed
//!   that the node could never hold; else the one that was to rise; else CPU, so that memory, whose want kills, is asked for alone next.
//!
//! # Invariants
//!
//! * CPU and memory are refused apart: what was refused of one does not hold the other.
//! * A refusal holds what goes as far from the same start, up or down, request or limit. It ends when less is asked for, by the
//!   policy's hysteresis at least; when what it was about is otherwise: the node's allocatable, what the container has, or who
//!   wrote it last; and after a back-off that doubles each time, from [`FIRST`] to [`LONGEST`]. What a node agreed to and failed
//!   to do may succeed the next time: it waits for [`FIRST`] each time.
//! * What was deferred found no room for the time being. It is asked for again after [`FIRST`] already where others on the node have
//!   given up as much as it was to get.

use serde::{Deserialize, Serialize};

use super::{Facts, Ruling, under_way};
use crate::decide::duration::Seconds;
use crate::decide::node::Held;
use crate::decide::observation::{Container, Node, Pod, ResizeState};
use crate::decide::reason::Reason;
use crate::decide::share::PerMille;
use crate::decide::sizes::{Resource, Sizes};
use crate::decide::units::Timestamp;

/// For so long what was refused once is not asked for again.
pub const FIRST: Seconds = Seconds(600);
/// For so long at most it is not.
pub const LONGEST: Seconds = Seconds(86_400);
/// Refusals that are further apart than this are not of the same.
const FORGET_AFTER: Seconds = Seconds(2 * LONGEST.0);

/// Request and limit, in milli-CPU or bytes.
type Pair = (Option<u64>, Option<u64>);

/// What was refused of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// CPU.
    pub cpu: Option<Refusal>,
    /// Memory.
    pub memory: Option<Refusal>,
}

/// A change of one resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was asked for.
    pub asked: Pair,
    /// What it has instead.
    pub instead: Pair,
    /// What pods could request on the node then, in milli-CPU or bytes.
    pub allocatable: u64,
    /// What other pods held there, in milli-CPU or bytes, where there was no room for it for the time being.
    pub others: Option<u64>,
    /// When it was.
    pub at: Timestamp,
    /// How often it was in a row, from 1; what failed is not counted.
    pub times: u32,
}

/// Where a container is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// Its node.
    pub node: &'a Node,
    /// What all pods hold there.
    pub held: Held,
}

/// What was asked for a container, and refused.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where.
    pub place: Place<'a>,
    /// What was asked for.
    pub asked: Sizes,
    /// What it has instead.
    pub has: Sizes,
    /// When it was; `None`: before anything was known of it.
    pub at: Option<Timestamp>,
}

impl Refused {
    /// What was refused of a resource.
    pub fn of(&self, resource: Resource) -> Option<&Refusal> {
        match resource {
            Resource::Cpu => self.cpu.as_ref(),
            Resource::Memory => self.memory.as_ref(),
        }
    }

    fn place(&mut self, resource: Resource) -> &mut Option<Refusal> {
        match resource {
            Resource::Cpu => &mut self.cpu,
            Resource::Memory => &mut self.memory,
        }
    }

    /// Takes note that an ask has come to nothing. However often it is seen, an ask is refused once.
    pub fn note(&mut self, refused: &Ask<'_>, now: Timestamp) {
        let &Ask { place: Place { pod, node, held }, asked, has, at: asked_at } = refused;
        let deferred = matches!(pod.resize, ResizeState::Deferred { .. });
        let failing = matches!(pod.resize, ResizeState::Failing { .. });
        // What was not let into the spec was asked for this container, as far as is known.
        let standing = pod.containers.values().filter_map(|of| Some((of.desired, under_way::agreed(of)?)));
        let asks: Vec<_> = standing.chain([(asked, has)]).collect();
        for resource in blamed(&asks, node) {
            let (asked, instead) = (asked.pair(resource), has.pair(resource));
            let place = self.place(resource);
            place.take_if(|before| now.seconds_since(before.at) > FORGET_AFTER.0);
            let is_noted =
                |before: &Refusal| before.asked == asked && asked_at.is_none_or(|at| before.at >= at);
            if asked == instead || place.as_ref().is_some_and(is_noted) {
                continue;
            }
            let times = match place.as_ref() {
                Some(before) if !failing => before.times.saturating_add(1),
                _ => 1,
            };
            let others = deferred.then(|| held.by_others(pod, resource));
            let allocatable = allocatable(node, resource);
            *place = Some(Refusal { asked, instead, allocatable, others, at: now, times });
        }
    }

    /// Forgets what has been agreed to since. Whether anything is left.
    pub fn settle(&mut self, container: &Container) -> bool {
        let agreed = under_way::agreed(container).filter(|agreed| *agreed == container.desired);
        for resource in Resource::ALL {
            let moved =
                |refusal: &mut Refusal| agreed.is_some_and(|has| has.pair(resource) != refusal.instead);
            self.place(resource).take_if(moved);
        }
        *self != Self::default()
    }
}

/// The resources of what was asked for a pod's containers, that have so much, that may have been too much.
fn blamed(asks: &[(Sizes, Sizes)], node: &Node) -> Vec<Resource> {
    let moved = |resource: &Resource| asks.iter().any(|(asked, has)| !asked.same(*resource, has));
    let raised =
        |resource: &Resource| asks.iter().any(|(asked, has)| asked.pair(*resource).0 > has.pair(*resource).0);
    let too_much = |resource: &Resource| {
        let requests = asks.iter().map(|(asked, _)| asked.pair(*resource).0.unwrap_or(0));
        requests.fold(0, u64::saturating_add) > allocatable(node, *resource)
    };
    let moved: Vec<_> = Resource::ALL.into_iter().filter(moved).collect();
    let of = |suspect: &dyn Fn(&Resource) -> bool| -> Vec<_> {
        moved.iter().copied().filter(|resource| suspect(resource)).collect()
    };
    match (of(&too_much), of(&raised)) {
        (told, _) if !told.is_empty() => told,
        (_, raised) if raised.len() == 1 => raised,
        _ => moved.into_iter().take(1).collect(),
    }
}

fn allocatable(node: &Node, resource: Resource) -> u64 {
    match resource {
        Resource::Cpu => node.cpu.0,
        Resource::Memory => node.memory.0,
    }
}

impl Refusal {
    /// For how long it is not asked for again.
    fn wait(&self, now: Timestamp) -> Seconds {
        let doubled = 1 << (self.times.max(1) - 1).min(16);
        let backoff = (FIRST.0 * doubled).min(LONGEST.0);
        Seconds(backoff.saturating_sub(now.seconds_since(self.at)))
    }

    /// Whether it was refused for want of room only, and others, who hold so much now, have given up as much as it was to get.
    fn has_room(&self, others: u64, now: Timestamp) -> bool {
        let rise = self.asked.0.unwrap_or(0).saturating_sub(self.instead.0.unwrap_or(0)).max(1);
        let freed = self.others.is_some_and(|before| before.saturating_sub(others) >= rise);
        freed && now.seconds_since(self.at) >= FIRST.0
    }

    /// Whether a proposal goes as far as what was refused, in anything that it moved.
    fn covers(&self, (request, limit): Pair, hysteresis: PerMille) -> bool {
        let as_far = |asked: Option<u64>, had: Option<u64>, proposed: Option<u64>| {
            let (Some(asked), Some(proposed)) = (asked, proposed) else { return false };
            let had = had.unwrap_or(0);
            let near =
                u128::from(asked.abs_diff(proposed)) * 1000 < u128::from(asked) * u128::from(hysteresis.0);
            let beyond = if asked > had { proposed >= asked } else { proposed <= asked };
            let same_way = if asked > had { proposed > had } else { proposed < had };
            asked != had && same_way && (beyond || near)
        };
        as_far(self.asked.0, self.instead.0, request) || as_far(self.asked.1, self.instead.1, limit)
    }
}

/// Holds a resource that would go as far again as was refused.
pub fn refused(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let Some(refused) = &facts.state.refused else { return Ruling::pass(proposal) };
    let current = facts.current();
    let (mut left, mut longest) = (proposal, Seconds(0));
    for resource in Resource::ALL {
        let Some(refusal) = refused.of(resource) else { continue };
        let wait = refusal.wait(facts.now);
        let as_it_was = refusal.allocatable == allocatable(facts.node, resource)
            && refusal.instead == current.pair(resource)
            && !refusal.has_room(facts.held.by_others(facts.pod, resource), facts.now);
        if as_it_was
            && wait > Seconds(0)
            && refusal.covers(proposal.pair(resource), facts.policy.resize.hysteresis)
        {
            left = left.with(resource, &current);
            longest = longest.max(wait);
        }
    }
    Ruling::leave(proposal, left, Reason::RefusedBefore(longest))
}
