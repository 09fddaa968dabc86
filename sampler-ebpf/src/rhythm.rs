//! Off the hot path: what a thread's sleep that has ended says, with the one before it, of what its waits cost.

use core::arch::asm;

use sampler_common::cycles::{Awoken, TERMS, terms};

use crate::maps;

/// Notes that the thread with this pid has awoken, and adds what its cycle tells to the sums of `slot`.
#[inline(always)]
pub fn note(pid: u32, slot: u32, awoken: Awoken) {
    let Awoken { ran_before_ns, ran_ns, awake, now, slept, first } = awoken;
    add_cycle(pair(pid, slot), ran_before_ns, ran_ns, pair(awake, now), pair(slept, first));
}

/// [`note`] as a global function, which the verifier checks by itself: it takes up to five numbers.
#[unsafe(no_mangle)]
pub extern "C" fn add_cycle(who: u64, ran_before_ns: u64, ran_ns: u64, burst: u64, sleep: u64) -> u32 {
    let (pid, slot) = parts(who);
    let (awake, now) = parts(burst);
    let (slept, first) = parts(sleep);
    let Some(rhythm) = maps::rhythm(pid) else { return 0 };
    // SAFETY: a map value, copied word by word; it checks itself. Another CPU may write it for another pid.
    let mut known = unsafe { rhythm.read_volatile() };
    let cycles = known.awoken(pid, &Awoken { ran_before_ns, ran_ns, awake, now, slept, first });
    // SAFETY: as above.
    unsafe { rhythm.write_volatile(known) };
    if let Some((before, cycle)) = cycles
        && let Some(terms) = terms(before, cycle)
        && let Some(sums) = maps::cycles(slot)
    {
        let mut term = 0;
        while term < TERMS {
            // SAFETY: a word of a map value, aligned to eight bytes. Rust has no atomic addition for this target, which
            // has no compare-and-swap before version 3 of its instructions.
            unsafe {
                asm!("lock *(u64 *)({sum} + 0) += {more}",
                    sum = in(reg) &raw mut (*sums).sums[term], more = in(reg) terms[term], options(nostack));
            }
            term += 1;
        }
    }
    0
}

#[inline(always)]
fn pair(lower: u32, upper: u32) -> u64 {
    u64::from(lower) | u64::from(upper) << 32
}

#[inline(always)]
fn parts(pair: u64) -> (u32, u32) {
    (pair as u32, (pair >> 32) as u32)
}
