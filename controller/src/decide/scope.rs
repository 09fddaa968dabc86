//! Which policy acts on which pod.
//!
//! A policy's scope is its namespaces ∩ its workloads: namespace selector ∩ workload selector ∩ allow − deny. What a
//! cluster policy denies, no policy may touch, also not a namespace's own.
//!
//! Of several policies in whose scope a pod lies, the most specific wins: a namespace's own before a cluster's, then the one that
//! names workloads, then the one that asks more of labels, then the one that names kinds. Ties go to the older one,
//! then to the name that sorts first. The bounds of every cluster policy in whose scope the pod lies clamp it.
//!
//! Where it cannot be told who made a pod, and a policy would go by that, none is chosen: another one might hold for it.

mod kind;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::kind::{GroupKind, KindError, WorkloadKind};
use super::labels::{LabelSelector, Labels};
use super::observation::{MadeBy, Workload};
use super::policy::{CpuBounds, MemoryBounds, Policy};
use super::units::Timestamp;

/// A policy's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId {
    /// `None`: a `ClusterAllocationPolicy`.
    pub namespace: Option<String>,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "AllocationPolicy {namespace}/{}", self.name),
            None => write!(f, "ClusterAllocationPolicy {}", self.name),
        }
    }
}

/// Which namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceScope {
    /// By the namespace's labels.
    pub selector: LabelSelector,
    /// By name; empty allows all.
    pub allow: BTreeSet<String>,
    /// Not these, whoever allows them.
    pub deny: BTreeSet<String>,
}

impl NamespaceScope {
    /// Only this one.
    pub fn own(namespace: &str) -> Self {
        Self { allow: BTreeSet::from([namespace.to_owned()]), ..Self::default() }
    }

    fn holds(&self, namespace: &str, labels: &Labels) -> bool {
        !self.deny.contains(namespace)
            && (self.allow.is_empty() || self.allow.contains(namespace))
            && self.selector.matches(labels)
    }
}

/// Which workloads: those for which all holds that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSelector {
    /// Of one of these kinds.
    pub kinds: BTreeSet<WorkloadKind>,
    /// With one of these names.
    pub names: BTreeSet<String>,
    /// With such labels on their pods.
    pub labels: LabelSelector,
}

/// A pod, as far as policies choose by it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The namespace's labels.
    pub namespace_labels: &'a Labels,
    /// Who made it.
    pub made_by: MadeBy<&'a Workload>,
    /// The pod's labels.
    pub labels: &'a Labels,
}

impl WorkloadSelector {
    /// Whether it selects the pod; `None`: that depends on who made it, which cannot be told.
    fn matches(&self, subject: &Subject<'_>) -> Option<bool> {
        let any = self.kinds.is_empty() && self.names.is_empty();
        match subject.made_by {
            _ if !self.labels.matches(subject.labels) => Some(false),
            _ if any => Some(true),
            MadeBy::Workload(Workload { kind, name }) => Some(
                (self.kinds.is_empty() || self.kinds.contains(kind))
                    && (self.names.is_empty() || self.names.contains(name)),
            ),
            MadeBy::Nobody => Some(false),
            MadeBy::Unknown => None,
        }
    }
}

/// A policy object: who it is, where it acts and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyObject {
    /// Its name.
    pub id: PolicyId,
    /// When it was made. Decides ties.
    pub created: Timestamp,
    /// Where it acts.
    pub namespaces: NamespaceScope,
    /// On which workloads.
    pub selector: WorkloadSelector,
    /// What it says.
    pub policy: Policy,
}

impl PolicyObject {
    /// Whether the pod lies in its scope; `None`: that depends on who made it, which cannot be told.
    pub fn selects(&self, subject: &Subject<'_>) -> Option<bool> {
        if self.namespaces.holds(subject.namespace, subject.namespace_labels) {
            self.selector.matches(subject)
        } else {
            Some(false)
        }
    }

    fn is_cluster(&self) -> bool {
        self.id.namespace.is_none()
    }

    /// Larger is more specific.
    fn specificity(&self) -> impl Ord {
        let WorkloadSelector { kinds, names, labels } = &self.selector;
        let own = !self.is_cluster();
        (
            own,
            !names.is_empty(),
            labels.requirements(),
            !kinds.is_empty(),
            Reverse((self.created, self.id.clone())),
        )
    }
}

/// The outcome for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// This policy acts, its bounds clamped by the cluster's.
    Chosen {
        /// Who won.
        id: PolicyId,
        /// What holds.
        policy: Box<Policy>,
        /// Those in whose scope the pod lies, too, the most specific first.
        overruled: Vec<PolicyId>,
    },
    /// No policy has it in its scope.
    None,
    /// A cluster policy denies the namespace.
    Denied(PolicyId),
    /// This policy goes by who made the pod, which cannot be told.
    OwnerUnknown(PolicyId),
}

/// Which policy acts on this pod.
pub fn select<'a>(
    policies: impl Iterator<Item = &'a PolicyObject> + Clone,
    subject: &Subject<'_>,
) -> Selection {
    let denies =
        |policy: &&PolicyObject| policy.is_cluster() && policy.namespaces.deny.contains(subject.namespace);
    if let Some(denying) = policies.clone().filter(denies).min_by_key(|policy| &policy.id) {
        return Selection::Denied(denying.id.clone());
    }
    let mut selecting = Vec::new();
    let mut undecided: Option<&PolicyId> = None;
    for policy in policies {
        match policy.selects(subject) {
            Some(true) => selecting.push(policy),
            Some(false) => {}
            None => undecided = Some(undecided.map_or(&policy.id, |first| first.min(&policy.id))),
        }
    }
    if let Some(id) = undecided {
        return Selection::OwnerUnknown(id.clone());
    }
    selecting.sort_by_cached_key(|policy| Reverse(policy.specificity()));
    let Some((chosen, overruled)) = selecting.split_first() else { return Selection::None };
    let mut policy = chosen.policy.clone();
    for cluster in selecting.iter().filter(|policy| policy.is_cluster()) {
        policy.cpu = clamp_cpu(policy.cpu, cluster.policy.cpu);
        policy.memory = clamp_memory(policy.memory, cluster.policy.memory);
    }
    Selection::Chosen {
        id: chosen.id.clone(),
        policy: Box::new(policy),
        overruled: overruled.iter().map(|policy| policy.id.clone()).collect(),
    }
}

fn clamp_cpu(bounds: CpuBounds, cluster: CpuBounds) -> CpuBounds {
    let clamp = |bound| Ord::clamp(bound, cluster.min_allowed, cluster.max_allowed);
    CpuBounds { min_allowed: clamp(bounds.min_allowed), max_allowed: clamp(bounds.max_allowed) }
}

fn clamp_memory(bounds: MemoryBounds, cluster: MemoryBounds) -> MemoryBounds {
    let clamp = |bound| Ord::clamp(bound, cluster.min_allowed, cluster.max_allowed);
    MemoryBounds { min_allowed: clamp(bounds.min_allowed), max_allowed: clamp(bounds.max_allowed) }
}

#[cfg(test)]
mod tests;
