//! The programs by themselves, without the reader: what the rows hold, as the kernel left them.

use std::ops::Sub;

use loadline_tests::load::Schedstat;
use sampler::kernel::layout::Key;
use sampler::kernel::load::{Options, Programs};
use sampler_common::abi::{CAUSES, Cause, Kernel, OTHER, TOLD};
use sampler_common::buckets::{BUCKETS, OCTAVES, bucket, octave, upper_edge_seconds};
use sampler_common::snapshot::{CgroupId, Losses};

/// Counting programs.
pub struct Counting {
    programs: Programs,
}

/// What rows hold, added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// By cause.
    pub wait_ns: [u64; CAUSES],
    /// By bucket.
    pub latency: [u64; BUCKETS],
    /// By largest cause and octave.
    pub coarse: [[u64; OCTAVES]; TOLD],
}

impl Counting {
    /// Rows by the cpu controller's groups, and plenty of slots.
    pub fn start() -> Self {
        Self::by(Key::Cpu, 1024)
    }

    /// Rows by the groups of a controller, of so many slots.
    pub fn by(key: Key, slots: u32) -> Self {
        let mut loaded = Self::loaded(key, slots);
        loaded.begin();
        loaded
    }

    /// Loaded, but not attached to the switch yet.
    pub fn loaded(key: Key, slots: u32) -> Self {
        let programs = Programs::load(Options { key, hierarchy_id: 0, slots: Some(slots) }).unwrap();
        Self { programs }
    }

    /// Loaded with what is said of the kernel, right or wrong.
    pub fn loaded_with(kernel: Kernel) -> Self {
        Self { programs: Programs::load_with(kernel).unwrap() }
    }

    /// Attaches to the switch.
    pub fn begin(&mut self) {
        self.programs.start().unwrap();
    }

    /// The programs and their maps.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Slots of a cgroup: usually one.
    pub fn slots_of(&self, id: CgroupId) -> Vec<usize> {
        let records = &self.programs.slots;
        (0..records.len())
            .filter(|slot| {
                let record = records.read(*slot);
                record.serial != 0 && record.cgroup_id == id.0
            })
            .collect()
    }

    /// Everything counted for a cgroup.
    pub fn of(&self, id: CgroupId) -> Counted {
        self.slots_of(id).into_iter().fold(Counted::default(), |sum, slot| sum.add(&self.slot(slot)))
    }

    /// Everything counted for what has no slot.
    pub fn other(&self) -> Counted {
        self.slot(OTHER as usize)
    }

    /// Everything.
    pub fn all(&self) -> Counted {
        (0..self.programs.slots.len()).fold(Counted::default(), |sum, slot| sum.add(&self.slot(slot)))
    }

    /// What one slot's rows hold.
    pub fn slot(&self, slot: usize) -> Counted {
        let slots = self.programs.slots.len();
        (0..self.programs.cpus.len()).fold(Counted::default(), |mut sum, cpu| {
            let row = self.programs.rows.read(cpu * slots + slot);
            sum.wait_ns.iter_mut().zip(row.wait_ns).for_each(|(sum, ns)| *sum += ns);
            sum.latency.iter_mut().zip(row.latency).for_each(|(sum, count)| *sum += u64::from(count));
            let coarse = sum.coarse.as_flattened_mut().iter_mut().zip(row.coarse.as_flattened());
            coarse.for_each(|(sum, count)| *sum += u64::from(*count));
            sum
        })
    }

    /// What is counted of the whole machine while something is done, and what the kernel says of that time.
    pub fn beside_the_machine(&self, run: impl FnOnce()) -> (Counted, Bracket) {
        let machine = || Schedstat::of_machine().unwrap();
        let (a, before, b) = (machine(), self.all(), machine());
        run();
        let (c, after, d) = (machine(), self.all(), machine());
        (after - before, Bracket { least: c - b, most: d - a })
    }

    /// What could not be counted as it should.
    pub fn losses(&self) -> Losses {
        let mut losses = Losses::default();
        (0..self.programs.cpus.len()).for_each(|cpu| losses.add_cpu(&self.programs.cpus.read(cpu)));
        losses
    }
}

/// What the kernel says of the whole machine, with the time that reading took left out and in.
#[derive(Clone, Copy, Debug)]
pub struct Bracket {
    least: Schedstat,
    most: Schedstat,
}

impl Bracket {
    /// Fails unless as many delays were counted, and of as much time. Parts of waits that were still on when they
    /// were read may be on either side, and what a thread without a baseline waited before a migration is not counted:
    /// 3 %, and 1 ms. Not one delay may be missing; how exact their sum is, is judged thread by thread.
    #[track_caller]
    pub fn must_hold(&self, counted: &Counted) {
        let Self { least, most } = self;
        let switch_ins = least.switch_ins..=most.switch_ins;
        assert!(
            switch_ins.contains(&counted.count()),
            "counted {}, the kernel {switch_ins:?}",
            counted.count()
        );
        let slack = most.wait_ns / 33 + 1_000_000;
        let wait = least.wait_ns.saturating_sub(slack)..=most.wait_ns + slack;
        assert!(
            wait.contains(&counted.total_ns()),
            "waited {} ns, by the kernel {wait:?}",
            counted.total_ns()
        );
    }
}

impl Default for Counted {
    fn default() -> Self {
        Self { wait_ns: [0; CAUSES], latency: [0; BUCKETS], coarse: [[0; OCTAVES]; TOLD] }
    }
}

impl Counted {
    /// How many delays.
    pub fn count(&self) -> u64 {
        self.latency.iter().sum()
    }

    /// Their sum.
    pub fn total_ns(&self) -> u64 {
        self.wait_ns.iter().sum()
    }

    /// The part of a cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.wait_ns[cause as usize]
    }

    /// The part of a cause, of 1.
    pub fn share(&self, cause: Cause) -> f64 {
        self.of(cause) as f64 / self.total_ns().max(1) as f64
    }

    /// How many delays are in the bucket of `ns` or above it.
    pub fn as_long_as(&self, ns: u64) -> u64 {
        self.latency[bucket(ns) as usize..].iter().sum()
    }

    /// Those of them, by octave, of which this cause is the largest.
    pub fn as_long_as_by(&self, cause: Cause, ns: u64) -> u64 {
        self.coarse[cause as usize][octave(bucket(ns)) as usize..].iter().sum()
    }

    /// Both together.
    pub fn add(mut self, other: &Self) -> Self {
        self.wait_ns.iter_mut().zip(other.wait_ns).for_each(|(sum, ns)| *sum += ns);
        self.latency.iter_mut().zip(other.latency).for_each(|(sum, count)| *sum += count);
        let coarse = self.coarse.as_flattened_mut().iter_mut().zip(other.coarse.as_flattened());
        coarse.for_each(|(sum, count)| *sum += count);
        self
    }

    /// Fails unless it is, to the nanosecond and to the switch-in, what the kernel says.
    #[track_caller]
    pub fn must_be(&self, kernel: Schedstat) {
        assert_eq!(
            (self.count(), self.total_ns()),
            (kernel.switch_ins, kernel.wait_ns),
            "(switch-ins, wait in ns) counted ≠ (switch-ins, run delay) in schedstat; by cause: {:?}",
            self.wait_ns
        );
        self.must_hold_together();
    }

    /// Fails unless the buckets can hold delays of that sum, and no octave has more of them with a cause than in all.
    #[track_caller]
    pub fn must_hold_together(&self) {
        let (least, most) = sums_ns(&self.latency);
        let total = self.total_ns();
        assert!(
            (least..=most).contains(&total),
            "delays in these buckets add up to {least} to {most} ns, not to {total} ns: {:?}",
            filled(&self.latency)
        );
        let mut fine = [0; OCTAVES];
        (0..).zip(self.latency).for_each(|(bucket, count)| fine[octave(bucket) as usize] += count);
        for (at, fine) in fine.into_iter().enumerate() {
            let told: u64 = self.coarse.iter().map(|of_cause| of_cause[at]).sum();
            assert!(told <= fine, "octave {at} has {fine} delays, and {told} with a largest cause");
        }
    }
}

/// The least and the most ns that delays in these buckets can add up to.
pub fn sums_ns(latency: &[u64; BUCKETS]) -> (u64, u64) {
    // The last ns in a bucket; the overflow has none.
    let last_ns = |bucket: usize| (upper_edge_seconds(bucket) * 1e9) as u64;
    let first_ns = |bucket: usize| if bucket == 0 { 0 } else { last_ns(bucket - 1) + 1 };
    let with_edge = |ns: &dyn Fn(usize) -> u64| {
        let parts = latency.iter().enumerate().filter(|(_, count)| **count != 0);
        parts.fold(0, |sum: u64, (bucket, count)| sum.saturating_add(ns(bucket).saturating_mul(*count)))
    };
    (with_edge(&first_ns), with_edge(&last_ns))
}

/// The buckets that hold something, for messages.
pub fn filled(latency: &[u64; BUCKETS]) -> Vec<(usize, u64)> {
    latency.iter().copied().enumerate().filter(|(_, count)| *count != 0).collect()
}

impl Sub for Counted {
    type Output = Self;

    fn sub(mut self, earlier: Self) -> Self {
        self.wait_ns.iter_mut().zip(earlier.wait_ns).for_each(|(ns, before)| *ns -= before);
        self.latency.iter_mut().zip(earlier.latency).for_each(|(count, before)| *count -= before);
        let coarse = self.coarse.as_flattened_mut().iter_mut().zip(earlier.coarse.as_flattened());
        coarse.for_each(|(count, before)| *count -= before);
        self
    }
}
