//! The order of actions: on each node, what frees room first, then what fits into it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::disruption::{Disruption, Disrupts};
use super::draft::Draft;
use super::observation::{Observation, Phase, PodUid};
use super::pipeline::priority;
use super::plan::{Action, Plan};
use super::pod::{disrupts, growth};
use super::reason::Reason;
use super::record::Step;
use super::sizes::Resource;

/// An action, by how much CPU and memory its pod grows, and what it disrupts.
struct Sized {
    action: Action,
    cpu: i128,
    memory: i128,
    disrupts: Option<Disrupts>,
}

/// Orders the actions. What would not fit at its turn is left out, and its containers are told so.
pub(super) fn plan(observation: &Observation, actions: Vec<Action>, drafts: &mut [Draft<'_>]) -> Plan {
    let mut by_node: BTreeMap<String, Vec<Sized>> = BTreeMap::new();
    for action in actions {
        let (cpu, memory) = growth(&observation.pods[&action.uid], &action);
        let of_pod = drafts.iter().filter(|draft| *draft.place.uid == action.uid);
        let disrupts = disrupts(action.kind, of_pod);
        by_node.entry(action.node.clone()).or_default().push(Sized { action, cpu, memory, disrupts });
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
    let mut left_out: Vec<(PodUid, Reason)> = Vec::new();
    let mut disruption = Disruption::new(observation);
    for (name, mut actions) in by_node {
        let node = &observation.nodes[&name];
        let held = held.get(name.as_str()).copied().unwrap_or_default();
        let mut room = (i128::from(node.cpu.0) - held.0, i128::from(node.memory.0) - held.1);
        actions.sort_by_key(|Sized { action, cpu, memory, .. }| {
            let frees = *cpu <= 0 && *memory <= 0;
            (!frees, Reverse(priority(observation, &observation.pods[&action.uid])), action.uid.clone())
        });
        // Each round takes the first that fits, so that what one frees of one resource helps another.
        while let Some(next) = actions.iter().position(|sized| {
            (sized.cpu <= 0 || sized.cpu <= room.0) && (sized.memory <= 0 || sized.memory <= room.1)
        }) {
            let Sized { action, cpu, memory, disrupts } = actions.remove(next);
            // Only what nothing else holds takes of what may be disrupted.
            if let Some(disrupts) = disrupts {
                let pod = &observation.pods[&action.uid];
                if let Some(reason) = disruption.refusal(pod, disrupts) {
                    left_out.push((action.uid, reason));
                    continue;
                }
                disruption.take(pod);
            }
            room = (room.0 - cpu, room.1 - memory);
            plan.actions.push(action);
        }
        left_out.extend(actions.into_iter().map(|Sized { action, cpu, .. }| {
            let full = if cpu > 0 && cpu > room.0 { Resource::Cpu } else { Resource::Memory };
            (action.uid, Reason::NodeFull(full))
        }));
    }
    for (uid, reason) in left_out {
        for draft in drafts.iter_mut().filter(|draft| *draft.place.uid == uid) {
            draft.hold(Step::Plan, reason.clone());
        }
    }
    plan
}
