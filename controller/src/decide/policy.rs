//! A policy, valid by type, with everything that its text left open filled in.
//!
//! ```text
//! YAML ─▶ api::policy (what was written) ─▶ Policy (what holds) ─▶ select: one policy for each pod
//! ```
//!
//! [`Policy::default`] is what an empty policy says. A [`Profile`] changes defaults for a class of workload; what is
//! written wins over the profile.
//!
//! # Invariants
//!
//! * `min_allowed ≤ max_allowed`, for CPU and memory; neither is below what the kernel and runtimes can do.
//! * No share, duration or count has a value that would switch a safety off unnoticed.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::num::NonZeroU32;

use sampler_common::snapshot::Cause;
use serde::{Deserialize, Serialize};

use super::duration::{Micros, Seconds};
use super::share::PerMille;
use super::target::Prices;
use super::units::{Bytes, MilliCpu};
use super::weight::PolicyWeight;

/// What the controller does with what it finds. In this order, each does all that the one before it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Nothing new; history and status stay.
    Disabled,
    /// Measures and shows demand; no target.
    Observe,
    /// A target in status, too. Writes to no pod.
    #[default]
    Recommend,
    /// Resizes pods.
    Apply,
}

/// A class of workload, which sets the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Profile {
    /// Between the others.
    #[default]
    Balanced,
    /// Answers somebody who waits: short waits, hardly any throttling, ample margin.
    Latency,
    /// Gets through work: longer waits are fine as long as the work gets done.
    Throughput,
    /// May wait: cheap first.
    Batch,
}

/// Which values of a container are set. VPA's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ControlledValues {
    /// Limits stay as they are.
    #[default]
    RequestsOnly,
    /// Limits move too, which is what cures throttling.
    RequestsAndLimits,
}

/// What may be done where a resize in place is not possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fallback {
    /// Nothing: it is skipped, with a warning.
    #[default]
    None,
    /// The pod is evicted, where its disruption budget permits, and born anew; for its first 12 hours only for what it is short of.
    Recreate,
}

/// What is done with pods of class Guaranteed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuaranteedPods {
    /// They are left alone.
    #[default]
    Skip,
    /// They are resized, request and limit together, and stay Guaranteed.
    Resize,
}

/// What is done with a request on whose utilisation a HorizontalPodAutoscaler scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HpaPods {
    /// It stays, so that request × target utilisation, at which the autoscaler adds replicas, does; what it does not
    /// scale on moves.
    #[default]
    HoldRequest,
    /// Nothing of the pod moves: a target is shown.
    RecommendOnly,
    /// It moves as any other.
    Ignore,
}

/// What is good enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Objectives {
    /// The longest 99th percentile of the run-queue wait, of the causes that count; at least 1 µs.
    pub p99_wait: Micros,
    /// The largest share of CPU periods in which it may be throttled, up to the whole.
    pub throttled_share: PerMille,
    /// By how much memory is to exceed its recent peak.
    pub memory_headroom: PerMille,
    /// The causes of wait that count against `p99_wait`. Throttling has its own objective.
    pub causes: BTreeSet<Cause>,
}

/// Between which a CPU request may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuBounds {
    /// At least this; never below [`CpuBounds::LEAST`].
    pub min_allowed: MilliCpu,
    /// At most this; [`MilliCpu::MAX`] is no bound.
    pub max_allowed: MilliCpu,
}

impl CpuBounds {
    /// A limit below it is not what the kernel then enforces (1 ms in a period of 100 ms), and a request below it is
    /// worth nothing.
    pub const LEAST: MilliCpu = MilliCpu(10);
}

/// Between which a memory request may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemoryBounds {
    /// At least this; never below [`MemoryBounds::LEAST`].
    pub min_allowed: Bytes,
    /// At most this; [`Bytes::MAX`] is no bound.
    pub max_allowed: Bytes,
}

impl MemoryBounds {
    /// What runtimes need in a pod's cgroup to start a container (kubernetes#135680).
    pub const LEAST: Bytes = Bytes(32 << 20);
}

/// Where use comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// Loadline's own sampler: waits and their causes too.
    #[default]
    Sampler,
    /// The metrics API: usage only.
    MetricsServer,
    /// A Prometheus server: usage only.
    Prometheus,
}

/// A percentile in whole per cent, 50 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percentile(u8);

impl Percentile {
    /// `None` outside 50 to 100.
    pub const fn new(percent: u8) -> Option<Self> {
        if percent >= 50 && percent <= 100 { Some(Self(percent)) } else { None }
    }

    /// As a fraction of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl TryFrom<u8> for Percentile {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        Self::new(percent).ok_or_else(|| format!("{percent} is no percentile; write one from 50 to 100"))
    }
}

impl From<Percentile> for u8 {
    fn from(percentile: Percentile) -> Self {
        percentile.0
    }
}

/// What of the past counts, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HistorySettings {
    /// Where use comes from.
    pub source: Source,
    /// CPU is sized to this percentile of use × `margin`, and memory, too, where it is above the 99th; `None`: CPU by the
    /// priced bet of [`super::target`], memory by the 99th.
    pub percentile: Option<Percentile>,
    /// By how much a request is to exceed the percentile, and what its waits say that it needs. A bet on use alone has no
    /// margin: how far it stays above is what [`Policy::cost`] makes worth it.
    pub margin: PerMille,
    /// What is older than this counts in no percentile, peak or kill. A bet forgets in its own time: errors of forecasts
    /// count half after two days, and a time of day is known from about a week.
    pub window: Seconds,
    /// After this a sample counts half in a percentile; to a bet it is nothing, like `window`.
    pub half_life: Seconds,
    /// With less than this, nothing moves.
    pub minimum_data: Seconds,
    /// Data older than this is stale, and nothing moves.
    pub stale_after: Seconds,
    /// What a workload should have is found anew that often, but as slots of the history end, which are five minutes: less is as
    /// good as that. What is being hurt or is starting is looked at each time.
    pub interval: Seconds,
}

/// How changes are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResizeSettings {
    /// What may be done where a resize in place is not possible.
    pub fallback: Fallback,
    /// A change smaller than this part of what is in force is not made.
    pub hysteresis: PerMille,
    /// At most this part of what is in force is added in one change; `None` has no bound, so that what is throttled
    /// gets what it needs at once.
    pub max_step_up: Option<PerMille>,
    /// At most this part of what is in force is taken away in one change; below the whole.
    pub max_step_down: PerMille,
    /// For so long after a change nothing is taken away, and nothing added that cannot wait.
    pub cooldown: Seconds,
    /// At most so many changes of a container in an hour, whatever their reason; the last of several is kept for what cannot wait.
    pub changes_per_hour: NonZeroU32,
    /// A resize that has been Deferred for so long is taken back.
    pub deferred_deadline: Seconds,
}

/// More CPU while a container starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StartupBoost {
    /// The target × this, at least the whole.
    pub factor: PerMille,
    /// For so long after the container was started.
    pub duration: Seconds,
}

/// What sizing needs to know of a policy. The default is an empty policy's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// What is done.
    pub mode: Mode,
    /// What is good enough.
    pub objectives: Objectives,
    /// Bounds of CPU requests.
    pub cpu: CpuBounds,
    /// Bounds of memory requests.
    pub memory: MemoryBounds,
    /// What of the past counts.
    pub history: HistorySettings,
    /// How changes are made.
    pub resize: ResizeSettings,
    /// Which values are set.
    pub controlled_values: ControlledValues,
    /// More CPU while a container starts.
    pub startup_boost: Option<StartupBoost>,
    /// What a container's gain counts on its node.
    pub weight: PolicyWeight,
    /// Pods of class Guaranteed.
    pub guaranteed_pods: GuaranteedPods,
    /// Requests on which a HorizontalPodAutoscaler scales.
    pub hpa_pods: HpaPods,
    /// What over- and under-provisioning and changes cost against each other.
    pub cost: Prices,
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(Profile::Balanced)
    }
}

impl Policy {
    /// A number that is another one, but for one in four billion, where anything of it is.
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        self.hash(&mut hasher);
        hasher.finalize()
    }

    /// The defaults of a class of workload.
    pub fn of(profile: Profile) -> Self {
        let (p99_wait, throttled_share, margin, weight) = match profile {
            Profile::Balanced => (Micros(10_000), PerMille::percent(1), PerMille::percent(15), 100),
            Profile::Latency => (Micros(4_000), PerMille(1), PerMille::percent(25), 200),
            Profile::Throughput => (Micros(50_000), PerMille::percent(5), PerMille::percent(10), 100),
            Profile::Batch => (Micros(500_000), PerMille::percent(50), PerMille::percent(5), 50),
        };
        // Where only use is known, being outgrown stands for waits that cannot be seen.
        let balanced = Prices::default();
        let cost = match profile {
            Profile::Balanced => balanced,
            Profile::Latency => Prices { breach_minutes: 33, unmet: 60, ..balanced },
            Profile::Throughput => Prices { breach_minutes: 6, unmet: 10, ..balanced },
            Profile::Batch => Prices { breach_minutes: 3, unmet: 5, ..balanced },
        };
        Self {
            mode: Mode::default(),
            objectives: Objectives {
                p99_wait,
                throttled_share,
                memory_headroom: PerMille::percent(15),
                causes: Cause::ALL.into_iter().filter(|cause| *cause != Cause::Quota).collect(),
            },
            cpu: CpuBounds { min_allowed: CpuBounds::LEAST, max_allowed: MilliCpu::MAX },
            memory: MemoryBounds { min_allowed: MemoryBounds::LEAST, max_allowed: Bytes::MAX },
            history: HistorySettings {
                source: Source::default(),
                percentile: None,
                margin,
                window: Seconds(8 * 86_400),
                half_life: Seconds(86_400),
                minimum_data: Seconds(60),
                stale_after: Seconds(300),
                interval: Seconds(60),
            },
            resize: ResizeSettings {
                fallback: Fallback::default(),
                hysteresis: PerMille::percent(5),
                max_step_up: None,
                max_step_down: PerMille::percent(50),
                cooldown: Seconds(300),
                changes_per_hour: const { NonZeroU32::new(12).unwrap() },
                deferred_deadline: Seconds(300),
            },
            controlled_values: ControlledValues::default(),
            startup_boost: None,
            weight: PolicyWeight(NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN)),
            guaranteed_pods: GuaranteedPods::default(),
            hpa_pods: HpaPods::default(),
            cost,
        }
    }
}
