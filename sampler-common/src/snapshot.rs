//! A snapshot: every counter of every cgroup of a node at one moment, cumulative.
//!
//! The sampler's reader makes it from the kernel's rows and `cpu.stat`; [`crate::window`] subtracts two
//! of them. Nothing here is a rate, and nothing is ever reset: a reader may take snapshots as often as
//! it likes, and two readers of the same snapshots come to the same windows.
//!
//! # Invariants
//!
//! * Within one life of the reader ([`Snapshot::epoch`]) no counter goes back.
//! * A cgroup that is removed is in the snapshots once more at least, as [`Presence::Removed`] with its
//!   last counts, before it is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::abi::{self, CAUSES, PACES, TOLD};
use crate::buckets::{BUCKETS, OCTAVES};
use crate::cycles::TERMS;
use crate::histogram::{CoarseHistogram, LatencyHistogram, WentBack, add_all, growth, growths};
use crate::identity::Identity;
use crate::pace::UNIT_LOG2_NS;
use crate::resources::{Limits, Memory, MemoryEvents, Pressure};
use crate::throttle::DURATIONS;

/// A cgroup's id: the inode number of its directory. The kernel does not reuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupId(pub u64);

impl CgroupId {
    /// The root of a hierarchy.
    pub const ROOT: Self = Self(1);
}

impl std::fmt::Display for CgroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What held the CPU during a wait, as Loadline shows it.
///
/// The kernel's [`abi::Cause`] has two kinds of what is [`Cause::Unknown`] here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The cgroup, or an ancestor, was throttled by its CPU limit.
    Quota,
    /// The container's own other threads.
    #[serde(rename = "self")]
    Own,
    /// Another container.
    Neighbor,
    /// A process outside any container.
    System,
    /// Nobody: wake-up latency.
    Idle,
    /// It cannot be told.
    Unknown,
}

impl Cause {
    /// All of them; the first [`TOLD`] are those that can be told, in the order of
    /// [`Counters::coarse`].
    pub const ALL: [Self; TOLD + 1] =
        [Self::Quota, Self::Own, Self::Neighbor, Self::System, Self::Idle, Self::Unknown];

    /// Its name in metrics and on screens.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Own => "self",
            Self::Neighbor => "neighbor",
            Self::System => "system",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        }
    }
}

impl From<abi::Cause> for Cause {
    fn from(cause: abi::Cause) -> Self {
        match cause {
            abi::Cause::Quota => Self::Quota,
            abi::Cause::Own => Self::Own,
            abi::Cause::Neighbor => Self::Neighbor,
            abi::Cause::System => Self::System,
            abi::Cause::Idle => Self::Idle,
            abi::Cause::Away | abi::Cause::Beyond => Self::Unknown,
        }
    }
}

/// Wait in ns by cause. The last three fields are the parts of what is [`Cause::Unknown`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Causes {
    /// [`Cause::Quota`]
    pub quota_ns: u64,
    /// [`Cause::Own`]
    pub self_ns: u64,
    /// [`Cause::Neighbor`]
    pub neighbor_ns: u64,
    /// [`Cause::System`]
    pub system_ns: u64,
    /// [`Cause::Idle`]
    pub idle_ns: u64,
    /// Unknown: waited on another CPU before a migration ([`abi::Cause::Away`]).
    pub away_ns: u64,
    /// Unknown: longer ago than the kernel side remembers ([`abi::Cause::Beyond`]).
    pub beyond_ns: u64,
    /// Unknown: counted under another cause while the container was throttled and the throttle hooks
    /// were missing, so that the cause may be wrong. Only windows have it.
    pub untold_ns: u64,
}

impl Causes {
    /// From a kernel row's wait, or what it grew by, in the order of [`abi::Cause`].
    pub fn from_row(wait_ns: &[u64; CAUSES]) -> Self {
        let [quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns] = *wait_ns;
        Self { quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns, untold_ns: 0 }
    }

    /// Wait in ns that no cause can be told for.
    pub fn unknown_ns(&self) -> u64 {
        self.away_ns.saturating_add(self.beyond_ns).saturating_add(self.untold_ns)
    }

    /// Wait in ns of this cause.
    pub fn of(&self, cause: Cause) -> u64 {
        match cause {
            Cause::Quota => self.quota_ns,
            Cause::Own => self.self_ns,
            Cause::Neighbor => self.neighbor_ns,
            Cause::System => self.system_ns,
            Cause::Idle => self.idle_ns,
            Cause::Unknown => self.unknown_ns(),
        }
    }

    /// All wait, in ns.
    pub fn total(&self) -> u64 {
        self.parts().iter().fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// This cause's part of all wait, in 0..=1; `None` where nothing waited.
    pub fn share(&self, cause: Cause) -> Option<f64> {
        let total = self.total();
        (total != 0).then(|| self.of(cause) as f64 / total as f64)
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        let mut sums = self.parts();
        add_all(&mut sums, &other.parts());
        *self = Self::from_parts(sums);
    }

    /// The wait since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        growths("wait_ns", &earlier.parts(), &self.parts()).map(Self::from_parts)
    }

    pub(crate) fn parts(&self) -> [u64; CAUSES + 1] {
        let Self { quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns, untold_ns } =
            *self;
        [quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns, untold_ns]
    }

    pub(crate) fn from_parts(parts: [u64; CAUSES + 1]) -> Self {
        let [quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns, untold_ns] = parts;
        Self { quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns, untold_ns }
    }
}

/// How long throttles by a cgroup's own limit lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durations {
    /// Throttles by [`crate::throttle::duration_bucket`].
    Counted([u64; DURATIONS]),
    /// The kernel did not let the throttle functions be hooked: `cpu.stat` is all that is known.
    HooksUnavailable,
}

impl Default for Durations {
    fn default() -> Self {
        Self::Counted([0; DURATIONS])
    }
}

impl Durations {
    /// Adds all of another. With a part that could not be counted, the sum could not either.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counted(counts), Self::Counted(more)) => add_all(counts, more),
            (durations, _) => *durations = Self::HooksUnavailable,
        }
    }

    /// The throttles since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        match (earlier, self) {
            (Self::Counted(earlier), Self::Counted(later)) => {
                growths("throttle_durations", earlier, later).map(Self::Counted)
            }
            _ => Ok(Self::HooksUnavailable),
        }
    }
}

/// Throttling of a container by its own limit and by those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Enforcement periods of its own limit in which it was active (`cpu.stat` `nr_periods`).
    pub periods: u64,
    /// Those of them in which it was throttled (`nr_throttled`).
    pub throttled_periods: u64,
    /// Time its run queues were throttled by its own limit, all CPUs added up, in ns
    /// (`throttled_usec`): more than the wall clock on many CPUs.
    pub throttled_ns: u64,
    /// Periods in which an ancestor was throttled, all ancestors added up: it tells that one was, and no
    /// share can be made of it.
    pub ancestors_throttled_periods: u64,
    /// How long the throttles by its own limit lasted.
    pub durations: Durations,
}

impl Throttling {
    /// Whether the container was throttled, by whosever limit.
    pub fn throttled(&self) -> bool {
        self.throttled_periods != 0 || self.throttled_ns != 0 || self.ancestors_throttled_periods != 0
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        let mut sums = self.parts();
        add_all(&mut sums, &other.parts());
        self.durations.merge(&other.durations);
        *self = Self::from_parts(sums, self.durations);
    }

    /// The throttling since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        let parts = growths("throttling", &earlier.parts(), &self.parts())?;
        Ok(Self::from_parts(parts, self.durations.since(&earlier.durations)?))
    }

    pub(crate) fn parts(&self) -> [u64; 4] {
        [self.periods, self.throttled_periods, self.throttled_ns, self.ancestors_throttled_periods]
    }

    pub(crate) fn from_parts(parts: [u64; 4], durations: Durations) -> Self {
        let [periods, throttled_periods, throttled_ns, ancestors_throttled_periods] = parts;
        Self { periods, throttled_periods, throttled_ns, ancestors_throttled_periods, durations }
    }
}

/// CPU time that threads would have used, each at its own pace ([`crate::pace`]), in the time that they waited but for
/// [`Cause::Idle`]: never more than that, but for what is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// Of threads that sleep now and then, in ns.
    pub paced_ns: u64,
    /// Of busy threads, which have not slept for long: all that they waited, in ns.
    pub busy_ns: u64,
}

impl Unmet {
    /// From a kernel row, or what it grew by.
    pub fn from_row(units: &[u32; PACES]) -> Self {
        Self::from_parts(units.map(|units| u64::from(units) << UNIT_LOG2_NS))
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        let mut sums = self.parts();
        add_all(&mut sums, &other.parts());
        *self = Self::from_parts(sums);
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        growths("unmet_ns", &earlier.parts(), &self.parts()).map(Self::from_parts)
    }

    pub(crate) fn parts(&self) -> [u64; PACES] {
        [self.paced_ns, self.busy_ns]
    }

    pub(crate) fn from_parts([paced_ns, busy_ns]: [u64; PACES]) -> Self {
        Self { paced_ns, busy_ns }
    }
}

/// How threads' sleeps went with their waits, from one cycle to the next: sums of [`crate::cycles::terms`].
///
/// Squares are in squares of 2^[`crate::cycles::UNIT_LOG2_NS`] ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycles {
    /// Cycles that waited for longer or shorter than the one before.
    pub count: u64,
    /// Squares of the differences of their waits,
    pub waits: u64,
    /// of their sleeps,
    pub sleeps: u64,
    /// and of wait and sleep together.
    pub sums: u64,
}

impl Cycles {
    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        let mut sums = self.parts();
        add_all(&mut sums, &other.parts());
        *self = Self::from_parts(sums);
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        growths("cycles", &earlier.parts(), &self.parts()).map(Self::from_parts)
    }

    pub(crate) fn parts(&self) -> [u64; TERMS] {
        [self.count, self.waits, self.sleeps, self.sums]
    }

    /// From numbers in the order of the terms.
    pub fn from_parts([count, waits, sleeps, sums]: [u64; TERMS]) -> Self {
        Self { count, waits, sleeps, sums }
    }
}

/// Everything that is counted for one cgroup, since its reader first saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Every delay, whatever its cause. Its sum is the total of `causes`.
    pub latency: LatencyHistogram,
    /// Wait by cause.
    pub causes: Causes,
    /// What it would have used meanwhile; `None` where that is not known: nobody has waited yet, or a sampler of before
    /// 2026-11-21 has recorded it.
    pub unmet: Option<Unmet>,
    /// How its threads' cycles went with their waits; `None` where `unmet` is, and in recordings of before format 3.
    pub cycles: Option<Cycles>,
    /// Delays by their largest cause, for the causes that can be told, in the order of
    /// [`Cause::ALL`]. What they leave of `latency` is [`Cause::Unknown`].
    pub coarse: [CoarseHistogram; TOLD],
    /// For how long which neighbours held the CPU, in ns: never more than they did. Their sum is at
    /// most `causes.neighbor_ns`; the rest has no name. A reader may forget entries.
    pub neighbors: BTreeMap<CgroupId, u64>,
    /// CPU time used, in ns (`cpu.stat` `usage_usec`).
    pub usage_ns: u64,
    /// Throttling.
    pub throttling: Throttling,
    /// How often memory limits were met; `None` where the controller is off.
    pub memory_events: Option<MemoryEvents>,
    /// Time stalled; `None` where the kernel does not count it.
    pub pressure: Option<Pressure>,
}

impl Counters {
    /// Adds what a kernel row grew by, but for its neighbours, whose names the reader knows.
    pub fn add_row(
        &mut self,
        latency: &[u32; BUCKETS],
        wait_ns: &[u64; CAUSES],
        coarse: &[[u32; OCTAVES]; TOLD],
        unmet: &[u32; PACES],
    ) {
        let causes = Causes::from_row(wait_ns);
        self.latency.add_row(latency, causes.total());
        self.causes.merge(&causes);
        for (sum, row) in self.coarse.iter_mut().zip(coarse) {
            sum.add_row(row);
        }
        merge_known(&mut self.unmet, &Some(Unmet::from_row(unmet)), Unmet::merge);
    }

    /// Adds what the cycles of a slot grew by.
    pub fn add_cycles(&mut self, more: &Cycles) {
        merge_known(&mut self.cycles, &Some(*more), Cycles::merge);
    }

    /// Notes that this neighbour held a CPU for `ns` more while the cgroup waited for it.
    pub fn add_neighbor(&mut self, neighbor: CgroupId, ns: u64) {
        let held_ns = self.neighbors.entry(neighbor).or_default();
        *held_ns = held_ns.saturating_add(ns);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.causes.merge(&other.causes);
        merge_known(&mut self.unmet, &other.unmet, Unmet::merge);
        merge_known(&mut self.cycles, &other.cycles, Cycles::merge);
        for (sum, more) in self.coarse.iter_mut().zip(&other.coarse) {
            sum.merge(more);
        }
        for (neighbor, ns) in &other.neighbors {
            self.add_neighbor(*neighbor, *ns);
        }
        self.usage_ns = self.usage_ns.saturating_add(other.usage_ns);
        self.throttling.merge(&other.throttling);
        merge_known(&mut self.memory_events, &other.memory_events, MemoryEvents::merge);
        merge_known(&mut self.pressure, &other.pressure, Pressure::merge);
    }

    /// What was counted since `earlier`, an older state of these same counters.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        let mut coarse = self.coarse;
        for (later, earlier) in coarse.iter_mut().zip(&earlier.coarse) {
            *later = later.since(earlier)?;
        }
        Ok(Self {
            latency: self.latency.since(&earlier.latency)?,
            causes: self.causes.since(&earlier.causes)?,
            unmet: known_since(self.unmet, earlier.unmet, Unmet::since)?,
            cycles: known_since(self.cycles, earlier.cycles, Cycles::since)?,
            coarse,
            neighbors: neighbors_since(&self.neighbors, &earlier.neighbors),
            usage_ns: growth("usage_ns", earlier.usage_ns, self.usage_ns)?,
            throttling: self.throttling.since(&earlier.throttling)?,
            memory_events: known_since(self.memory_events, earlier.memory_events, MemoryEvents::since)?,
            pressure: known_since(self.pressure, earlier.pressure, Pressure::since)?,
        })
    }
}

/// Adds what is known of another: a sum in which a part is not known says what is.
pub(crate) fn merge_known<T: Copy>(sum: &mut Option<T>, other: &Option<T>, merge: impl Fn(&mut T, &T)) {
    match (sum.as_mut(), other) {
        (Some(sum), Some(other)) => merge(sum, other),
        (None, other) => *sum = *other,
        (Some(_), None) => {}
    }
}

/// Growth of a counter that may not be known. All counters are 0 when the reader first sees a cgroup, so one that
/// has become known later has grown by all that it is.
fn known_since<T: Copy + Default>(
    later: Option<T>,
    earlier: Option<T>,
    since: impl Fn(&T, &T) -> Result<T, WentBack>,
) -> Result<Option<T>, WentBack> {
    later.map(|later| since(&later, &earlier.unwrap_or_default())).transpose()
}

/// For how long each neighbour held the CPU since `earlier`.
///
/// An entry that went back was forgotten and made anew in between: all of it is since then. One that is
/// gone counts nothing. Either way no neighbour is charged too much, and the rest has no name.
fn neighbors_since(
    later: &BTreeMap<CgroupId, u64>,
    earlier: &BTreeMap<CgroupId, u64>,
) -> BTreeMap<CgroupId, u64> {
    let grown = |(neighbor, ns): (&CgroupId, &u64)| {
        let before = earlier.get(neighbor).copied().unwrap_or(0);
        let grown = ns.checked_sub(before).unwrap_or(*ns);
        (grown != 0).then_some((*neighbor, grown))
    };
    later.iter().filter_map(grown).collect()
}

/// Whether a cgroup is still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// It is.
    #[default]
    Live,
    /// It was removed, and these are its last counts.
    Removed,
}

/// One cgroup in a [`Snapshot`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupCounters {
    /// Whether it is still there.
    pub presence: Presence,
    /// When its counters were 0 for certain: the reader's last look before it first saw the cgroup
    /// (`CLOCK_MONOTONIC`, ns).
    pub since_ns: u64,
    /// What was counted since.
    pub counters: Counters,
    /// Where it is, and whose.
    pub identity: Identity,
    /// The limits in force when it was last there.
    pub limits: Limits,
    /// Its memory when that was last read; `None` where the controller is off, and before the first read.
    pub memory: Option<Memory>,
}

/// Everything that was lost, could not be attributed or was clamped, each by its name. Cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// [`abi::Cpu::clock_backwards`]: delays counted as 0.
    pub clock_backwards: u64,
    /// [`abi::Cpu::no_baseline`]: delays that lack, or may lack, the part before a migration.
    pub no_baseline: u64,
    /// [`abi::Cpu::stale_baseline`]: baselines not used.
    pub stale_baseline: u64,
    /// [`abi::Cpu::slots_exhausted`]: how often a cgroup found no slot, and was counted in [`Snapshot::other`].
    pub slots_exhausted: u64,
    /// [`abi::Cpu::css_beyond_table`]: switch-ins counted in [`Snapshot::other`].
    pub css_beyond_table: u64,
    /// [`abi::Cpu::throttle_collisions`]: throttles not recorded.
    pub throttle_collisions: u64,
    /// Paths of new cgroups that found no room in the ring buffer.
    pub names_lost: u64,
    /// Paths of new cgroups that were too long and arrived cut off.
    pub names_cut: u64,
    /// Reads of a file of a cgroup that failed though the cgroup was there.
    pub files_unread: u64,
    /// Cgroups that had a row and were gone before their `cpu.stat` could be read once: their CPU time is not
    /// known.
    pub uses_missed: u64,
}

/// Number of fields of [`Losses`].
pub const LOSSES: usize = 10;

impl Losses {
    /// Every one with its name, as metrics have it.
    pub fn named(&self) -> [(&'static str, u64); LOSSES] {
        [
            ("clock_backwards", self.clock_backwards),
            ("no_baseline", self.no_baseline),
            ("stale_baseline", self.stale_baseline),
            ("slots_exhausted", self.slots_exhausted),
            ("css_beyond_table", self.css_beyond_table),
            ("throttle_collisions", self.throttle_collisions),
            ("names_lost", self.names_lost),
            ("names_cut", self.names_cut),
            ("files_unread", self.files_unread),
            ("uses_missed", self.uses_missed),
        ]
    }

    /// Adds what the kernel counted on one CPU.
    pub fn add_cpu(&mut self, cpu: &abi::Cpu) {
        let mut sums = self.parts();
        let more = [
            cpu.clock_backwards,
            cpu.no_baseline,
            cpu.stale_baseline,
            cpu.slots_exhausted,
            cpu.css_beyond_table,
            cpu.throttle_collisions,
        ];
        add_all(&mut sums, &more);
        *self = Self::from_parts(sums);
    }

    /// The losses since `earlier`.
    pub fn since(&self, earlier: &Self) -> Result<Self, WentBack> {
        growths("losses", &earlier.parts(), &self.parts()).map(Self::from_parts)
    }

    pub(crate) fn parts(&self) -> [u64; LOSSES] {
        self.named().map(|(_, lost)| lost)
    }

    pub(crate) fn from_parts(parts: [u64; LOSSES]) -> Self {
        let [
            clock_backwards,
            no_baseline,
            stale_baseline,
            slots_exhausted,
            css_beyond_table,
            throttle_collisions,
            names_lost,
            names_cut,
            files_unread,
            uses_missed,
        ] = parts;
        Self {
            clock_backwards,
            no_baseline,
            stale_baseline,
            slots_exhausted,
            css_beyond_table,
            throttle_collisions,
            names_lost,
            names_cut,
            files_unread,
            uses_missed,
        }
    }
}

/// Every counter of a node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which life of the reader this is: counters of two epochs cannot be compared.
    pub epoch: u64,
    /// When this life began, and with it the counters that belong to no cgroup (`CLOCK_MONOTONIC`, ns).
    pub since_ns: u64,
    /// When it was taken (`CLOCK_MONOTONIC`, ns).
    pub at_ns: u64,
    /// Whether the kernel's throttle functions are hooked: without, waits for a quota look like others.
    pub throttle_hooks: bool,
    /// Every cgroup that has a row.
    pub cgroups: BTreeMap<CgroupId, CgroupCounters>,
    /// The row of everything that has no slot of its own.
    pub other: Counters,
    /// What was lost, unattributed or clamped.
    pub losses: Losses,
    /// Context switches seen.
    pub switches: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_cause_is_counted_as_the_public_one_that_it_belongs_to() {
        for cause in abi::Cause::ALL {
            let mut row = [0; CAUSES];
            row[cause as usize] = 7;
            let causes = Causes::from_row(&row);
            assert_eq!(causes.of(cause.into()), 7, "{cause:?}");
            assert_eq!(causes.total(), 7, "{cause:?}");
            assert_eq!(causes.share(cause.into()), Some(1.0));
        }
    }

    #[test]
    fn the_told_causes_come_first_and_in_the_order_of_the_kernel() {
        for (public, kernel) in Cause::ALL.into_iter().zip(&abi::Cause::ALL[..TOLD]) {
            assert_eq!(public, (*kernel).into());
        }
        let labels = Cause::ALL.map(Cause::label);
        assert_eq!(labels, ["quota", "self", "neighbor", "system", "idle", "unknown"]);
    }

    #[test]
    fn shares_add_up_to_one_and_need_a_wait() {
        let causes = Causes::from_row(&[1, 2, 3, 4, 5, 6, 7]);
        let sum: f64 = Cause::ALL.iter().filter_map(|cause| causes.share(*cause)).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert_eq!(causes.unknown_ns(), 13);
        assert_eq!(Causes::default().share(Cause::Idle), None);
    }

    #[test]
    fn a_sum_with_uncounted_durations_is_not_counted() {
        let mut durations = Durations::Counted([1; DURATIONS]);
        durations.merge(&Durations::Counted([2; DURATIONS]));
        assert_eq!(durations, Durations::Counted([3; DURATIONS]));
        durations.merge(&Durations::HooksUnavailable);
        assert_eq!(durations, Durations::HooksUnavailable);
        durations.merge(&Durations::default());
        assert_eq!(durations, Durations::HooksUnavailable);
    }

    #[test]
    fn throttled_by_an_ancestor_is_throttled() {
        let throttling = Throttling { periods: 50, ..Throttling::default() };
        assert!(!throttling.throttled());
        assert!(Throttling { ancestors_throttled_periods: 1, ..throttling }.throttled());
        assert!(Throttling { throttled_periods: 1, ..throttling }.throttled());
    }

    #[test]
    fn a_forgotten_neighbour_is_never_charged_too_much() {
        let map = |entries: &[(u64, u64)]| entries.iter().map(|(id, ns)| (CgroupId(*id), *ns)).collect();
        let earlier: BTreeMap<_, _> = map(&[(1, 100), (2, 100), (3, 100)]);
        // 1 went on, 2 was forgotten, 3 was forgotten and came back, 4 is new, 1 unchanged is no entry.
        let later: BTreeMap<_, _> = map(&[(1, 150), (3, 30), (4, 5)]);
        assert_eq!(neighbors_since(&later, &earlier), map(&[(1, 50), (3, 30), (4, 5)]));
        assert!(neighbors_since(&earlier, &earlier).is_empty());
    }

    #[test]
    fn every_loss_has_a_name_of_its_own_and_keeps_its_place() {
        let names: std::collections::BTreeSet<_> =
            Losses::default().named().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), LOSSES);
        let places = std::array::from_fn(|i| i as u64);
        assert_eq!(Losses::from_parts(places).parts(), places);
    }

    #[test]
    fn a_loss_that_went_back_is_an_error() {
        let earlier = Losses { names_lost: 2, ..Losses::default() };
        assert!(Losses::default().since(&earlier).is_err());
        assert_eq!(earlier.since(&Losses::default()), Ok(earlier));
    }
}
