//! Every map, with why that type and that size.
//!
//! All but three are arrays that user space maps into its memory: reading them costs no system call, and
//! the verifier replaces a look-up by an address computation.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{Array, Queue, RingBuf};
use sampler_common::abi::{
    Baseline, CGROUP_EVENTS_BYTES, CgroupEvent, Cpu, CssEntry, CycleSums, Row, Slot, SlotRecord, TABLE,
};
use sampler_common::cycles::Rhythm;
use sampler_common::throttle::Throttle;

use crate::kernel;

const MMAPABLE: u32 = 1 << 10;
/// Replaced by the loader, which knows the number of CPUs and slots.
const SIZED_BY_LOADER: u32 = 1;

/// The counters: `[cpu][slot]`.
#[map]
static ROWS: Array<Row> = Array::with_max_entries(SIZED_BY_LOADER, MMAPABLE);

/// Throttling: `[cpu][css id of the task group % slots]`. Not by slot: groups without threads of their own
/// (a pod) are throttled too, and where rows are keyed by another controller the group is an ancestor.
#[map]
static THROTTLES: Array<Throttle> = Array::with_max_entries(SIZED_BY_LOADER, MMAPABLE);

/// What is remembered of each CPU.
#[map]
static CPUS: Array<Cpu> = Array::with_max_entries(SIZED_BY_LOADER, MMAPABLE);

/// Baselines by `pid % TABLE`, a cache line each: 4 MiB. Two threads whose pids differ by a multiple of that share one.
#[map]
static BASELINES: Array<Baseline> = Array::with_max_entries(TABLE, MMAPABLE);

/// Cycles by `pid % TABLE`: 1 MiB. Not in [`BASELINES`], where they would cost every switch a second cache line.
#[map]
static RHYTHMS: Array<Rhythm> = Array::with_max_entries(TABLE, 0);

/// What cycles add up to, by slot. Not by CPU: there is one a sleep at most, so atomic additions cost less than the memory.
#[map]
static CYCLES: Array<CycleSums> = Array::with_max_entries(SIZED_BY_LOADER, MMAPABLE);

/// Slots by css id: 1 MiB, enough for the 65,535 ids that the memory controller can have.
#[map]
static CSSES: Array<CssEntry> = Array::with_max_entries(TABLE, MMAPABLE);

/// Whose each slot is.
#[map]
static SLOTS: Array<SlotRecord> = Array::with_max_entries(SIZED_BY_LOADER, MMAPABLE);

/// Slots that nobody has. First in, first out, so that a slot rests longest before it is used again. The
/// kernel pops one, under the queue's own lock, when it meets a cgroup for the first time.
#[map]
static FREE_SLOTS: Queue<Slot> = Queue::with_max_entries(SIZED_BY_LOADER, 0);

/// Cgroups that are made and removed, and OOM kills in them. Those that do not fit are counted, and user space looks at the whole tree then.
#[map]
static CGROUP_EVENTS: RingBuf = RingBuf::with_byte_size(CGROUP_EVENTS_BYTES, 0);

/// How many did not fit, by CPU: a program stays on its own.
#[map]
static CGROUP_EVENTS_LOST: Array<u64> = Array::with_max_entries(SIZED_BY_LOADER, MMAPABLE);

/// Index of the row of a slot on a CPU.
#[inline(always)]
pub fn row_index(cpu: u32, slot: Slot) -> u32 {
    cpu * kernel::slots() + slot
}

/// The row at an index, for the CPU whose row it is.
#[inline(always)]
pub fn row(index: u32) -> Option<&'static mut Row> {
    // SAFETY: only the program that runs under this CPU's run-queue lock has this reference.
    ROWS.get_ptr_mut(index).map(|row| unsafe { &mut *row })
}

/// The throttle entry on a CPU of the task group with this css id.
#[inline(always)]
pub fn throttle(cpu: u32, css_id: u32) -> Option<&'static mut Throttle> {
    let slots = kernel::slots();
    let index = cpu * slots + (css_id & (slots - 1));
    // SAFETY: only the program that runs under this CPU's run-queue lock has this reference.
    THROTTLES.get_ptr_mut(index).map(|throttle| unsafe { &mut *throttle })
}

/// What is remembered of a CPU.
#[inline(always)]
pub fn cpu(cpu: u32) -> Option<&'static mut Cpu> {
    // SAFETY: only the program that runs under this CPU's run-queue lock has this reference.
    CPUS.get_ptr_mut(cpu).map(|cpu| unsafe { &mut *cpu })
}

/// The baseline entry of a pid, which another CPU may be writing for another pid.
#[inline(always)]
pub fn baseline(pid: u32) -> Option<*mut Baseline> {
    BASELINES.get_ptr_mut(pid & (TABLE - 1))
}

/// The cycles of a pid, which another CPU may be writing for another pid.
#[inline(always)]
pub fn rhythm(pid: u32) -> Option<*mut Rhythm> {
    RHYTHMS.get_ptr_mut(pid & (TABLE - 1))
}

/// What the cycles of a slot add up to.
#[inline(always)]
pub fn cycles(slot: Slot) -> Option<*mut CycleSums> {
    CYCLES.get_ptr_mut(slot)
}

/// The entry of a css id; `None` beyond the table.
#[inline(always)]
pub fn css(id: u32) -> Option<*mut CssEntry> {
    CSSES.get_ptr_mut(id)
}

/// Whose a slot is.
#[inline(always)]
pub fn slot(slot: Slot) -> Option<*mut SlotRecord> {
    SLOTS.get_ptr_mut(slot)
}

/// A slot that nobody has.
#[inline(always)]
pub fn free_slot() -> Option<Slot> {
    FREE_SLOTS.pop().ok().flatten()
}

/// Room for an event; `None`, and counted, when the ring is full.
#[inline(always)]
pub fn cgroup_event() -> Option<RingBufEntry<CgroupEvent>> {
    let entry = CGROUP_EVENTS.reserve(0);
    if entry.is_none()
        && let Some(lost) = CGROUP_EVENTS_LOST.get_ptr_mut(this_cpu())
    {
        // SAFETY: a map value that no other CPU writes.
        unsafe { *lost += 1 };
    }
    entry
}

fn this_cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}
