//! At what pace a thread goes when it need not wait, and so what its waits cost: the CPU time that it would have used
//! meanwhile.
//!
//! A thread works for a while, sleeps, works again. Waits stretch its **bursts**, from the end of one sleep to the
//! beginning of the next, but change neither how long it runs in them nor how long it sleeps after them. So its pace,
//! `run ÷ (run + sleep)` over whole cycles, is the same however much it is held back, and in a wait of `w` it would
//! have used `w · pace`. The kernel's totals say all of it at each switch-in: what passed since the last sleep is run time,
//! waits, and sleep.
//!
//! # Error
//!
//! * None for threads whose cycles are alike: they are remembered as a mean over some 2 to 4 s of their run and sleep.
//!   A wait of irregular threads is off by as much as the cycle that it lies in.
//! * One that sleeps until a fixed time (a timer, requests that it keeps up with) sleeps the less the longer it has waited,
//!   and would have run no more. What it missed is counted all the same, and how its sleeps went with its waits
//!   beside it ([`crate::cycles`]), so that it can be left out.
//! * A thread faster than 15/16 is taken to be busy, too.
//! * A thread is taken to want a whole CPU (**busy**) until it has slept once, and while it has not slept
//!   for twice its longest burst and 17 ms: it has begun something else. That it wants so much is a guess, and is counted by itself.
//! * A sleep counts for a second at most: whatever sleeps for longer is at rest. So slower cycles have too high a pace,
//!   and a thread that has rested is soon known anew.
//! * Interrupts and time stolen by a hypervisor look like sleep, as far as the kernel leaves them out of run time; wake-up
//!   latency is sleep: nothing that could be given would shorten it.
//! * A wait counts when it ends: those that are on at the ends of a window are off by their length.

use crate::cycles::Awoken;

/// Binary logarithm, in ns, of the unit in which the programs count unmet CPU time.
pub const UNIT_LOG2_NS: u32 = 16;
/// Shorter sleeps (ns) are put together with what comes after them, so that most switches need no division.
const SHORT_NS: u64 = 1 << 19;
/// A burst may have so large a part of sleep in it: interrupts, that is.
const NOISE: u64 = 32;
/// A sleep counts for so long (ns) at most.
const LONGEST_SLEEP_NS: u64 = 1 << 30;
/// A burst counts for so long (ns) at most: 13 days.
const LONGEST_BURST_NS: u64 = 1 << 40;
/// Memory is in units of 1,024 ns.
const MEMORY_LOG2_NS: u32 = 10;
/// Older cycles count for half once there is more than so much memory: 4.3 s.
const MEMORY: u64 = 1 << 22;
/// A burst may be twice as long as any before, and longer by this (17 ms): short ones differ more, be it only by what a
/// hypervisor takes of them.
const LONGER: u64 = 1 << 14;
/// A pace of 1.
const WHOLE: u64 = 1 << 16;
/// A faster thread is busy.
const BUSY: u64 = 61_440;

/// What is known of one thread's pace. Whole words, which are taken apart in registers: parts of a word that are stored
/// one by one and then loaded together make a CPU wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pace {
    /// When its last sleep ended, on the run-queue clock (ns), put off by all that it has waited since.
    awake_ns: u64,
    /// What it had run by then, in ns.
    ran_ns: u64,
    /// Of the cycles that are remembered: run time (lower half) and sleep.
    cycles: u64,
    /// The longest of their bursts (lower half), the pace in parts of [`WHOLE`] (16 bits), and unmet CPU time (ns) that
    /// makes no whole unit yet (16 bits).
    state: u64,
}

/// What a thread would have run during a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// In units of 2^[`UNIT_LOG2_NS`] ns; what is left is counted the next time.
    pub units: u32,
    /// Whether the thread is busy.
    pub busy: bool,
    /// Where a sleep ended before this wait.
    pub awoken: Option<Awoken>,
}

impl Pace {
    /// Of a thread of which nothing is known but what it has run, by now.
    #[inline(always)]
    pub const fn unknown(now: u64, run_ns: u64) -> Self {
        // The half is there so that units are rounded and not cut off.
        let rest_ns = 1 << (UNIT_LOG2_NS - 1);
        Self { awake_ns: now, ran_ns: run_ns, cycles: 0, state: state(0, WHOLE - 1, rest_ns) }
    }

    /// What it had run by the end of its last sleep, in ns.
    pub const fn ran_ns(&self) -> u64 {
        self.ran_ns
    }

    /// The thread, which has run for `run_ns` in its life, has waited for `waited_ns` up to now.
    #[inline(always)]
    pub fn waited(&mut self, now: u64, run_ns: u64, waited_ns: u64) -> Missed {
        let waited_ns = if waited_ns < LONGEST_BURST_NS { waited_ns } else { LONGEST_BURST_NS };
        self.awake_ns = self.awake_ns.wrapping_add(waited_ns);
        let mut ran_ns = run_ns.wrapping_sub(self.ran_ns);
        let mut awoken = None;
        let awake_ns = self.awake_ns.wrapping_add(ran_ns);
        // Clocks of two CPUs may differ by some µs.
        if now > awake_ns {
            let slept_ns = now - awake_ns;
            if slept_ns > SHORT_NS && slept_ns > ran_ns / NOISE {
                let begun_ns = self.awake_ns.wrapping_sub(waited_ns);
                awoken = Some(Awoken::new([self.ran_ns, run_ns], begun_ns, now, slept_ns, waited_ns));
                self.cycle(ran_ns, slept_ns);
                self.awake_ns = now;
                self.ran_ns = run_ns;
                ran_ns = 0;
            }
        }
        let (burst, share) = (self.state as u32 as u64, self.state >> 32 & 0xffff);
        let busy = share > BUSY || ran_ns >> MEMORY_LOG2_NS > 2 * burst + LONGER;
        let missed_ns = if busy { waited_ns } else { (waited_ns * share) >> 16 } + (self.state >> 48);
        self.state = state(burst, share, missed_ns & 0xffff);
        Missed { units: (missed_ns >> UNIT_LOG2_NS) as u32, busy, awoken }
    }

    /// A burst and the sleep after it.
    #[inline(always)]
    fn cycle(&mut self, ran_ns: u64, slept_ns: u64) {
        let ran_ns = if ran_ns < LONGEST_BURST_NS { ran_ns } else { LONGEST_BURST_NS };
        let slept_ns = if slept_ns < LONGEST_SLEEP_NS { slept_ns } else { LONGEST_SLEEP_NS };
        let (mut run, mut sleep) = (self.cycles as u32 as u64, self.cycles >> 32);
        let mut burst = self.state as u32 as u64;
        if run + sleep > MEMORY {
            run /= 2;
            sleep /= 2;
            burst /= 2;
        }
        let ran = ran_ns >> MEMORY_LOG2_NS;
        run += ran;
        sleep += slept_ns >> MEMORY_LOG2_NS;
        burst = if burst < ran { ran } else { burst };
        self.cycles = run | sleep << 32;
        // Shorter sleeps make no cycle, so that the pace is below 1. The last bit is for the compiler: it is not 0.
        let share = run * WHOLE / ((run + sleep) | 1);
        self.state = state(burst, share & 0xffff, self.state >> 48);
    }

    /// All of it in one number, for a check.
    #[inline(always)]
    pub(crate) const fn folded(&self) -> u64 {
        self.awake_ns ^ self.ran_ns ^ self.cycles ^ self.state
    }
}

/// [`Pace::state`] of its parts, none of which is larger than its place.
#[inline(always)]
const fn state(burst: u64, share: u64, rest_ns: u64) -> u64 {
    burst | share << 32 | rest_ns << 48
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// A thread that works in bursts and sleeps, and is held back.
    struct Thread {
        now: u64,
        run_ns: u64,
        pace: Pace,
        /// What it would have run during its waits, of paced and of busy ones, in ns.
        missed_ns: [u64; 2],
    }

    impl Thread {
        fn new() -> Self {
            Self { now: 0, run_ns: 0, pace: Pace::unknown(0, 0), missed_ns: [0; 2] }
        }

        fn wait(&mut self, ns: u64) {
            self.now += ns;
            let missed = self.pace.waited(self.now, self.run_ns, ns);
            self.missed_ns[usize::from(missed.busy)] += u64::from(missed.units) << UNIT_LOG2_NS;
        }

        fn run(&mut self, ns: u64) {
            self.now += ns;
            self.run_ns += ns;
        }

        /// A burst of so much run time, with a wait after each `slice` of it, and a sleep.
        fn cycle(&mut self, run: u64, sleep: u64, slice: u64, wait: u64) {
            let mut left = run;
            while left > 0 {
                let ran = left.min(slice);
                self.run(ran);
                left -= ran;
                if left > 0 {
                    self.wait(wait);
                }
            }
            self.now += sleep;
            self.wait(wait);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn regular_cycles_have_their_pace_however_they_are_held_back(
            run in 1..400u64, sleep in 1..900u64, slice in 1..50u64, wait in 1..500u64,
        ) {
            let mut thread = Thread::new();
            // Unhindered at first, as long as it takes to be known.
            for _ in 0..20 {
                thread.cycle(run * MS, sleep * MS, run * MS, 0);
            }
            let before = thread.missed_ns;
            let waits = run.div_ceil(slice);
            for _ in 0..10 {
                thread.cycle(run * MS, sleep * MS, slice * MS, wait * MS);
            }
            let waited = (10 * waits * wait * MS) as f64;
            let missed = (thread.missed_ns[0] + thread.missed_ns[1] - before[0] - before[1]) as f64;
            let pace = run as f64 / (run + sleep) as f64;
            // The fastest are 6 % below what they are taken for: they are busy.
            prop_assert!((missed / waited - pace).abs() < 0.07 * pace + 1e-3, "{} for {pace}", missed / waited);
        }

        #[test]
        fn nobody_misses_more_than_was_waited(
            steps in prop::collection::vec((0..1u64 << 36, 0..1u64 << 36, 0..1u64 << 36, 0..37u32), 1..100)
        ) {
            let mut thread = Thread::new();
            let mut waited = 0;
            for (run, sleep, wait, shift) in steps {
                thread.run(run >> shift);
                thread.now += sleep >> (36 - shift);
                thread.wait(wait >> shift);
                waited += wait >> shift;
                let missed: u64 = thread.missed_ns.iter().sum();
                prop_assert!(missed <= waited + (1 << UNIT_LOG2_NS));
            }
        }

        #[test]
        fn nothing_that_two_threads_write_into_one_entry_breaks_it(
            numbers: [u64; 4], now: u64, run_ns: u64, waited_ns: u64
        ) {
            let mut pace = Pace {
                awake_ns: numbers[0],
                ran_ns: numbers[1],
                // As much as there can be.
                cycles: numbers[2] & 0x3fff_ffff_3fff_ffff,
                state: numbers[3],
            };
            let missed = pace.waited(now, run_ns, waited_ns);
            prop_assert!(u64::from(missed.units) <= (waited_ns >> UNIT_LOG2_NS) + 1);
        }
    }

    #[test]
    fn a_thread_that_has_not_slept_yet_is_busy() {
        let mut thread = Thread::new();
        for _ in 0..100 {
            thread.run(10 * MS);
            thread.wait(90 * MS);
        }
        assert_eq!(thread.missed_ns[0], 0);
        let missed = thread.missed_ns[1] as f64 / (100 * 90 * MS) as f64;
        assert!((missed - 1.0).abs() < 1e-3, "{missed}");
    }

    #[test]
    fn one_that_stops_sleeping_is_busy_once_it_has_run_for_much_longer_than_before() {
        let mut thread = Thread::new();
        for _ in 0..100 {
            thread.cycle(10 * MS, 40 * MS, 10 * MS, MS);
        }
        let before = thread.missed_ns;
        for ran in 1..=100 {
            thread.run(MS);
            thread.wait(9 * MS);
            let busy = thread.missed_ns[1] != before[1];
            assert_eq!(busy, ran > 36, "{ran} ms");
        }
    }

    #[test]
    fn one_that_was_at_rest_for_long_is_known_anew_within_seconds() {
        let mut thread = Thread::new();
        thread.cycle(MS, 3_600_000 * MS, MS, 0);
        for _ in 0..60 {
            thread.cycle(50 * MS, 50 * MS, 50 * MS, 0);
        }
        let before = thread.missed_ns[0];
        for _ in 0..10 {
            thread.cycle(50 * MS, 50 * MS, 5 * MS, 95 * MS);
        }
        let missed = (thread.missed_ns[0] - before) as f64 / (10 * 10 * 95 * MS) as f64;
        assert!((missed / 0.5 - 1.0).abs() < 0.15, "{missed}");
    }

    #[test]
    fn interrupts_are_no_sleep() {
        let mut thread = Thread::new();
        for _ in 0..1_000 {
            thread.run(10 * MS);
            thread.now += MS / 10;
            thread.wait(MS);
        }
        assert_eq!(thread.missed_ns[0], 0);
    }

    #[test]
    fn waits_much_shorter_than_a_unit_add_up() {
        let mut thread = Thread::new();
        for _ in 0..100_000 {
            thread.run(2_000);
            thread.now += 6_000;
            thread.wait(1_000);
        }
        let missed: u64 = thread.missed_ns.iter().sum();
        assert!((missed as f64 / (100_000.0 * 1_000.0 / 4.0) - 1.0).abs() < 0.05, "{missed}");
    }
}
