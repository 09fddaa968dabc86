//! Throttle durations by cgroup, from the entries of all CPUs.

use std::ptr::read_volatile;

use sampler_common::snapshot::CgroupId;
use sampler_common::throttle::{DURATIONS, Throttle};

use crate::kernel::mapped::Mapped;

/// What the entries were when they were last read.
pub struct Throttles {
    last: Vec<Last>,
}

#[derive(Clone, Copy, Default)]
struct Last {
    durations: [u32; DURATIONS],
}

impl Throttles {
    /// Entries in which nothing has been counted.
    pub fn new(entries: usize) -> Self {
        Self { last: vec![Last::default(); entries] }
    }

    /// Hands every cgroup that has been throttled by its own limit since the last time, with the number of
    /// throttles by duration, to `throttled`: once a CPU.
    pub fn read(
        &mut self,
        entries: &Mapped<Throttle>,
        mut throttled: impl FnMut(CgroupId, &[u32; DURATIONS]),
    ) {
        for (index, last) in self.last.iter_mut().enumerate() {
            // SAFETY: a word of a map value.
            let serial = unsafe { read_volatile(&raw const (*entries.at(index)).serial) };
            if serial == 0 {
                continue;
            }
            let entry = entries.read(index);
            if entry.durations == last.durations {
                continue;
            }
            let mut growth = entry.durations;
            for (count, before) in growth.iter_mut().zip(&last.durations) {
                *count = count.wrapping_sub(*before);
            }
            last.durations = entry.durations;
            // Counters go on when a group takes an entry over: what the one before it had counted since the last look,
            // if anything, is the new one's.
            throttled(CgroupId(entry.cgroup_id), &growth);
        }
    }
}
