//! Who is restarted or evicted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Violation};
use crate::decide::observation::{DisruptionBudget, MadeBy, Phase, Pod, Workload};
use crate::decide::plan::{Action, ActionKind, Plan};
use crate::decide::sizes::Resource;

impl Check<'_> {
    /// A plan disrupts as many pods as each budget allows, one of each workload, none that answers while another of its workload
    /// does not, none of which nobody knows whose it is, and evicts nobody who would be missed.
    pub(super) fn disruptions(&mut self, plan: &Plan) {
        let pod_of = |action: &Action| self.observation.pods.get(&action.uid);
        let disrupting: Vec<(&Action, &Pod)> = plan
            .actions
            .iter()
            .filter_map(|action| Some((action, pod_of(action).filter(|pod| disrupts(pod, action))?)))
            .collect();
        if disrupting.is_empty() {
            return;
        }
        // Of each maker, how many answer and how many do not.
        let mut fellows: BTreeMap<(&str, MadeBy<&Workload>), (u32, u32)> = BTreeMap::new();
        for (uid, pod) in &self.observation.pods {
            if !matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
                let (there, away) = fellows.entry((&pod.namespace, self.maker(uid, pod))).or_default();
                *(if is_there(pod) { there } else { away }) += 1;
            }
        }
        let budgets = &self.observation.disruption_budgets;
        let mut allowed: BTreeMap<&str, Vec<(&DisruptionBudget, u32)>> = BTreeMap::new();
        for budget in budgets {
            allowed.entry(&budget.namespace).or_default().push((budget, budget.disruptions_allowed));
        }
        let mut workloads = BTreeSet::new();
        let mut wrong = Vec::new();
        for (action, pod) in disrupting {
            let maker = self.maker(&action.uid, pod);
            let of = |maker| fellows.get(&(pod.namespace.as_str(), maker)).copied().unwrap_or_default();
            let mut holds = match maker {
                MadeBy::Nobody => action.kind != ActionKind::Recreate,
                MadeBy::Workload(_) => {
                    // Of those that answer it is one, if it does. One of which nobody knows whose it is may be another.
                    let ((there, away), (_, unknown)) = (of(maker), of(MadeBy::Unknown));
                    let missed = there <= 1 && action.kind == ActionKind::Recreate;
                    !(is_there(pod) && (missed || away > 0 || unknown > 0))
                        && workloads.insert((&pod.namespace, maker))
                }
                MadeBy::Unknown => false,
            };
            for (budget, left) in allowed.get_mut(pod.namespace.as_str()).into_iter().flatten() {
                if budget.selector.matches(&pod.labels) {
                    holds &= *left > 0;
                    *left = left.saturating_sub(1);
                }
            }
            wrong.extend((!holds).then_some(action));
        }
        wrong.into_iter().for_each(|action| self.find(action, "", Violation::Disruption));
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
