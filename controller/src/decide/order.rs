//! The order of actions: on each node, what frees room first, then what fits into it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::observation::{Observation, Phase, PodUid};
use super::pipeline::{Draft, priority};
use super::plan::{Action, Plan};
use super::pod::growth;
use super::reason::Reason;
use super::record::Step;
use super::sizes::Resource;

/// An action, and by how much CPU and memory its pod grows.
struct Sized {
    action: Action,
    cpu: i128,
    memory: i128,
}

/// Orders the actions. What would not fit at its turn is left out, and its containers are told so.
pub(super) fn plan(observation: &Observation, actions: Vec<Action>, drafts: &mut [Draft<'_>]) -> Plan {
    let mut by_node: BTreeMap<String, Vec<Sized>> = BTreeMap::new();
    for action in actions {
        let (cpu, memory) = growth(&observation.pods[&action.uid], &action);
        by_node.entry(action.node.clone()).or_default().push(Sized { action, cpu, memory });
    }
    let mut held: BTreeMap<&str, (i128, i128)> = BTreeMap::new();
    for pod in observation.pods.values() {
        if let Some(node) =
            pod.node.as_deref().filter(|_| !matches!(pod.phase, Phase::Succeeded | Phase::Failed))
        {
            let sizes = pod.held();
            let sum = held.entry(node).or_default();
            *sum = (sum.0 + i128::from(sizes.cpu().0), sum.1 + i128::from(sizes.memory().0));
        }
    }
    let mut plan = Plan::default();
    let mut left_out: Vec<(PodUid, Resource)> = Vec::new();
    for (name, mut actions) in by_node {
        let node = &observation.nodes[&name];
        let held = held.get(name.as_str()).copied().unwrap_or_default();
        let mut room = (i128::from(node.cpu.0) - held.0, i128::from(node.memory.0) - held.1);
        actions.sort_by_key(|Sized { action, cpu, memory }| {
            let frees = *cpu <= 0 && *memory <= 0;
            (!frees, Reverse(priority(observation, &observation.pods[&action.uid])), action.uid.clone())
        });
        // Each round takes the first that fits, so that what one frees of one resource helps another.
        while let Some(next) = actions.iter().position(|sized| {
            (sized.cpu <= 0 || sized.cpu <= room.0) && (sized.memory <= 0 || sized.memory <= room.1)
        }) {
            let Sized { action, cpu, memory } = actions.remove(next);
            room = (room.0 - cpu, room.1 - memory);
            plan.actions.push(action);
        }
        left_out.extend(actions.into_iter().map(|Sized { action, cpu, .. }| {
            (action.uid, if cpu > 0 && cpu > room.0 { Resource::Cpu } else { Resource::Memory })
        }));
    }
    for (uid, resource) in left_out {
        for draft in drafts.iter_mut().filter(|draft| *draft.place.uid == uid) {
            draft.hold(Step::Plan, Reason::NodeFull(resource));
        }
    }
    plan
}
