//! What the last window says against the objective, and for how long there has been room.
//!
//! A window that says only what was used has no signal: objective feedback is then off.
//!
//! | bottleneck | what sizing can do about it |
//! |---|---|
//! | quota | raise the limit, if the policy controls limits; else say so |
//! | a quota above it | nothing: say whose |
//! | neighbours, system, unknown | raise the request, by which the kernel shares CPUs |
//! | its own threads | nothing: say so |

use std::collections::BTreeSet;

use sampler_common::abi::TOLD;
use sampler_common::buckets;
use sampler_common::demand::{self, Bottleneck, Demand};
use sampler_common::histogram::{CoarseHistogram, midpoint_ns};
use sampler_common::snapshot::{Cause, Causes, Durations};
use sampler_common::window::Window;
use serde::{Deserialize, Serialize};

use crate::decide::duration::{Micros, Seconds};
use crate::decide::policy::Objectives;
use crate::decide::share::PerMille;
use crate::decide::units::Timestamp;

/// A window, as far as sizing looks at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// CPU that it would use if nothing held it back.
    pub demand: Demand,
    /// 99th percentile of the waits whose causes count; `None` where nothing waited for them.
    pub p99_wait: Option<Micros>,
    /// Wait by cause, in ns.
    pub causes: Causes,
    /// What most of the longest waits waited for; `None` without waits.
    pub tail_cause: Option<Cause>,
    /// Part of its limit's periods in which it was throttled; `None` without a limit.
    pub throttled_share: Option<PerMille>,
    /// Part of such a period for which it was, on average; 0 where that is not known.
    pub throttled_depth: PerMille,
    /// CPUs of the node.
    pub node_cpus: u32,
    /// Length of the window, in whole seconds.
    pub length: Seconds,
    /// For how long the objective has been met with room to spare ([`Calm`]).
    pub calm: Seconds,
    /// For how long nobody has kept it waiting for more than half of what is allowed ([`Calm`]); `None`: as long as is known.
    pub unpressed: Option<Seconds>,
}

/// A window against the objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Met, by half or less of what is allowed.
    Room,
    /// Met.
    Met,
    /// Missed.
    Missed {
        /// Waits are too long.
        wait: bool,
        /// It is throttled too often.
        throttled: bool,
    },
}

/// Confidence in a demand from which on its point is believed; below, its bounds are further apart than a
/// factor of two.
const BELIEVED: f64 = 0.5;
/// Length of a CPU limit's period where the window does not say, in ns.
const PERIOD_NS: f64 = 100e6;

impl Signal {
    /// What a window of a container on a node of so many CPUs says; `None` for an empty one. `objective` says which
    /// causes of wait count.
    pub fn of(window: &Window, node_cpus: u32, objective: &Objectives) -> Option<Self> {
        if window.length_ns == 0 {
            return None;
        }
        let share = |part: f64| PerMille((part.clamp(0.0, 1.0) * 1000.0).round() as u32);
        Some(Self {
            demand: demand::estimate(window, node_cpus),
            p99_wait: p99_ns(window, &objective.causes).map(|ns| Micros(ns.div_ceil(1000))),
            causes: window.causes,
            tail_cause: window.tail_cause(),
            throttled_share: window.throttled_share().map(share),
            throttled_depth: share(throttled_depth(window)),
            node_cpus,
            length: Seconds(window.length_ns / 1_000_000_000),
            calm: Seconds(0),
            unpressed: None,
        })
    }

    /// Against the objective.
    pub fn verdict(&self, objective: &Objectives) -> Verdict {
        let throttled_share = self.throttled_share.unwrap_or_default();
        let wait = self.p99_wait.is_some_and(|wait| wait > objective.p99_wait);
        let throttled = throttled_share > objective.throttled_share;
        if wait || throttled {
            return Verdict::Missed { wait, throttled };
        }
        let short = self.p99_wait.is_none_or(|wait| wait.0 <= objective.p99_wait.0 / 2);
        if short && throttled_share.0 <= objective.throttled_share.0 / 2 {
            Verdict::Room
        } else {
            Verdict::Met
        }
    }

    /// Whether others, or nobody knows who, kept it waiting for more than half of what is allowed: then it matters what share
    /// of the node it has. Its own threads and its limit do so whatever its request is.
    fn is_pressed(&self, objective: &Objectives) -> bool {
        let long = self.p99_wait.is_some_and(|wait| wait.0 > objective.p99_wait.0 / 2);
        let own = self.demand.bottleneck == Bottleneck::Own
            || matches!(self.tail_cause, Some(Cause::Quota | Cause::Own | Cause::Idle));
        long && !own
    }

    /// Whether the demand's point is believed: its bounds lie within a factor of two.
    pub fn is_sure(&self) -> bool {
        self.demand.confidence >= BELIEVED
    }

    /// CPU, in cores, to give it now. Where the demand is sure that is its point. Where it is not, it is at least twice what it
    /// uses, towards the upper bound, and the window after it will tell.
    pub fn wanted(&self) -> f64 {
        let Demand { point, lower, upper, .. } = self.demand;
        if self.is_sure() { point } else { point.max(2.0 * lower).min(upper) }
    }

    /// CPU, in cores, to remember as used ([`History::observe`](crate::decide::history::History::observe)): what is held
    /// back would otherwise be remembered as small, and be held back again. What its own limit withholds is
    /// remembered; what others do up to twice the use, since it may be less; what its own threads do not at all.
    pub fn remembered(&self) -> f64 {
        let Demand { point, lower, bottleneck, .. } = self.demand;
        match bottleneck {
            Bottleneck::Quota => point,
            Bottleneck::Own => lower,
            _ => point.min(2.0 * lower),
        }
    }
}

/// 99th percentile of the waits of these causes in ns. A wait's cause is known by octave; within an octave the causes
/// are taken to be spread alike.
fn p99_ns(window: &Window, causes: &BTreeSet<Cause>) -> Option<u64> {
    let counts = window.latency.counts();
    let all = CoarseHistogram::from(&window.latency).counts;
    let mut counted = [0.0; buckets::OCTAVES];
    for (octave, (part, all)) in counted.iter_mut().zip(all).enumerate() {
        let of = |cause: usize| window.coarse[cause].counts[octave];
        let told: u64 = (0..TOLD).map(of).sum();
        let known: u64 = (0..TOLD).filter(|cause| causes.contains(&Cause::ALL[*cause])).map(of).sum();
        let unknown = if causes.contains(&Cause::Unknown) { all.saturating_sub(told) } else { 0 };
        if all > 0 {
            *part = ((known + unknown) as f64 / all as f64).min(1.0);
        }
    }
    let weight =
        |(bucket, count): (usize, &u64)| *count as f64 * counted[buckets::octave(bucket as u32) as usize];
    let total: f64 = counts.iter().enumerate().map(weight).sum();
    let mut sum = 0.0;
    let bucket = counts.iter().enumerate().position(|bucket| {
        sum += weight(bucket);
        sum > 0.0 && sum >= 0.99 * total * (1.0 - 1e-12)
    })?;
    Some(midpoint_ns(bucket))
}

/// How much of a period with a throttle it was throttled for, in 0..=1.
fn throttled_depth(window: &Window) -> f64 {
    let Durations::Counted(durations) = &window.throttling.durations else { return 0.0 };
    let throttles: f64 = durations.iter().map(|count| *count as f64).sum();
    let period_ns = window.limits.cpu.map_or(PERIOD_NS, |limit| limit.period_us as f64 * 1000.0);
    if throttles > 0.0 { window.throttling.throttled_ns as f64 / throttles / period_ns } else { 0.0 }
}

/// Since when the objective has been met with room. Part of the state that is kept of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calm {
    since: Option<Timestamp>,
    pressed: Option<Timestamp>,
}

impl Calm {
    /// Takes note of a window that ended at `now`, and tells its signal what came before it.
    pub fn tell(&mut self, signal: &mut Signal, objective: &Objectives, now: Timestamp) {
        let began = Timestamp(now.0.saturating_sub(signal.length.0));
        self.after(signal.verdict(objective), began);
        signal.calm = Seconds(self.since.map_or(0, |since| now.seconds_since(since)));
        if signal.is_pressed(objective) {
            self.pressed = Some(now);
        }
        signal.unpressed = self.pressed.map(|at| Seconds(now.seconds_since(at)));
    }

    /// Takes note of a window that ended at `now`, and says for how long there has been room.
    pub fn after(&mut self, verdict: Verdict, now: Timestamp) -> Seconds {
        self.since = (verdict == Verdict::Room).then(|| self.since.unwrap_or(now));
        Seconds(self.since.map_or(0, |since| now.seconds_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::policy::Policy;

    /// So many waits of each length (ns) and cause.
    fn window(waits: &[(u64, u64, Cause)]) -> Window {
        let mut window = Window { length_ns: 10_000_000_000, usage_ns: 1_000_000_000, ..Window::default() };
        for &(count, ns, cause) in waits {
            for _ in 0..count {
                window.latency.record(ns);
            }
            let octave = buckets::octave(buckets::bucket(ns)) as usize;
            if let Some(of_cause) = window.coarse.get_mut(cause as usize) {
                of_cause.counts[octave] += count;
            }
        }
        window
    }

    fn signal(waits: &[(u64, u64, Cause)]) -> Signal {
        Signal::of(&window(waits), 8, &Policy::default().objectives).unwrap()
    }

    #[test]
    fn waits_for_the_quota_have_an_objective_of_their_own() {
        let short = (990, 100_000, Cause::Neighbor);
        let throttles = (500, 80_000_000, Cause::Quota);
        let p99 = |waits: &[_]| signal(waits).p99_wait.map(|wait| wait.0);
        let alone = p99(&[short]).unwrap();
        assert!((95..=105).contains(&alone), "{alone}");
        assert_eq!(p99(&[short, throttles]), Some(alone));
        assert_eq!(p99(&[throttles]), None);
        // What cannot be told counts.
        let untold = p99(&[short, (50, 40_000_000, Cause::Unknown)]).unwrap();
        assert!((38_000..=42_000).contains(&untold), "{untold}");
        assert_eq!(Signal::of(&Window::default(), 8, &Policy::default().objectives), None);
    }

    #[test]
    fn a_verdict_has_room_up_to_half_of_what_is_allowed() {
        let objectives = Policy::default().objectives;
        let verdict = |wait_us: u64, throttled: u32| {
            let signal = Signal {
                p99_wait: Some(Micros(wait_us)),
                throttled_share: Some(PerMille(throttled)),
                ..signal(&[])
            };
            signal.verdict(&objectives)
        };
        // 10 ms and 1 % by default.
        assert_eq!(verdict(5_000, 5), Verdict::Room);
        assert_eq!(verdict(5_001, 0), Verdict::Met);
        assert_eq!(verdict(0, 6), Verdict::Met);
        assert_eq!(verdict(10_000, 10), Verdict::Met);
        assert_eq!(verdict(10_001, 0), Verdict::Missed { wait: true, throttled: false });
        assert_eq!(verdict(0, 11), Verdict::Missed { wait: false, throttled: true });
    }

    #[test]
    fn what_others_keep_waiting_is_pressed_and_what_keeps_itself_waiting_is_not() {
        let objectives = Policy::default().objectives;
        let mut calm = Calm::default();
        let mut after = |seconds: u64, wait_us: u64, cause: Cause| {
            let mut signal = Signal {
                p99_wait: Some(Micros(wait_us)),
                tail_cause: Some(cause),
                throttled_share: None,
                ..signal(&[])
            };
            calm.tell(&mut signal, &objectives, Timestamp(1_000 + seconds));
            (signal.calm.0, signal.unpressed.map(|unpressed| unpressed.0))
        };
        // Windows are of 10 s, all of which counts.
        assert_eq!(after(10, 5_000, Cause::Neighbor), (10, None));
        assert_eq!(after(20, 20_000, Cause::Own), (0, None));
        assert_eq!(after(30, 100, Cause::Own), (10, None));
        // Half of the 10 ms that are allowed.
        assert_eq!(after(40, 5_001, Cause::Neighbor), (0, Some(0)));
        assert_eq!(after(70, 100, Cause::Neighbor), (10, Some(30)));
        assert_eq!(after(80, 100, Cause::Neighbor), (20, Some(40)));
    }

    #[test]
    fn calm_lasts_from_the_first_window_with_room_to_the_first_without() {
        let mut calm = Calm::default();
        let at = |seconds: u64| Timestamp(1_000 + seconds);
        assert_eq!(calm.after(Verdict::Room, at(0)), Seconds(0));
        assert_eq!(calm.after(Verdict::Room, at(300)), Seconds(300));
        assert_eq!(calm.after(Verdict::Met, at(330)), Seconds(0));
        assert_eq!(calm.after(Verdict::Room, at(360)), Seconds(0));
        assert_eq!(calm.after(Verdict::Room, at(370)), Seconds(10));
    }
}
