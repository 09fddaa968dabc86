//! Node allocation: a node's CPU divided among its containers by a weighted Nash bargain.
//!
//! # Problem
//!
//! Containers of one node would like more CPU request, all together, than there is. Each has a **floor** that
//! it keeps without any agreement, a **cap** beyond which more is of no use to it (its target), and a **weight**.
//! What they agree on maximises Σ wᵢ·log(xᵢ − floorᵢ) subject to floorᵢ ≤ xᵢ ≤ capᵢ and Σ xᵢ ≤ budget: the weighted
//! Nash bargaining solution with the floors as disagreement point (Nash 1950; Kalai 1977 for weights), which for
//! floors of 0 is weighted proportional fairness (Kelly 1997). Nobody can be given a larger percentage of
//! what it has gained without others losing more of theirs, by weight.
//!
//! # Solution
//!
//! By the Karush-Kuhn-Tucker conditions there is one price λ with xᵢ = min(capᵢ, floorᵢ + wᵢ/λ). Think of water
//! of level t = 1/λ: container i is full at tᵢ = (capᵢ − floorᵢ)/wᵢ. Sorted by tᵢ, the full ones are a prefix:
//!
//! ```text
//! room R ← budget − Σ floor;  W ← Σ w
//! if Σ (cap − floor) ≤ R: everybody gets its cap, λ = 0
//! for i by ascending tᵢ:
//!     if (capᵢ − floorᵢ)·W ≤ wᵢ·R: i is full;  R ← R − (capᵢ − floorᵢ);  W ← W − wᵢ
//!     else stop: t = R/W, λ = W/R
//! ```
//!
//! All in integers: O(n log n), exact, nothing is iterated until it is near enough. The others get
//! floorᵢ + ⌊wᵢ·R/W⌋ and the milli-CPUs that are left go to the largest remainders, ties to the smaller uid.
//!
//! # Properties (tested)
//!
//! * Feasible: floor ≤ x ≤ cap, and Σ x = min(budget, Σ cap) to the milli-CPU.
//! * A larger weight, floor or cap never makes the container's own share smaller.
//! * A larger budget, and a competitor's smaller weight, floor or cap, makes no share smaller by more than the 1 m
//!   that largest remainders can turn over.
//! * Scaling all weights changes nothing; scaling floors, caps and budget scales the shares, within 1 m of rounding.
//! * The order of the bids does not matter.

use std::cmp::{Ordering, Reverse};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::units::MilliCpu;

/// What one container brings to the market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bid<Uid> {
    /// Who bids. Decides ties, so that the same containers are always divided alike.
    pub uid: Uid,
    /// How much its gain counts.
    pub weight: NonZeroU32,
    floor: MilliCpu,
    cap: MilliCpu,
}

impl<Uid> Bid<Uid> {
    /// A bid. A cap below the floor counts as the floor: what a container keeps without any agreement is not
    /// taken away by one.
    pub fn new(uid: Uid, weight: NonZeroU32, floor: MilliCpu, cap: MilliCpu) -> Self {
        Self { uid, weight, floor, cap: cap.max(floor) }
    }

    /// What it gets in any case.
    pub fn floor(&self) -> MilliCpu {
        self.floor
    }

    /// The most that it gets; at least the floor.
    pub fn cap(&self) -> MilliCpu {
        self.cap
    }

    /// From floor to cap, in milli-CPU.
    fn room(&self) -> u64 {
        self.cap.saturating_sub(self.floor).0
    }

    fn weight(&self) -> u64 {
        self.weight.get().into()
    }

    /// By the level of water at which it is full: room ÷ weight, compared as fractions.
    fn by_level(&self, other: &Self) -> Ordering {
        let ours = u128::from(self.room()) * u128::from(other.weight());
        let theirs = u128::from(other.room()) * u128::from(self.weight());
        ours.cmp(&theirs)
    }
}

/// The dual price λ: by how much one more core would raise Σ w·log(x − floor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Price {
    /// Everybody has its cap: more CPU is worth nothing here.
    Free,
    /// So much weight shares so much CPU above the floors: λ is their ratio.
    Scarce {
        /// Σ w of those that are below their cap.
        weight: u64,
        /// What is divided among them above their floors, in milli-CPU; 0 where the floors take all, and the
        /// price has no bound.
        milli_cpu: u64,
    },
}

impl Price {
    /// λ in weight per core: 0 where CPU is free, infinite where the floors take all of it.
    pub fn per_core(self) -> f64 {
        match self {
            Self::Free => 0.0,
            Self::Scarce { weight, milli_cpu } => 1000.0 * weight as f64 / milli_cpu as f64,
        }
    }
}

/// The agreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// What each bid gets, in the order of the bids.
    pub shares: Vec<MilliCpu>,
    /// What one more core would be worth.
    pub price: Price,
}

/// The floors do not fit: there is nothing to divide, and nothing may rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the floors add up to {floors}, and the node has {budget}")]
pub struct NodeOversubscribed {
    /// Σ floor.
    pub floors: MilliCpu,
    /// What there is to divide.
    pub budget: MilliCpu,
}

/// Divides `budget`: the node's allocatable CPU less the requests of the pods that we do not manage.
pub fn allocate<Uid: Ord>(budget: MilliCpu, bids: &[Bid<Uid>]) -> Result<Allocation, NodeOversubscribed> {
    // A sum that saturates is not a sum: these are exact.
    let floors: u128 = bids.iter().map(|bid| u128::from(bid.floor.0)).sum();
    let caps: u128 = bids.iter().map(|bid| u128::from(bid.cap.0)).sum();
    let Some(room) = u128::from(budget.0).checked_sub(floors) else {
        return Err(NodeOversubscribed { floors: bids.iter().map(Bid::floor).sum(), budget });
    };
    let mut shares: Vec<MilliCpu> = bids.iter().map(Bid::cap).collect();
    if caps <= u128::from(budget.0) {
        return Ok(Allocation { shares, price: Price::Free });
    }

    let mut by_level: Vec<usize> = (0..bids.len()).collect();
    by_level.sort_unstable_by(|&one, &other| bids[one].by_level(&bids[other]));
    // At most the budget.
    let mut room = room as u64;
    // At most 2³² × the number of bids.
    let mut weight: u64 = bids.iter().map(Bid::weight).sum();
    let mut full = 0;
    for bid in by_level.iter().map(|&index| &bids[index]) {
        if u128::from(bid.room()) * u128::from(weight) > u128::from(bid.weight()) * u128::from(room) {
            break;
        }
        room -= bid.room();
        weight -= bid.weight();
        full += 1;
    }
    divide(room, weight, bids, &by_level[full..], &mut shares);
    Ok(Allocation { shares, price: Price::Scarce { weight, milli_cpu: room } })
}

/// Gives each of those `below` their cap its floor and its part of the room, in whole milli-CPUs: largest
/// remainders first, ties to the smaller uid. The exact part is below the cap, so that rounding up reaches it at most.
fn divide<Uid: Ord>(room: u64, weight: u64, bids: &[Bid<Uid>], below: &[usize], shares: &mut [MilliCpu]) {
    let mut left = room;
    let mut remainders = Vec::with_capacity(below.len());
    for &index in below {
        let bid = &bids[index];
        let part = u128::from(bid.weight()) * u128::from(room);
        // Both fit: the bid's weight is a part of the weight.
        let (whole, remainder) = ((part / u128::from(weight)) as u64, (part % u128::from(weight)) as u64);
        shares[index] = bid.floor.saturating_add(MilliCpu(whole));
        left -= whole;
        remainders.push((Reverse(remainder), &bid.uid, index));
    }
    // Fewer are left than there are remainders.
    let left = left as usize;
    if left > 0 {
        remainders.select_nth_unstable(left - 1);
        for &(_, _, index) in &remainders[..left] {
            shares[index] = shares[index].saturating_add(MilliCpu(1));
        }
    }
}

#[cfg(test)]
mod tests;
