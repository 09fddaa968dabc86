//! A window: what happened between two snapshots. Sizing and alerting look at nothing else.
//!
//! [`Windows::between`] is a pure function of two snapshots. What can go wrong between them (a restart,
//! a removed cgroup, one that is new) is a [`Case`], so that a reader must say what it does with it
//! and cannot mistake a restart for a quiet time.
//!
//! # Invariants
//!
//! * No count is negative and none is invented: what cannot be compared counts from its own beginning.
//! * Windows of consecutive spans add up to the window of the whole span, and windows of containers to
//!   what one counter for all of them would have counted ([`Window::then`], [`Window::beside`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::abi::TOLD;
use crate::buckets;
use crate::histogram::{CoarseHistogram, LatencyHistogram, WentBack};
use crate::resources::{Limits, Memory, MemoryEvents, Pressure};
use crate::snapshot::{
    Cause, Causes, CgroupCounters, CgroupId, Counters, Cycles, Durations, Losses, Presence, Snapshot,
    Throttling, Unmet, merge_known,
};

/// Two snapshots between which there is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Of the same reader, and in the wrong order or the same one twice.
    #[error(
        "the later snapshot (taken at {later_ns} ns) is not later than the earlier one ({earlier_ns} ns)"
    )]
    NotLater {
        /// When the earlier one was taken.
        earlier_ns: u64,
        /// When the later one was taken.
        later_ns: u64,
    },
}

/// How the counts of a window came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Case {
    /// Not in the earlier snapshot: everything since it was first seen.
    New,
    /// In both: the difference.
    #[default]
    Continued,
    /// The reader was restarted, or a counter went back: what was counted since. What came before is
    /// missing.
    Reset,
    /// Removed in between: up to its last counts.
    Vanished,
}

/// One cgroup between two snapshots. The default is an empty one, of no time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// How the counts came about.
    pub case: Case,
    /// For how long was counted, in ns.
    pub length_ns: u64,
    /// Every delay, whatever its cause.
    pub latency: LatencyHistogram,
    /// Wait by cause.
    pub causes: Causes,
    /// CPU time that it would have used meanwhile, as in [`Counters::unmet`].
    pub unmet: Option<Unmet>,
    /// How its threads' cycles went with their waits, as in [`Counters::cycles`].
    pub cycles: Option<Cycles>,
    /// Delays by their largest cause, as in [`Counters::coarse`].
    pub coarse: [CoarseHistogram; TOLD],
    /// For how long which neighbours held the CPU (ns), the largest first.
    pub neighbors: Vec<(CgroupId, u64)>,
    /// What is left of the wait for neighbours: those that could not be named, in ns.
    pub unnamed_neighbor_ns: u64,
    /// CPU time used, in ns; 0 also where that is not known ([`Window::used_ns`]).
    pub usage_ns: u64,
    /// Throttling.
    pub throttling: Throttling,
    /// How often memory limits were met; `None` where that is not known.
    pub memory_events: Option<MemoryEvents>,
    /// Time stalled; `None` where that is not known. It is read less often than rows, so a window may have none of
    /// a longer span, or all of it.
    pub pressure: Option<Pressure>,
    /// The limits in force at its end. Several cgroups together have none.
    pub limits: Limits,
    /// Memory when it was last read; `None` where that is not known.
    pub memory: Option<Memory>,
}

impl Window {
    fn new(case: Case, length_ns: u64, counted: Counters, throttle_hooks: bool) -> Self {
        let Counters {
            latency,
            causes,
            unmet,
            cycles,
            coarse,
            neighbors,
            usage_ns,
            throttling,
            memory_events,
            pressure,
        } = if !throttle_hooks && counted.throttling.throttled() { untold(counted) } else { counted };
        let neighbors = largest_first(neighbors);
        let named_ns = neighbors.iter().fold(0u64, |sum, (_, ns)| sum.saturating_add(*ns));
        Self {
            case,
            length_ns,
            latency,
            causes,
            unmet,
            cycles,
            coarse,
            neighbors,
            unnamed_neighbor_ns: causes.neighbor_ns.saturating_sub(named_ns),
            usage_ns,
            throttling,
            memory_events,
            pressure,
            limits: Limits::default(),
            memory: None,
        }
    }

    /// This window and the one that follows it of the same cgroup, as one.
    pub fn then(mut self, next: &Self) -> Self {
        self.case = match (self.case, next.case) {
            (_, Case::Vanished) => Case::Vanished,
            (Case::Reset, _) | (_, Case::Reset) => Case::Reset,
            (first, _) => first,
        };
        self.length_ns = self.length_ns.saturating_add(next.length_ns);
        self.limits = next.limits;
        self.memory = next.memory.or(self.memory);
        self.add(next);
        self
    }

    /// This window and one of another cgroup in the same span, as one: a pod of its containers. The
    /// case is [`Case::Continued`] unless both have the same or a part is missing.
    pub fn beside(mut self, other: &Self) -> Self {
        self.case = match (self.case, other.case) {
            (Case::Reset, _) | (_, Case::Reset) => Case::Reset,
            (one, another) if one == another => one,
            _ => Case::Continued,
        };
        self.length_ns = self.length_ns.max(other.length_ns);
        self.limits = Limits::default();
        merge_known(&mut self.memory, &other.memory, |sum, other| *sum = sum.beside(other));
        self.add(other);
        self
    }

    fn add(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.causes.merge(&other.causes);
        merge_known(&mut self.unmet, &other.unmet, Unmet::merge);
        merge_known(&mut self.cycles, &other.cycles, Cycles::merge);
        for (sum, more) in self.coarse.iter_mut().zip(&other.coarse) {
            sum.merge(more);
        }
        let mut neighbors: BTreeMap<_, _> = self.neighbors.drain(..).collect();
        for (neighbor, ns) in &other.neighbors {
            let held_ns: &mut u64 = neighbors.entry(*neighbor).or_default();
            *held_ns = held_ns.saturating_add(*ns);
        }
        self.neighbors = largest_first(neighbors);
        self.unnamed_neighbor_ns = self.unnamed_neighbor_ns.saturating_add(other.unnamed_neighbor_ns);
        self.usage_ns = self.usage_ns.saturating_add(other.usage_ns);
        self.throttling.merge(&other.throttling);
        merge_known(&mut self.memory_events, &other.memory_events, MemoryEvents::merge);
        merge_known(&mut self.pressure, &other.pressure, Pressure::merge);
    }

    /// Wait in ns, of all threads.
    pub fn wait_ns(&self) -> u64 {
        self.latency.sum_ns()
    }

    /// Median delay in ns; `None` without delays.
    pub fn p50(&self) -> Option<u64> {
        self.latency.quantile(0.5)
    }

    /// 99th percentile of the delays in ns; `None` without delays.
    pub fn p99(&self) -> Option<u64> {
        self.latency.quantile(0.99)
    }

    /// No delay was longer than this (s); infinite when one was longer than 8 s. `None` without delays.
    pub fn highest_edge_seconds(&self) -> Option<f64> {
        self.latency.highest_edge_seconds()
    }

    /// This cause's part of the wait, in 0..=1; `None` where nothing waited.
    pub fn share(&self, cause: Cause) -> Option<f64> {
        self.causes.share(cause)
    }

    /// What most of the longest delays waited for: those in the octave of the 99th percentile or above,
    /// each with its largest cause. `None` without delays.
    pub fn tail_cause(&self) -> Option<Cause> {
        let octave = buckets::octave(self.latency.bucket_at(0.99)? as u32) as usize;
        let all = CoarseHistogram::from(&self.latency).from_octave(octave);
        let told = self.coarse.map(|of_cause| of_cause.from_octave(octave));
        let unknown = told.iter().fold(all, |left, told| left.saturating_sub(*told));
        let mut largest = (Cause::Unknown, unknown);
        // Backwards, so that of two equal ones it is the first.
        for (cause, delays) in Cause::ALL.into_iter().zip(told).rev() {
            if delays != 0 && delays >= largest.1 {
                largest = (cause, delays);
            }
        }
        Some(largest.0)
    }

    /// Part of its own limit's active periods in which it was throttled, in 0..=1; `None` without
    /// periods. (The kernel does not read its two counters at one moment.)
    pub fn throttled_share(&self) -> Option<f64> {
        let Throttling { periods, throttled_periods, .. } = self.throttling;
        (periods != 0).then(|| throttled_periods.min(periods) as f64 / periods as f64)
    }

    /// CPU time used, in ns; `None` where it is not known: threads were switched in, and so ran, but of a cgroup that was
    /// gone before it could be read, or of what has no slot, nobody says for how long.
    pub fn used_ns(&self) -> Option<u64> {
        (self.usage_ns != 0 || self.latency.is_empty()).then_some(self.usage_ns)
    }

    /// CPU used, in cores; `None` for an empty window, and where it is not known.
    pub fn used_cores(&self) -> Option<f64> {
        self.per_ns(self.used_ns()?)
    }

    /// Runnable time of all threads in ns: they ran or waited to run.
    pub fn runnable_ns(&self) -> u64 {
        self.usage_ns.saturating_add(self.wait_ns())
    }

    /// Threads that were runnable, on average; `None` for an empty window, and where it is not known for how long they
    /// ran.
    pub fn runnable(&self) -> Option<f64> {
        self.used_ns()?;
        self.per_ns(self.runnable_ns())
    }

    fn per_ns(&self, ns: u64) -> Option<f64> {
        (self.length_ns != 0).then(|| ns as f64 / self.length_ns as f64)
    }

    /// Whether anything was counted, whatever it is. Time that passed, limits and memory are not counts.
    pub fn has_counted(&self) -> bool {
        let Self {
            case, length_ns, limits, memory, unmet, cycles, throttling, memory_events, pressure, ..
        } = self;
        let durations = match throttling.durations {
            Durations::Counted(_) => Durations::default(),
            Durations::HooksUnavailable => Durations::HooksUnavailable,
        };
        // Everything else of a window is a count: also what may be added to it.
        let nothing = Self {
            case: *case,
            length_ns: *length_ns,
            limits: *limits,
            memory: *memory,
            unmet: unmet.map(|_| Unmet::default()),
            cycles: cycles.map(|_| Cycles::default()),
            throttling: Throttling { durations, ..Throttling::default() },
            memory_events: memory_events.map(|_| MemoryEvents::default()),
            pressure: pressure.map(|_| Pressure::default()),
            ..Self::default()
        };
        *self != nothing
    }
}

/// The same counts with every cause unknown: what is left to say of a container that was throttled while
/// nobody saw when. The hooks would have told its waits for the quota from the others; without them
/// each wait has been charged to whoever happened to hold the CPU.
fn untold(counted: Counters) -> Counters {
    let Causes { away_ns, beyond_ns, .. } = counted.causes;
    let untold_ns = counted.causes.total().saturating_sub(away_ns).saturating_sub(beyond_ns);
    Counters {
        causes: Causes { away_ns, beyond_ns, untold_ns, ..Causes::default() },
        coarse: Default::default(),
        neighbors: BTreeMap::new(),
        ..counted
    }
}

fn largest_first(neighbors: BTreeMap<CgroupId, u64>) -> Vec<(CgroupId, u64)> {
    let mut neighbors: Vec<_> = neighbors.into_iter().collect();
    neighbors.sort_by_key(|(neighbor, ns)| (std::cmp::Reverse(*ns), *neighbor));
    neighbors
}

/// Everything between two snapshots of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// From the earlier snapshot to the later one in ns; after a restart since that.
    pub length_ns: u64,
    /// Whether the kernel's throttle functions were hooked all the time.
    pub throttle_hooks: bool,
    /// Every cgroup of the later snapshot, but for those that were gone before the earlier one.
    pub cgroups: BTreeMap<CgroupId, Window>,
    /// Everything that has no slot of its own.
    pub other: Window,
    /// Cgroups that were there in the earlier snapshot and are not in the later one, not even as
    /// removed: what they did since is in no window.
    pub missed: BTreeSet<CgroupId>,
    /// What was lost, unattributed or clamped.
    pub losses: Losses,
    /// Context switches.
    pub switches: u64,
}

impl Windows {
    /// What happened between two snapshots.
    pub fn between(earlier: &Snapshot, later: &Snapshot) -> Result<Self, WindowError> {
        let span = Span::new(earlier, later)?;
        let windows = later.cgroups.iter().filter_map(|(id, cgroup)| {
            let window = span.cgroup(earlier.cgroups.get(id), cgroup)?;
            Some((*id, window))
        });
        let cgroups: BTreeMap<_, _> = windows.collect();
        // Those without a slot have no `cpu.stat` either. Where nothing else was throttled, they hardly were.
        let throttled = !span.throttle_hooks && cgroups.values().any(|window| window.throttling.throttled());
        let missed = earlier
            .cgroups
            .iter()
            .filter(|(id, cgroup)| cgroup.presence == Presence::Live && !later.cgroups.contains_key(id));
        Ok(Self {
            length_ns: span.length_ns(later.since_ns),
            throttle_hooks: span.throttle_hooks,
            cgroups,
            other: span.other(earlier, later, throttled),
            missed: missed.map(|(id, _)| *id).collect(),
            losses: span.since(&earlier.losses, &later.losses, Losses::since),
            switches: span.since(&earlier.switches, &later.switches, |later, earlier| {
                crate::histogram::growth("switches", *earlier, *later)
            }),
        })
    }
}

/// The time between two snapshots.
struct Span {
    /// Both are of the same life of the reader.
    one_life: bool,
    from_ns: u64,
    to_ns: u64,
    throttle_hooks: bool,
}

impl Span {
    fn new(earlier: &Snapshot, later: &Snapshot) -> Result<Self, WindowError> {
        let one_life = earlier.epoch == later.epoch;
        if one_life && later.at_ns <= earlier.at_ns {
            return Err(WindowError::NotLater { earlier_ns: earlier.at_ns, later_ns: later.at_ns });
        }
        Ok(Self {
            one_life,
            // The clock of another life may be of another boot.
            from_ns: if one_life { earlier.at_ns } else { 0 },
            to_ns: later.at_ns,
            throttle_hooks: later.throttle_hooks && (earlier.throttle_hooks || !one_life),
        })
    }

    /// How much of the span is covered by counters that began at `since_ns`.
    fn length_ns(&self, since_ns: u64) -> u64 {
        self.to_ns.saturating_sub(self.from_ns.max(since_ns))
    }

    /// The window of a cgroup of the later snapshot; `None` where it was gone before and nothing came
    /// after it.
    fn cgroup(&self, earlier: Option<&CgroupCounters>, later: &CgroupCounters) -> Option<Window> {
        let (case, counted) = match earlier {
            None => (Case::New, later.counters.clone()),
            Some(earlier) if earlier.since_ns == later.since_ns => {
                self.counted(&earlier.counters, &later.counters)
            }
            Some(_) => (Case::Reset, later.counters.clone()),
        };
        let case = if later.presence == Presence::Removed { Case::Vanished } else { case };
        // The last periods of what is gone were counted in a file that is gone, too.
        let unread = case == Case::Vanished && (later.limits.cpu.is_some() || counted.usage_ns == 0);
        let counted = if unread && !self.throttle_hooks { untold(counted) } else { counted };
        let window = Window {
            limits: later.limits,
            memory: later.memory,
            ..Window::new(case, self.length_ns(later.since_ns), counted, self.throttle_hooks)
        };
        let gone_before = earlier.is_some_and(|earlier| earlier.presence == Presence::Removed);
        (!gone_before || window.has_counted()).then_some(window)
    }

    /// The window of everything without a slot; with `throttled` some of it may have been, without anybody having
    /// seen when.
    fn other(&self, earlier: &Snapshot, later: &Snapshot, throttled: bool) -> Window {
        let (case, counted) = self.counted(&earlier.other, &later.other);
        let counted = if throttled { untold(counted) } else { counted };
        Window::new(case, self.length_ns(later.since_ns), counted, self.throttle_hooks)
    }

    fn counted(&self, earlier: &Counters, later: &Counters) -> (Case, Counters) {
        match later.since(earlier) {
            Ok(counted) if self.one_life => (Case::Continued, counted),
            _ => (Case::Reset, later.clone()),
        }
    }

    /// Growth of a counter, or all of it where it began anew.
    fn since<T: Copy>(&self, earlier: &T, later: &T, growth: impl Fn(&T, &T) -> Result<T, WentBack>) -> T {
        if self.one_life { growth(later, earlier).unwrap_or(*later) } else { *later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{self, CAUSES, PACES};
    use crate::buckets::{BUCKETS, OCTAVES, bucket, octave};
    use crate::resources::{CpuLimit, LimitOf};
    use crate::throttle::DURATIONS;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const ONE: CgroupId = CgroupId(1);
    const TWO: CgroupId = CgroupId(2);

    /// Something that is counted for a cgroup.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Delay { ns: u64, cause: abi::Cause },
        NeighborHeld { who: u64, ns: u64 },
        Used { ns: u64 },
        Period { throttled_ns: u64 },
        AncestorThrottled,
        Killed,
        Stalled { ns: u64 },
    }

    impl Event {
        fn count(self, counters: &mut Counters) {
            match self {
                Self::Delay { ns, cause } => count_delay(counters, ns, cause),
                Self::NeighborHeld { who, ns } => {
                    count_delay(counters, ns, abi::Cause::Neighbor);
                    counters.add_neighbor(CgroupId(who), ns);
                }
                Self::Used { ns } => counters.usage_ns += ns,
                Self::Period { throttled_ns } => {
                    let mut durations = [0; DURATIONS];
                    durations[throttled_ns as usize % DURATIONS] = 1;
                    counters.throttling.merge(&Throttling {
                        periods: 1,
                        throttled_periods: u64::from(throttled_ns != 0),
                        throttled_ns,
                        ancestors_throttled_periods: 0,
                        durations: Durations::Counted(durations),
                    });
                }
                Self::AncestorThrottled => counters.throttling.ancestors_throttled_periods += 1,
                Self::Killed => counters.memory_events.get_or_insert_default().oom_kill += 1,
                Self::Stalled { ns } => counters.pressure.get_or_insert_default().memory_some_ns += ns,
            }
        }
    }

    /// Counts a delay as the kernel does in its row.
    fn count_delay(counters: &mut Counters, ns: u64, cause: abi::Cause) {
        let (mut latency, mut wait_ns) = ([0; BUCKETS], [0; CAUSES]);
        let mut coarse = [[0; OCTAVES]; TOLD];
        latency[bucket(ns) as usize] = 1;
        wait_ns[cause as usize] = ns;
        if let Some(of_cause) = coarse.get_mut(cause as usize) {
            of_cause[octave(bucket(ns)) as usize] = 1;
        }
        // Some wait less than a unit.
        let units = (ns >> crate::pace::UNIT_LOG2_NS) as u32;
        let unmet: [u32; PACES] =
            std::array::from_fn(|busy| if ns as usize % PACES == busy { units } else { 0 });
        counters.add_row(&latency, &wait_ns, &coarse, &unmet);
    }

    fn counted(events: &[Event]) -> Counters {
        // The files are there, whether anything has happened or not.
        let mut counters = Counters {
            unmet: Some(Unmet::default()),
            memory_events: Some(MemoryEvents::default()),
            pressure: Some(Pressure::default()),
            ..Counters::default()
        };
        for event in events {
            event.count(&mut counters);
        }
        counters
    }

    fn delays(delays: &[(u64, abi::Cause)]) -> Counters {
        counted(&delays.iter().map(|(ns, cause)| Event::Delay { ns: *ns, cause: *cause }).collect::<Vec<_>>())
    }

    fn event() -> impl Strategy<Value = Event> {
        let delay = (1u64..40 * SECOND, 0..CAUSES)
            .prop_map(|(ns, cause)| Event::Delay { ns: ns >> (ns % 30), cause: abi::Cause::ALL[cause] });
        prop_oneof![
            4 => delay,
            2 => (3u64..8, 1u64..SECOND).prop_map(|(who, ns)| Event::NeighborHeld { who, ns }),
            1 => (0u64..SECOND).prop_map(|ns| Event::Used { ns }),
            1 => (0u64..SECOND).prop_map(|throttled_ns| Event::Period { throttled_ns }),
            1 => Just(Event::AncestorThrottled),
            1 => Just(Event::Killed),
            1 => (0u64..SECOND).prop_map(|ns| Event::Stalled { ns }),
        ]
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        prop::collection::vec(event(), 0..60)
    }

    fn cgroup(presence: Presence, since_ns: u64, counters: Counters) -> CgroupCounters {
        CgroupCounters { presence, since_ns, counters, ..CgroupCounters::default() }
    }

    fn live(counters: Counters) -> CgroupCounters {
        cgroup(Presence::Live, 0, counters)
    }

    /// A snapshot of reader 1, which began at 0, with throttle hooks.
    fn snapshot(at_ns: u64, cgroups: impl IntoIterator<Item = (CgroupId, CgroupCounters)>) -> Snapshot {
        Snapshot {
            epoch: 1,
            at_ns,
            throttle_hooks: true,
            cgroups: cgroups.into_iter().collect(),
            ..Snapshot::default()
        }
    }

    /// The window of a container for which this was counted within a second.
    fn window_of(counters: Counters, throttle_hooks: bool) -> Window {
        Window::new(Case::Continued, SECOND, counters, throttle_hooks)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_window_is_what_came_between(before in events(), between in events()) {
            let earlier = snapshot(SECOND, [(ONE, live(counted(&before)))]);
            let all = counted(&[before, between.clone()].concat());
            let later = snapshot(3 * SECOND, [(ONE, live(all))]);
            let windows = Windows::between(&earlier, &later).unwrap();
            let expected = Window::new(Case::Continued, 2 * SECOND, counted(&between), true);
            prop_assert_eq!(&windows.cgroups[&ONE], &expected);
        }

        #[test]
        fn consecutive_windows_add_up_to_the_whole(
            before in prop::option::of(events()), first in events(), second in events(), removed: bool,
        ) {
            let at_start = before.clone().map(|before| (ONE, live(counted(&before))));
            let since_ns = if before.is_some() { 0 } else { SECOND + 5 };
            let before = before.unwrap_or_default();
            let presence = if removed { Presence::Removed } else { Presence::Live };
            let middle = counted(&[before.clone(), first.clone()].concat());
            let end = counted(&[before, first, second].concat());
            let a = snapshot(SECOND, at_start);
            let b = snapshot(2 * SECOND, [(ONE, cgroup(Presence::Live, since_ns, middle))]);
            let c = snapshot(3 * SECOND, [(ONE, cgroup(presence, since_ns, end))]);
            let window = |earlier, later| Windows::between(earlier, later).unwrap().cgroups[&ONE].clone();
            prop_assert_eq!(window(&a, &b).then(&window(&b, &c)), window(&a, &c));
        }

        #[test]
        fn what_comes_after_the_removal_has_a_window_whatever_it_is(before in events(), after in events()) {
            let removed = |events: &[Event]| cgroup(Presence::Removed, 0, counted(events));
            let (last, later) = (removed(&before), removed(&[before, after.clone()].concat()));
            let came = last != later;
            let windows =
                Windows::between(&snapshot(SECOND, [(ONE, last)]), &snapshot(2 * SECOND, [(ONE, later)]));
            let windows = windows.unwrap().cgroups;
            let expected = Window::new(Case::Vanished, SECOND, counted(&after), true);
            prop_assert_eq!(windows.get(&ONE), came.then_some(&expected));
        }

        #[test]
        fn containers_add_up_to_one_that_counts_for_both(one in events(), two in events()) {
            let both = window_of(counted(&[one.clone(), two.clone()].concat()), true);
            let merged = window_of(counted(&one), true).beside(&window_of(counted(&two), true));
            prop_assert_eq!(merged, both);
        }

        #[test]
        fn every_wait_has_one_cause(events in events(), throttle_hooks: bool) {
            let window = window_of(counted(&events), throttle_hooks);
            let sum: u64 = Cause::ALL.iter().map(|cause| window.causes.of(*cause)).sum();
            prop_assert_eq!(sum, window.wait_ns());
            let named: u64 = window.neighbors.iter().map(|(_, ns)| ns).sum();
            prop_assert_eq!(named + window.unnamed_neighbor_ns, window.causes.neighbor_ns);
            prop_assert!(window.neighbors.is_sorted_by(|one, next| one.1 >= next.1));
        }

        #[test]
        fn no_two_snapshots_make_a_window_with_more_than_the_later_one_has(
            one in events(), two in events(), epochs in (0u64..2, 0u64..2), since in (0u64..2, 0u64..2),
        ) {
            let mut earlier = snapshot(SECOND, [(ONE, cgroup(Presence::Live, since.0, counted(&one)))]);
            let mut later = snapshot(2 * SECOND, [(ONE, cgroup(Presence::Live, since.1, counted(&two)))]);
            (earlier.epoch, later.epoch) = epochs;
            let windows = Windows::between(&earlier, &later).unwrap();
            let later = &later.cgroups[&ONE].counters;
            prop_assert!(later.latency.since(&windows.cgroups[&ONE].latency).is_ok());
            prop_assert!(later.causes.since(&windows.cgroups[&ONE].causes).is_ok());
            prop_assert!(windows.cgroups[&ONE].usage_ns <= later.usage_ns);
        }
    }

    #[test]
    fn a_new_cgroup_counts_from_its_first_sight() {
        let waited = delays(&[(5_000, abi::Cause::Idle)]);
        let earlier = snapshot(SECOND, []);
        let later = snapshot(5 * SECOND, [(ONE, cgroup(Presence::Live, 4 * SECOND, waited))]);
        let windows = Windows::between(&earlier, &later).unwrap();
        let window = &windows.cgroups[&ONE];
        assert_eq!((window.case, window.length_ns), (Case::New, SECOND));
        assert_eq!(window.latency.count(), 1);
        assert_eq!(windows.length_ns, 4 * SECOND);
    }

    #[test]
    fn a_removed_cgroup_has_one_window_with_its_last_counts() {
        let before = delays(&[(5_000, abi::Cause::Idle)]);
        let last = delays(&[(5_000, abi::Cause::Idle), (9_000, abi::Cause::System)]);
        let removed = cgroup(Presence::Removed, 0, last);
        let a = snapshot(SECOND, [(ONE, live(before))]);
        let b = snapshot(2 * SECOND, [(ONE, removed.clone())]);
        let c = snapshot(3 * SECOND, [(ONE, removed)]);
        let d = snapshot(4 * SECOND, []);

        let vanished = &Windows::between(&a, &b).unwrap().cgroups[&ONE];
        assert_eq!((vanished.case, vanished.latency.count()), (Case::Vanished, 1));
        assert!(Windows::between(&b, &c).unwrap().cgroups.is_empty());
        assert!(Windows::between(&c, &d).unwrap().missed.is_empty());
        assert_eq!(Windows::between(&a, &d).unwrap().missed, BTreeSet::from([ONE]));
    }

    #[test]
    fn a_cgroup_that_came_and_went_between_is_counted() {
        let waited = delays(&[(5_000, abi::Cause::Idle)]);
        let later = snapshot(2 * SECOND, [(ONE, cgroup(Presence::Removed, SECOND + 1, waited))]);
        let windows = Windows::between(&snapshot(SECOND, []), &later).unwrap();
        assert_eq!(windows.cgroups[&ONE].case, Case::Vanished);
        assert_eq!(windows.cgroups[&ONE].latency.count(), 1);
    }

    #[test]
    fn switch_ins_of_exiting_threads_after_the_removal_are_counted() {
        let removed = |delays_ns: &[(u64, abi::Cause)]| cgroup(Presence::Removed, 0, delays(delays_ns));
        let b = snapshot(2 * SECOND, [(ONE, removed(&[(5_000, abi::Cause::Idle)]))]);
        let last = [(5_000, abi::Cause::Idle), (7_000, abi::Cause::Own)];
        let c = snapshot(3 * SECOND, [(ONE, removed(&last))]);
        assert_eq!(Windows::between(&b, &c).unwrap().cgroups[&ONE].latency.count(), 1);
    }

    #[test]
    fn a_restarted_reader_counts_from_its_start_even_where_its_counters_are_larger() {
        let few = delays(&[(5_000, abi::Cause::Idle)]);
        let many = delays(&[(5_000, abi::Cause::Idle), (5_000, abi::Cause::Idle)]);
        let mut earlier = snapshot(SECOND, [(ONE, live(few.clone()))]);
        (earlier.other, earlier.switches, earlier.losses.names_lost) = (few.clone(), 100, 3);
        let mut later = snapshot(
            9 * SECOND,
            [(ONE, cgroup(Presence::Live, 7 * SECOND, many.clone())), (TWO, live(few.clone()))],
        );
        (later.epoch, later.since_ns, later.switches, later.losses.names_lost) = (2, 6 * SECOND, 150, 4);
        later.other = many;

        let windows = Windows::between(&earlier, &later).unwrap();
        let window = &windows.cgroups[&ONE];
        assert_eq!((window.case, window.length_ns), (Case::Reset, 2 * SECOND));
        assert_eq!(window.latency.count(), 2);
        assert_eq!(windows.cgroups[&TWO].case, Case::New);
        assert_eq!((windows.other.case, windows.other.latency.count()), (Case::Reset, 2));
        assert_eq!((windows.length_ns, windows.switches), (3 * SECOND, 150));
        assert_eq!(windows.losses.names_lost, 4);
    }

    #[test]
    fn a_reader_of_another_boot_has_an_earlier_clock() {
        let mut later = snapshot(SECOND, [(ONE, live(delays(&[(5_000, abi::Cause::Idle)])))]);
        later.epoch = 2;
        let windows = Windows::between(&snapshot(900 * SECOND, []), &later).unwrap();
        assert_eq!(windows.length_ns, SECOND);
        assert_eq!(windows.cgroups[&ONE].length_ns, SECOND);
    }

    #[test]
    fn a_counter_that_went_back_is_a_reset_and_never_negative() {
        let earlier = snapshot(SECOND, [(ONE, live(counted(&[Event::Used { ns: 10 }])))]);
        let later = snapshot(2 * SECOND, [(ONE, live(counted(&[Event::Used { ns: 4 }])))]);
        let window = &Windows::between(&earlier, &later).unwrap().cgroups[&ONE];
        assert_eq!((window.case, window.usage_ns, window.length_ns), (Case::Reset, 4, SECOND));
    }

    #[test]
    fn a_cgroup_that_the_reader_lost_and_saw_again_is_a_reset() {
        let earlier = snapshot(SECOND, [(ONE, live(delays(&[(5_000, abi::Cause::Idle)])))]);
        let again = delays(&[(5_000, abi::Cause::Idle), (9_000, abi::Cause::Idle)]);
        let later = snapshot(3 * SECOND, [(ONE, cgroup(Presence::Live, 2 * SECOND, again))]);
        let window = &Windows::between(&earlier, &later).unwrap().cgroups[&ONE];
        assert_eq!((window.case, window.latency.count()), (Case::Reset, 2));
        assert_eq!(window.length_ns, SECOND);
    }

    #[test]
    fn snapshots_in_the_wrong_order_are_an_error() {
        let (early, late) = (snapshot(SECOND, []), snapshot(2 * SECOND, []));
        let error = Windows::between(&late, &early).unwrap_err();
        assert_eq!(error, WindowError::NotLater { earlier_ns: 2 * SECOND, later_ns: SECOND });
        assert!(Windows::between(&early, &early).is_err());
    }

    #[test]
    fn losses_and_switches_are_differences() {
        let mut earlier = snapshot(SECOND, []);
        (earlier.switches, earlier.losses.no_baseline) = (100, 3);
        let mut later = snapshot(2 * SECOND, []);
        (later.switches, later.losses.no_baseline) = (150, 4);
        let windows = Windows::between(&earlier, &later).unwrap();
        assert_eq!((windows.switches, windows.losses.no_baseline), (50, 1));
    }

    #[test]
    fn without_hooks_all_wait_of_a_throttled_container_is_unknown() {
        let events = [
            Event::Delay { ns: 70_000_000, cause: abi::Cause::Own },
            Event::Delay { ns: 3_000_000, cause: abi::Cause::Away },
            Event::NeighborHeld { who: 9, ns: 4_000_000 },
        ];
        for throttled in [Event::Period { throttled_ns: 60_000_000 }, Event::AncestorThrottled] {
            let counters = counted(&[events.as_slice(), &[throttled]].concat());
            let window = window_of(counters, false);
            assert_eq!(window.share(Cause::Unknown), Some(1.0), "{throttled:?}");
            assert_eq!(window.tail_cause(), Some(Cause::Unknown));
            assert_eq!((window.causes.away_ns, window.causes.untold_ns), (3_000_000, 74_000_000));
            assert_eq!(window.wait_ns(), 77_000_000, "the wait itself was measured");
            assert_eq!((window.neighbors.len(), window.unnamed_neighbor_ns), (0, 0));
        }
    }

    #[test]
    fn without_hooks_the_wait_of_a_container_that_was_not_throttled_has_its_causes() {
        let counters = counted(&[
            Event::Delay { ns: 70_000_000, cause: abi::Cause::Own },
            Event::Period { throttled_ns: 0 },
        ]);
        assert_eq!(window_of(counters, false).share(Cause::Own), Some(1.0));
    }

    #[test]
    fn without_hooks_the_wait_of_what_has_no_slot_is_unknown_once_anything_was_throttled() {
        let other = |throttled, throttle_hooks| {
            let periods = if throttled { vec![Event::Period { throttled_ns: 1 }] } else { Vec::new() };
            let mut later = snapshot(2 * SECOND, [(ONE, live(counted(&periods)))]);
            later.other = counted(&[Event::Delay { ns: 70_000_000, cause: abi::Cause::Own }]);
            later.throttle_hooks = throttle_hooks;
            let mut earlier = snapshot(SECOND, []);
            earlier.throttle_hooks = throttle_hooks;
            Windows::between(&earlier, &later).unwrap().other.share(Cause::Unknown)
        };
        assert_eq!(other(true, false), Some(1.0));
        assert_eq!(other(false, false), Some(0.0));
        assert_eq!(other(true, true), Some(0.0));
    }

    #[test]
    fn without_hooks_the_last_wait_of_what_had_a_limit_or_was_never_read_is_unknown() {
        let limit = CpuLimit { quota_us: 50_000, period_us: 100_000, of: LimitOf::Own };
        let last = |limit: Option<CpuLimit>, usage_ns, throttle_hooks| {
            let delayed = counted(&[Event::Delay { ns: 70_000_000, cause: abi::Cause::Own }]);
            let mut gone = cgroup(Presence::Removed, SECOND, Counters { usage_ns, ..delayed });
            gone.limits.cpu = limit;
            let [mut earlier, mut later] = [snapshot(SECOND, []), snapshot(2 * SECOND, [(ONE, gone)])];
            (earlier.throttle_hooks, later.throttle_hooks) = (throttle_hooks, throttle_hooks);
            Windows::between(&earlier, &later).unwrap().cgroups[&ONE].share(Cause::Unknown)
        };
        assert_eq!(last(None, 1, false), Some(0.0));
        assert_eq!(last(Some(limit), 1, false), Some(1.0));
        assert_eq!(last(None, 0, false), Some(1.0));
        assert_eq!(last(Some(limit), 0, true), Some(0.0));
    }

    #[test]
    fn hooks_that_were_missing_for_a_part_were_missing() {
        let mut earlier = snapshot(SECOND, []);
        earlier.throttle_hooks = false;
        let mut later = snapshot(2 * SECOND, []);
        assert!(!Windows::between(&earlier, &later).unwrap().throttle_hooks);
        later.epoch = 2;
        assert!(Windows::between(&earlier, &later).unwrap().throttle_hooks, "another reader's hooks");
    }

    #[test]
    fn the_tail_has_the_cause_of_the_longest_delays_not_of_most() {
        let mut many = vec![(10_000, abi::Cause::Neighbor); 970];
        many.extend([(50_000_000, abi::Cause::Quota); 20]);
        many.extend([(51_000_000, abi::Cause::System); 10]);
        let window = window_of(delays(&many), true);
        assert_eq!(window.tail_cause(), Some(Cause::Quota));
        assert_eq!(window.p50().map(|ns| ns / 1_000), Some(10));
        let p99_ms = window.p99().map(|ns| ns / 1_000_000);
        assert!((47..=53).contains(&p99_ms.unwrap()), "{p99_ms:?}");
    }

    #[test]
    fn a_tail_that_nobody_can_explain_is_unknown() {
        let mut many = vec![(10_000, abi::Cause::Neighbor); 90];
        many.extend([(50_000_000, abi::Cause::Beyond); 6]);
        many.extend([(50_000_000, abi::Cause::Away); 4]);
        many.extend([(50_000_000, abi::Cause::Own); 9]);
        assert_eq!(window_of(delays(&many), true).tail_cause(), Some(Cause::Unknown));
        assert_eq!(window_of(Counters::default(), true).tail_cause(), None);
    }

    #[test]
    fn of_equally_large_causes_the_tail_has_the_first() {
        let two = [(50_000_000, abi::Cause::System), (50_000_000, abi::Cause::Own)];
        assert_eq!(window_of(delays(&two), true).tail_cause(), Some(Cause::Own));
    }

    #[test]
    fn rates_are_of_the_window_and_need_a_length() {
        let mut counters = delays(&[(500_000_000, abi::Cause::Idle)]);
        counters.usage_ns = 2 * SECOND;
        counters.throttling.periods = 10;
        counters.throttling.throttled_periods = 4;
        let window = window_of(counters.clone(), true);
        assert_eq!(window.used_cores(), Some(2.0));
        assert_eq!(window.runnable(), Some(2.5));
        assert_eq!(window.throttled_share(), Some(0.4));
        let unread = window_of(Counters { usage_ns: 0, ..counters }, true);
        assert_eq!((unread.used_ns(), unread.used_cores(), unread.runnable()), (None, None, None));
        assert_eq!(window_of(Counters::default(), true).used_cores(), Some(0.0), "nothing ran");
        let empty = Window::new(Case::New, 0, Counters::default(), true);
        assert_eq!((empty.used_cores(), empty.runnable(), empty.throttled_share()), (None, None, None));
    }

    #[test]
    fn cases_of_merged_windows_hide_no_gap() {
        use Case::*;
        let window = |case| Window::new(case, SECOND, Counters::default(), true);
        let then = |one, next| window(one).then(&window(next)).case;
        assert_eq!(then(New, Continued), New);
        assert_eq!(then(Continued, Vanished), Vanished);
        assert_eq!(then(New, Reset), Reset);
        assert_eq!(then(Reset, Continued), Reset);
        let beside = |one, other| window(one).beside(&window(other)).case;
        assert_eq!(beside(New, New), New);
        assert_eq!(beside(New, Continued), Continued);
        assert_eq!(beside(Vanished, Reset), Reset);
    }

    #[test]
    fn limits_and_memory_are_those_of_the_end_and_are_none_or_added_up_beside_others() {
        let memory = |bytes, read_ns| {
            Some(Memory {
                current_bytes: bytes,
                working_set_bytes: bytes / 2,
                peak_bytes: Some(bytes),
                read_ns,
            })
        };
        let limits = |bytes| Limits { memory_max_bytes: Some(bytes), ..Limits::default() };
        let window = |limits, memory| Window { limits, memory, ..window_of(counted(&[]), true) };
        let one = window(limits(10), memory(8, 1));
        let next = one.clone().then(&window(limits(20), memory(6, 2)));
        assert_eq!((next.limits, next.memory), (limits(20), memory(6, 2)));
        let unread = one.clone().then(&window(limits(20), None));
        assert_eq!((unread.limits, unread.memory), (limits(20), memory(8, 1)));
        let both = one.beside(&window(limits(20), memory(6, 2)));
        assert_eq!((both.limits, both.memory), (Limits::default(), memory(14, 1)));
    }
}
