//! A node divided among the containers that run on it: CPU by the bargain of [`super::allocate`], memory to who needs it most.
//!
//! Only what takes part is divided: the requests of everybody else are subtracted first. What a container keeps in any case is its
//! request, also where it wants less: a shrink may be refused or take its time, and its room is divided when it is there. What
//! it can get at most is its target as far as the guards let it, so that what a guard holds takes room from nobody.
//!
//! So who came first keeps what it still needs, whatever the weight of who comes later: weights share what is free. That is as
//! Kubernetes has it: a request is a promise, on which the container runs and the scheduler counts, and to take from one what it uses
//! because another one wants it would move the harm and not end it, and move it back in the next pass. What it needs no more it
//! gives up by its own target. Who wants it otherwise bounds the early ones (`maxAllowed`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::allocate::{Allocation, Bid, NodeOversubscribed, allocate};
use super::observation::{Observation, Phase, Pod};
use super::sizes::{Resource, Sizes};
use super::units::{Bytes, MilliCpu};

/// What all pods hold on a node together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// CPU, in milli-CPU.
    pub cpu: u128,
    /// Memory, in bytes.
    pub memory: u128,
}

impl Held {
    /// Of each node that somebody is on. Who is over holds nothing.
    pub fn by_node(observation: &Observation) -> BTreeMap<&str, Self> {
        let mut held: BTreeMap<&str, Self> = BTreeMap::new();
        for pod in observation.pods.values() {
            let over = matches!(pod.phase, Phase::Succeeded | Phase::Failed);
            if let Some(node) = pod.node.as_deref().filter(|_| !over) {
                let (sizes, sum) = (pod.held(), held.entry(node).or_default());
                sum.cpu += u128::from(sizes.cpu().0);
                sum.memory += u128::from(sizes.memory().0);
            }
        }
        held
    }

    /// What all but this one of them hold of a resource, in milli-CPU or bytes.
    pub fn by_others(&self, pod: &Pod, resource: Resource) -> u64 {
        let (all, own): (u128, fn(&Sizes) -> u64) = match resource {
            Resource::Cpu => (self.cpu, |sizes| sizes.cpu().0),
            Resource::Memory => (self.memory, |sizes| sizes.memory().0),
        };
        u64::try_from(all.saturating_sub(u128::from(own(&pod.held())))).unwrap_or(u64::MAX)
    }
}

/// What one container brings.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Who: pod and container. Decides ties.
    pub who: (&'a str, &'a str),
    /// How much its gain counts.
    pub weight: NonZeroU32,
    /// It is being hurt for want of memory now.
    pub urgent: bool,
    /// Its pod's priority.
    pub priority: i32,
    /// CPU request that it has, and that it would have.
    pub cpu: (MilliCpu, MilliCpu),
    /// Memory request that it has, and that it would have.
    pub memory: (Bytes, Bytes),
}

impl Claim<'_> {
    /// What it has and would have of a resource, in milli-CPU or bytes.
    pub fn of(&self, resource: Resource) -> (u64, u64) {
        match resource {
            Resource::Cpu => (self.cpu.0.0, self.cpu.1.0),
            Resource::Memory => (self.memory.0.0, self.memory.1.0),
        }
    }

    /// What it has of a resource is enough.
    pub fn wants_no_more(&mut self, resource: Resource) {
        match resource {
            Resource::Cpu => self.cpu.1 = self.cpu.0,
            Resource::Memory => self.memory.1 = self.memory.0,
        }
    }
}

/// What each claim gets, in their order; never less than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// CPU, and what one more core would be worth; an error where what is kept in any case does not fit, and nothing may
    /// rise.
    pub cpu: Result<Allocation, NodeOversubscribed>,
    /// Memory; `None` where it does not fit, and nothing may rise.
    pub memory: Option<Vec<Bytes>>,
}

impl Division {
    /// What the claim at this place gets, in milli-CPU or bytes; `None` where nothing may rise.
    pub fn share(&self, resource: Resource, position: usize) -> Option<u64> {
        match resource {
            Resource::Cpu => self.cpu.as_ref().ok().map(|cpu| cpu.shares[position].0),
            Resource::Memory => self.memory.as_ref().map(|shares| shares[position].0),
        }
    }
}

/// Divides what is left of a node when everybody else has theirs.
pub fn divide(cpu: MilliCpu, memory: Bytes, claims: &[Claim<'_>]) -> Division {
    let bids: Vec<_> =
        claims.iter().map(|claim| Bid::new(claim.who, claim.weight, claim.cpu.0, claim.cpu.1)).collect();
    Division { cpu: allocate(cpu, &bids), memory: divide_memory(memory, claims) }
}

/// Memory is not shared by weight: half of what it takes not to be killed is worth nothing. Whoever is being hurt comes first, then
/// who has the higher priority.
fn divide_memory(memory: Bytes, claims: &[Claim<'_>]) -> Option<Vec<Bytes>> {
    let floors: u128 = claims.iter().map(|claim| u128::from(claim.memory.0.0)).sum();
    let mut left = Bytes(u64::try_from(u128::from(memory.0).checked_sub(floors)?).unwrap_or(u64::MAX));
    let mut shares: Vec<Bytes> = claims.iter().map(|claim| claim.memory.0).collect();
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|index| {
        let claim = &claims[*index];
        (!claim.urgent, std::cmp::Reverse(claim.priority), claim.who)
    });
    for index in order {
        let more = claims[index].memory.1.saturating_sub(shares[index]).min(left);
        shares[index] = shares[index].saturating_add(more);
        left = left.saturating_sub(more);
    }
    Some(shares)
}
