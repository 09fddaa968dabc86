//! Whose entry a [`Baseline`] is, and what it says of a wait with migrations in it.

use proptest::prelude::*;

use super::{Baseline, Cause, TABLE};
use crate::pace::Pace;

const TASK: u64 = 0xffff_8880_0123_4000;
const OTHER_TASK: u64 = 0xffff_8880_0765_4000;
const PID: u32 = 4_711;

fn pace(run_ns: u64) -> Pace {
    Pace::unknown(run_ns, run_ns)
}

/// As the programs write it when a thread is switched in.
fn switched_in(task: u64, pid: u32, run_delay_ns: u64) -> Baseline {
    Baseline::new(task, pid, run_delay_ns, 0, pace(run_delay_ns))
}

#[test]
fn an_entry_is_of_the_thread_that_wrote_it() {
    let entry = switched_in(TASK, PID, 1_000);
    assert!(entry.is_of(TASK, PID, 1));
    assert!(!entry.is_of(OTHER_TASK, PID, 1), "another thread with this pid, after it was reused");
    assert!(!entry.is_of(TASK, PID + TABLE, 1), "one that shares the entry, at an address that was reused");
    assert!(!Baseline::default().is_of(TASK, PID, 1), "nobody has written it");
}

#[test]
fn the_entry_of_an_earlier_thread_with_the_same_pid_and_address_is_not_believed_before_the_first_switch_in() {
    let earlier = switched_in(TASK, PID, 90_000_000);
    assert!(!earlier.is_of(TASK, PID, 0));
    // In the middle of a wait: charged at a migration, after earlier waits of 70 ms.
    let migrating =
        Baseline::new(TASK, PID, 90_000_000, earlier.away_and(20_000_000, Cause::Neighbor), pace(0));
    assert!(!migrating.is_of(TASK, PID, 0));
}

#[test]
fn before_its_first_switch_in_a_thread_knows_its_own_entry() {
    let fresh = Baseline::default();
    let first = fresh.away_and(20_000_000, Cause::Neighbor);
    let entry = Baseline::new(TASK, PID, 20_000_000, first, pace(0));
    assert!(entry.is_of(TASK, PID, 0), "all that it has waited was charged at migrations");
    let second = Baseline::new(TASK, PID, 50_000_000, entry.away_and(30_000_000, Cause::Own), pace(0));
    assert!(second.is_of(TASK, PID, 0));
    assert!(second.is_of(TASK, PID, 1), "and still as it is switched in");
}

#[test]
fn the_cause_is_that_of_a_stretch_longer_than_all_before_it() {
    let mut entry = Baseline::default();
    assert_eq!(entry.away_ns(), 0);
    for (stretch_ns, cause, sum_ns, longest) in [
        (10, Cause::Own, 10, Cause::Own),
        (9, Cause::System, 19, Cause::Own),
        (19, Cause::Neighbor, 38, Cause::Own),
        (39, Cause::Quota, 77, Cause::Quota),
        (0, Cause::Idle, 77, Cause::Quota),
    ] {
        entry.away = entry.away_and(stretch_ns, cause);
        assert_eq!(
            (entry.away_ns(), entry.away_cause()),
            (sum_ns, longest),
            "after {stretch_ns} ns of {cause:?}"
        );
    }
}

fn causes() -> impl Strategy<Value = Cause> {
    proptest::sample::select(&Cause::ALL[..])
}

proptest! {
    /// Two CPUs may write it at once: then some of its words are one thread's and the others another's.
    #[test]
    fn words_of_two_threads_are_nobodys(
        one_ns in 1u64..1 << 50, other_ns in 1u64..1 << 50, away_ns in 1u64..1 << 50, pcount in 1u64..100,
    ) {
        prop_assume!(one_ns != other_ns);
        let one = switched_in(TASK, PID, one_ns);
        let other = Baseline::new(OTHER_TASK, PID + TABLE, other_ns, away_ns, pace(0));
        let mixtures = [
            Baseline { run_delay_ns: other.run_delay_ns, ..one },
            Baseline { away: other.away, ..one },
            Baseline { check: other.check, ..one },
            Baseline { run_delay_ns: other.run_delay_ns, away: other.away, ..one },
            Baseline { run_delay_ns: other.run_delay_ns, away: other.away, check: other.check, ..one },
        ];
        prop_assert!(one.is_of(TASK, PID, pcount));
        prop_assert!(other.is_of(OTHER_TASK, PID + TABLE, pcount));
        for mixture in mixtures {
            prop_assert!(!mixture.is_of(TASK, PID, pcount), "{mixture:?}");
        }
    }

    #[test]
    fn stretches_add_up_and_the_cause_is_one_of_theirs(
        stretches in proptest::collection::vec((0u64..1 << 40, causes()), 1..20),
    ) {
        let mut entry = Baseline::default();
        for (ns, cause) in &stretches {
            entry.away = entry.away_and(*ns, *cause);
        }
        let sum_ns: u64 = stretches.iter().map(|(ns, _)| ns).sum();
        prop_assert_eq!(entry.away_ns(), sum_ns);
        if sum_ns > 0 {
            prop_assert!(stretches.iter().any(|(ns, cause)| *ns > 0 && *cause == entry.away_cause()));
            // One that is more than all the others together is always the one.
            for (ns, cause) in &stretches {
                prop_assert!(ns * 2 <= sum_ns || entry.away_cause() == *cause);
            }
        }
    }

    #[test]
    fn a_pace_is_of_the_pid_and_run_delay_that_it_was_written_with(
        run_delay_ns in 1u64..1 << 50, other_ns in 1u64..1 << 50,
    ) {
        prop_assume!(run_delay_ns != other_ns);
        let entry = switched_in(TASK, PID, run_delay_ns);
        prop_assert_eq!(entry.pace_of(PID), Some(pace(run_delay_ns)));
        prop_assert_eq!(entry.pace_of(PID + TABLE), None);
        prop_assert_eq!(Baseline { run_delay_ns: other_ns, ..entry }.pace_of(PID), None);
    }
}
