//! Demand: the CPU that a container would use on this node if nothing held it back.
//!
//! Usage cannot say it: a container that is held back uses what it is given. Its threads' waits can. A thread that
//! works and sleeps by turns does so at its own pace whenever it does not wait, and the programs know that pace of each
//! thread ([`crate::pace`]). So they count with each wait what the thread would have used meanwhile ([`Unmet`]), and
//!
//! ```text
//! demand = (usage + unmet) ÷ length of the window
//! ```
//!
//! Of what threads with a pace missed, that is left out which they make up for by themselves: those that work at fixed times
//! sleep the less the longer they waited, which their cycles show ([`crate::cycles`]).
//!
//! Every wait is lifted but `idle`, which is wake-up latency and no demand. What its threads wait for each other is lifted
//! too, as far as the node has CPUs.
//!
//! # What it cannot say
//!
//! * Work that arrives at a rate of its own and piles up looks like a thread that always has work. So what busy
//!   threads miss is a guess: the truth lies within the bounds, confidence is low, and a window after a raise tells.
//! * Whether threads work at fixed times, where their waits differ little, or less than their sleeps differ anyway, or where
//!   sums of cycles are missing (recordings of before format 3). Then the point is what they would use if they did not, and
//!   confidence is low as far as that matters.
//! * Threads of both kinds in one container: their cycles are added up, so the slope lies in between and is no part of what
//!   they missed. It is believed near 1 only; else the point is what all would use if none worked at fixed times, and
//!   confidence is low. Where those that work at fixed times have almost all of the waits that differ, it is too low.
//! * Work at fixed times of which some waits until the next comes: such a burst has two pieces and a sleep of its own, so
//!   that only a part of it shows (on Linux 6.1, two threads at a limit of 1.2 times what they use: 44 % too high, with a
//!   confidence of 0.73).
//! * That work which arrives at random, and keeps a thread busy for longer after a wait, would be no more without it: its
//!   demand is told higher (work that takes 0.2 of a CPU, by 15 % where it waits for as long as each piece takes, by 43 %
//!   where for three times as long), and confidence does not know it.
//! * Threads that work by turns and are more than the node has CPUs for wait for each other also when nothing else holds
//!   them back: the point is what they would use with a CPU for each, up to the CPUs of the node.
//! * What a thread waits beyond the ends of the window is off: by its longest wait at most, which confidence
//!   allows for where a wait as long has ended in the window. Of a container of which none has, demand is its use, and
//!   confidence is low where it was throttled meanwhile, and does not know of neighbours that starved it.
//!
//! # Without pace
//!
//! Recordings of format version 1 have no [`Unmet`]. Then all that is known is what `n` threads ran and waited together: if in a
//! window of length 1 they ran for `R` and waited for `W`, they would have used
//!
//! ```text
//! D(n) = R ÷ (1 − W ÷ n)
//! ```
//!
//! which is less the more threads share the wait: from `R + W`, where all of them were runnable all the time, down to
//! `R`. There is at least one, there are at least as many as were runnable on average, and at least as many as ended
//! waits for the quota per throttled period. The point is `D` of the largest of these: too high for several threads that
//! sleep now and then, which look like fewer that never do. With a pace this is the upper bound.

mod made_up;

use serde::{Deserialize, Serialize};

use made_up::MadeUp;

use crate::resources::LimitOf;
use crate::snapshot::{Cause, Durations, Throttling, Unmet};
use crate::window::Window;

/// Demand that is above usage by less than this part of itself is not held back: sizes are not that exact.
const NEGLIGIBLE: f64 = 0.05;

/// CPU that a container would use were it there, in cores: `lower ≤ point ≤ upper`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// What its threads would use if they went on at their own pace.
    pub point: f64,
    /// What it did use: all that is certain.
    pub lower: f64,
    /// The most that such use and such waits allow; never above the node's CPUs.
    pub upper: f64,
    /// What holds it back most.
    pub bottleneck: Bottleneck,
    /// How sure the point is, in 0..=1: what was used, and what threads with a known pace would have used at least, as a part
    /// of what all would have, and of what waits that are not over may add. Without any pace, the lower bound as a part of
    /// the upper. 1 where nothing waited, 0 for an empty window.
    pub confidence: f64,
}

/// What holds a container back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// Nothing.
    None,
    /// Its own CPU limit.
    Quota,
    /// The CPU limit of a cgroup above it.
    AncestorQuota,
    /// The CPUs of the node, or those that it may run on: its threads wait for each other and for little else.
    Own,
    /// Other containers.
    Neighbors,
    /// Processes outside any container.
    System,
    /// Something that cannot be told.
    Unknown,
}

/// Demand of the container of this window on a node of so many CPUs.
///
/// Never below usage, and equal to it where nothing waited. More usage or more wait never lowers any of the three
/// figures. They do not depend on the unit of time.
pub fn estimate(window: &Window, cpus: u32) -> Demand {
    let Some(held) = Held::of(window) else {
        return Demand { point: 0.0, lower: 0.0, upper: 0.0, bottleneck: Bottleneck::None, confidence: 0.0 };
    };
    // Usage and time are not read at one moment.
    let most = held.used.max(f64::from(cpus));
    let upper = held.upper().clamp(held.used, most);
    let point = held.point().clamp(held.used, upper);
    Demand {
        point,
        lower: held.used,
        upper,
        bottleneck: held.bottleneck(window, most),
        confidence: held.confidence(point, upper),
    }
}

/// A window as parts of its length.
struct Held {
    /// Run time.
    used: f64,
    /// Wait for the quota.
    quota: f64,
    /// Wait for other containers and processes, and what cannot be told.
    others: f64,
    /// Wait for its own threads.
    own: f64,
    /// What it would have used while it waited, of threads with a pace and of busy ones; `None` where that is not known.
    unmet: Option<[f64; 2]>,
    /// How much of what those with a pace would have used they make up for anyway.
    made_up: MadeUp,
    /// Time throttled by its own limit; `None` where that cannot be told.
    throttled: Option<f64>,
    /// Threads that it takes to end so many waits for the quota: one ends one in each throttled period, and perhaps
    /// one that began before the window.
    queued: f64,
    /// For how long it was held back though none of its waits has ended: what is missing then is not known.
    unseen: f64,
    /// Its longest wait: one as long may be on at the end of the window, and not be counted yet.
    longest: f64,
}

impl Held {
    /// `None` for an empty window.
    fn of(window: &Window) -> Option<Self> {
        let used = window.used_cores()?;
        let length_ns = window.length_ns as f64;
        let part = |ns: u64| ns as f64 / length_ns;
        let causes = &window.causes;
        let quota_delays = window.coarse[Cause::Quota as usize].count();
        Some(Self {
            used,
            quota: part(causes.quota_ns),
            others: part(causes.neighbor_ns) + part(causes.system_ns) + part(causes.unknown_ns()),
            own: part(causes.self_ns),
            unmet: window.unmet.map(|Unmet { paced_ns, busy_ns }| [part(paced_ns), part(busy_ns)]),
            made_up: window.cycles.as_ref().map_or(MadeUp::UNKNOWN, MadeUp::of),
            throttled: throttled_ns(&window.throttling).map(|ns| ns / length_ns),
            queued: quota_delays.div_ceil(window.throttling.throttled_periods.saturating_add(1)) as f64,
            unseen: unseen_ns(window).min(window.length_ns) as f64 / length_ns,
            longest: (window.highest_edge_seconds().unwrap_or(0.0) * 1e9 / length_ns).min(1.0),
        })
    }

    fn wait(&self) -> f64 {
        self.quota + self.others + self.own
    }

    /// Threads that were runnable on average, or one.
    fn threads(&self) -> f64 {
        (self.used + self.wait()).max(1.0)
    }

    fn point(&self) -> f64 {
        match self.unmet {
            Some([paced, busy]) => self.used + paced * (1.0 - self.made_up.part) + busy,
            None => at_own_pace(self.used, self.wait(), self.threads().max(self.queued)),
        }
    }

    fn confidence(&self, point: f64, upper: f64) -> f64 {
        let (sure, unsure) = match self.unmet {
            Some([paced, busy]) => {
                let MadeUp { part, least, most } = self.made_up;
                let sure = (self.used + paced * (1.0 - most)).min(point);
                let more = paced * (part - least);
                (sure, point - sure + more + (paced + busy).min(point) * self.longest)
            }
            None => (self.used, upper - self.used),
        };
        let unsure = unsure + self.unseen;
        if unsure > 0.0 { sure / (sure + unsure) } else { 1.0 }
    }

    fn upper(&self) -> f64 {
        if self.wait() <= 0.0 {
            return self.used;
        }
        let wait = self.wait() + self.threads() * self.longest;
        let runnable = at_own_pace(self.used, wait, (self.used + wait).max(1.0));
        // No thread was throttled for longer than the container, and between throttles no more ran than were runnable.
        match self.throttled.map(|throttled| 1.0 - throttled - self.longest) {
            Some(between) if between > 0.0 => runnable.min((self.used + self.own + self.others) / between),
            _ => runnable,
        }
    }

    /// That whose end would bring most, if the end of all would bring anything to speak of. What its own threads wait for
    /// each other remains when the rest is lifted, so it is named only where it costs far more.
    fn bottleneck(&self, window: &Window, most: f64) -> Bottleneck {
        let gain = |wait: f64| at_own_pace(self.used, wait, self.threads()).min(most) - self.used;
        let all = match self.unmet {
            Some(_) => self.point().min(self.used + self.wait()),
            None => at_own_pace(self.used, self.wait(), self.threads()),
        };
        if all - self.used <= NEGLIGIBLE * all {
            return Bottleneck::None;
        }
        let (others, own) = (gain(self.quota + self.others), gain(self.own));
        // Of one that did not run at all neither alone would bring anything.
        let waited_for_its_own = others <= 0.0 && self.own > self.quota + self.others;
        if own > 2.0 * others || waited_for_its_own { Bottleneck::Own } else { most_waited_for(window) }
    }
}

/// What `threads`, at least as many as were runnable on average, that used so much and waited so much would have used
/// without the wait. All of them, where they did nothing but wait.
fn at_own_pace(used: f64, wait: f64, threads: f64) -> f64 {
    let pace = threads - wait;
    if pace > 0.0 { used + used * wait / pace } else { threads }
}

/// For how long a container of which no wait was counted was throttled, in ns of all CPUs added up. (Pressure would tell of
/// one that neighbours starve too, but it is read less often: it may be of a time before the window.)
fn unseen_ns(window: &Window) -> u64 {
    if window.causes.total() == 0 { window.throttling.throttled_ns } else { 0 }
}

/// For how long a container was throttled by its own limit: as long as a throttle of one of its run queues lasted on
/// average, in each period with one. `None` without throttles and where their number or whose they were is not known.
fn throttled_ns(throttling: &Throttling) -> Option<f64> {
    let Durations::Counted(durations) = throttling.durations else { return None };
    let throttles = durations.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
    if throttles == 0 || throttling.ancestors_throttled_periods != 0 {
        return None;
    }
    Some(throttling.throttled_ns as f64 / throttles as f64 * throttling.throttled_periods as f64)
}

/// The cause, its own threads aside, of most of the wait.
fn most_waited_for(window: &Window) -> Bottleneck {
    let (mut largest, mut largest_ns) = (Bottleneck::None, 0);
    for cause in Cause::ALL {
        let is = match cause {
            Cause::Quota => quota(window),
            Cause::Own | Cause::Idle => continue,
            Cause::Neighbor => Bottleneck::Neighbors,
            Cause::System => Bottleneck::System,
            Cause::Unknown if window.causes.untold_ns != 0 => quota(window),
            Cause::Unknown => Bottleneck::Unknown,
        };
        if window.causes.of(cause) > largest_ns {
            (largest, largest_ns) = (is, window.causes.of(cause));
        }
    }
    largest
}

/// Whose limit throttles.
fn quota(window: &Window) -> Bottleneck {
    let Throttling { throttled_periods, ancestors_throttled_periods, .. } = window.throttling;
    match window.limits.cpu {
        _ if ancestors_throttled_periods == 0 => Bottleneck::Quota,
        _ if throttled_periods == 0 => Bottleneck::AncestorQuota,
        Some(limit) if limit.of == LimitOf::Ancestor => Bottleneck::AncestorQuota,
        _ => Bottleneck::Quota,
    }
}

#[cfg(test)]
mod tests;
