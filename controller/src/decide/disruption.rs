//! Who may be disrupted: as many as each PodDisruptionBudget allows, one of a workload at a time, and nobody who would be missed.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::observation::{Observation, Phase, Pod};
use super::reason::Reason;
use super::scope::WorkloadKind;

/// What a change does to who is changed, beside changing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Disrupts {
    /// A container is started again.
    Restart,
    /// The pod is evicted.
    Eviction,
}

impl fmt::Display for Disrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "changing it restarts it",
            Self::Eviction => "changing it evicts its pod",
        })
    }
}

/// What a plan has disrupted so far.
pub(super) struct Disruption<'a> {
    observation: &'a Observation,
    /// Of each budget, in their order.
    taken: Vec<u32>,
    workloads: BTreeSet<(&'a str, WorkloadKind, &'a str)>,
}

impl<'a> Disruption<'a> {
    /// Nobody yet.
    pub(super) fn new(observation: &'a Observation) -> Self {
        let taken = vec![0; observation.disruption_budgets.len()];
        Self { observation, taken, workloads: BTreeSet::new() }
    }

    /// Why this pod may not be disrupted, if it may not.
    pub(super) fn refusal(&self, pod: &Pod, disrupts: Disrupts) -> Option<Reason> {
        if disrupts == Disrupts::Eviction {
            if pod.workload.is_none() {
                return Some(Reason::NoOwner);
            }
            if self.is_only_ready(pod) {
                return Some(Reason::OnlyReplica);
            }
        }
        for index in self.budgets(pod) {
            let budget = &self.observation.disruption_budgets[index];
            if budget.disruptions_allowed == 0 {
                return Some(Reason::DisruptionBudget(disrupts, budget.name.clone()));
            }
            if self.taken[index] >= budget.disruptions_allowed {
                return Some(Reason::DisruptionTaken(disrupts, budget.name.clone()));
            }
        }
        let workload = workload(pod)?;
        self.workloads.contains(&workload).then_some(Reason::WorkloadDisrupted(disrupts))
    }

    /// This pod is disrupted.
    pub(super) fn take(&mut self, pod: &'a Pod) {
        for index in self.budgets(pod) {
            self.taken[index] += 1;
        }
        self.workloads.extend(workload(pod));
    }

    /// The budgets that count a pod, by their index.
    fn budgets(&self, pod: &Pod) -> Vec<usize> {
        let budgets = self.observation.disruption_budgets.iter().enumerate();
        budgets
            .filter(|(_, budget)| budget.namespace == pod.namespace && budget.selector.matches(&pod.labels))
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether nobody else of its workload would be left to answer.
    fn is_only_ready(&self, pod: &Pod) -> bool {
        let answers = |pod: &Pod| pod.ready && !pod.terminating && pod.phase == Phase::Running;
        let of_it = self.observation.pods.values().filter(|other| workload(other) == workload(pod));
        answers(pod) && of_it.filter(|other| answers(other)).count() <= 1
    }
}

fn workload(pod: &Pod) -> Option<(&str, WorkloadKind, &str)> {
    pod.workload.as_ref().map(|of| (pod.namespace.as_str(), of.kind, of.name.as_str()))
}
