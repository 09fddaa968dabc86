//! The order of actions: on each node, what frees room first. All of it fits in any order, since the node was divided without what
//! is still to be freed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use super::disruption::Disruption;
use super::draft::Draft;
use super::observation::{Observation, PodUid};
use super::pipeline::priority;
use super::plan::{Action, Plan};
use super::pod::{disrupts, growth, undisrupting};
use super::state::State;
use super::units::Timestamp;

/// Orders the actions. What would disrupt more than may be is left out of them, and its containers are told so.
pub(super) fn plan(
    observation: &Observation,
    state: &State,
    now: Timestamp,
    actions: Vec<Action>,
    drafts: &mut [Draft<'_>],
) -> Plan {
    let mut by_node: BTreeMap<String, Vec<Action>> = BTreeMap::new();
    for action in actions {
        by_node.entry(action.node.clone()).or_default().push(action);
    }
    let mut plan = Plan::default();
    let mut disruption = Disruption::new(observation, state, now);
    let place = |action: &Action| {
        let pod = &observation.pods[&action.uid];
        let (cpu, memory) = growth(pod, action);
        let frees = cpu <= 0 && memory <= 0;
        (!frees, Reverse(priority(observation, pod)), action.uid.clone())
    };
    for mut actions in by_node.into_values() {
        actions.sort_by_cached_key(place);
        let (first, mut less) = (plan.actions.len(), false);
        for action in actions {
            let of_pod = of_pod(drafts, &action.uid);
            let pod = &observation.pods[&action.uid];
            let disrupts = disrupts(action.kind, &drafts[of_pod.clone()]);
            if let Some(reason) = disrupts.and_then(|disrupts| disruption.refusal(&action.uid, pod, disrupts))
            {
                less = true;
                plan.actions.extend(undisrupting(observation, &action, &reason, of_pod, drafts));
                continue;
            }
            // Only what nothing else holds takes of what may be disrupted.
            if disrupts.is_some() {
                disruption.take(&action.uid, pod);
            }
            plan.actions.push(action);
        }
        if less {
            // What is left of an action may take what the whole of it freed.
            plan.actions[first..].sort_by_cached_key(place);
        }
    }
    plan
}

/// Where the drafts of a pod are: they are in the order of their uids.
fn of_pod(drafts: &[Draft<'_>], uid: &PodUid) -> Range<usize> {
    drafts.partition_point(|draft| draft.place.uid < uid)
        ..drafts.partition_point(|draft| draft.place.uid <= uid)
}
