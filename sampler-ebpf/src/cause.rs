//! Why a thread waited: the wait is cut along the CPU's timeline, and each piece goes to its cause.

use sampler_common::abi::{CAUSES, Cause, Cpu, Kind, Row};
use sampler_common::throttle::Stretch;
use sampler_common::timeline::Holder;

use crate::kernel::Task;
use crate::maps;

/// Adds the wait `(since, now]` of a task, which `cpu.waiter` is a holder of, to its row, whose index is `at`, by
/// cause, and returns the largest of them. The CPU's timeline must reach up to `now`.
#[inline(always)]
pub fn charge(row: &mut Row, at: u32, cpu_id: u32, cpu: &Cpu, task: Task, since: u64, now: u64) -> Cause {
    let css_id = if since < cpu.last_unthrottle_ns || cpu.held_up != 0 {
        throttled_css_id(task, cpu_id, since < cpu.last_collision_ns)
    } else {
        NEVER_THROTTLED
    };
    if css_id == PERHAPS_THROTTLED {
        add(row, Cause::Beyond, now - since);
        return Cause::Beyond;
    }
    if css_id == NEVER_THROTTLED
        && let Some(holder) = cpu.timeline.sole_holder(since)
    {
        let cause = cause_of(holder, cpu.waiter);
        add(row, cause, now - since);
        if cause as u8 == Cause::Neighbor as u8 {
            charge_neighbor(at, holder.0, now - since);
        }
        return cause;
    }
    Cause::from_index(charge_pieces(at, cpu_id, css_id, since, now))
}

/// Neighbours are named in the last so many segments of a CPU. With more neighbours than entries each name costs
/// as much as all the rest, and behind a long queue there would be one for each of 63 segments.
const NAMED_SEGMENTS: usize = 8;

/// No group's css id: ids of groups begin at 1, the root, which has no limit.
const NEVER_THROTTLED: u32 = 0;
/// No group's css id, either: whether this one was throttled is not known, since another has its entry.
const PERHAPS_THROTTLED: u32 = u32::MAX;

/// [`charge`] for a wait of several pieces: `css_id` is that of the waiter's task group if that may have been
/// throttled meanwhile. Returns the index of the largest cause.
///
/// This and the two functions below are global ones: the verifier checks each once, by itself, and not anew
/// on every path and at every step of a walk that leads to it. That keeps the program far below its
/// million instructions. Global functions take and return numbers only.
#[unsafe(no_mangle)]
pub extern "C" fn charge_pieces(at: u32, cpu_id: u32, css_id: u32, since: u64, now: u64) -> u32 {
    let (Some(row), Some(cpu)) = (maps::row(at), maps::cpu(cpu_id)) else { return 0 };
    let before = row.wait_ns;
    let mut segment = cpu.timeline.newest;
    if css_id != NEVER_THROTTLED
        && let Some(throttle) = maps::throttle(cpu_id, css_id)
    {
        throttle.cut(since, now, |stretch| match stretch {
            Stretch::Throttled { ns } => row.wait_ns[Cause::Quota as usize] += ns,
            Stretch::Forgotten { ns } => row.wait_ns[Cause::Beyond as usize] += ns,
            Stretch::Other { since, until } => segment = charge_held(at, cpu_id, since, until, segment),
        });
    } else {
        charge_held(at, cpu_id, since, now, segment);
    }
    let mut largest = 0;
    let mut largest_ns = 0;
    let mut i = 0;
    while i < CAUSES {
        let ns = row.wait_ns[i] - before[i];
        if ns > largest_ns {
            largest_ns = ns;
            largest = i;
        }
        i += 1;
    }
    largest as u32
}

/// Adds a stretch in which the waiter was not throttled, by who held the CPU: [`Timeline::walk`] from
/// `segment`, whose result it returns.
#[unsafe(no_mangle)]
pub extern "C" fn charge_held(at: u32, cpu_id: u32, since: u64, until: u64, segment: u64) -> u64 {
    let (Some(row), Some(cpu)) = (maps::row(at), maps::cpu(cpu_id)) else { return segment };
    let own = cpu.waiter;
    let named_since = cpu.timeline.recent_ns(NAMED_SEGMENTS);
    let mut end = until;
    cpu.timeline.walk(since, until, segment, |holder, ns| {
        let cause = cause_of(holder, own);
        add(row, cause, ns);
        if cause as u8 == Cause::Neighbor as u8 && end > named_since {
            charge_neighbor(at, holder.0, ns);
        }
        end -= ns;
    })
}

/// Notes in the row at index `at` for how long a neighbour held the CPU.
#[unsafe(no_mangle)]
pub extern "C" fn charge_neighbor(at: u32, holder: u64, ns: u64) -> u32 {
    if let Some(row) = maps::row(at) {
        row.neighbors.charge(Holder(holder), ns);
    }
    0
}

/// Why a thread of `own` could not run while `holder` had the CPU.
#[inline(always)]
fn cause_of(holder: Holder, own: Holder) -> Cause {
    match holder {
        Holder::NOBODY => Cause::Beyond,
        Holder::IDLE => Cause::Idle,
        _ if holder.serial() == own.serial() => Cause::Own,
        _ if is_system(holder) => Cause::System,
        _ => Cause::Neighbor,
    }
}

/// Adds a piece to the row.
#[inline(always)]
fn add(row: &mut Row, cause: Cause, ns: u64) {
    // The mask is for the verifier: an eighth cause would still lie inside the row.
    let wait = (&raw mut row.wait_ns).cast::<u64>();
    // SAFETY: a cause is below CAUSES.
    unsafe { *wait.add(cause as usize & 7) += ns };
}

/// Whether user space has said that this holder is outside any container.
#[inline(always)]
fn is_system(holder: Holder) -> bool {
    // SAFETY: a map value; `kind` is one word.
    maps::slot(holder.slot()).is_some_and(|slot| unsafe { (*slot).kind } == Kind::System as u32)
}

/// The css id of a thread's task group if that is or has been throttled on this CPU; `collided` says that meanwhile a throttle
/// of some group there found no room.
#[inline(always)]
fn throttled_css_id(task: Task, cpu_id: u32, collided: bool) -> u32 {
    let css = task.sched_task_group().css();
    let id = css.id();
    match maps::throttle(cpu_id, id) {
        Some(throttle) if throttle.serial == css.serial() => id,
        Some(throttle) if throttle.serial != 0 && collided => PERHAPS_THROTTLED,
        _ => NEVER_THROTTLED,
    }
}
