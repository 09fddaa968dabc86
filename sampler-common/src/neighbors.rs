//! Which few neighbours held a CPU longest while a cgroup waited for it, in constant space.
//!
//! A frequent-items sketch (Misra and Gries, 1982) with four entries and bounded credit. An entry's
//! time is exact from the moment it was taken over, so what it names is never too much; time of
//! neighbours without an entry, or further back in a wait than the programs look for names, is in the row's
//! `neighbor` wait and in no entry: it stays unnamed.
//! Without the bound, neighbours that are long gone would keep their entries by old merit.

use crate::timeline::Holder;

/// Entries of a [`Neighbors`].
pub const ENTRIES: usize = 4;
/// Credit is in units of 16 µs, rounded up, and never more than fits: a neighbour that is gone loses its entry after the
/// others have held the CPU for about a second.
const CREDIT_LOG2_NS: u32 = 14;
const CREDIT_LIMIT: u32 = u16::MAX as u32;

/// The few neighbours that hold one CPU longest while one cgroup waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Neighbors {
    /// Who: [`Holder::NOBODY`] while the entry is free.
    pub who: [Holder; ENTRIES],
    /// For how long since the entry was taken over, in ns.
    pub held_ns: [u64; ENTRIES],
    /// What keeps the entry from being taken over.
    pub credit: [u16; ENTRIES],
}

impl Neighbors {
    /// Notes that `who` held the CPU for `ns`.
    #[inline(always)]
    pub fn charge(&mut self, who: Holder, ns: u64) {
        let units = (ns + (1 << CREDIT_LOG2_NS) - 1) >> CREDIT_LOG2_NS;
        let units = units.min(u64::from(CREDIT_LIMIT)) as u32;
        let mut i = 0;
        while i < ENTRIES {
            // Entries are taken in order, so behind a free one there is no other to find.
            if self.who[i].0 == Holder::NOBODY.0 {
                self.who[i] = who;
            }
            if self.who[i].0 == who.0 {
                self.held_ns[i] += ns;
                self.credit[i] = (u32::from(self.credit[i]) + units).min(CREDIT_LIMIT) as u16;
                return;
            }
            i += 1;
        }
        let units = units as u16;
        let mut i = 0;
        let mut settled = false;
        while i < ENTRIES {
            if self.credit[i] > units {
                self.credit[i] -= units;
            } else if !settled {
                settled = true;
                self.held_ns[i] = ns;
                self.credit[i] = units;
                self.who[i] = who;
            } else {
                self.credit[i] = 0;
            }
            i += 1;
        }
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn named(neighbors: &Neighbors) -> BTreeMap<u64, u64> {
        (0..ENTRIES)
            .filter(|&i| neighbors.who[i] != Holder::NOBODY)
            .map(|i| (neighbors.who[i].0, neighbors.held_ns[i]))
            .collect()
    }

    proptest! {
        #[test]
        fn four_neighbours_or_fewer_are_named_exactly(
            pieces in prop::collection::vec((0u64..4, 1u64..1_000_000), 1..200)
        ) {
            let mut neighbors = Neighbors::default();
            let mut truth = BTreeMap::new();
            for (who, ns) in pieces {
                let who = Holder::cgroup(who + 1, 7);
                neighbors.charge(who, ns);
                *truth.entry(who.0).or_insert(0) += ns;
            }
            prop_assert_eq!(named(&neighbors), truth);
        }

        #[test]
        fn nobody_is_charged_more_than_they_held(
            pieces in prop::collection::vec((0u64..40, 1u64..10_000_000_000), 1..400)
        ) {
            let mut neighbors = Neighbors::default();
            let mut truth = BTreeMap::new();
            for (who, ns) in pieces {
                let who = Holder::cgroup(who + 1, 7);
                neighbors.charge(who, ns);
                *truth.entry(who.0).or_insert(0) += ns;
            }
            for (who, ns) in named(&neighbors) {
                prop_assert!(ns <= truth[&who]);
            }
        }
    }

    #[test]
    fn neighbours_that_are_gone_lose_their_entries() {
        let mut neighbors = Neighbors::default();
        for who in 1..=4 {
            neighbors.charge(Holder::cgroup(who, 7), 3_600_000_000_000);
        }
        for _ in 0..120 {
            neighbors.charge(Holder::cgroup(9, 7), 10_000_000);
        }
        assert!(named(&neighbors).contains_key(&Holder::cgroup(9, 7).0));
    }
}
