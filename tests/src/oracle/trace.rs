//! What the oracle works on: the scheduler events of one run as plain values, whatever they were read from.

use std::collections::BTreeMap;

/// A thread id as the kernel's root pid namespace has it; 0 is the idle thread of every CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub u32);

impl Tid {
    /// The idle thread (swapper), of which each CPU has one.
    pub const IDLE: Self = Self(0);
}

/// A logical CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(pub u32);

/// A cgroup v2 id: the inode number of its directory, never used twice while the system is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupId(pub u64);

impl CgroupId {
    /// The root of the hierarchy, where kernel threads are.
    pub const ROOT: Self = Self(1);
}

/// In which state a thread left its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Preempted or yielding: it waits again from this moment on.
    Runnable,
    /// Asleep until a wakeup.
    Blocked,
    /// It will not run again; its id may be given to another thread.
    Dead,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A CPU was handed from one thread to the next (`sched_switch`).
    Switch {
        /// The CPU that was handed over.
        cpu: Cpu,
        /// Who left it.
        prev: Tid,
        /// In which state.
        left: Left,
        /// Who got it.
        next: Tid,
    },
    /// A thread was made runnable and queued (`sched_wakeup`, `sched_wakeup_new`).
    Wakeup {
        /// The thread that is now runnable.
        thread: Tid,
        /// The CPU that it is queued on.
        cpu: Cpu,
        /// Whether this is the first wakeup of a new thread.
        first: bool,
    },
    /// A thread was given another CPU (`sched_migrate_task`): queued or asleep, never running.
    Migrate {
        /// The thread that moves.
        thread: Tid,
        /// The CPU that it moves to.
        to: Cpu,
    },
    /// A thread was made (`task_newtask`): it starts in its maker's cgroup.
    NewThread {
        /// The thread that made it.
        maker: Tid,
        /// The thread made.
        thread: Tid,
        /// Whether it belongs to its maker's process, or starts one of its own.
        same_process: bool,
    },
    /// A process (where the thread leads one) or a single thread moved to another cgroup (`cgroup_attach_task`).
    Attach {
        /// The thread, or the leader of the process.
        thread: Tid,
        /// Where it now belongs.
        cgroup: CgroupId,
    },
    /// A single thread, new or moved, belongs to a cgroup from here on (probe on `css_set_move_task`). It tells all
    /// that [`What::NewThread`] and [`What::Attach`] tell, and of clones straight into a cgroup too.
    Join {
        /// The thread.
        thread: Tid,
        /// Its cgroup.
        cgroup: CgroupId,
    },
    /// A CPU limit, its own or an ancestor's, stopped a cgroup on one CPU (probe on `tg_throttle_down`).
    Throttle {
        /// The cgroup that was stopped.
        cgroup: CgroupId,
        /// The CPU on which it was.
        cpu: Cpu,
    },
    /// One such stop ended (probe on `tg_unthrottle_up`); another may still hold.
    Unthrottle {
        /// The cgroup.
        cgroup: CgroupId,
        /// The CPU.
        cpu: Cpu,
    },
    /// The observer's own note (`trace_marker`).
    Mark(String),
}

/// An event and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of the trace clock, the clock that the scheduler itself counts in.
    pub at_ns: u64,
    /// What happened.
    pub what: What,
}

/// Where a thread was when the trace started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The leader of its process.
    pub process: Tid,
    /// Its cgroup.
    pub cgroup: CgroupId,
}

/// All that is known of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Every event in the order of time.
    pub events: Vec<Event>,
    /// The threads that were there when the trace started.
    pub threads: BTreeMap<Tid, Membership>,
    /// The path of each cgroup that was there at any time of the run, from the hierarchy's root: `/`, `/pods/a`.
    pub cgroups: BTreeMap<CgroupId, String>,
}

/// A stretch of the trace: waits that end in `from_ns <= t < to_ns` belong to it, as in a difference of two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First nanosecond of the trace clock inside.
    pub from_ns: u64,
    /// First nanosecond of the trace clock after it.
    pub to_ns: u64,
}

impl Window {
    /// The whole trace.
    pub const WHOLE: Self = Self { from_ns: 0, to_ns: u64::MAX };

    /// Whether a moment of the trace clock lies inside.
    #[must_use]
    pub fn holds(&self, at_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&at_ns)
    }
}

impl Trace {
    /// The stretch from the first mark `from` to the first mark `to` behind it; `None` where one was not set.
    #[must_use]
    pub fn between(&self, from: &str, to: &str) -> Option<Window> {
        let mut events = self.events.iter();
        let mut time_of = |label: &str| {
            let is_it = |event: &&Event| matches!(&event.what, What::Mark(mark) if mark == label);
            events.find(is_it).map(|event| event.at_ns)
        };
        Some(Window { from_ns: time_of(from)?, to_ns: time_of(to)? })
    }
}
