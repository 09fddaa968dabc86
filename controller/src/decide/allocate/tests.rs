//! Stories with the calculation by hand, then the properties, then solvers that work differently.

use proptest::prelude::*;

use super::*;

fn bid(uid: usize, weight: u32, floor: u64, cap: u64) -> Bid<usize> {
    Bid::new(uid, NonZeroU32::new(weight).unwrap(), MilliCpu(floor), MilliCpu(cap))
}

fn milli(shares: &[MilliCpu]) -> Vec<u64> {
    shares.iter().map(|share| share.0).collect()
}

/// Divides among `(weight, floor, cap)`, whose uids are their places.
#[track_caller]
fn check(budget: u64, bids: &[(u32, u64, u64)], shares: &[u64], price: Price) {
    let bids: Vec<_> = bids.iter().enumerate().map(|(uid, b)| bid(uid, b.0, b.1, b.2)).collect();
    let allocation = allocate(MilliCpu(budget), &bids).unwrap();
    assert_eq!((milli(&allocation.shares), allocation.price), (shares.to_vec(), price));
}

#[test]
fn where_all_caps_fit_everybody_gets_its_cap_and_cpu_is_free() {
    // 300 + 700 = 1000 of 1000.
    check(1000, &[(1, 100, 300), (9, 0, 700)], &[300, 700], Price::Free);
    check(1000, &[], &[], Price::Free);
}

#[test]
fn neighbours_share_above_their_floors_by_weight() {
    // Room: 1000 − (100 + 200) = 700, weight 1 + 2 + 4 = 7, t = 100: 100 + 100, 200 + 200, 0 + 400.
    let price = Price::Scarce { weight: 7, milli_cpu: 700 };
    check(1000, &[(1, 100, 900), (2, 200, 900), (4, 0, 900)], &[200, 400, 400], price);
    // λ: a core more is 1000 m; at W/R = 7/700 a milli-CPU, that is 10 a core.
    assert_eq!(price.per_core(), 10.0);
}

#[test]
fn what_the_satisfied_leave_goes_to_the_others() {
    // Room 900, W = 3. Levels: 50/1, 400/1, 1000/1. 50·3 ≤ 900: full; room 850, W = 2.
    // 400·2 ≤ 850: full; room 450, W = 1. 1000·1 > 450: the last gets 450.
    let price = Price::Scarce { weight: 1, milli_cpu: 450 };
    check(900, &[(1, 0, 50), (1, 0, 400), (1, 0, 1000)], &[50, 400, 450], price);
}

#[test]
fn a_heavy_neighbour_with_a_small_target_takes_no_more_than_that() {
    // Weight 100 and a target of 30: level 0.3. Room 90, W = 101: 30·101 ≤ 100·90, full. The rest, 60, is the other's.
    let price = Price::Scarce { weight: 1, milli_cpu: 60 };
    check(90, &[(100, 0, 30), (1, 0, 500)], &[30, 60], price);
}

#[test]
fn the_milli_cpus_that_are_left_go_to_the_largest_remainders() {
    // Room 10, W = 7: 10/7 = 1 + 3/7, 20/7 = 2 + 6/7, 40/7 = 5 + 5/7. Two are left: for 6/7 and 5/7.
    check(10, &[(1, 0, 9), (2, 0, 9), (4, 0, 9)], &[1, 3, 6], Price::Scarce { weight: 7, milli_cpu: 10 });
    // Three thirds of 4: 1 + 1/3 each, one is left, and the smallest uid gets it.
    check(4, &[(1, 0, 9), (1, 0, 9), (1, 0, 9)], &[2, 1, 1], Price::Scarce { weight: 3, milli_cpu: 4 });
}

#[test]
fn floors_that_take_all_leave_nothing_to_divide() {
    let price = Price::Scarce { weight: 2, milli_cpu: 0 };
    check(500, &[(1, 200, 300), (1, 300, 900)], &[200, 300], price);
    assert_eq!(price.per_core(), f64::INFINITY);
    // One that is at its cap already is full at any level, also at 0.
    check(500, &[(1, 200, 200), (1, 300, 900)], &[200, 300], Price::Scarce { weight: 1, milli_cpu: 0 });
}

#[test]
fn floors_that_do_not_fit_are_refused_with_both_sums() {
    let bids = [bid(0, 1, 200, 300), bid(1, 1, 301, 900)];
    let error = allocate(MilliCpu(500), &bids).unwrap_err();
    assert_eq!(error, NodeOversubscribed { floors: MilliCpu(501), budget: MilliCpu(500) });
    assert_eq!(error.to_string(), "the floors add up to 501m, and the node has 500m");
}

#[test]
fn a_cap_below_the_floor_counts_as_the_floor() {
    assert_eq!(bid(0, 1, 300, 100).cap(), MilliCpu(300));
}

#[test]
fn the_ends_of_the_ranges_neither_panic_nor_wrap() {
    let most = u64::MAX;
    let bids = [bid(0, u32::MAX, 0, most), bid(1, u32::MAX, 0, most), bid(2, 1, 0, most)];
    let shares = allocate(MilliCpu(most), &bids).unwrap().shares;
    assert_eq!(shares.iter().map(|share| u128::from(share.0)).sum::<u128>(), u128::from(most));
    // The sums saturate: such floors do not fit anywhere, but where all there is is asked for.
    let bids = [bid(0, 1, most, most), bid(1, 1, 1, 1)];
    assert!(allocate(MilliCpu(most - 1), &bids).is_err());
}

fn any_bids(most: usize, milli: u64) -> impl Strategy<Value = Vec<(u32, u64, u64)>> {
    prop::collection::vec((1..50u32, 0..=milli, 0..=milli), 1..=most)
}

fn bids(of: &[(u32, u64, u64)]) -> Vec<Bid<usize>> {
    of.iter().enumerate().map(|(uid, &(weight, floor, room))| bid(uid, weight, floor, floor + room)).collect()
}

/// A budget at which the floors fit: `permille` of the way from their sum to just above that of the caps.
fn budget(bids: &[Bid<usize>], permille: u64) -> u64 {
    let floors: u64 = bids.iter().map(|bid| bid.floor().0).sum();
    let room: u64 = bids.iter().map(Bid::room).sum();
    floors + room * permille / 950
}

fn shares(budget: u64, bids: &[Bid<usize>]) -> Vec<u64> {
    milli(&allocate(MilliCpu(budget), bids).unwrap().shares)
}

/// The level t = R/W at which the water stands, found by trying every set of full bids: exactly one
/// fulfils the KKT conditions (or several that agree).
fn level_by_enumeration(budget: u64, bids: &[Bid<usize>]) -> Option<(u64, u64)> {
    let floors: u64 = bids.iter().map(|bid| bid.floor().0).sum();
    (0..1u32 << bids.len()).find_map(|full| {
        let is_full = |index: usize| full & 1 << index != 0;
        let full_room: u64 = (0..bids.len()).filter(|&i| is_full(i)).map(|i| bids[i].room()).sum();
        let weight: u64 = (0..bids.len()).filter(|&i| !is_full(i)).map(|i| bids[i].weight()).sum();
        let room = (budget - floors).checked_sub(full_room)?;
        let holds = weight > 0
            && (0..bids.len()).all(|i| {
                // Full: room ≤ w·R/W; else it is above.
                let fits = u128::from(bids[i].room() * weight) <= u128::from(bids[i].weight() * room);
                fits == is_full(i)
            });
        holds.then_some((room, weight))
    })
}

/// Σ w·log(x − floor) of the best whole-numbered division, by trying all.
fn best_by_enumeration(budget: u64, bids: &[Bid<usize>]) -> f64 {
    let Some((first, rest)) = bids.split_first() else {
        return 0.0;
    };
    let floors: u64 = rest.iter().map(|bid| bid.floor().0).sum();
    let most = first.cap().0.min(budget - floors);
    (first.floor().0..=most)
        .map(|x| {
            let gain = (x - first.floor().0) as f64;
            first.weight() as f64 * gain.ln() + best_by_enumeration(budget - x, rest)
        })
        .fold(f64::NEG_INFINITY, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn shares_are_feasible_and_add_up_exactly(of in any_bids(40, 5_000), permille in 0..1000u64) {
        let bids = bids(&of);
        let budget = budget(&bids, permille);
        let shares = shares(budget, &bids);
        for (bid, share) in bids.iter().zip(&shares) {
            prop_assert!((bid.floor().0..=bid.cap().0).contains(share));
        }
        let caps: u64 = bids.iter().map(|bid| bid.cap().0).sum();
        prop_assert_eq!(shares.iter().sum::<u64>(), budget.min(caps));
    }

    #[test]
    fn more_weight_floor_or_cap_never_makes_the_own_share_smaller(
        of in any_bids(12, 200), permille in 0..1000u64, who in any::<prop::sample::Index>(),
        weight in 0..50u32, floor in 0..50u64, cap in 0..50u64
    ) {
        let before = bids(&of);
        let who = who.index(before.len());
        let budget = budget(&before, permille);
        let own = shares(budget, &before)[who];
        let Bid { weight: w, floor: f, cap: c, .. } = before[who].clone();
        let raised = [
            bid(who, w.get() + weight, f.0, c.0),
            bid(who, w.get(), f.0 + floor, c.0),
            bid(who, w.get(), f.0, c.0 + cap),
        ];
        for raised in raised {
            let mut after = before.clone();
            after[who] = raised;
            // A raised floor may not fit any more.
            if let Ok(allocation) = allocate(MilliCpu(budget), &after) {
                prop_assert!(allocation.shares[who].0 >= own, "{after:?}");
                for (index, (before, after)) in shares(budget, &before).iter().zip(&allocation.shares).enumerate() {
                    prop_assert!(index == who || after.0 <= before + 1, "a competitor gains");
                }
            }
        }
    }

    #[test]
    fn a_larger_budget_makes_no_share_smaller(
        of in any_bids(12, 200), permille in 0..1000u64, more in 0..500u64
    ) {
        let bids = bids(&of);
        let budget = budget(&bids, permille);
        for (before, after) in shares(budget, &bids).iter().zip(shares(budget + more, &bids)) {
            // But for the milli-CPU of the largest remainders (the "Alabama paradox").
            prop_assert!(after + 1 >= *before);
        }
    }

    #[test]
    fn scaling_changes_nothing_but_the_unit(of in any_bids(12, 200), permille in 0..1000u64, by in 1..100u64) {
        let plain = bids(&of);
        let budget = budget(&plain, permille);
        let heavy: Vec<_> = of.iter().map(|&(w, floor, room)| (w * by as u32, floor, room)).collect();
        prop_assert_eq!(shares(budget, &bids(&heavy)), shares(budget, &plain));
        let large: Vec<_> = of.iter().map(|&(w, floor, room)| (w, floor * by, room * by)).collect();
        for (large, plain) in shares(budget * by, &bids(&large)).iter().zip(shares(budget, &plain)) {
            prop_assert!(large.abs_diff(plain * by) <= by);
        }
    }

    #[test]
    fn the_order_of_bids_does_not_matter(of in any_bids(12, 200), permille in 0..1000u64, turn in 0..12usize) {
        let bids = bids(&of);
        let budget = budget(&bids, permille);
        let turn = turn % bids.len();
        let mut turned = bids.clone();
        turned.rotate_left(turn);
        let mut shares = shares(budget, &bids);
        shares.rotate_left(turn);
        prop_assert_eq!(milli(&allocate(MilliCpu(budget), &turned).unwrap().shares), shares);
    }

    #[test]
    fn shares_are_those_of_the_only_set_that_fulfils_the_kkt_conditions(
        of in any_bids(7, 300), permille in 0..1000u64
    ) {
        let bids = bids(&of);
        let budget = budget(&bids, permille);
        let Allocation { shares, price } = allocate(MilliCpu(budget), &bids).unwrap();
        match level_by_enumeration(budget, &bids) {
            None => prop_assert_eq!(price, Price::Free),
            Some((room, weight)) => {
                // λ = W/R is the same fraction, and each share the exact one or the next milli-CPU to it.
                let (w, r) = match price {
                    Price::Scarce { weight, milli_cpu } => (weight, milli_cpu),
                    Price::Free => (0, 1),
                };
                prop_assert!(price == Price::Free && bids.iter().all(|b| b.room() * weight <= b.weight() * room)
                    || u128::from(w) * u128::from(room) == u128::from(r) * u128::from(weight));
                for (bid, share) in bids.iter().zip(shares) {
                    let exact = (bid.weight() as f64 * room as f64 / weight as f64).min(bid.room() as f64);
                    prop_assert!((share.0 as f64 - bid.floor().0 as f64 - exact).abs() < 1.0);
                }
            }
        }
    }

    #[test]
    fn no_division_on_a_coarse_grid_is_better(
        of in prop::collection::vec((1..9u32, 0..4u64, 1..12u64), 1..=3), permille in 0..1000u64
    ) {
        // Ours divides milli-CPUs, the grid whole units of 1000.
        let coarse = bids(&of);
        let units = budget(&coarse, permille);
        let fine: Vec<_> = of.iter().map(|&(w, floor, room)| (w, floor * 1000, room * 1000)).collect();
        let fine = bids(&fine);
        let ours: f64 = shares(units * 1000, &fine)
            .iter()
            .zip(&fine)
            .map(|(share, bid)| bid.weight() as f64 * ((share - bid.floor().0) as f64 / 1000.0).ln())
            .sum();
        let best = best_by_enumeration(units, &coarse);
        prop_assert!(best == f64::NEG_INFINITY || ours >= best - 0.02, "ours {ours}, the grid's best {best}");
    }
}
