//! How good an allocation was, by four figures.

use serde::Serialize;

use super::Sizer;
use super::trace::Trace;
use crate::decide::units::{MilliCpu, Timestamp};

/// Nothing is judged in the first so many seconds of a trace: everybody may learn from them.
const WARM_UP_SECONDS: u64 = 86_400;

/// What everybody who sizes a series has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its first allocation.
    pub first_request: MilliCpu,
    /// From when on its samples are judged.
    pub judged_from: Timestamp,
}

impl Terms {
    /// A trace says nothing of its container's request: it begins with twice its first sample, somebody's guess. Its first
    /// day is not judged.
    pub fn of_trace(trace: &Trace) -> Self {
        let (start, cores) = trace.samples.first().copied().unwrap_or_default();
        Self {
            first_request: MilliCpu::ceil_cores(2.0 * cores),
            judged_from: start.plus_seconds(WARM_UP_SECONDS),
        }
    }

    /// A container of a recording has a request. What ends within its first day is judged from its beginning, where there
    /// is most to learn; of the others the first day is not judged.
    pub fn of_recording(trace: &Trace, first_request: MilliCpu) -> Self {
        let later = Self { first_request, ..Self::of_trace(trace) };
        let start = trace.samples.first().map_or(Timestamp::default(), |first| first.0);
        if later.judges(trace) { later } else { Self { judged_from: start, ..later } }
    }

    /// Whether a series goes on for long enough that any sample is judged.
    pub fn judges(self, trace: &Trace) -> bool {
        trace.samples.last().is_some_and(|last| last.0 >= self.judged_from)
    }
}

/// What an allocation cost. Shares of 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// Σ max(allocated − used, 0) ÷ Σ allocated.
    pub slack: f64,
    /// Part of the samples that used more than was allocated.
    pub under: f64,
    /// Σ max(used − allocated, 0) ÷ Σ used.
    pub unmet: f64,
    /// Changes of the allocation a day.
    pub changes_per_day: f64,
}

impl Score {
    /// The plain mean.
    pub fn mean(scores: &[Self]) -> Option<Self> {
        let number = scores.len() as f64;
        let mean = |of: fn(&Self) -> f64| scores.iter().map(of).sum::<f64>() / number;
        (!scores.is_empty()).then(|| Self {
            slack: mean(|score| score.slack),
            under: mean(|score| score.under),
            unmet: mean(|score| score.unmet),
            changes_per_day: mean(|score| score.changes_per_day),
        })
    }
}

/// What was in force at each sample of a trace, and what that cost.
pub struct Run {
    /// By sample: the allocation that was decided before it.
    pub allocated: Vec<MilliCpu>,
    /// The four figures.
    pub score: Score,
}

impl Run {
    /// Of what was in force at each sample.
    pub fn of(trace: &Trace, terms: Terms, allocated: Vec<MilliCpu>) -> Self {
        let score = score(trace, terms.judged_from, &allocated);
        Self { allocated, score }
    }
}

/// What a container used, and what it was given.
pub struct Played {
    /// Its use.
    pub trace: Trace,
    /// What everybody has in common.
    pub terms: Terms,
    /// What we allocated.
    pub run: Run,
}

/// Replays a trace through another method.
pub fn replay(trace: &Trace, terms: Terms, sizer: &mut dyn Sizer) -> Run {
    let mut current = terms.first_request;
    let mut allocated = Vec::with_capacity(trace.samples.len());
    for &(at, cores) in &trace.samples {
        allocated.push(current);
        current = sizer.next(at, cores, current);
    }
    Run::of(trace, terms, allocated)
}

fn score(trace: &Trace, judged_from: Timestamp, allocated: &[MilliCpu]) -> Score {
    let (mut slack, mut sum, mut under, mut unmet, mut used) = (0.0, 0.0, 0u32, 0.0, 0.0);
    let (mut samples, mut changes, mut before, mut last) = (0u32, 0u32, None, judged_from);
    for (&(at, cores), &allocated) in trace.samples.iter().zip(allocated) {
        if at >= judged_from {
            let request = allocated.cores();
            samples += 1;
            sum += request;
            used += cores;
            slack += (request - cores).max(0.0);
            unmet += (cores - request).max(0.0);
            under += u32::from(cores > request);
            changes += u32::from(before.is_some_and(|before| before != allocated));
            last = at;
        }
        before = Some(allocated);
    }
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let days = last.seconds_since(judged_from) as f64 / 86_400.0;
    Score {
        slack: share(slack, sum),
        under: share(under.into(), samples.into()),
        unmet: share(unmet, used),
        changes_per_day: share(changes.into(), days),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample every 12 hours, from a day before the first one that counts.
    fn trace(cores: &[f64]) -> Trace {
        let samples = (0..).map(|index| Timestamp(1_000_000 + index * 43_200)).zip(cores.iter().copied());
        Trace { name: "t".into(), samples: samples.collect() }
    }

    #[test]
    fn a_score_is_what_a_hand_calculation_says() {
        // The first two samples are the first day and do not count.
        let trace = trace(&[9.0, 9.0, 1.0, 3.0, 2.0]);
        let allocated = [100, 100, 2_000, 2_000, 2_500].map(MilliCpu);
        let score = score(&trace, Terms::of_trace(&trace).judged_from, &allocated);
        // Slack: 1 + 0 + 0.5 of 6.5; under: one of three; unmet: 1 of 6; changes: on the first and the third that
        // count, within a day.
        assert_eq!(score.slack, 1.5 / 6.5);
        assert_eq!(score.under, 1.0 / 3.0);
        assert_eq!(score.unmet, 1.0 / 6.0);
        assert_eq!(score.changes_per_day, 2.0);
    }

    #[test]
    fn a_trace_of_less_than_a_day_has_nothing_to_judge() {
        let trace = trace(&[1.0]);
        let terms = Terms::of_trace(&trace);
        assert!(!terms.judges(&trace));
        assert_eq!(Run::of(&trace, terms, vec![MilliCpu(1)]).score, Score::default());
    }

    #[test]
    fn what_was_recorded_for_less_than_a_day_is_judged_from_its_beginning() {
        let short = trace(&[1.0, 3.0]);
        let terms = Terms::of_recording(&short, MilliCpu(2_000));
        assert!(terms.judges(&short));
        // Slack: 1 + 0 of 4; under: one of two; unmet: 1 of 4; no change in half a day.
        let run = Run::of(&short, terms, vec![MilliCpu(2_000); 2]);
        assert_eq!(run.score, Score { slack: 0.25, under: 0.5, unmet: 0.25, changes_per_day: 0.0 });
        assert_eq!(replay(&short, terms, &mut Follow).allocated, [2_000, 1_000].map(MilliCpu));
        let long = trace(&[1.0, 3.0, 1.0]);
        let terms = Terms::of_recording(&long, MilliCpu(2_000));
        assert_eq!(terms, Terms { first_request: MilliCpu(2_000), ..Terms::of_trace(&long) });
    }

    /// Allocates what was just used.
    struct Follow;

    impl Sizer for Follow {
        fn next(&mut self, _: Timestamp, cores: f64, _: MilliCpu) -> MilliCpu {
            MilliCpu::ceil_cores(cores)
        }
    }

    #[test]
    fn an_allocation_is_judged_by_samples_that_came_after_it() {
        let trace = trace(&[1.0, 2.0, 3.0, 4.0]);
        let run = replay(&trace, Terms::of_trace(&trace), &mut Follow);
        assert_eq!(run.allocated, [2_000, 1_000, 2_000, 3_000].map(MilliCpu));
        assert_eq!(run.score.under, 1.0);
    }
}
