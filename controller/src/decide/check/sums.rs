//! What is added up: requests on a node, what a quota charges, a pod's containers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Violation};
use crate::decide::labels::{LabelSelector, Labels, Requirement};
use crate::decide::observation::{ContainerKind, Phase, Pod, Qos, QuotaScope, ResizeState};
use crate::decide::plan::{Action, Plan};
use crate::decide::sizes::{Resource, Sizes};

impl Check<'_> {
    pub(super) fn pod_limit_range(&mut self, action: &Action, pod: &Pod) {
        for range in self.limit_ranges(&pod.namespace) {
            for resource in Resource::ALL {
                let (min, max, _) = range.pod.of(resource);
                // Least and most, by how many of the sidecars were there already when the largest init container ran.
                let sum = |limits: bool| -> (u64, u64) {
                    let (mut together, mut alone, mut beside) = (0u64, 0, 0u64);
                    for (name, container) in &pod.containers {
                        let sizes = action.containers.get(name).map_or(container.desired, |change| change.to);
                        let (request, limit) = sizes.pair(resource);
                        let size = (if limits { limit } else { request }).unwrap_or(0);
                        match container.kind {
                            ContainerKind::App => together = together.saturating_add(size),
                            ContainerKind::Sidecar => beside = beside.saturating_add(size),
                            ContainerKind::Init => alone = size.max(alone),
                        }
                    }
                    let least = together.saturating_add(beside).max(alone);
                    (least, together.max(alone).saturating_add(beside))
                };
                let holds = min.is_none_or(|min| sum(false).0 >= min)
                    && max.is_none_or(|max| sum(false).1.max(sum(true).1) <= max);
                self.require(action, "", holds, Violation::LimitRange);
            }
        }
    }

    /// Requests on a node do not grow beyond what it has, whichever of the actions are done: one that shrinks may be refused or
    /// take its time, and counts for nothing.
    pub(super) fn nodes(&mut self, plan: &Plan) {
        for resource in Resource::ALL {
            let mut room: BTreeMap<&str, i128> = BTreeMap::new();
            for (name, node) in &self.observation.nodes {
                let total = match resource {
                    Resource::Cpu => node.cpu.0,
                    Resource::Memory => node.memory.0,
                };
                room.insert(name, i128::from(total));
            }
            for pod in self.observation.pods.values() {
                let over = matches!(pod.phase, Phase::Succeeded | Phase::Failed);
                if let Some(room) = pod.node.as_deref().and_then(|node| room.get_mut(node)).filter(|_| !over)
                {
                    *room -= held(pod, None, resource);
                }
            }
            for action in &plan.actions {
                let Some(pod) = self.observation.pods.get(&action.uid) else { continue };
                let Some(room) = room.get_mut(action.node.as_str()) else { continue };
                let growth = held(pod, Some(action), resource) - held(pod, None, resource);
                let fits = growth <= 0 || growth <= *room;
                *room -= growth.max(0);
                self.require(action, "", fits, Violation::NodeRoom);
            }
        }
    }

    /// What a plan adds in a namespace is at most what its quotas have left.
    pub(super) fn quotas(&mut self, plan: &Plan) {
        let mut by_namespace: BTreeMap<&str, Vec<&Action>> = BTreeMap::new();
        for action in &plan.actions {
            by_namespace.entry(&action.namespace).or_default().push(action);
        }
        for quota in &self.observation.quotas {
            let Some(actions) = by_namespace.get(quota.namespace.as_str()) else { continue };
            for resource in Resource::ALL {
                let ((hard, hard_limit), (used, used_limit)) =
                    (quota.hard.pair(resource), quota.used.pair(resource));
                for (hard, used, limits) in [(hard, used, false), (hard_limit, used_limit, true)] {
                    let Some(hard) = hard else { continue };
                    let mut left = hard.saturating_sub(used.unwrap_or(0));
                    for &action in actions {
                        let pod = self.observation.pods.get(&action.uid);
                        if !pod.is_none_or(|pod| counted(pod, &quota.scopes)) {
                            continue;
                        }
                        for (name, change) in &action.containers {
                            let part = |sizes: &Sizes| {
                                let (request, limit) = sizes.pair(resource);
                                (if limits { limit } else { request }).unwrap_or(0)
                            };
                            // A quota charges the largest of what is asked for, agreed to and there.
                            let container = pod.and_then(|pod| pod.containers.get(name));
                            let agreed = container.map(|of| [of.allocated, of.actual]).into_iter().flatten();
                            let charged = agreed.flatten().map(|sizes| part(&sizes)).max().unwrap_or(0);
                            let added = part(&change.to).saturating_sub(charged.max(part(&change.from)));
                            self.require(action, name, added <= left, Violation::Quota);
                            left = left.saturating_sub(added);
                        }
                    }
                }
            }
        }
    }
}

/// Whether a quota of such scopes counts a pod, as the API server's quota evaluator has it: a requirement on the priority class is
/// one on a label of that name.
fn counted(pod: &Pod, scopes: &[QuotaScope]) -> bool {
    const LABEL: &str = "PriorityClass";
    let class: Labels = pod.priority.class.iter().map(|class| (LABEL.to_owned(), class.clone())).collect();
    let label = |requirement: fn(String, BTreeSet<String>) -> Requirement, values: &BTreeSet<String>| {
        let match_expressions = vec![requirement(LABEL.to_owned(), values.clone())];
        LabelSelector { match_expressions, ..LabelSelector::default() }.matches(&class)
    };
    scopes.iter().all(|scope| match scope {
        QuotaScope::Terminating | QuotaScope::NotTerminating => {
            pod.has_deadline == (*scope == QuotaScope::Terminating)
        }
        QuotaScope::BestEffort | QuotaScope::NotBestEffort => {
            (pod.qos == Qos::BestEffort) == (*scope == QuotaScope::BestEffort)
        }
        QuotaScope::CrossNamespacePodAffinity => pod.affinity_across_namespaces,
        QuotaScope::PriorityClass => !class.is_empty(),
        QuotaScope::NoPriorityClass => class.is_empty(),
        QuotaScope::PriorityClassIn(classes) => label(Requirement::In, classes),
        QuotaScope::PriorityClassNotIn(classes) => label(Requirement::NotIn, classes),
    })
}

/// What a pod holds on its node, or will after an action.
fn held(pod: &Pod, action: Option<&Action>, resource: Resource) -> i128 {
    let request = |sizes: &Sizes| i128::from(sizes.pair(resource).0.unwrap_or(0));
    let refused = matches!(pod.resize, ResizeState::Infeasible { .. });
    // Init containers run one after the other, beside the sidecars; how many of those run by then is not known here, so
    // all of them are.
    let (mut together, mut alone, mut beside) = (0, 0, 0);
    for (name, container) in &pod.containers {
        let agreed = [&container.allocated, &container.actual];
        let agreed: Vec<i128> = agreed.into_iter().flatten().map(request).collect();
        let planned = action.and_then(|action| action.containers.get(name));
        let held = match (planned, agreed.iter().max()) {
            (Some(change), _) => request(&change.to),
            (None, Some(agreed)) if refused => *agreed,
            (None, Some(agreed)) => (*agreed).max(request(&container.desired)),
            (None, None) => request(&container.desired),
        };
        match container.kind {
            ContainerKind::Init => alone = held.max(alone),
            ContainerKind::Sidecar => beside += held,
            ContainerKind::App => together += held,
        }
    }
    (together.max(alone) + beside).max(request(&pod.resources)) + request(&pod.overhead)
}

/// A pod's class by its containers' sizes, as the API server computes it.
pub(super) fn class(sizes: impl Iterator<Item = Sizes>) -> Qos {
    let sizes: Vec<Sizes> = sizes.collect();
    if sizes.iter().all(|sizes| *sizes == Sizes::default()) {
        return Qos::BestEffort;
    }
    let bound = |sizes: &Sizes| {
        Resource::ALL.iter().all(|resource| {
            let (request, limit) = sizes.pair(*resource);
            limit.is_some_and(|limit| request.is_none_or(|request| request == limit))
        })
    };
    if sizes.iter().all(bound) { Qos::Guaranteed } else { Qos::Burstable }
}
