//! Loadline's BPF programs: they count how long each cgroup's threads wait for a CPU, and why.
//!
//! ```text
//! kernel events → histogram → window → demand → allocation → resize → outcome
//! ^^^^^^^^^^^^^^^^^^^^^^^^^   sampler-common, sampler    controller
//! this crate
//! ```
//!
//! Entry points only; each calls one function.
//!
//! | program | hook | module | needed |
//! |---|---|---|---|
//! | `sched_switch` | BTF tracepoint | [`runq`], [`cause`], [`rhythm`], [`slot`] | yes |
//! | `sched_migrate_task` | BTF tracepoint | [`runq`], [`cause`], [`rhythm`] | for the cause of what was waited before a migration |
//! | `cgroup_mkdir`, `cgroup_rmdir` | BTF tracepoint | [`slot`] | for the names of short-lived cgroups, and for giving slots back |
//! | `sched_process_exit` | BTF tracepoint | [`slot`] | for OOM kills in cgroups that are gone before their `memory.events` can be read |
//! | `tg_throttle_down`, `tg_unthrottle_up` | fentry | [`throttle`] | for the cause `quota` |
//! | `unthrottle_cfs_rq`, `unthrottle_cfs_rq_exit` | fentry, fexit | [`throttle`] | for throttle durations |
//!
//! # The method, and its error
//!
//! * **Delay**: from the kernel's own stamps and clocks, so exact: sums equal `/proc/PID/schedstat` to the nanosecond.
//!   Short is only a delay with a migration in it of a thread without a baseline (not switched in since
//!   attaching, or another thread's entry in the way): by what it waited before the migration, counted as `no_baseline`.
//!   The kernel does not update the clock between a wake-up that preempts and the switch that it asks for
//!   (`rq_clock_skip_update`), so what passes between these two, some microseconds, is no delay to it, nor to us.
//! * **Cause**: exact to the nanosecond for what is remembered of the CPU (63 changes of holder, 8 throttles of the
//!   group). The rest is `Beyond`, or `Away` where a migration had no baseline: with counters of their own, never guessed.
//!   What was waited before a migration is charged at the migration, the delay as a whole at switch-in. A holder is the cgroup that a
//!   thread is in when it is switched in: one that is moved while it runs is charged to the old one until its next
//!   switch. A cgroup counts as a container until user space, at its next look, has said that it is none.
//! * **Quota**: between the scheduler's `tg_throttle_down` and `tg_unthrottle_up` of the thread's group on this CPU. A
//!   throttle that was going on when the programs were attached reaches back as far as a span can (4.29 s).
//! * **Unmet**: what a thread would have run while it waited, from its pace ([`sampler_common::pace`]): within a few per cent
//!   for threads that work and sleep by turns. Of one that is not seen to sleep all of its wait is counted, by itself.
//! * **Cycles**: how the sleeps of a container's threads went with their waits ([`sampler_common::cycles`]), which tells
//!   threads that work at fixed times and would run no more. Times are cut off to 65 µs.
//! * **Neighbours**: named in the newest eight segments of a wait, four to a row and CPU; never too much, the rest unnamed.
//! * **Throttle durations**: what the kernel adds to `cpu.stat`, at the moment at which it does.
//!
//! # Invariants
//!
//! * No policy here, and no knowledge of what a container is.
//! * `sched_switch` and `sched_migrate_task` call no helper, save one when they meet a cgroup for the first time; they use array
//!   maps only, whose look-ups the verifier replaces by arithmetic.
//! * Everything indexed by CPU is written under that CPU's run-queue lock, which `sched_switch` and the
//!   throttle functions hold. `cgroup_mkdir`, `cgroup_rmdir` and `sched_process_exit` write to a ring buffer, and where that is
//!   full to a counter of their own, in which one may be missing when two on a CPU meet: that any were lost is what counts.
//! * What cannot be charged exactly is counted in [`sampler_common::abi::Cpu`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod cause;
mod kernel;
mod maps;
mod rhythm;
mod runq;
mod slot;
mod throttle;

use aya_ebpf::macros::{btf_tracepoint, fentry, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};
use sampler_common::abi::Happened;

/// A CPU switches threads: arguments `preempt`, `prev`, `next`, and from 5.18 `prev_state`.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    runq::switch(kernel::Task(ctx.arg(2)));
    0
}

/// A thread changes its CPU: arguments the thread and the CPU that it goes to.
#[btf_tracepoint(function = "sched_migrate_task")]
pub fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
    runq::migrate(kernel::Task(ctx.arg(0)));
    0
}

/// A cgroup was made: arguments the cgroup and its path.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    slot::changed(kernel::Cgroup(ctx.arg(0)), ctx.arg(1), Happened::Made);
    0
}

/// A cgroup was removed: arguments the cgroup and its path.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    slot::changed(kernel::Cgroup(ctx.arg(0)), ctx.arg(1), Happened::Removed);
    0
}

/// A thread exits: argument the thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    slot::exits(kernel::Task(ctx.arg(0)));
    0
}

/// A task group stops on one run queue, by its own limit or an ancestor's.
#[fentry(function = "tg_throttle_down")]
pub fn tg_throttle_down(ctx: FEntryContext) -> i32 {
    throttle::down(kernel::TaskGroup(ctx.arg(0)), kernel::UntypedRq(ctx.arg(1)));
    0
}

/// A task group goes on on one run queue.
#[fentry(function = "tg_unthrottle_up")]
pub fn tg_unthrottle_up(ctx: FEntryContext) -> i32 {
    throttle::up(kernel::TaskGroup(ctx.arg(0)), kernel::UntypedRq(ctx.arg(1)));
    0
}

/// A group's own limit lets it go on on one run queue: before.
#[fentry(function = "unthrottle_cfs_rq")]
pub fn unthrottle_cfs_rq(ctx: FEntryContext) -> i32 {
    throttle::unthrottle(kernel::CfsRq(ctx.arg(0)));
    0
}

/// A group's own limit lets it go on on one run queue: after.
#[fexit(function = "unthrottle_cfs_rq")]
pub fn unthrottle_cfs_rq_exit(ctx: FExitContext) -> i32 {
    throttle::unthrottled(kernel::CfsRq(ctx.arg(0)));
    0
}

/// The kernel lets only programs under its own licence trace it; of our two, this is that one.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 7] = *b"GPL v2\0";

/// There is nothing to unwind and nobody to tell: the verifier accepts no program that can panic.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
