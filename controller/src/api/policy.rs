//! `AllocationPolicy` and `ClusterAllocationPolicy`, `loadline.dev/v1alpha1`: they share one spec.
//!
//! ```yaml
//! apiVersion: loadline.dev/v1alpha1
//! kind: AllocationPolicy
//! metadata: {name: web, namespace: shop}
//! spec:
//!   mode: Apply
//!   profile: Latency
//!   selector: {matchLabels: {app: web}}
//!   cpu: {minAllowed: 50m, maxAllowed: 4}
//! ```
//!
//! [`parse`] makes of it a [`PolicyObject`], or says which field is wrong and what to write instead. Unknown fields are
//! refused: a policy that is half understood would act on half of what was meant.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use sampler_common::snapshot::Cause;
use serde::Deserialize;

use crate::decide::duration::{Micros, Seconds};
use crate::decide::labels::{LabelSelector, Labels, Requirement};
use crate::decide::policy::{
    ControlledValues, CpuBounds, Fallback, GuaranteedPods, HpaPods, MemoryBounds, Mode, Percentile, Policy,
    Profile, Source, StartupBoost,
};
use crate::decide::scope::{NamespaceScope, PolicyId, PolicyObject, WorkloadKind, WorkloadSelector};
use crate::decide::share::PerMille;
use crate::decide::target::Prices;
use crate::decide::units::{Bytes, MilliCpu, Timestamp};
use crate::decide::weight::PolicyWeight;

/// The one version there is.
pub const API_VERSION: &str = "loadline.dev/v1alpha1";

/// Of more changes within an hour not all are remembered.
const MOST_CHANGES_PER_HOUR: u32 = 60;
/// Memory is read that seldom: what calls it stale sooner has none to go by.
const LEAST_STALE_AFTER: Seconds = Seconds(15);

/// Why a text is no policy. Each names the field and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not YAML, or not of the shape of a policy.
    #[error("the policy cannot be read: {0}")]
    Shape(String),
    /// It is well-formed and makes no sense.
    #[error("{field}: {problem}; {remedy}")]
    Field {
        /// Where, from the top of the object.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        remedy: &'static str,
    },
}

fn wrong(field: &'static str, problem: impl Into<String>, remedy: &'static str) -> PolicyError {
    PolicyError::Field { field, problem: problem.into(), remedy }
}

/// The two kinds of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Kind {
    AllocationPolicy,
    ClusterAllocationPolicy,
}

/// The whole object. Its status is ours and is not read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object {
    api_version: String,
    kind: Kind,
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default, rename = "status")]
    _status: serde::de::IgnoredAny,
}

/// What we need of an object's metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    creation_timestamp: Option<jiff::Timestamp>,
}

/// What a policy says. What is left out is as the profile has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// What is done.
    pub mode: Option<Mode>,
    /// The class of workload.
    pub profile: Profile,
    /// Which workloads; all, when left out.
    pub selector: Selector,
    /// Which namespaces; only of a `ClusterAllocationPolicy`.
    pub namespaces: Option<Namespaces>,
    /// What is good enough.
    pub objectives: Objectives,
    /// Bounds of CPU requests.
    pub cpu: Bounds<MilliCpu>,
    /// Bounds of memory requests.
    pub memory: Bounds<Bytes>,
    /// What of the past counts.
    pub history: History,
    /// How changes are made.
    pub resize: Resize,
    /// Which values are set.
    pub controlled_values: Option<ControlledValues>,
    /// More CPU while a container starts.
    pub startup_boost: Option<Boost>,
    /// What a container's gain counts on its node, in per cent: 100 changes nothing.
    pub weight: Option<NonZeroU32>,
    /// Pods of class Guaranteed.
    pub guaranteed_pods: Option<GuaranteedPods>,
    /// Requests on which a HorizontalPodAutoscaler scales.
    pub hpa_pods: Option<HpaPods>,
    /// What over- and under-provisioning and changes cost against each other, where CPU is sized by its use alone and without a
    /// percentile.
    pub cost: Cost,
}

/// Which workloads: those for which all holds that is not left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selector {
    /// Of one of these kinds.
    pub kinds: BTreeSet<WorkloadKind>,
    /// With one of these names.
    pub names: BTreeSet<String>,
    /// Labels of the pod and their values.
    pub match_labels: Labels,
    /// What else must hold of the pod's labels.
    pub match_expressions: Vec<Requirement>,
}

/// Which namespaces: those that `selector` matches and `allow` names, if it names any, less those in `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Namespaces {
    /// By the namespace's labels.
    pub selector: LabelSelector,
    /// By name.
    pub allow: BTreeSet<String>,
    /// No policy acts in these, whoever allows it.
    pub deny: BTreeSet<String>,
}

/// What is good enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Objectives {
    /// The longest 99th percentile of the run-queue wait.
    pub p99_wait: Option<Micros>,
    /// The largest share of CPU periods in which it may be throttled.
    pub throttled_share: Option<PerMille>,
    /// By how much memory is to exceed its recent peak.
    pub memory_headroom: Option<PerMille>,
    /// The causes of wait that count against `p99Wait`.
    pub causes: Option<BTreeSet<Cause>>,
}

/// Between which a request may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bounds<Size> {
    /// At least this.
    pub min_allowed: Option<Size>,
    /// At most this.
    pub max_allowed: Option<Size>,
}

/// What of the past counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct History {
    /// Where use comes from.
    pub source: Option<Source>,
    /// The percentile of use to which CPU is sized, 50 to 100. Left out, CPU is sized by forecasts and what their errors
    /// cost (`cost`). Memory is sized to the 99th, or to this one where it is higher.
    pub percentile: Option<Percentile>,
    /// By how much a request is to exceed the percentile, and what its waits say that it needs. Where CPU is sized by its use alone
    /// and without a percentile, `cost` counts instead.
    pub margin: Option<PerMille>,
    /// What is older does not count: not in percentiles, nor in what a limit has to hold, nor as a kill. CPU without a
    /// percentile is forecast from what the last days were like, whatever this says.
    pub window: Option<Seconds>,
    /// After this a sample counts half in percentiles. It is nothing to CPU without a percentile.
    pub half_life: Option<Seconds>,
    /// With less than this, nothing moves.
    pub minimum_data: Option<Seconds>,
    /// Data older than this is stale.
    pub stale_after: Option<Seconds>,
    /// How often it is found anew what a workload should have, from five minutes up; what is being hurt is looked at each time.
    pub interval: Option<Seconds>,
}

/// How changes are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resize {
    /// Where a resize in place is not possible.
    pub fallback: Option<Fallback>,
    /// A change smaller than this part is not made.
    pub hysteresis: Option<PerMille>,
    /// At most this part is added in one change.
    pub max_step_up: Option<PerMille>,
    /// At most this part is taken away in one change.
    pub max_step_down: Option<PerMille>,
    /// For so long after a change, only what cannot wait.
    pub cooldown: Option<Seconds>,
    /// At most so many changes of a container in an hour; the last of several is kept for what cannot wait.
    pub changes_per_hour: Option<NonZeroU32>,
    /// A resize that has been Deferred for so long is taken back.
    pub deferred_deadline: Option<Seconds>,
}

/// More CPU while a container starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Boost {
    /// The target × this, at least 100%.
    pub factor: PerMille,
    /// For so long after the container was started.
    pub duration: Seconds,
}

/// What over- and under-provisioning and changes cost against each other ([`Prices`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cost {
    /// A change is worth so many minutes of mean use reserved for nothing.
    pub change_minutes: Option<u32>,
    /// A minute in which more is used than allocated is worth so many of mean use reserved for nothing.
    pub breach_minutes: Option<u32>,
    /// A core-minute that was used above the allocation is worth so many reserved for nothing.
    pub unmet: Option<u32>,
    /// Changes a day from which on it shrinks no more.
    pub changes_per_day: Option<u32>,
}

/// Reads one policy.
///
/// # Errors
///
/// Says which field is wrong, where, and what to write instead.
pub fn parse(yaml: &str) -> Result<PolicyObject, PolicyError> {
    let object: Object =
        serde_saphyr::from_str(yaml).map_err(|error| PolicyError::Shape(error.to_string()))?;
    let Object { api_version, kind, metadata, spec, .. } = object;
    if api_version != API_VERSION {
        return Err(wrong(
            "apiVersion",
            format!("{api_version:?} is not known"),
            "write loadline.dev/v1alpha1",
        ));
    }
    if metadata.name.is_empty() {
        return Err(wrong("metadata.name", "is empty", "name the policy"));
    }
    let Metadata { name, namespace, creation_timestamp } = metadata;
    let id = match kind {
        Kind::ClusterAllocationPolicy => PolicyId { namespace: None, name },
        Kind::AllocationPolicy => {
            PolicyId { namespace: Some(namespace.unwrap_or_else(|| "default".into())), name }
        }
    };
    let created = creation_timestamp.map_or(0, jiff::Timestamp::as_second);
    spec.resolve(id, Timestamp(u64::try_from(created).unwrap_or(0)))
}

impl Spec {
    /// What holds, with everything filled in that was left out.
    ///
    /// # Errors
    ///
    /// Says which field makes no sense, and what to write instead.
    pub fn resolve(self, id: PolicyId, created: Timestamp) -> Result<PolicyObject, PolicyError> {
        let policy = self.policy()?;
        let namespaces = match (&id.namespace, self.namespaces) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "spec.namespaces",
                    "an AllocationPolicy acts on its own namespace only",
                    "leave it out, or make it a ClusterAllocationPolicy",
                ));
            }
            (Some(own), None) => NamespaceScope::own(own),
            (None, namespaces) => {
                let Namespaces { selector, allow, deny } = namespaces.unwrap_or_default();
                NamespaceScope { selector, allow, deny }
            }
        };
        let Selector { kinds, names, match_labels, match_expressions } = self.selector;
        let labels = LabelSelector { match_labels, match_expressions };
        let selector = WorkloadSelector { kinds, names, labels };
        Ok(PolicyObject { id, created, namespaces, selector, policy })
    }

    fn policy(&self) -> Result<Policy, PolicyError> {
        let mut policy = Policy::of(self.profile);
        fill(&mut policy.mode, self.mode);
        self.objectives.put(&mut policy)?;
        self.put_bounds(&mut policy)?;
        self.history.put(&mut policy)?;
        self.resize.put(&mut policy)?;
        fill(&mut policy.controlled_values, self.controlled_values);
        if let Some(Boost { factor, duration }) = self.startup_boost {
            if factor < PerMille::WHOLE {
                return Err(wrong(
                    "spec.startupBoost.factor",
                    format!("{factor} would take away"),
                    "write 100% or more, such as 200%",
                ));
            }
            policy.startup_boost = Some(StartupBoost { factor, duration });
        }
        fill(&mut policy.weight, self.weight.map(PolicyWeight));
        fill(&mut policy.guaranteed_pods, self.guaranteed_pods);
        fill(&mut policy.hpa_pods, self.hpa_pods);
        self.cost.put(&mut policy.cost)?;
        Ok(policy)
    }

    fn put_bounds(&self, policy: &mut Policy) -> Result<(), PolicyError> {
        const LOWER: &str = "make minAllowed smaller or maxAllowed larger";
        if let Some(max) = self.cpu.max_allowed.filter(|max| *max < CpuBounds::LEAST) {
            return Err(wrong(
                "spec.cpu.maxAllowed",
                format!("{max} cannot be enforced"),
                "write 10m or more",
            ));
        }
        if let Some(max) = self.memory.max_allowed.filter(|max| *max < MemoryBounds::LEAST) {
            return Err(wrong(
                "spec.memory.maxAllowed",
                format!("{max} starts no container"),
                "write 32Mi or more",
            ));
        }
        fill(&mut policy.cpu.min_allowed, self.cpu.min_allowed.map(|min| min.max(CpuBounds::LEAST)));
        fill(&mut policy.cpu.max_allowed, self.cpu.max_allowed);
        fill(&mut policy.memory.min_allowed, self.memory.min_allowed.map(|min| min.max(MemoryBounds::LEAST)));
        fill(&mut policy.memory.max_allowed, self.memory.max_allowed);
        let (cpu, memory) = (policy.cpu, policy.memory);
        if cpu.min_allowed > cpu.max_allowed {
            let problem = format!("{} is above maxAllowed, {}", cpu.min_allowed, cpu.max_allowed);
            return Err(wrong("spec.cpu.minAllowed", problem, LOWER));
        }
        if memory.min_allowed > memory.max_allowed {
            let problem = format!("{} is above maxAllowed, {}", memory.min_allowed, memory.max_allowed);
            return Err(wrong("spec.memory.minAllowed", problem, LOWER));
        }
        Ok(())
    }
}

impl Objectives {
    fn put(&self, policy: &mut Policy) -> Result<(), PolicyError> {
        if self.p99_wait == Some(Micros(0)) {
            let remedy = "write a duration such as 5ms";
            return Err(wrong("spec.objectives.p99Wait", "no thread is switched in at once", remedy));
        }
        if let Some(share) = self.throttled_share.filter(|share| *share > PerMille::WHOLE) {
            let remedy = "write a share of up to 100%, such as 1%";
            return Err(wrong(
                "spec.objectives.throttledShare",
                format!("{share} is more than all periods"),
                remedy,
            ));
        }
        fill(&mut policy.objectives.p99_wait, self.p99_wait);
        fill(&mut policy.objectives.throttled_share, self.throttled_share);
        fill(&mut policy.objectives.memory_headroom, self.memory_headroom);
        fill(&mut policy.objectives.causes, self.causes.clone());
        Ok(())
    }
}

impl History {
    fn put(&self, policy: &mut Policy) -> Result<(), PolicyError> {
        for (field, duration) in [
            ("spec.history.window", self.window),
            ("spec.history.halfLife", self.half_life),
            ("spec.history.staleAfter", self.stale_after),
            ("spec.history.interval", self.interval),
        ] {
            if duration == Some(Seconds(0)) {
                return Err(wrong(field, "0 leaves nothing to go by", "write a duration such as 1h"));
            }
        }
        if let Some(stale_after) = self.stale_after.filter(|stale_after| *stale_after < LEAST_STALE_AFTER) {
            let problem = format!("{stale_after} would call all data stale");
            return Err(wrong("spec.history.staleAfter", problem, "write 15s or more"));
        }
        let history = &mut policy.history;
        fill(&mut history.source, self.source);
        history.percentile = self.percentile.or(history.percentile);
        fill(&mut history.margin, self.margin);
        fill(&mut history.window, self.window);
        fill(&mut history.half_life, self.half_life);
        fill(&mut history.minimum_data, self.minimum_data);
        fill(&mut history.stale_after, self.stale_after);
        fill(&mut history.interval, self.interval);
        Ok(())
    }
}

impl Cost {
    fn put(self, prices: &mut Prices) -> Result<(), PolicyError> {
        if self.changes_per_day == Some(0) {
            let remedy = "write 1 or more, or `mode: Recommend` to change nothing";
            return Err(wrong("spec.cost.changesPerDay", "0 would let nothing shrink", remedy));
        }
        fill(&mut prices.change_minutes, self.change_minutes);
        fill(&mut prices.breach_minutes, self.breach_minutes);
        fill(&mut prices.unmet, self.unmet);
        fill(&mut prices.changes_per_day, self.changes_per_day);
        Ok(())
    }
}

impl Resize {
    fn put(&self, policy: &mut Policy) -> Result<(), PolicyError> {
        if let Some(share) = self.max_step_down.filter(|share| *share >= PerMille::WHOLE || share.0 == 0) {
            let remedy = "write more than 0% and less than 100%, such as 50%";
            return Err(wrong(
                "spec.resize.maxStepDown",
                format!("{share} takes away all or nothing"),
                remedy,
            ));
        }
        if let Some(share) = self.hysteresis.filter(|share| *share >= PerMille::WHOLE) {
            let problem = format!("{share} would hold all that shrinks");
            return Err(wrong("spec.resize.hysteresis", problem, "write less than 100%, such as 10%"));
        }
        if self.max_step_up == Some(PerMille(0)) {
            let remedy = "write a share such as 100%, or leave it out for no bound";
            return Err(wrong("spec.resize.maxStepUp", "0% would never raise anything", remedy));
        }
        if let Some(changes) = self.changes_per_hour.filter(|changes| changes.get() > MOST_CHANGES_PER_HOUR) {
            let problem = format!("{changes} would never hold anything");
            return Err(wrong("spec.resize.changesPerHour", problem, "write 60 or less: one a minute"));
        }
        let resize = &mut policy.resize;
        fill(&mut resize.fallback, self.fallback);
        fill(&mut resize.hysteresis, self.hysteresis);
        resize.max_step_up = self.max_step_up.or(resize.max_step_up);
        fill(&mut resize.max_step_down, self.max_step_down);
        fill(&mut resize.cooldown, self.cooldown);
        fill(&mut resize.changes_per_hour, self.changes_per_hour);
        fill(&mut resize.deferred_deadline, self.deferred_deadline);
        Ok(())
    }
}

/// Replaces a default by what was written.
fn fill<T>(default: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *default = written;
    }
}

#[cfg(test)]
mod tests;
