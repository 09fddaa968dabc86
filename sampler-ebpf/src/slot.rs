//! As whom, and so in which slot, a cgroup's threads are counted, which cgroups come and go, and which have a process
//! killed for want of memory.

use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use sampler_common::abi::{Cpu, Happened, OTHER};
use sampler_common::timeline::Holder;

use crate::kernel::{self, Cgroup, Css, Task};
use crate::maps;

/// As whom the threads of a css count: the css itself, or the container that user space has found it to lie within.
///
/// A css is known by its serial number: ids are reused after a cgroup is gone, serial numbers never.
#[inline(always)]
pub fn holder(css: Css, cpu: &mut Cpu) -> Holder {
    let serial = css.serial();
    let Some(entry) = maps::css(css.id()) else {
        cpu.css_beyond_table += 1;
        return Holder::cgroup(serial, OTHER);
    };
    // SAFETY: a map value. Another CPU may write it while this one reads: see `first_sight`. So may user space, which
    // writes one word.
    unsafe {
        if (*entry).serial == serial {
            return (*entry).holder;
        }
    }
    first_sight(css, serial, cpu)
}

/// Gives a slot to a css that is met for the first time.
///
/// Two CPUs may meet it at the same moment and each take a slot; the entry then names one, and the other
/// one keeps its single sample. Both records name the same cgroup, and user space adds them up, as it
/// does with the rows of two CPUs, and takes one back.
#[inline(never)]
fn first_sight(css: Css, serial: u64, cpu: &mut Cpu) -> Holder {
    let id = css.id();
    let slot = match maps::free_slot() {
        Some(slot) => slot,
        None => {
            cpu.slots_exhausted += 1;
            OTHER
        }
    };
    if slot != OTHER
        && let Some(record) = maps::slot(slot)
    {
        // SAFETY: a map value, of a slot that this CPU has just been given. User space reads `serial`
        // first; x86 keeps the order of stores.
        unsafe {
            (*record).css_id = id;
            (*record).cgroup_id = css.cgroup().kn().id();
            (&raw mut (*record).serial).write_volatile(serial);
        }
    }
    let holder = Holder::cgroup(serial, slot);
    if let Some(entry) = maps::css(id) {
        // SAFETY: a map value. The holder is written before the serial number that makes it valid; an id is
        // used again only after the last thread of its former css has gone. User space, which may be directing that one
        // at this moment, looks at the serial number before and after.
        unsafe {
            (&raw mut (*entry).serial).write_volatile(0);
            (&raw mut (*entry).holder).write_volatile(holder);
            (&raw mut (*entry).serial).write_volatile(serial);
        }
    }
    holder
}

/// Tells user space that a cgroup was made or removed.
#[inline(always)]
pub fn changed(cgroup: Cgroup, path: *const u8, what: Happened) {
    if cgroup.root().hierarchy_id() != kernel::hierarchy_id() {
        return;
    }
    let Some(mut entry) = maps::cgroup_event() else { return };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry has room for a `CgroupEvent`, and the helper writes no more than `path` holds.
    unsafe {
        (*event).cgroup_id = cgroup.kn().id();
        (*event).what = what as u32;
        (*event).path_bytes = match bpf_probe_read_kernel_str_bytes(path, &mut (*event).path) {
            Ok(path) => path.len() as u32,
            Err(_) => 0,
        };
    }
    entry.submit(0);
}

/// Tells user space if the thread that exits is the first of a process that the kernel has chosen to be killed for want of
/// memory: it is still in its cgroup. The hook `oom:mark_victim` would tell of a kill too, but before Linux 6.9 by a pid
/// alone, from which there is no way to the cgroup.
#[inline(always)]
pub fn exits(task: Task) {
    if task.pid() != task.tgid() || task.signal().oom_mm() == 0 {
        return;
    }
    let Some(mut entry) = maps::cgroup_event() else { return };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry has room for a `CgroupEvent`.
    unsafe {
        (*event).cgroup_id = task.cgroups().key().cgroup().kn().id();
        (*event).what = Happened::OomKill as u32;
        (*event).path_bytes = 0;
    }
    entry.submit(0);
}
