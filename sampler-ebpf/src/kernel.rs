//! The few fields of the kernel's structures that the programs read, each with its reason.
//!
//! Offsets come from the running kernel's BTF by way of `.rodata` ([`Kernel`]): the map is frozen before
//! the load, so that the verifier knows them as constants, drops the loads' bounds, and checks the
//! type of every pointer that is followed (kernel commit a23740ec43ba). So the pointers from the
//! tracepoints are followed with plain loads: no CO-RE, no `bpf_probe_read`, no helper.
//!
//! Links are to Linux 6.12.

use core::ptr::read_volatile;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use sampler_common::abi::Kernel;

/// Filled in by the loader; volatile reads, or the compiler would use these zeros.
#[unsafe(no_mangle)]
static KERNEL: Kernel = Kernel {
    task_pid: 0,
    task_tgid: 0,
    task_signal: 0,
    signal_oom_mm: 0,
    task_on_rq: 0,
    task_cgroups: 0,
    task_sched_task_group: 0,
    task_cfs_rq: 0,
    task_run: 0,
    task_pcount: 0,
    task_run_delay: 0,
    task_last_queued: 0,
    cfs_rq_rq: 0,
    cfs_rq_tg: 0,
    cfs_rq_throttled_clock: 0,
    rq_clock: 0,
    rq_cpu: 0,
    css_set_key: 0,
    css_cgroup: 0,
    css_id: 0,
    css_serial: 0,
    cgroup_kn: 0,
    cgroup_root: 0,
    root_hierarchy_id: 0,
    hierarchy_id: 0,
    kn_id: 0,
    tg_css: 0,
    slots: 0,
};

/// A constant that the loader set.
macro_rules! constant {
    ($field:ident) => {
        // SAFETY: an aligned field of a static; volatile because the loader replaces its value.
        unsafe { read_volatile(&raw const KERNEL.$field) as usize }
    };
}

/// Declares a pointer to one of the kernel's structures and the fields that are read through it.
macro_rules! structure {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $offset:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $name(pub *const u8);

        impl $name {
            $($(#[$field_doc])*
            #[inline(always)]
            pub fn $field(self) -> $type {
                let field = self.0.wrapping_add(constant!($offset)).cast::<$type>();
                // SAFETY: the pointer is one that the verifier tracks with its BTF type, and the offset
                // is this field's in the running kernel; a load that faults yields 0.
                unsafe { *field }
            })*
        }
    };
}

structure! {
    /// `struct task_struct`
    /// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched.h#L778>
    Task {
        /// Index of its [`sampler_common::abi::Baseline`]; 0 is every CPU's idle task.
        pid: u32 = task_pid,
        /// Its process: the pid of the first of its threads.
        tgid: u32 = task_tgid,
        /// What it shares with the other threads of its process.
        signal: Signal = task_signal,
        /// Whether it is queued (a byte from 7.x on, before that an int with nothing in its others), and 2 while it is on its way from one run queue to another
        /// <https://github.com/torvalds/linux/blob/v6.12/kernel/sched/sched.h#L97>.
        on_rq: u8 = task_on_rq,
        /// Which cgroup it is charged to.
        cgroups: CssSet = task_cgroups,
        /// Which group's limit may throttle it: the nearest with the cpu controller.
        sched_task_group: TaskGroup = task_sched_task_group,
        /// The way to its run queue: `set_task_rq` sets it for every scheduling class
        /// <https://github.com/torvalds/linux/blob/v6.12/kernel/sched/sched.h#L2155>.
        cfs_rq: CfsRq = task_cfs_rq,
        /// How long it has run in all, in ns, up to its last switch-out (`update_curr` in `put_prev_task`), whatever its
        /// scheduling class.
        run_ns: u64 = task_run,
        /// How often it has been switched in; not yet this time. The tracepoint lies before
        /// `sched_info_arrive`
        /// <https://github.com/torvalds/linux/blob/v6.12/kernel/sched/stats.h#L283>.
        pcount: u64 = task_pcount,
        /// How long it has waited in all: episodes that ended in a switch-in, and the parts of this one
        /// that ended in a migration. Not yet what it waited here.
        run_delay: u64 = task_run_delay,
        /// Since when it is queued here, on this run queue's clock; 0 if it is not.
        last_queued: u64 = task_last_queued,
    }
}

structure! {
    /// `struct signal_struct`
    /// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched/signal.h#L94>
    Signal {
        /// Memory of a process that the kernel has chosen to be killed for want of it, and else null
        /// <https://github.com/torvalds/linux/blob/v6.12/mm/oom_kill.c#L755>.
        oom_mm: u64 = signal_oom_mm,
    }
}

structure! {
    /// `struct css_set`: a thread's cgroups.
    CssSet {
        /// The state of the controller that rows are keyed by.
        key: Css = css_set_key,
    }
}

structure! {
    /// `struct cgroup_subsys_state`
    /// <https://github.com/torvalds/linux/blob/v6.12/include/linux/cgroup-defs.h#L166>
    Css {
        /// Small and dense, reused: the index of its [`sampler_common::abi::CssEntry`].
        id: u32 = css_id,
        /// Grows with every css that is made and is never reused: whose entry it is.
        serial: u64 = css_serial,
        /// Whose state it is.
        cgroup: Cgroup = css_cgroup,
    }
}

structure! {
    /// `struct cgroup`
    Cgroup {
        /// Its directory.
        kn: KernfsNode = cgroup_kn,
        /// The hierarchy that it is in.
        root: CgroupRoot = cgroup_root,
    }
}

structure! {
    /// `struct cgroup_root`
    CgroupRoot {
        /// 0 is cgroup v2; ids of cgroups are unique only within a hierarchy.
        hierarchy_id: u32 = root_hierarchy_id,
    }
}

structure! {
    /// `struct kernfs_node`
    KernfsNode {
        /// Inode number of the directory (on 64-bit machines), by which user space knows a cgroup.
        id: u64 = kn_id,
    }
}

structure! {
    /// `struct cfs_rq`
    CfsRq {
        /// The CPU's run queue.
        rq: Rq = cfs_rq_rq,
        /// Whose queue it is.
        tg: TaskGroup = cfs_rq_tg,
        /// Since when its own limit holds it up; `unthrottle_cfs_rq` clears it.
        throttled_clock: u64 = cfs_rq_throttled_clock,
    }
}

structure! {
    /// `struct rq`
    Rq {
        /// Its clock in ns, just updated by `__schedule`
        /// <https://github.com/torvalds/linux/blob/v6.12/kernel/sched/core.c#L6617>.
        clock: u64 = rq_clock,
        /// Which CPU's.
        cpu: u32 = rq_cpu,
    }
}

/// `struct task_group`
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct TaskGroup(pub *const u8);

impl TaskGroup {
    /// Its state of the cpu controller, which is embedded in it.
    #[inline(always)]
    pub fn css(self) -> Css {
        Css(self.0.wrapping_add(constant!(tg_css)))
    }
}

/// A `struct rq` behind a `void *`, which the verifier does not let us follow.
#[derive(Clone, Copy)]
pub struct UntypedRq(pub u64);

impl UntypedRq {
    /// See [`Rq::clock`]; `unthrottle_cfs_rq` has just updated it.
    #[inline(always)]
    pub fn clock(self) -> u64 {
        probe((self.0 as usize).wrapping_add(constant!(rq_clock)))
    }

    /// See [`Rq::cpu`].
    #[inline(always)]
    pub fn cpu(self) -> u32 {
        probe((self.0 as usize).wrapping_add(constant!(rq_cpu)))
    }
}

/// Reads kernel memory by its address: 0 where that cannot be read. For the throttle functions only.
#[inline(always)]
fn probe<T: Default>(address: usize) -> T {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}

/// Id of the hierarchy that rows are keyed in.
#[inline(always)]
pub fn hierarchy_id() -> u32 {
    constant!(hierarchy_id) as u32
}

/// Number of slots: a power of two.
#[inline(always)]
pub fn slots() -> u32 {
    constant!(slots) as u32
}
