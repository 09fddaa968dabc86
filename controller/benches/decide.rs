//! What decisions cost: the division of a node's CPU among its containers, by their number; and of one container a
//! sample, a target, and the bytes of its history.
//!
//! Prints a median and the slowest of many rounds, each over another node; a cost per n·log₂ n that stays level is
//! the O(n log n) that is promised.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Instant;

use controller::decide::allocate::{Bid, allocate};
use controller::decide::history::History;
use controller::decide::policy::Policy;
use controller::decide::target::{Changes, CpuInputs, cpu};
use controller::decide::units::{MilliCpu, Timestamp};

const ROUNDS: u64 = 301;
const SIZES: [usize; 7] = [10, 50, 250, 1_000, 2_500, 5_000, 10_000];

fn main() {
    markets();
    one_container();
}

fn markets() {
    println!("allocate, one node     median      slowest   ns per n·log₂ n");
    for n in SIZES {
        let mut rounds_ns: Vec<u128> = (0..ROUNDS)
            .map(|seed| {
                let bids = node(n, seed);
                // Half of what is asked for.
                let budget = MilliCpu(bids.iter().map(|bid| bid.cap().0 + bid.floor().0).sum::<u64>() / 2);
                let start = Instant::now();
                let allocation = black_box(allocate(budget, black_box(&bids)));
                let taken = start.elapsed().as_nanos();
                drop(allocation);
                taken
            })
            .collect();
        rounds_ns.sort_unstable();
        let (median, slowest) = (rounds_ns[rounds_ns.len() / 2], rounds_ns[rounds_ns.len() - 1]);
        let per_step = median as f64 / (n as f64 * (n as f64).log2());
        let us = |ns: u128| ns as f64 / 1e3;
        println!("{n:>6} containers {:>9.1} µs {:>9.1} µs {per_step:>10.2}", us(median), us(slowest));
    }
}

fn one_container() {
    const MINUTES: u64 = 7 * 1440;
    const START: u64 = 1_700_006_400;
    let at = |minute: u64| Timestamp(START + 60 * minute);
    let cores = |minute: u64| 1.0 + (minute % 1440) as f64 / 720.0 + (minute * 7919 % 101) as f64 / 200.0;
    let policy = Policy::default();
    let mut history = History::new(Timestamp(START), policy.history.window);
    let start = Instant::now();
    for minute in 0..MINUTES {
        black_box(history.observe(at(minute), cores(minute)));
    }
    let observe_ns = start.elapsed().as_nanos() as f64 / MINUTES as f64;
    let now = at(MINUTES - 1);
    let start = Instant::now();
    for current in 0..MINUTES {
        let request = MilliCpu(1_000 + current);
        black_box(cpu(&CpuInputs {
            history: &history,
            request,
            limit: None,
            started_with: request,
            signal: None,
            changes: Changes::default(),
            policy: &policy,
            age_seconds: u64::MAX,
            now,
        }));
    }
    let target_us = start.elapsed().as_nanos() as f64 / 1e3 / MINUTES as f64;
    println!(
        "\none container: {observe_ns:.0} ns a sample, {target_us:.1} µs a target, {} bytes",
        history.bytes()
    );
}

/// Containers of mixed size and weight, named as pods are.
fn node(n: usize, seed: u64) -> Vec<Bid<String>> {
    // splitmix64: the same node in each run.
    let mut state = seed;
    let mut next = |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    (0..n)
        .map(|i| {
            let floor = next(500);
            let weight = NonZeroU32::new(1 + next(100_000) as u32).unwrap_or(NonZeroU32::MIN);
            let uid = format!("0b5ae6e7-8fd1-4a6c-9d8e-{i:012}/main");
            Bid::new(uid, weight, MilliCpu(floor), MilliCpu(floor + next(4_000)))
        })
        .collect()
}
