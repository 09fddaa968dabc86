//! Who runs next, as the kernel's fair class decides it: the eligible one with the earliest virtual deadline
//! (`pick_eevdf` of `kernel/sched/fair.c`, Linux 6.12).
//!
//! The same rule holds twice: among the groups (cgroups) that have threads on a CPU, and among the threads of the group
//! that was picked.

/// What a thread of nice 0 weighs; a group of `cpu.weight` 100 too.
pub const WEIGHT: f64 = 1024.0;

/// Something that is scheduled: a thread, or a group on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entity {
    /// Time that it ran, in ns, as if its weight were [`WEIGHT`].
    vruntime: f64,
    /// When it has had its slice, on the same clock.
    deadline: f64,
    /// How far it was behind the others when it went to sleep, if it was.
    lag: f64,
    /// It was picked and has not yet had its slice: it goes on (`RUN_TO_PARITY`).
    protected: bool,
}

impl Entity {
    /// It comes to a queue whose members have this average, with a slice to come.
    pub fn place(&mut self, average: f64, weight: f64, slice_ns: u64) {
        self.vruntime = average - self.lag;
        self.deadline = self.vruntime + slice_ns as f64 * WEIGHT / weight;
        self.protected = false;
    }

    /// It leaves the queue. What it was behind it keeps; what it was ahead it would have waited for in its sleep
    /// (`DELAY_DEQUEUE`).
    pub fn leave(&mut self, average: f64, weight: f64, slice_ns: u64) {
        let most = 2.0 * slice_ns as f64 * WEIGHT / weight;
        self.lag = (average - self.vruntime).clamp(0.0, most);
    }

    /// It was picked.
    pub fn picked(&mut self) {
        self.protected = true;
    }

    /// It ran; whether its slice is over.
    pub fn ran(&mut self, ns: u64, weight: f64, slice_ns: u64) -> bool {
        self.vruntime += ns as f64 * WEIGHT / weight;
        let over = self.vruntime >= self.deadline;
        if over {
            self.deadline = self.vruntime + slice_ns as f64 * WEIGHT / weight;
            self.protected = false;
        }
        over
    }
}

/// The average virtual time of a queue, by weight; 0 of an empty one.
pub fn average<'a>(queue: impl Iterator<Item = (&'a Entity, f64)>) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (entity, weight) in queue {
        sum += entity.vruntime * weight;
        weights += weight;
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}

/// The index of who runs next; `current` is the index of who runs now, if it is in the queue.
pub fn pick<'a, Q>(queue: Q, current: Option<usize>) -> Option<usize>
where
    Q: Iterator<Item = (usize, &'a Entity, f64)> + Clone,
{
    if let Some((index, ..)) =
        queue.clone().find(|(index, entity, _)| Some(*index) == current && entity.protected)
    {
        return Some(index);
    }
    let average = average(queue.clone().map(|(_, entity, weight)| (entity, weight)));
    // The average of one is itself, but for rounding.
    let eligible = |entity: &Entity| entity.vruntime <= average + 1.0;
    queue
        .filter(|(_, entity, _)| eligible(entity))
        .min_by(|(_, one, _), (_, other, _)| one.deadline.total_cmp(&other.deadline))
        .map(|(index, ..)| index)
}
