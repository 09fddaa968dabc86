//! When a task group may not run because of a CPU limit, and for how long.
//!
//! `tg_throttle_down` and `tg_unthrottle_up` are called for every group below the one whose limit is used
//! up, with the run queue's lock held, on all kernels up to 7.2. `throttle_cfs_rq` is not used: on 7.2 it
//! is called to ask for run time, mostly without throttling. All times are of the run queue's clock.

use sampler_common::throttle::Throttle;

use crate::kernel::{CfsRq, TaskGroup, UntypedRq};
use crate::maps;

/// A group is held up by one more limit.
#[inline(always)]
pub fn down(tg: TaskGroup, rq: UntypedRq) {
    let (cpu_id, now) = (rq.cpu(), rq.clock());
    if let Some(throttle) = entry(tg, cpu_id, now)
        && let Some(cpu) = maps::cpu(cpu_id)
        && throttle.hold(now)
    {
        cpu.held_up += 1;
    }
}

/// A group is held up by one limit less.
#[inline(always)]
pub fn up(tg: TaskGroup, rq: UntypedRq) {
    let (cpu_id, now) = (rq.cpu(), rq.clock());
    if let Some(throttle) = entry(tg, cpu_id, now)
        && let Some(cpu) = maps::cpu(cpu_id)
    {
        let was_held_up = throttle.depth != 0;
        if throttle.release(now) {
            cpu.held_up -= was_held_up as u64;
            cpu.last_unthrottle_ns = now;
        }
    }
}

/// A group's own limit is about to let it go on: the kernel will add the time since `throttled_clock` to
/// `cpu.stat` and forget it, but has not updated the clock yet.
#[inline(always)]
pub fn unthrottle(cfs_rq: CfsRq) {
    if let Some(cpu) = maps::cpu(cfs_rq.rq().cpu()) {
        cpu.throttled_since_ns = cfs_rq.throttled_clock();
    }
}

/// A group's own limit has let it go on.
#[inline(always)]
pub fn unthrottled(cfs_rq: CfsRq) {
    let rq = cfs_rq.rq();
    let (cpu_id, now) = (rq.cpu(), rq.clock());
    let Some(cpu) = maps::cpu(cpu_id) else { return };
    let since = cpu.throttled_since_ns;
    // Where nothing was queued, nothing was held up.
    if since != 0
        && since <= now
        && let Some(throttle) = entry(cfs_rq.tg(), cpu_id, now)
    {
        throttle.count(now - since);
    }
}

/// The entry of a task group on a CPU, taken over from another group if need be and possible.
#[inline(always)]
fn entry(tg: TaskGroup, cpu_id: u32, now: u64) -> Option<&'static mut Throttle> {
    let css = tg.css();
    let serial = css.serial();
    let throttle = maps::throttle(cpu_id, css.id())?;
    if throttle.serial != serial {
        let cpu = maps::cpu(cpu_id)?;
        if !throttle.may_be_taken(css.id(), now) {
            cpu.throttle_collisions += 1;
            cpu.last_collision_ns = now;
            cpu.last_unthrottle_ns = now;
            return None;
        }
        cpu.held_up -= (throttle.depth != 0) as u64;
        *throttle = throttle.taken_over(Throttle::of(serial, css.id(), css.cgroup().kn().id()));
    }
    Some(throttle)
}
