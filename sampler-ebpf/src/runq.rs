//! The hot path: how long a thread waited, when it is switched in.
//!
//! The kernel keeps the stamp itself: `sched_info.last_queued` is set when a thread is enqueued or
//! preempted. At the tracepoint `rq->clock` has just been updated and `sched_info_arrive` has not
//! run, so `rq->clock - last_queued` is the wait on this CPU. A migration of a queued thread moves what
//! it waited so far into `run_delay` and starts `last_queued` anew, so the whole delay is
//! `run_delay + wait here - run_delay at the last switch-in`; the last is kept in a small table. So is the thread's pace
//! ([`sampler_common::pace`]), by which the wait is counted once more: as what the thread would have run meanwhile.

use sampler_common::abi::{Baseline, Cause, Row};
use sampler_common::buckets::bucket;
use sampler_common::pace::Pace;
use sampler_common::timeline::Holder;

use crate::kernel::Task;
use crate::{cause, maps, rhythm, slot};

/// A CPU switches to `next`.
#[inline(always)]
pub fn switch(next: Task) {
    let rq = next.cfs_rq().rq();
    let now = rq.clock();
    let cpu_id = rq.cpu();
    let Some(cpu) = maps::cpu(cpu_id) else { return };
    cpu.switches += 1;
    let pid = next.pid();
    if pid == 0 {
        cpu.timeline.switch(now, Holder::IDLE);
        return;
    }

    let holder = slot::holder(next.cgroups().key(), cpu);
    cpu.timeline.switch(now, holder);

    let queued = next.last_queued();
    let run_delay = next.run_delay();
    // Queue stamp and clock are of the same run queue (see `timeline`), so this is not met; were it met, it
    // would count as a wait of half an eternity.
    let since = if queued <= now {
        queued
    } else {
        cpu.clock_backwards += 1;
        now
    };
    if queued == 0 {
        // Running without having been queued: nothing was waited for.
        return;
    }
    let here = now - since;
    let task = next.0 as u64;
    let Some(entry) = maps::baseline(pid) else { return };
    // SAFETY: a map value, copied word by word and checked below.
    let mut before = unsafe { entry.read_volatile() };
    let mut known = before.is_of(task, pid, next.pcount());
    if !known {
        // All that a thread has waited before its first switch-in belongs to this delay, and has been charged at
        // migrations. Of any other thread nothing is known.
        let first = next.pcount() == 0;
        // An entry of its own may have been there, with a migration in it. Without any there was none: the migration
        // would have been met without it, and counted then.
        cpu.no_baseline += (!first && before.task != 0) as u64;
        let charged_ns = if first { run_delay } else { 0 };
        before = Baseline { run_delay_ns: run_delay, away: 0, ..before };
        before.away = before.away_and(charged_ns, Cause::Away);
    } else if before.run_delay_ns > run_delay {
        cpu.stale_baseline += 1;
        before = Baseline { run_delay_ns: run_delay, away: 0, ..before };
        known = false;
    }
    let at = maps::row_index(cpu_id, holder.slot());
    let Some(row) = maps::row(at) else { return };
    cpu.waiter = holder;
    let idle_before = idle_ns(row);
    let mut largest = cause::charge(row, at, cpu_id, cpu, next, since, now);
    let idle = idle_ns(row) - idle_before;
    let charged = before.away_ns();
    if charged > here {
        largest = before.away_cause();
    }
    let unseen = run_delay - before.run_delay_ns;
    if unseen != 0 {
        row.wait_ns[Cause::Away as usize] += unseen;
        if unseen > here && unseen > charged {
            largest = Cause::Away;
        }
    }
    let pace = miss(row, cpu.waiter, next, entry, known, now, here - idle + unseen);
    // SAFETY: as above.
    unsafe { entry.write_volatile(Baseline::new(task, pid, run_delay + here, 0, pace)) };
    row.count(bucket(here + charged + unseen), largest);
}

/// A queued thread is on its way to another run queue: what it has waited on this one is charged here, by what
/// this CPU's timeline says, under the lock of this CPU's run queue, which the scheduler still holds.
///
/// The hook is called for every thread that changes its CPU, mostly as it is woken, when it is queued nowhere. The
/// delay as a whole is counted at switch-in.
#[inline(always)]
pub fn migrate(task: Task) {
    /// `TASK_ON_RQ_MIGRATING`
    const MIGRATING: u8 = 2;
    if task.on_rq() != MIGRATING {
        return;
    }
    let pid = task.pid();
    let Some(entry) = maps::baseline(pid) else { return };
    // SAFETY: a map value, copied word by word and checked below.
    let mut before = unsafe { entry.read_volatile() };
    let known = before.is_of(task.0 as u64, pid, task.pcount());
    let rq = task.cfs_rq().rq();
    let (now, cpu_id) = (rq.clock(), rq.cpu());
    let Some(cpu) = maps::cpu(cpu_id) else { return };
    if !known {
        if task.pcount() != 0 {
            // How much of its run delay is of this wait nobody knows.
            cpu.no_baseline += 1;
            return;
        }
        before = Baseline { run_delay_ns: 0, away: 0, ..before };
    }
    // The scheduler has just dequeued the thread, which moved its wait on this queue into `run_delay`.
    let run_delay = task.run_delay();
    let waited = run_delay.wrapping_sub(before.run_delay_ns);
    if before.run_delay_ns >= run_delay || waited > now {
        return;
    }
    let waiter = slot::holder(task.cgroups().key(), cpu);
    let at = maps::row_index(cpu_id, waiter.slot());
    let Some(row) = maps::row(at) else { return };
    // So that the timeline reaches up to now: who runs goes on.
    let running = cpu.timeline.current;
    cpu.timeline.switch(now, running);
    cpu.waiter = waiter;
    let idle_before = idle_ns(row);
    let cause = cause::charge(row, at, cpu_id, cpu, task, now - waited, now);
    let idle = idle_ns(row) - idle_before;
    let away = before.away_and(waited, cause);
    let pace = miss(row, cpu.waiter, task, entry, known, now, waited - idle);
    // SAFETY: as above.
    unsafe { entry.write_volatile(Baseline::new(task.0 as u64, pid, run_delay, away, pace)) };
}

/// Counts what a thread would have run in the `held_ns` that it has waited up to `now`, by the pace in its entry if
/// that is `known` to be its own. Returns its pace now.
#[inline(always)]
fn miss(
    row: &mut Row,
    waiter: Holder,
    task: Task,
    entry: *const Baseline,
    known: bool,
    now: u64,
    held_ns: u64,
) -> Pace {
    let run = task.run_ns();
    // Read only now: were it kept while the wait is charged, the stack of all calls together would be more than the
    // 512 bytes that Linux 6.1 allows.
    // SAFETY: a map value, copied word by word and checked.
    let entry = unsafe { entry.read_volatile() };
    // A thread that has not run yet has no pace, and its entry may be an earlier one's with the same pid and address.
    let mut pace = match entry.pace_of(task.pid()) {
        Some(pace) if known && task.pcount() != 0 => pace,
        _ => Pace::unknown(now - held_ns, run),
    };
    let missed = pace.waited(now, run, held_ns);
    if let Some(awoken) = missed.awoken {
        rhythm::note(task.pid(), waiter.slot(), awoken);
    }
    row.miss(&missed);
    pace
}

/// Wake-up latency in a row: the part of a wait that no CPU time would shorten.
#[inline(always)]
fn idle_ns(row: &Row) -> u64 {
    // SAFETY: a field of the row; volatile because `cause` writes it by a pointer of its own.
    unsafe { (&raw const row.wait_ns[Cause::Idle as usize]).read_volatile() }
}
