//! What the rows of one slot, one row a CPU, have grown by since they were last read.
//!
//! Counters of the rows of all CPUs are added up before they are compared with the last sum: sums wrap
//! like their parts, so the difference is exact as long as no u32 counter grows by 2³² between two
//! reads (at 100,000 delays a second all in one bucket: twelve hours). One copy a slot is kept,
//! whatever the number of CPUs, but for the neighbours, which do not add up.

use std::mem::offset_of;
use std::ptr::read_volatile;

use sampler_common::abi::{CAUSES, CycleSums, PACES, ROW_HEAD_BYTES, Row, TOLD};
use sampler_common::buckets::{BUCKETS, OCTAVES};
use sampler_common::neighbors::{ENTRIES, Neighbors};
use sampler_common::snapshot::{Counters, Cycles};
use sampler_common::timeline::Holder;

use crate::kernel::mapped::Mapped;

const HEAD_WORDS: usize = ROW_HEAD_BYTES / size_of::<u64>();

/// The rows of one slot as they were last read.
#[derive(Clone)]
pub struct SlotRows {
    /// Sum of the rows' first cache lines: when it has not grown, nothing has.
    head: [u64; HEAD_WORDS],
    sums: Sums,
    /// Not by CPU.
    cycles: CycleSums,
    /// By CPU.
    neighbors: Vec<Neighbors>,
}

/// Counters that add up.
#[derive(Clone)]
struct Sums {
    wait_ns: [u64; CAUSES],
    latency: [u32; BUCKETS],
    coarse: [[u32; OCTAVES]; TOLD],
    unmet: [u32; PACES],
}

impl SlotRows {
    /// Rows that have never been counted in.
    pub fn new(cpus: usize) -> Self {
        Self {
            head: [0; HEAD_WORDS],
            sums: Sums::default(),
            cycles: CycleSums::default(),
            neighbors: vec![Neighbors::default(); cpus],
        }
    }

    /// Adds what the rows of `slot` have grown by to `counters`, and hands each neighbour with the time (ns)
    /// by which its entry has grown to `neighbor`. Returns whether there was anything.
    pub fn read(
        &mut self,
        rows: &Mapped<Row>,
        cycles: &Mapped<CycleSums>,
        slots: usize,
        slot: usize,
        counters: &mut Counters,
        mut neighbor: impl FnMut(Holder, u64),
    ) -> bool {
        let indices = (0..self.neighbors.len()).map(|cpu| cpu * slots + slot);
        let mut head = [0; HEAD_WORDS];
        for index in indices.clone() {
            add_head(&mut head, rows.at(index));
        }
        if head == self.head {
            return false;
        }
        // What is counted after this line changes the head again: it is read the next time.
        self.head = head;
        let mut sums = Sums::default();
        for (index, last) in indices.zip(&mut self.neighbors) {
            let row = rows.read(index);
            sums.add(&row);
            // SAFETY: inside the row.
            let neighbors = unsafe { rows.at(index).byte_add(offset_of!(Row, neighbors)) };
            if let Some(now) = settled::<Neighbors>(neighbors.cast()) {
                grown(last, &now).for_each(|(holder, ns)| neighbor(holder, ns));
                *last = now;
            }
        }
        let growth = sums.since(&self.sums);
        counters.add_row(&growth.latency, &growth.wait_ns, &growth.coarse, &growth.unmet);
        self.sums = sums;
        // Written before the row's count, so never behind it.
        if let Some(now) = settled(cycles.at(slot)) {
            counters.add_cycles(&Cycles::from_parts(std::array::from_fn(|term| {
                now.sums[term].wrapping_sub(self.cycles.sums[term])
            })));
            self.cycles = now;
        }
        true
    }
}

/// Adds the first cache line of a row.
fn add_head(sum: &mut [u64; HEAD_WORDS], row: *const Row) {
    for (word, sum) in sum.iter_mut().enumerate() {
        // SAFETY: the row begins with ROW_HEAD_BYTES of counters and is aligned to eight bytes.
        *sum = sum.wrapping_add(unsafe { read_volatile(row.cast::<u64>().add(word)) });
    }
}

/// Numbers that belong together, once they have been read the same twice: of neighbours an entry that is taken over between
/// the reading of its parts would give one neighbour's time to another. `None` while they keep changing: the next read
/// has them.
fn settled<T: Copy + PartialEq>(numbers: *const T) -> Option<T> {
    // SAFETY: a map value, or a part of one, of integers only.
    let read = || unsafe { read_volatile(numbers) };
    let mut first = read();
    for _ in 0..3 {
        let again = read();
        if again == first {
            return Some(first);
        }
        first = again;
    }
    None
}

/// By how much each entry has grown. An entry that was taken over counts from nothing.
fn grown(last: &Neighbors, now: &Neighbors) -> impl Iterator<Item = (Holder, u64)> {
    (0..ENTRIES).filter_map(|entry| {
        let same = last.who[entry] == now.who[entry];
        let before = if same { last.held_ns[entry] } else { 0 };
        // The same neighbour may have lost the entry and got it back.
        let held = now.held_ns[entry];
        let ns = held.checked_sub(before).unwrap_or(held);
        (ns != 0).then_some((now.who[entry], ns))
    })
}

impl Default for Sums {
    fn default() -> Self {
        Self { wait_ns: [0; CAUSES], latency: [0; BUCKETS], coarse: [[0; OCTAVES]; TOLD], unmet: [0; PACES] }
    }
}

impl Sums {
    fn add(&mut self, row: &Row) {
        let Row { wait_ns, latency, coarse, unmet, .. } = *row;
        self.combine(&Self { wait_ns, latency, coarse, unmet }, Op::Add);
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut growth = self.clone();
        growth.combine(earlier, Op::Subtract);
        growth
    }

    fn combine(&mut self, other: &Self, op: Op) {
        for (sum, more) in self.wait_ns.iter_mut().zip(&other.wait_ns) {
            *sum = match op {
                Op::Add => sum.wrapping_add(*more),
                Op::Subtract => sum.wrapping_sub(*more),
            };
        }
        // Not one loop over both chained: those are not vectorised.
        op.apply(&mut self.latency, &other.latency);
        op.apply(self.coarse.as_flattened_mut(), other.coarse.as_flattened());
        op.apply(&mut self.unmet, &other.unmet);
    }
}

impl Op {
    fn apply(self, sums: &mut [u32], others: &[u32]) {
        match self {
            Self::Add => sums.iter_mut().zip(others).for_each(|(sum, more)| *sum = sum.wrapping_add(*more)),
            Self::Subtract => {
                sums.iter_mut().zip(others).for_each(|(sum, more)| *sum = sum.wrapping_sub(*more))
            }
        }
    }
}

/// What [`Sums::combine`] does with two counters; both wrap.
#[derive(Clone, Copy)]
enum Op {
    Add,
    Subtract,
}
