//! Whether a thread that is held back sleeps the less for it: what tells one that works at fixed times from one that goes on
//! for as long as it is let.
//!
//! A **cycle** is a burst ([`crate::pace`]) and the sleep after it. Two kinds of threads have the same pace, and their waits
//! cost them different things:
//!
//! * One that sleeps *for* a time, or until somebody answers, sleeps as long after long waits as after short ones: a closed
//!   loop. Without its waits it would do more.
//! * One that sleeps *until* a time, be it of a timer or of the next of evenly spaced requests, sleeps one ns less for every
//!   ns that it waited more. As long as it keeps up, it would do no more without its waits.
//!
//! A thread's cycles differ in how long they waited, so they show which it is. With the differences of wait and sleep between
//! each cycle and the one before it, `dW` and `dS`,
//!
//! ```text
//! −Σ dS·dW ÷ Σ dW²
//! ```
//!
//! is 0 for the first kind and 1 for the second, however much else makes sleeps and bursts longer and shorter. (A thread that
//! has slept for long is often let run sooner, which makes it smaller, never larger.)
//!
//! It is 0 too for work that arrives at random: how long nothing arrives does not depend on what was before. There the waits
//! show in bursts that grow, and in those so many other things show that no window has enough cycles to tell.
//!
//! The programs add up squares ([`terms`]), which only grow, where products have either sign; and they add them up for all
//! threads of a container, because one thread has few cycles in a window.

/// Binary logarithm, in ns, of the unit of all times here.
pub const UNIT_LOG2_NS: u32 = 16;
/// Numbers that a pair of cycles adds: see [`terms`].
pub const TERMS: usize = 4;
/// Waits that differ by fewer units tell nothing.
const TELLING: u64 = 2;
/// What is longer (4.3 s) does not fit into a [`Cycle`].
const MOST: u64 = 0xfffe;

/// One burst and the sleep after it: its wait (lower half) and its sleep, in units of 2^[`UNIT_LOG2_NS`] ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle(u32);

impl Cycle {
    /// No cycle, or one that is too long.
    const NONE: Self = Self(u32::MAX);

    #[inline(always)]
    const fn new(waited: u64, slept: u64) -> Self {
        if waited > MOST || slept > MOST { Self::NONE } else { Self((waited | slept << 16) as u32) }
    }

    #[inline(always)]
    const fn waited(self) -> u64 {
        self.0 as u64 & 0xffff
    }

    #[inline(always)]
    const fn slept(self) -> u64 {
        self.0 as u64 >> 16
    }
}

/// The end of a sleep, as [`crate::pace::Pace::waited`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awoken {
    /// What the thread had run in its life when the burst began that the sleep ended, in ns.
    pub ran_before_ns: u64,
    /// What it has run by now, in ns.
    pub ran_ns: u64,
    /// When that burst began, put off by all that it waited since, in units; wraps.
    pub awake: u32,
    /// Now that the next one begins, in units; wraps.
    pub now: u32,
    /// How long it slept, in units.
    pub slept: u32,
    /// The wait that ends now, with which the next burst begins, in units.
    pub first: u32,
}

impl Awoken {
    /// From times in ns; what it ran by the two beginnings.
    #[inline(always)]
    pub const fn new(ran: [u64; 2], awake_ns: u64, now_ns: u64, slept_ns: u64, first_ns: u64) -> Self {
        let [ran_before_ns, ran_ns] = ran;
        Self {
            ran_before_ns,
            ran_ns,
            awake: (awake_ns >> UNIT_LOG2_NS) as u32,
            now: (now_ns >> UNIT_LOG2_NS) as u32,
            slept: units(slept_ns),
            first: units(first_ns),
        }
    }
}

/// So many ns in units, or more than fits into a [`Cycle`].
#[inline(always)]
const fn units(ns: u64) -> u32 {
    let units = ns >> UNIT_LOG2_NS;
    (if units <= MOST { units } else { MOST + 1 }) as u32
}

/// A thread's cycle before, and the beginning of its burst. Written at the end of a sleep only.
///
/// Direct-mapped by pid like [`crate::abi::Baseline`], so it is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rhythm {
    /// When the burst began, in units (lower half, wraps), and the [`Cycle`] before it.
    burst: u64,
    /// The wait with which it began, in units (16 bits), and above that a check of all of this, of the pid and of what the
    /// thread had run by then: who shares the entry has another.
    first: u64,
}

impl Rhythm {
    /// A sleep has ended, and with it a cycle: returns the one before it and this one, where both are known.
    #[inline(always)]
    pub fn awoken(&mut self, pid: u32, awoken: &Awoken) -> Option<(Cycle, Cycle)> {
        let own = self.first == checked(pid, awoken.ran_before_ns, self.burst, self.first & 0xffff);
        let (last, this) = if own {
            let later = awoken.awake.wrapping_sub(self.burst as u32);
            let waited = (self.first & 0xffff) + u64::from(later);
            (Cycle((self.burst >> 32) as u32), Cycle::new(waited, u64::from(awoken.slept)))
        } else {
            (Cycle::NONE, Cycle::NONE)
        };
        let burst = u64::from(awoken.now) | u64::from(this.0) << 32;
        let first = checked(pid, awoken.ran_ns, burst, u64::from(awoken.first));
        *self = Self { burst, first };
        if last.0 == Cycle::NONE.0 || this.0 == Cycle::NONE.0 { None } else { Some((last, this)) }
    }
}

/// [`Rhythm::first`] of 16 bits, with the check.
#[inline(always)]
const fn checked(pid: u32, ran_ns: u64, burst: u64, first: u64) -> u64 {
    let mixed = burst.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ ran_ns.wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
        ^ (first << 32 | pid as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed >> 16 << 16 | first
}

/// What a cycle adds, with the one before it, to the sums of its container: 1, and the squares of `dW`, of `dS` and of their
/// sum. `None` where the waits do not differ.
///
/// None is above 2³⁴, so that a sum of 64 bits lasts longer than a node.
#[inline(always)]
pub fn terms(before: Cycle, cycle: Cycle) -> Option<[u64; TERMS]> {
    // Squares are the same modulo 2⁶⁴.
    let waited = cycle.waited().wrapping_sub(before.waited());
    if waited.wrapping_add(TELLING - 1) < 2 * TELLING - 1 {
        return None;
    }
    let slept = cycle.slept().wrapping_sub(before.slept());
    Some([1, square(waited), square(slept), square(waited.wrapping_add(slept))])
}

#[inline(always)]
const fn square(number: u64) -> u64 {
    number.wrapping_mul(number)
}
