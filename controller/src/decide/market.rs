//! Each node divided among the drafts of its containers: what they claim, what they get, and why that is not more.
//!
//! # Invariants
//!
//! * What is only shown takes nothing from what is done.
//! * A share that is too small to be worth a change is given back, and divided among the others: room is left only where nobody who
//!   wants it could make use of all of it. Who gave a share back is told so.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::allocate::Price;
use super::draft::Draft;
use super::node::{self, Claim, Division, Held};
use super::observation::{Node, Observation};
use super::reason::Reason;
use super::sizes::Resource;
use super::units::{Bytes, MilliCpu};

/// Divides each node among the containers that are changed; and then, for those that are only shown, as if they
/// were, too. Returns what one more core of each would be worth.
pub(super) fn within_nodes(
    observation: &Observation,
    held: &BTreeMap<&str, Held>,
    drafts: &mut [Draft<'_>],
) -> BTreeMap<String, Price> {
    let mut prices = BTreeMap::new();
    let mut by_node: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        by_node.entry(draft.node_name).or_default().push(index);
    }
    for (name, all) in by_node {
        let node = &observation.nodes[name];
        let held = held.get(name).copied().unwrap_or_default();
        let applied: Vec<usize> = all.iter().copied().filter(|index| drafts[*index].applies).collect();
        let price = divide(observation, node, held, &applied, &BTreeSet::new(), drafts);
        prices.extend(price.map(|price| (name.to_owned(), price)));
        if applied.len() < all.len() {
            divide(observation, node, held, &all, &applied.into_iter().collect(), drafts);
        }
    }
    prices
}

/// Divides a node among these drafts, and gives their shares to those of them that are not `settled` yet. Returns
/// what one more core would be worth.
fn divide(
    observation: &Observation,
    node: &Node,
    held: Held,
    among: &[usize],
    settled: &BTreeSet<usize>,
    drafts: &mut [Draft<'_>],
) -> Option<Price> {
    let mut claims: Vec<_> = among.iter().map(|index| drafts[*index].claim(observation)).collect();
    let ours = |resource| claims.iter().map(|claim| u128::from(claim.of(resource).0)).sum::<u128>();
    let left = |total: u64, held: u128, resource| {
        u64::try_from((u128::from(total) + ours(resource)).saturating_sub(held)).unwrap_or(u64::MAX)
    };
    let cpu = left(node.cpu.0, held.cpu, Resource::Cpu);
    let memory = left(node.memory.0, held.memory, Resource::Memory);
    let total = |resource| match resource {
        Resource::Cpu => cpu,
        Resource::Memory => memory,
    };
    let frees = Resource::ALL.map(|resource| {
        let shrinks = |(has, wants): (u64, u64)| wants < has;
        claims.iter().any(|claim| shrinks(claim.of(resource)))
    });
    let mut division = node::divide(MilliCpu(cpu), Bytes(memory), &claims);
    let price = division.cpu.as_ref().ok().map(|cpu| cpu.price);
    let mut given_back = BTreeSet::new();
    loop {
        let drafts: Vec<&Draft<'_>> = among.iter().map(|index| &drafts[*index]).collect();
        let of = |resource| {
            let back = to_give_back(resource, total(resource), &division, &claims, &drafts);
            back.into_iter().map(move |position| (position, resource))
        };
        let back: Vec<_> = Resource::ALL.into_iter().flat_map(of).collect();
        if back.is_empty() {
            break;
        }
        for (position, resource) in &back {
            claims[*position].wants_no_more(*resource);
        }
        given_back.extend(back);
        division = node::divide(MilliCpu(cpu), Bytes(memory), &claims);
    }
    let mut given = Vec::new();
    for (resource, frees) in Resource::ALL.into_iter().zip(frees) {
        let share = |position: usize| division.share(resource, position);
        let sum: u128 = (0..claims.len()).filter_map(share).map(u128::from).sum();
        let some_left = sum < u128::from(total(resource));
        for (position, index) in among.iter().enumerate().filter(|(_, index)| !settled.contains(index)) {
            let short = match share(position) {
                None => Reason::NodeOversubscribed,
                Some(_) if frees => Reason::RoomNotFreed(resource),
                Some(_) if some_left && given_back.contains(&(position, resource)) => {
                    Reason::RoomTooSmall(resource)
                }
                Some(_) => Reason::NodeFull(resource),
            };
            let has = claims[position].of(resource).0;
            given.push((*index, resource, share(position).unwrap_or(has), short));
        }
    }
    for (index, resource, share, short) in given {
        drafts[index].share(resource, share, &short);
    }
    price
}

/// Whose shares are too small to be worth a change: of those who could not make use of all the room that there is all, else the
/// half of them that comes last.
fn to_give_back(
    resource: Resource,
    total: u64,
    division: &Division,
    claims: &[Claim<'_>],
    drafts: &[&Draft<'_>],
) -> Vec<usize> {
    let is_too_small = |position: &usize| {
        let (has, wants) = claims[*position].of(resource);
        let share = division.share(resource, *position).unwrap_or(has);
        has < share && share < wants && drafts[*position].is_too_small(resource, share)
    };
    let mut small: Vec<usize> = (0..claims.len()).filter(is_too_small).collect();
    if small.is_empty() {
        return small;
    }
    let held: u128 = claims.iter().map(|claim| u128::from(claim.of(resource).0)).sum();
    let free = u64::try_from(u128::from(total).saturating_sub(held)).unwrap_or(u64::MAX);
    let of_no_use = |position: &usize| {
        let (has, wants) = claims[*position].of(resource);
        drafts[*position].is_too_small(resource, has.saturating_add(free).min(wants))
    };
    let hopeless: Vec<usize> = small.iter().copied().filter(of_no_use).collect();
    if !hopeless.is_empty() {
        return hopeless;
    }
    small.sort_by_key(|position| {
        let Claim { who, weight, urgent, priority, .. } = claims[*position];
        (!urgent, Reverse(priority), Reverse(weight), who)
    });
    small.split_off(small.len() / 2)
}
