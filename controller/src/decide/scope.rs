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
use std::collections::{BTreeMap, BTreeSet};
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

/// A pod, as far as the policies of its namespace choose by it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
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

/// Policies, to choose from for many pods.
#[derive(Debug)]
pub struct Scopes<'a> {
    /// Those that name no namespace.
    anywhere: Vec<&'a PolicyObject>,
    /// By the namespaces that they name.
    named: BTreeMap<&'a str, Vec<&'a PolicyObject>>,
    /// By namespace, the cluster policy that denies it.
    denied: BTreeMap<&'a str, &'a PolicyId>,
}

/// The policies that may act in one namespace.
#[derive(Debug)]
pub struct InNamespace<'a> {
    denied: Option<&'a PolicyId>,
    /// The most specific first.
    policies: Vec<&'a PolicyObject>,
}

impl<'a> Scopes<'a> {
    /// Of these.
    pub fn of(policies: impl IntoIterator<Item = &'a PolicyObject>) -> Self {
        let mut scopes = Self { anywhere: Vec::new(), named: BTreeMap::new(), denied: BTreeMap::new() };
        for policy in policies {
            let NamespaceScope { allow, deny, .. } = &policy.namespaces;
            if allow.is_empty() {
                scopes.anywhere.push(policy);
            }
            for namespace in allow {
                scopes.named.entry(namespace).or_default().push(policy);
            }
            for namespace in deny.iter().filter(|_| policy.is_cluster()) {
                let by = scopes.denied.entry(namespace).or_insert(&policy.id);
                *by = (*by).min(&policy.id);
            }
        }
        scopes
    }

    /// Those that may act in the namespace of this name and labels.
    pub fn in_namespace(&self, namespace: &str, labels: &Labels) -> InNamespace<'a> {
        let denied = self.denied.get(namespace).copied();
        let named = self.named.get(namespace).into_iter().flatten();
        let all = self.anywhere.iter().chain(named).copied();
        let mut policies: Vec<_> = all.filter(|policy| policy.namespaces.holds(namespace, labels)).collect();
        policies.sort_by_cached_key(|policy| Reverse(policy.specificity()));
        InNamespace { denied, policies }
    }
}

impl InNamespace<'_> {
    /// Which of them acts on a pod there.
    pub fn select(&self, subject: &Subject<'_>) -> Selection {
        if let Some(denied) = self.denied {
            return Selection::Denied(denied.clone());
        }
        let mut selecting = Vec::new();
        let mut undecided: Option<&PolicyId> = None;
        for policy in &self.policies {
            match policy.selector.matches(subject) {
                Some(true) => selecting.push(*policy),
                Some(false) => {}
                None => undecided = Some(undecided.map_or(&policy.id, |first| first.min(&policy.id))),
            }
        }
        if let Some(id) = undecided {
            return Selection::OwnerUnknown(id.clone());
        }
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
