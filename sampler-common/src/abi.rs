//! The layout of every BPF map and of the constants that user space gives to the programs.
//!
//! Both sides are built from this file, so they cannot disagree within one build; the sizes are
//! asserted at compile time because the maps are shared memory.

use core::mem::size_of;

use crate::buckets::{BUCKETS, OCTAVES};
use crate::cycles::{Rhythm, TERMS};
use crate::neighbors::Neighbors;
use crate::pace::{Missed, Pace};
use crate::throttle::Throttle;
use crate::timeline::{Holder, Timeline};

/// Number of a cgroup's rows. [`OTHER`] is the row of everything that has no slot of its own.
pub type Slot = u32;
/// The slot that is charged when there is no free one: no sample is lost, only its name.
pub const OTHER: Slot = 0;

/// Size of the tables that are indexed by css id or by pid.
pub const TABLE: u32 = 1 << 16;

/// Bytes of the ring of [`CgroupEvent`]s: room for 2,674 of them, with 8 bytes each of the ring's own, in one window, which
/// is 100 cgroups a second made and removed for 13 s.
pub const CGROUP_EVENTS_BYTES: u32 = 1 << 20;

/// Why a thread had to wait, as counted in the kernel.
///
/// The first five are the causes that can be told. `Away` and `Beyond` are the two ways in which one
/// cannot be told (user space adds them up to `unknown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The thread's task group, or an ancestor, was throttled on this CPU by its CPU limit.
    Quota = 0,
    /// Another thread of the same cgroup held the CPU.
    Own = 1,
    /// Another container held the CPU.
    Neighbor = 2,
    /// A process outside any container held the CPU.
    System = 3,
    /// Nobody held the CPU: wake-up latency.
    Idle = 4,
    /// The thread waited on another CPU, and its migration from there was not seen or had no baseline.
    Away = 5,
    /// The piece lies before what the CPU's [`Timeline`] or the [`Throttle`] remembers.
    Beyond = 6,
}

impl Cause {
    /// All of them, in the order of [`Row::wait_ns`].
    pub const ALL: [Self; CAUSES] =
        [Self::Quota, Self::Own, Self::Neighbor, Self::System, Self::Idle, Self::Away, Self::Beyond];

    /// The cause at an index of [`Row::wait_ns`]; `Beyond` for one out of range.
    #[inline(always)]
    pub const fn from_index(index: u32) -> Self {
        match index {
            0 => Self::Quota,
            1 => Self::Own,
            2 => Self::Neighbor,
            3 => Self::System,
            4 => Self::Idle,
            5 => Self::Away,
            _ => Self::Beyond,
        }
    }
}

/// Number of [`Cause`]s.
pub const CAUSES: usize = 7;
/// The causes that have a coarse histogram; that of `unknown` is what they leave of [`Row::latency`].
pub const TOLD: usize = 5;

/// Of whose waits [`Row::unmet`] tells: of threads that sleep now and then, and of busy ones.
pub const PACES: usize = 2;

/// The counters of one cgroup on one CPU. All are cumulative; the u32 ones wrap.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Row {
    /// Wait in ns by [`Cause`]. Their sum is the sum of all delays in `latency`, but for waits that go on: what was
    /// waited before a migration is added at the migration, to the cgroup that the thread is in then.
    pub wait_ns: [u64; CAUSES],
    /// Delays counted; wraps. Written last: together with `wait_ns` it changes whenever anything here does.
    pub counted: u32,
    /// Delays by [`crate::buckets::bucket`]. Their sum is the number of delays.
    pub latency: [u32; BUCKETS],
    /// Delays by their largest cause and [`crate::buckets::octave`].
    pub coarse: [[u32; OCTAVES]; TOLD],
    /// The neighbours that held this CPU longest while this cgroup waited.
    pub neighbors: Neighbors,
    /// What its threads would have run in the time that they waited, in units of 2^[`crate::pace::UNIT_LOG2_NS`] ns:
    /// those that sleep now and then, and the busy ones, whose pace is taken to be 1. Wraps, in not less than 78 hours of
    /// waits.
    pub unmet: [u32; PACES],
}

/// Bytes at the start of a [`Row`] that change whenever anything in it does: one cache line.
pub const ROW_HEAD_BYTES: usize = 64;

/// What the programs remember of one CPU, and the counters of what could not be charged exactly.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Cpu {
    /// Who held this CPU when, up to the last switch.
    pub timeline: Timeline,
    /// Whose wait is being charged.
    pub waiter: Holder,
    /// Run-queue clock (ns) of the last end of a throttle on this CPU, or of one that was not recorded: a wait that began later
    /// need not look for one, unless a group is held up now.
    pub last_unthrottle_ns: u64,
    /// Run-queue clock (ns) of the last throttle on this CPU that was not recorded ([`Self::throttle_collisions`]): a longer wait
    /// of whoever has no entry may have been for the quota.
    pub last_collision_ns: u64,
    /// Task groups that are held up on this CPU now.
    pub held_up: u64,
    /// `cfs_rq.throttled_clock` at the entry of `unthrottle_cfs_rq`, for its exit.
    pub throttled_since_ns: u64,
    /// Context switches seen: how often the `sched_switch` program ran.
    pub switches: u64,
    /// Threads whose queue stamp lay after the run-queue clock: counted with a delay of 0.
    pub clock_backwards: u64,
    /// Waits in which a thread was migrated without a baseline (first sight after attaching, or another thread's
    /// entry in the way): what it had waited until then is not counted. And switch-ins with another thread's entry in
    /// the way, in which that may be so.
    pub no_baseline: u64,
    /// Baselines above `run_delay`, from an earlier thread with this pid and address: not used.
    pub stale_baseline: u64,
    /// How often a cgroup got the row [`OTHER`] because no slot was free: each of those that are there tries again whenever a slot
    /// has become free.
    pub slots_exhausted: u64,
    /// Switch-ins into cgroups whose css id is not below [`TABLE`]: counted in [`OTHER`].
    pub css_beyond_table: u64,
    /// Beginnings and ends of throttles not recorded because another throttled group has the entry.
    pub throttle_collisions: u64,
    /// Fills up to a multiple of a cache line.
    pub padding: [u64; 2],
}

/// What is known of a thread's present wait from before it was queued where it is now; direct-mapped by pid.
///
/// Threads whose pids differ by a multiple of [`TABLE`] share an entry, and two CPUs may write it at once. So it is
/// copied, and believed only if its words belong together: see [`Baseline::is_of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Baseline {
    /// Address of the thread's `task_struct`: whose entry it is.
    pub task: u64,
    /// `sched_info.run_delay` up to its last switch-in or its last migration while queued, whichever was later, in
    /// ns: so much of it has been charged.
    pub run_delay_ns: u64,
    /// What of its present wait was charged at migrations: ns in the lower 56 bits, and above them the index of
    /// the [`Cause`] of the longest stretch.
    pub away: u64,
    /// Made of the numbers above and the pid: an entry of which each half is another thread's has a wrong one.
    pub check: u32,
    /// The same of `run_delay_ns` and `pace`, which is read by itself and later.
    pub pace_check: u32,
    /// What it would have run while it waited.
    pub pace: Pace,
}

impl Baseline {
    /// An entry for the thread at `task` with this pid.
    #[inline(always)]
    pub const fn new(task: u64, pid: u32, run_delay_ns: u64, away: u64, pace: Pace) -> Self {
        let pace_check = check(pid, run_delay_ns, pace.folded());
        Self { task, run_delay_ns, away, check: check(pid, run_delay_ns, away), pace_check, pace }
    }

    /// Whether this is an entry of the thread at `task` with this pid, which has been switched in `pcount` times, and
    /// not of an earlier one with the same pid and address.
    ///
    /// Before its first switch-in a thread has been charged only at migrations, so that its own entry says the same
    /// twice. Later, an entry above `run_delay` would be an earlier thread's.
    #[inline(always)]
    pub fn is_of(&self, task: u64, pid: u32, pcount: u64) -> bool {
        self.task == task
            && self.check == check(pid, self.run_delay_ns, self.away)
            && (pcount != 0 || self.away_ns() == self.run_delay_ns)
    }

    /// The pace of the thread with this pid, whose entry this is or was a moment ago.
    #[inline(always)]
    pub fn pace_of(&self, pid: u32) -> Option<Pace> {
        let right = self.pace_check == check(pid, self.run_delay_ns, self.pace.folded());
        if right { Some(self.pace) } else { None }
    }

    /// Charged at migrations in the present wait, in ns.
    #[inline(always)]
    pub const fn away_ns(&self) -> u64 {
        self.away & ((1 << 56) - 1)
    }

    /// The cause of the longest stretch of that.
    #[inline(always)]
    pub const fn away_cause(&self) -> Cause {
        Cause::from_index((self.away >> 56) as u32)
    }

    /// What [`Self::away`] is after one more stretch has been charged.
    #[inline(always)]
    pub fn away_and(&self, stretch_ns: u64, cause: Cause) -> u64 {
        // Of many stretches it is the cause of one that is longer than all before it together: near enough for a
        // label, and there is no room for more.
        let cause = if stretch_ns > self.away_ns() { cause } else { self.away_cause() };
        (self.away_ns() + stretch_ns) | (cause as u64) << 56
    }
}

/// Of pids that share an entry each has another.
#[inline(always)]
const fn check(pid: u32, one: u64, other: u64) -> u32 {
    // Odd multipliers lose no bit of a number; the upper half of a product depends on all of them.
    let mixed = one.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ other.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    (mixed >> 32) as u32 ^ pid
}

/// What the cycles of one cgroup's threads add up to, on all CPUs: sums of [`crate::cycles::terms`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CycleSums {
    /// In the order of the terms. Written by several CPUs, each by atomic additions.
    pub sums: [u64; TERMS],
}

/// As whom the threads of a cgroup subsystem state count, direct-mapped by css id.
///
/// Ids are reused, serial numbers never: an entry whose serial is another's is free.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CssEntry {
    /// `css.serial_nr`; 0 while free. Written after `holder`.
    pub serial: u64,
    /// Whom they count as, and where: at first sight the css itself, in a slot of its own or in [`OTHER`] when none
    /// was free. User space puts the container's in its place once it knows that the cgroup lies within one: then
    /// they are each other's [`Cause::Own`].
    pub holder: Holder,
}

/// Whose slot it is. Written by the kernel at first sight, but for `kind`, which user space writes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SlotRecord {
    /// `css.serial_nr`, never reused; 0 while the slot is free. Written last.
    pub serial: u64,
    /// The cgroup's id: the inode number of its directory.
    pub cgroup_id: u64,
    /// Index of its [`CssEntry`], at first sight.
    pub css_id: u32,
    /// How it counts for others who wait: a [`Kind`].
    pub kind: u32,
}

/// How a cgroup that holds a CPU counts for the others who wait for it ([`SlotRecord::kind`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A container, and everything not classified yet.
    Container = 0,
    /// Outside any container: [`Cause::System`].
    System = 1,
}

/// What happened to a cgroup ([`CgroupEvent::what`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Happened {
    /// It was made.
    Made = 0,
    /// It was removed.
    Removed = 1,
    /// A process in it exits that the kernel has chosen to be killed for want of memory.
    OomKill = 2,
}

/// Something happened to a cgroup. Short-lived ones are gone before anybody could look, so the name is sent along when
/// one is made or removed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CgroupEvent {
    /// The cgroup's id: the inode number of its directory.
    pub cgroup_id: u64,
    /// A [`Happened`].
    pub what: u32,
    /// Length of the path in `path`; equal to its size when the path was cut off.
    pub path_bytes: u32,
    /// Path from the root of the hierarchy; nothing that is said of a kill.
    pub path: [u8; 368],
}

/// Byte offsets of the kernel's struct fields and other facts of the running kernel, which user space
/// finds in its BTF and puts in `.rodata` before the programs are loaded.
///
/// The verifier checks every pointer that is followed with them; scalars (the clock, `sched_info`)
/// it cannot check: the sampler does, by comparing its own threads' delays with their schedstat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Kernel {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.oom_mm`
    pub signal_oom_mm: u32,
    /// `task_struct.on_rq`
    pub task_on_rq: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `task_struct.sched_task_group`
    pub task_sched_task_group: u32,
    /// `task_struct.se.cfs_rq`
    pub task_cfs_rq: u32,
    /// `task_struct.se.sum_exec_runtime`
    pub task_run: u32,
    /// `task_struct.sched_info.pcount`
    pub task_pcount: u32,
    /// `task_struct.sched_info.run_delay`
    pub task_run_delay: u32,
    /// `task_struct.sched_info.last_queued`
    pub task_last_queued: u32,
    /// `cfs_rq.rq`
    pub cfs_rq_rq: u32,
    /// `cfs_rq.tg`
    pub cfs_rq_tg: u32,
    /// `cfs_rq.throttled_clock`
    pub cfs_rq_throttled_clock: u32,
    /// `rq.clock`
    pub rq_clock: u32,
    /// `rq.cpu`
    pub rq_cpu: u32,
    /// `css_set.subsys[key]`, `key` being the controller that rows are keyed by
    pub css_set_key: u32,
    /// `cgroup_subsys_state.cgroup`
    pub css_cgroup: u32,
    /// `cgroup_subsys_state.id`
    pub css_id: u32,
    /// `cgroup_subsys_state.serial_nr`
    pub css_serial: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `cgroup.root`
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`
    pub root_hierarchy_id: u32,
    /// Value of that in the hierarchy that rows are keyed in: 0 for cgroup v2.
    pub hierarchy_id: u32,
    /// `kernfs_node.id`
    pub kn_id: u32,
    /// `task_group.css`
    pub tg_css: u32,
    /// Slots of the row map, [`OTHER`] included: a power of two.
    pub slots: u32,
}

const _: () = {
    assert!(size_of::<Row>() == 1344);
    assert!(size_of::<Throttle>() == 192);
    // Bytes a container costs on each CPU.
    assert!(size_of::<Row>() + size_of::<Throttle>() == 1536);
    assert!(core::mem::offset_of!(Row, latency) + 4 == ROW_HEAD_BYTES);
    assert!(size_of::<Cpu>().is_multiple_of(64));
    assert!(size_of::<CssEntry>() == 16);
    assert!(size_of::<Baseline>() == 64);
    assert!(size_of::<Rhythm>() == 16);
    assert!(size_of::<CycleSums>() == 32);
    assert!(size_of::<SlotRecord>() == 24);
    assert!(size_of::<CgroupEvent>() == 384);
};

impl Row {
    /// Counts one delay: `bucket` of its length, `largest` of its causes.
    ///
    /// The waits themselves are added to [`Row::wait_ns`] piece by piece.
    #[inline(always)]
    pub fn count(&mut self, bucket: u32, largest: Cause) {
        // The masks change no index that the callers can make. They are there for the verifier, which
        // must see a bound that stays inside the map value, and LLVM drops ordinary bounds checks
        // on arithmetic that it can prove and the verifier cannot.
        let row = (self as *mut Self).cast::<u8>();
        let fine = core::mem::offset_of!(Row, latency) + (bucket as usize & 0xff) * 4;
        let octave = crate::buckets::octave(bucket) as usize & 0x1f;
        let coarse =
            core::mem::offset_of!(Row, coarse) + (largest as usize & 0x7) * (OCTAVES * 4) + octave * 4;
        // SAFETY: with a bucket below BUCKETS both offsets are of u32s inside this Row, which is borrowed
        // mutably; `coarse` is used only for the causes that have a histogram.
        unsafe {
            let counter = row.add(fine).cast::<u32>();
            *counter = (*counter).wrapping_add(1);
            if (largest as usize) < TOLD {
                let counter = row.add(coarse).cast::<u32>();
                *counter = (*counter).wrapping_add(1);
            }
            let counted = &raw mut self.counted;
            counted.write_volatile(self.counted.wrapping_add(1));
        }
    }

    /// Counts what a thread would have run in a wait that has been added to [`Row::wait_ns`].
    #[inline(always)]
    pub fn miss(&mut self, missed: &Missed) {
        // Each by a constant index, for the verifier.
        if missed.busy {
            self.unmet[1] = self.unmet[1].wrapping_add(missed.units);
        } else {
            self.unmet[0] = self.unmet[0].wrapping_add(missed.units);
        }
    }
}

#[cfg(all(test, feature = "user"))]
mod baseline_tests;
