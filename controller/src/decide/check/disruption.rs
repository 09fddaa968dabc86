//! Who is restarted or evicted.

use std::collections::BTreeSet;

use super::{Check, Violation};
use crate::decide::observation::{Phase, Pod};
use crate::decide::plan::{Action, ActionKind, Plan};
use crate::decide::sizes::Resource;

impl Check<'_> {
    /// A plan disrupts as many pods as each budget allows, one of each workload, none that answers while another of its workload
    /// does not, and evicts nobody who would be missed.
    pub(super) fn disruptions(&mut self, plan: &Plan) {
        let mut allowed: Vec<u32> =
            self.observation.disruption_budgets.iter().map(|budget| budget.disruptions_allowed).collect();
        let mut workloads = BTreeSet::new();
        for action in &plan.actions {
            let Some(pod) = self.observation.pods.get(&action.uid).filter(|pod| disrupts(pod, action)) else {
                continue;
            };
            let mut holds = action.kind != ActionKind::Recreate || self.may_be_evicted(pod);
            for (budget, left) in self.observation.disruption_budgets.iter().zip(&mut allowed) {
                if budget.namespace == pod.namespace && budget.selector.matches(&pod.labels) {
                    holds &= *left > 0;
                    *left = left.saturating_sub(1);
                }
            }
            holds &= pod.workload.is_none() || !is_there(pod) || self.others(pod).all(is_there);
            holds &=
                pod.workload.as_ref().is_none_or(|workload| workloads.insert((&pod.namespace, workload)));
            self.require(action, "", holds, Violation::Disruption);
        }
    }

    /// Whether somebody makes it anew, and somebody else answers meanwhile, if it does.
    fn may_be_evicted(&self, pod: &Pod) -> bool {
        pod.workload.is_some() && (!is_there(pod) || self.others(pod).any(is_there))
    }

    /// The other pods of its workload, but those that have ended.
    fn others(&self, pod: &Pod) -> impl Iterator<Item = &Pod> {
        self.observation.pods.values().filter(move |other| {
            let same = (&other.namespace, &other.workload) == (&pod.namespace, &pod.workload);
            same && other.name != pod.name && !matches!(other.phase, Phase::Succeeded | Phase::Failed)
        })
    }
}

fn is_there(pod: &Pod) -> bool {
    pod.ready && !pod.terminating && pod.phase == Phase::Running
}

/// Whether an action restarts a container or evicts its pod. What is taken back was never in force.
fn disrupts(pod: &Pod, action: &Action) -> bool {
    let restarts = || {
        action.containers.iter().any(|(name, change)| {
            pod.containers.get(name).is_some_and(|container| {
                let moves = |resource: &Resource| change.from.pair(*resource) != change.to.pair(*resource);
                let restarts = |resource: &Resource| container.resize_policy.restarts(*resource);
                Resource::ALL.iter().any(|resource| moves(resource) && restarts(resource))
            })
        })
    };
    match action.kind {
        ActionKind::Recreate => true,
        ActionKind::Resize => restarts(),
        ActionKind::Revert => false,
    }
}
