//! How good an allocation was, by four figures.

use serde::Serialize;

use super::Sizer;
use super::trace::Trace;
use crate::decide::units::{MilliCpu, Timestamp};

/// Nothing is judged in the first so many seconds of a trace: everybody may learn from them.
pub const WARM_UP_SECONDS: u64 = 86_400;

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
    pub fn of(trace: &Trace, allocated: Vec<MilliCpu>) -> Self {
        let score = score(trace, &allocated);
        Self { allocated, score }
    }
}

/// The first allocation is twice the first sample: somebody's guess, which everybody starts from.
pub fn first_request(trace: &Trace) -> MilliCpu {
    trace.samples.first().map_or(MilliCpu::ZERO, |first| MilliCpu::ceil_cores(2.0 * first.1))
}

/// Replays a trace through another method.
pub fn replay(trace: &Trace, sizer: &mut dyn Sizer) -> Run {
    let mut current = first_request(trace);
    let mut allocated = Vec::with_capacity(trace.samples.len());
    for &(at, cores) in &trace.samples {
        allocated.push(current);
        current = sizer.next(at, cores, current);
    }
    Run::of(trace, allocated)
}

/// Whether a trace goes on for long enough that any sample is judged.
pub fn is_judged(trace: &Trace) -> bool {
    let ends = [trace.samples.first(), trace.samples.last()];
    matches!(ends, [Some(first), Some(last)] if last.0 >= first.0.plus_seconds(WARM_UP_SECONDS))
}

fn score(trace: &Trace, allocated: &[MilliCpu]) -> Score {
    let start = trace.samples.first().map_or(Timestamp::default(), |first| first.0);
    let judged_from = start.plus_seconds(WARM_UP_SECONDS);
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
        let score = score(&trace, &allocated);
        // Slack: 1 + 0 + 0.5 of 6.5; under: one of three; unmet: 1 of 6; changes: on the first and the third that
        // count, within a day.
        assert_eq!(score.slack, 1.5 / 6.5);
        assert_eq!(score.under, 1.0 / 3.0);
        assert_eq!(score.unmet, 1.0 / 6.0);
        assert_eq!(score.changes_per_day, 2.0);
    }

    #[test]
    fn a_trace_of_less_than_a_day_has_nothing_to_judge() {
        assert_eq!(score(&trace(&[1.0]), &[MilliCpu(1)]), Score::default());
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
        let run = replay(&trace(&[1.0, 2.0, 3.0, 4.0]), &mut Follow);
        assert_eq!(run.allocated, [2_000, 1_000, 2_000, 3_000].map(MilliCpu));
        assert_eq!(run.score.under, 1.0);
    }
}
