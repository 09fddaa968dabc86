//! What each row's delays were in the last windows: the columns of the heat map, and how long it was stalled.

use std::collections::{BTreeMap, VecDeque};

use sampler_common::abi::TOLD;
use sampler_common::buckets::OCTAVES;
use sampler_common::histogram::CoarseHistogram;
use sampler_common::resources::Pressure;
use sampler_common::snapshot::Cause;
use sampler_common::window::Window;

use super::model::{Key, Row};

/// So many windows are remembered: more than the widest terminals show.
const DEPTH: usize = 240;
/// Stalls are told of at least so much time (ns).
const STALLS_OF_NS: u64 = 10_000_000_000;

/// The delays of one window, an octave each. The lowest counts what is shorter, the highest what is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    delays: CoarseHistogram,
    /// The largest cause of each octave's delays.
    causes: [Cause; OCTAVES],
    pressure: Option<Pressure>,
    /// When memory was read, and pressure with it.
    read_ns: Option<u64>,
}

impl Moment {
    /// Of a window.
    pub fn of(window: &Window) -> Self {
        let delays = CoarseHistogram::from(&window.latency);
        let mut causes = [Cause::Unknown; OCTAVES];
        for (octave, cause) in causes.iter_mut().enumerate() {
            let told = window.coarse.map(|of_cause| of_cause.counts[octave]);
            let mut by_cause = [delays.counts[octave].saturating_sub(told.iter().sum()); Cause::ALL.len()];
            by_cause[..TOLD].copy_from_slice(&told);
            // Backwards, so that of two equal ones it is the first.
            let most = Cause::ALL.into_iter().zip(by_cause).rev().max_by_key(|(_, delays)| *delays);
            *cause = most.map_or(Cause::Unknown, |(cause, _)| cause);
        }
        let read_ns = window.memory.map(|memory| memory.read_ns);
        Self { delays, causes, pressure: window.pressure, read_ns }
    }

    /// The octave of the longest delay; `None` without any.
    pub fn highest(&self) -> Option<usize> {
        self.delays.counts.iter().rposition(|count| *count != 0)
    }

    /// Share of the delays in these octaves, in 0..=1, and the cause of most of the highest of them; `None` without
    /// any.
    pub fn share(&self, octaves: std::ops::Range<usize>) -> Option<(f64, Cause)> {
        let counts = self.delays.counts.get(octaves.clone())?;
        let count: u64 = counts.iter().sum();
        let highest = octaves.start + counts.iter().rposition(|count| *count != 0)?;
        Some((count as f64 / self.delays.count() as f64, self.causes[highest]))
    }
}

/// Shares of time in which threads were stalled, in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stalls {
    /// Some thread waited for a CPU.
    pub cpu_some: f64,
    /// No thread ran, and some waited for a CPU.
    pub cpu_full: f64,
    /// Some thread waited for memory.
    pub memory_some: f64,
    /// All threads waited for memory.
    pub memory_full: f64,
    /// Of how much time, in ns.
    pub of_ns: u64,
}

/// The last moments of every row.
#[derive(Debug, Default)]
pub struct History {
    rows: BTreeMap<Key, VecDeque<Moment>>,
}

impl History {
    /// Remembers a window of every row, and forgets the rows that are no longer there.
    pub fn push(&mut self, rows: &[Row]) {
        let mut before = std::mem::take(&mut self.rows);
        for row in rows {
            let mut moments = before.remove(&row.key).unwrap_or_default();
            if moments.len() == DEPTH {
                moments.pop_front();
            }
            moments.push_back(Moment::of(&row.window));
            self.rows.insert(row.key, moments);
        }
    }

    /// The last `most` moments of a row, the oldest first.
    pub fn of(&self, key: Key, most: usize) -> impl Iterator<Item = &Moment> {
        let moments = self.rows.get(&key);
        let skipped = moments.map_or(0, |moments| moments.len().saturating_sub(most));
        moments.into_iter().flatten().skip(skipped)
    }

    /// How long a row was stalled lately; `None` where that is not known.
    ///
    /// The kernel's figures are not read for every window, so the time is that between two readings.
    pub fn stalls(&self, key: Key) -> Option<Stalls> {
        let mut moments = self.rows.get(&key)?.iter().rev().peekable();
        let last_ns = moments.peek()?.read_ns?;
        let mut sum = Pressure::default();
        for moment in moments {
            let of_ns = last_ns.checked_sub(moment.read_ns?)?;
            if of_ns >= STALLS_OF_NS {
                let share = |ns: u64| (ns as f64 / of_ns as f64).min(1.0);
                return Some(Stalls {
                    cpu_some: share(sum.cpu_some_ns),
                    cpu_full: share(sum.cpu_full_ns),
                    memory_some: share(sum.memory_some_ns),
                    memory_full: share(sum.memory_full_ns),
                    of_ns,
                });
            }
            sum.merge(&moment.pressure?);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::{MS, quiet, waited};
    use super::*;
    use sampler_common::abi::Cause as Counted;
    use sampler_common::resources::Memory;
    use sampler_common::snapshot::CgroupId;

    const ONE: Key = Key::Cgroup(CgroupId(1));

    fn row(window: Window) -> Row {
        Row { key: ONE, ..Row::of_other(&window) }
    }

    #[test]
    fn a_moment_has_the_share_of_its_delays_and_the_cause_of_the_longest() {
        let window = waited(
            &[(70, 10_000, Counted::Idle), (20, 50 * MS, Counted::Own), (10, 51 * MS, Counted::Quota)],
            0,
        );
        let moment = Moment::of(&window);
        assert_eq!(moment.share(0..8), Some((0.7, Cause::Idle)));
        assert_eq!(moment.share(8..OCTAVES), Some((0.3, Cause::Own)));
        assert_eq!(moment.share(0..OCTAVES), Some((1.0, Cause::Own)));
        assert_eq!(moment.share(20..OCTAVES), None);
        assert_eq!(moment.share(20..OCTAVES + 1), None);
    }

    #[test]
    fn delays_that_no_cause_explains_are_unknown() {
        let window = waited(&[(9, 50 * MS, Counted::Away), (1, 50 * MS, Counted::Own)], 0);
        assert_eq!(Moment::of(&window).share(0..OCTAVES), Some((1.0, Cause::Unknown)));
    }

    #[test]
    fn the_last_windows_are_remembered_and_rows_that_are_gone_forgotten() {
        let mut history = History::default();
        for delays in 0..DEPTH as u64 + 10 {
            history.push(&[row(waited(&[(delays, MS, Counted::Own)], 0))]);
        }
        let counts = |most| history.of(ONE, most).map(|moment| moment.delays.count()).collect::<Vec<_>>();
        assert_eq!(counts(3), [247, 248, 249]);
        assert_eq!(counts(usize::MAX).len(), DEPTH);
        history.push(&[]);
        assert_eq!(history.of(ONE, 3).count(), 0);
    }

    /// A window of a second, at the end of which the last reading was of this time.
    fn second(read_s: u64, stalled_ms: u64) -> Row {
        let pressure = Pressure { cpu_some_ns: stalled_ms * MS, memory_full_ns: MS, ..Pressure::default() };
        let memory =
            Memory { current_bytes: 0, working_set_bytes: 0, peak_bytes: None, read_ns: read_s * 1_000 * MS };
        row(Window { length_ns: 1_000 * MS, pressure: Some(pressure), memory: Some(memory), ..quiet() })
    }

    #[test]
    fn stalls_are_of_the_time_between_two_readings() {
        let mut history = History::default();
        let stalls = |history: &History| history.stalls(ONE).map(|stalls| (stalls.cpu_some, stalls.of_ns));
        history.push(&[second(100, 14_000)]);
        for _ in 101..115 {
            history.push(&[second(100, 0)]);
            assert_eq!(stalls(&history), None, "one reading is not enough");
        }
        history.push(&[second(115, 12_000)]);
        assert_eq!(stalls(&history), Some((0.8, 15_000 * MS)));
        for _ in 116..130 {
            history.push(&[second(115, 0)]);
            assert_eq!(stalls(&history), Some((0.8, 15_000 * MS)), "until the next reading");
        }
        history.push(&[second(130, 3_000)]);
        assert_eq!(stalls(&history), Some((0.2, 15_000 * MS)));
    }

    #[test]
    fn readings_that_are_close_together_are_taken_together() {
        let mut history = History::default();
        for read_s in 100..=120 {
            history.push(&[second(read_s, read_s)]);
        }
        let stalls = history.stalls(ONE).unwrap();
        assert_eq!((stalls.cpu_some, stalls.of_ns), (0.1155, 10_000 * MS));
        assert_eq!(stalls.memory_full, 0.001);
    }

    #[test]
    fn without_readings_and_after_a_clock_that_went_back_there_are_no_stalls() {
        let mut history = History::default();
        history.push(&[second(100, 1)]);
        history.push(&[second(7, 1)]);
        assert_eq!(history.stalls(ONE), None);
        history.push(&[row(quiet())]);
        assert_eq!(history.stalls(ONE), None);
        assert_eq!(history.stalls(Key::Other), None);
    }
}
