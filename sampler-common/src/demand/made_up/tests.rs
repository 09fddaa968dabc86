use proptest::prelude::*;

use super::*;
use crate::cycles::{Rhythm, TERMS, terms};
use crate::pace::Pace;

const MS: f64 = 1e6;
const PID: u32 = 77;

/// What a thread does when it has done its work.
#[derive(Clone, Copy, Debug)]
enum Sleeps {
    /// It sleeps for so many ms.
    For(f64),
    /// It sleeps for a time that is anything up to twice so many ms.
    About(f64),
    /// It sleeps until the next multiple of so many ms, or goes on if that is over.
    Until(f64),
}

/// Numbers from 0 to 1 by which one cycle differs from another: run time, first wait, later waits, and what comes next.
type Chance = [f64; 4];

fn chances(cycles: usize) -> impl Strategy<Value = Vec<Chance>> {
    prop::collection::vec(prop::array::uniform4(0.0..1.0f64), cycles)
}

/// A thread as the programs see it.
struct Thread {
    now: f64,
    run: f64,
    pace: Pace,
    rhythm: Rhythm,
    sums: [u64; TERMS],
}

impl Thread {
    fn new() -> Self {
        Self { now: 0.0, run: 0.0, pace: Pace::unknown(0, 0), rhythm: Rhythm::default(), sums: [0; TERMS] }
    }

    fn wait(&mut self, ms: f64) {
        self.now += ms;
        let ns = |ms: f64| (ms * MS) as u64;
        let missed = self.pace.waited(ns(self.now), ns(self.run), ns(ms));
        if let Some(awoken) = missed.awoken
            && let Some((before, cycle)) = self.rhythm.awoken(PID, &awoken)
            && let Some(terms) = terms(before, cycle)
        {
            self.sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
    }

    fn run(&mut self, ms: f64) {
        self.now += ms;
        self.run += ms;
    }

    /// A burst of so much work, with waits of up to so many ms for each of these pieces of it.
    fn burst(&mut self, run: f64, slice: f64, wait: f64) {
        let mut left = run;
        while left > 0.0 {
            let ran = left.min(slice);
            self.run(ran);
            left -= ran;
            if left > 0.0 {
                self.wait(wait);
            }
        }
    }

    /// Works for some `run` ms at a time (exactly that unless they are `uneven`) and is held back by waits of up to `wait` ms.
    fn works(self, run: f64, uneven: bool, wait: f64, sleeps: Sleeps, chances: &[Chance]) -> MadeUp {
        MadeUp::of(&Cycles::from_parts(self.cycles(run, uneven, wait, sleeps, chances)))
    }

    /// The sums of its cycles when it works so.
    fn cycles(
        mut self,
        run: f64,
        uneven: bool,
        wait: f64,
        sleeps: Sleeps,
        chances: &[Chance],
    ) -> [u64; TERMS] {
        let mut next = 0.0;
        for [size, first, later, gap] in chances {
            self.wait(first * wait);
            let piece = if uneven { run * (0.2 + 1.6 * size) } else { run };
            self.burst(piece, run / 2.0, later * wait / 2.0);
            match sleeps {
                Sleeps::For(ms) => self.now += ms,
                Sleeps::About(ms) => self.now += 2.0 * gap * ms,
                Sleeps::Until(ms) => {
                    next = (next + ms).max(self.now);
                    self.now = next;
                }
            }
        }
        self.sums
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn who_sleeps_for_a_time_makes_up_for_nothing(
        run in 1.0..50.0f64, sleep in 2.0..200.0f64, wait in 2.0..300.0f64, chances in chances(30)
    ) {
        let made_up = Thread::new().works(run, false, wait, Sleeps::For(sleep), &chances);
        prop_assert!(made_up.part < 0.02 && made_up.most < 0.05, "{made_up:?}");
    }

    #[test]
    fn who_sleeps_until_a_time_makes_up_for_all(
        run in 2.0..20.0f64, slack in 10.0..100.0f64, held in 0.5..1.0f64, uneven: bool, chances in chances(100)
    ) {
        // The waits leave it a little sleep, so that it keeps up.
        let every = 1.8 * run + slack;
        let made_up = Thread::new().works(run, uneven, held * slack / 4.0, Sleeps::Until(every), &chances);
        // Bursts that differ by more than the waits hide it.
        prop_assert!((uneven || made_up.part > 0.8) && made_up.most > 0.95, "{made_up:?}");
    }

    #[test]
    fn sleeps_and_bursts_that_differ_anyway_are_not_mistaken_for_it(
        run in 2.0..50.0f64, sleep in 3.0..200.0f64, wait in 3.0..300.0f64, chances in chances(100)
    ) {
        let made_up = Thread::new().works(run, true, wait, Sleeps::About(sleep), &chances);
        prop_assert!(made_up.part < 0.3 && made_up.least < 0.3, "{made_up:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// One that goes on as long as it is let, and misses almost all that is missed, beside some that work for 1 ms every 130 ms.
    #[test]
    fn of_both_kinds_together_it_is_not_known(
        wait in 150.0..300.0f64, timers in 1..3usize, worker in chances(30), timer in chances(38)
    ) {
        let closed = Thread::new().cycles(50.0, false, wait, Sleeps::For(50.0), &worker);
        let fixed = Thread::new().cycles(1.0, false, 80.0, Sleeps::Until(130.0), &timer);
        let sums = std::array::from_fn(|term| closed[term] + timers as u64 * fixed[term]);
        let made_up = MadeUp::of(&Cycles::from_parts(sums));
        prop_assert!(made_up.part < 0.1 && made_up.least < 0.1, "{made_up:?}");
    }
}

#[test]
fn without_waits_that_differ_nothing_is_known() {
    let even = vec![[0.5; 4]; 100];
    let made_up = Thread::new().works(10.0, true, 20.0, Sleeps::For(30.0), &even);
    assert_eq!(made_up, MadeUp::UNKNOWN);
    assert_eq!(MadeUp::of(&Cycles::default()), MadeUp::UNKNOWN);
}

#[test]
fn a_thread_with_the_pid_of_another_begins_anew() {
    let mut thread = Thread::new();
    let cycles = |thread: &mut Thread| {
        for wait in [5.0, 20.0, 5.0, 20.0] {
            thread.wait(wait);
            thread.run(10.0);
            thread.now += 30.0;
        }
        thread.sums[0]
    };
    let one = cycles(&mut thread);
    assert_eq!(
        one, 1,
        "the first sleep ends no cycle that is known, and the second one has none to be held against"
    );
    thread.pace = Pace::unknown((thread.now * MS) as u64, 7_000_000);
    thread.run = 7.0;
    assert_eq!(cycles(&mut thread) - one, 1);
}
