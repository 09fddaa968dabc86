//! What concerns a pod as a whole: its class, the LimitRange of pods, disruption, and the one action for all of its containers.

use std::collections::{BTreeMap, BTreeSet};

use super::bounds;
use super::guards::support;
use super::observation::{Observation, Pod, PodUid, Qos};
use super::pipeline::Draft;
use super::plan::{Action, ActionKind, Change};
use super::reason::Reason;
use super::record::Step;
use super::scope::WorkloadKind;
use super::sizes::{Resource, Sizes};
use super::units::{Bytes, MilliCpu};

/// The class of a pod whose containers have such sizes.
pub fn class<'a>(sizes: impl IntoIterator<Item = &'a Sizes>) -> Qos {
    let (mut some, mut all_equal) = (false, true);
    for sizes in sizes {
        some |= *sizes != Sizes::default();
        let equal = sizes.cpu_limit.is_some() && sizes.memory_limit.is_some();
        all_equal &= equal
            && sizes.cpu_request.or(sizes.cpu_limit) == sizes.cpu_limit
            && sizes.memory_request.or(sizes.memory_limit) == sizes.memory_limit;
    }
    match (some, all_equal) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// One action for each pod that changes. What may not be done is held, with its reason.
pub(super) fn actions(observation: &Observation, drafts: &mut [Draft<'_>]) -> Vec<Action> {
    let mut by_pod: BTreeMap<&PodUid, Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        by_pod.entry(draft.place.uid).or_default().push(index);
    }
    let mut disruption = Disruption::new(observation);
    let mut actions = Vec::new();
    for (uid, indices) in by_pod {
        let pod = &observation.pods[uid];
        let changing: Vec<usize> = indices.iter().copied().filter(|index| drafts[*index].changes()).collect();
        let Some(first) = changing.first() else { continue };
        let node = drafts[*first].node_name.to_owned();
        let kind = how(pod, &changing, drafts, &mut disruption);
        // Last, of what is left by everything else: these look at all containers together.
        check_class(pod, &indices, drafts);
        check_limit_ranges(observation, pod, &indices, drafts);
        let changing: Vec<usize> = indices.into_iter().filter(|index| drafts[*index].changes()).collect();
        let Some(kind) = kind.filter(|_| !changing.is_empty()) else { continue };
        if !changing.iter().all(|index| drafts[*index].is_done()) {
            continue;
        }
        let containers = changing
            .iter()
            .map(|index| {
                let draft = &drafts[*index];
                (draft.place.name.to_owned(), Change { from: draft.current(), to: draft.sizes })
            })
            .collect();
        actions.push(Action {
            node,
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: uid.clone(),
            resource_version: pod.resource_version.clone(),
            kind,
            containers,
        });
    }
    actions
}

/// What the pod's containers would have.
fn sizes_after(pod: &Pod, indices: &[usize], drafts: &[Draft<'_>]) -> BTreeMap<String, Sizes> {
    let mut sizes: BTreeMap<String, Sizes> =
        pod.containers.iter().map(|(name, container)| (name.clone(), container.desired)).collect();
    for index in indices {
        sizes.insert(drafts[*index].place.name.to_owned(), drafts[*index].sizes);
    }
    sizes
}

fn hold_all(indices: &[usize], drafts: &mut [Draft<'_>], reason: &Reason) {
    for index in indices {
        drafts[*index].hold(Step::Plan, reason.clone());
    }
}

/// A pod's class never changes.
fn check_class(pod: &Pod, indices: &[usize], drafts: &mut [Draft<'_>]) {
    let before = class(pod.containers.values().map(|container| &container.desired));
    let changes = |drafts: &[Draft<'_>]| class(sizes_after(pod, indices, drafts).values()) != before;
    if !changes(drafts) {
        return;
    }
    // A request that would reach its limit stops just below it, where that is enough to stay Burstable.
    let reaches = |draft: &Draft<'_>| {
        let Sizes { cpu_request, cpu_limit, .. } = draft.sizes;
        cpu_request == cpu_limit && draft.sizes.cpu() > draft.current().cpu()
    };
    if let Some(index) = indices.iter().find(|index| reaches(&drafts[**index])) {
        let draft = &mut drafts[*index];
        let below = draft.sizes.cpu().saturating_sub(MilliCpu(1));
        draft.mark(Step::Plan, Sizes { cpu_request: Some(below), ..draft.sizes }, Reason::QosWouldChange);
    }
    if changes(drafts) {
        hold_all(indices, drafts, &Reason::QosWouldChange);
    }
}

/// The namespace's LimitRanges: of containers once more, and of pods.
fn check_limit_ranges(observation: &Observation, pod: &Pod, indices: &[usize], drafts: &mut [Draft<'_>]) {
    for range in observation.limit_ranges.iter().filter(|range| range.namespace == pod.namespace) {
        // A guard may have left a request below the part of its limit that the range asks for.
        for index in indices {
            if drafts[*index].outcome == Some(Reason::Reverted) {
                continue;
            }
            let draft = &mut drafts[*index];
            let (current, sizes) = (draft.current(), draft.sizes);
            for resource in Resource::ALL.into_iter().filter(|resource| !sizes.same(*resource, &current)) {
                if !bounds::respects(range, resource, current.pair(resource), sizes.pair(resource)) {
                    let left = draft.sizes.with(resource, &current);
                    draft.mark(Step::Plan, left, Reason::LimitRange(range.name.clone()));
                }
            }
        }
        let after = sizes_after(pod, indices, drafts);
        let broken = Resource::ALL.into_iter().any(|resource| {
            let (min, max, _) = range.pod.of(resource);
            let (mut requests, mut limits) = (0u64, 0u64);
            for (request, limit) in after.values().map(|sizes| sizes.pair(resource)) {
                requests = requests.saturating_add(request.unwrap_or(0));
                limits = limits.saturating_add(limit.unwrap_or(0));
            }
            min.is_some_and(|min| requests < min) || max.is_some_and(|max| requests.max(limits) > max)
        });
        if broken {
            hold_all(indices, drafts, &Reason::LimitRange(range.name.clone()));
        }
    }
}

/// How the pod is changed; `None` where it must not be now.
fn how(
    pod: &Pod,
    changing: &[usize],
    drafts: &mut [Draft<'_>],
    disruption: &mut Disruption<'_>,
) -> Option<ActionKind> {
    if changing.iter().any(|index| drafts[*index].outcome == Some(Reason::Reverted)) {
        return Some(ActionKind::Revert);
    }
    let in_place = changing.iter().all(|index| support::in_place(&drafts[*index].facts));
    let restarts = changing.iter().any(|index| !restarting(&drafts[*index]).is_empty());
    if (!in_place || restarts)
        && let Err(by) = disruption.take(pod, drafts[changing[0]].applies)
    {
        let reason = Reason::DisruptionBudget(by);
        if !in_place {
            hold_all(changing, drafts, &reason);
        }
        for index in changing {
            let draft = &mut drafts[*index];
            let current = draft.current();
            let keep = |left: Sizes, resource| left.with(resource, &current);
            let left = restarting(draft).into_iter().fold(draft.sizes, keep);
            if left != draft.sizes {
                draft.mark(Step::Plan, left, reason.clone());
            }
        }
    }
    if !changing.iter().any(|index| drafts[*index].changes()) {
        return None;
    }
    if in_place {
        return Some(ActionKind::Resize);
    }
    for index in changing {
        drafts[*index].outcome = Some(Reason::Recreated);
    }
    Some(ActionKind::Recreate)
}

/// The resources whose change restarts the container.
fn restarting(draft: &Draft<'_>) -> Vec<Resource> {
    let container = draft.facts.container;
    let restarts = |resource: &Resource| {
        !draft.sizes.same(*resource, &container.desired) && container.resize_policy.restarts(*resource)
    };
    Resource::ALL.into_iter().filter(restarts).collect()
}

/// Who may still be disrupted: as many as each budget allows, and one of a workload at a time.
struct Disruption<'a> {
    observation: &'a Observation,
    /// Left of each budget, in their order.
    left: Vec<u32>,
    workloads: BTreeSet<(String, WorkloadKind, String)>,
}

impl<'a> Disruption<'a> {
    fn new(observation: &'a Observation) -> Self {
        let left = observation.disruption_budgets.iter().map(|budget| budget.disruptions_allowed).collect();
        Self { observation, left, workloads: BTreeSet::new() }
    }

    /// Takes one, or says who does not allow it.
    fn take(&mut self, pod: &Pod, counts: bool) -> Result<(), String> {
        let budgets = self.observation.disruption_budgets.iter().enumerate();
        let of_pod: Vec<usize> = budgets
            .filter(|(_, budget)| budget.namespace == pod.namespace && budget.selector.matches(&pod.labels))
            .map(|(index, _)| index)
            .collect();
        if let Some(index) = of_pod.iter().find(|index| self.left[**index] == 0) {
            return Err(format!("PodDisruptionBudget {}", self.observation.disruption_budgets[*index].name));
        }
        let workload = pod.workload.as_ref().map(|of| (pod.namespace.clone(), of.kind, of.name.clone()));
        if let Some(workload) = workload.as_ref().filter(|workload| self.workloads.contains(workload)) {
            return Err(format!("{} {}, one of whose pods is being disrupted,", workload.1, workload.2));
        }
        if counts {
            of_pod.iter().for_each(|index| self.left[*index] -= 1);
            self.workloads.extend(workload);
        }
        Ok(())
    }
}

/// What a pod would hold on its node after an action, beside what it holds now: CPU and memory.
pub fn growth(pod: &Pod, action: &Action) -> (i128, i128) {
    let mut after = pod.clone();
    for (name, change) in &action.containers {
        if let Some(container) = after.containers.get_mut(name) {
            container.desired = change.to;
            // What the node has agreed to follows.
            container.allocated = None;
            container.actual = None;
        }
    }
    let (before, after) = (pod.held(), after.held());
    let grown = |to: u64, from: u64| i128::from(to) - i128::from(from);
    let memory = |sizes: &Sizes| sizes.memory_request.unwrap_or(Bytes::ZERO).0;
    let cpu = |sizes: &Sizes| sizes.cpu_request.unwrap_or(MilliCpu::ZERO).0;
    (grown(cpu(&after), cpu(&before)), grown(memory(&after), memory(&before)))
}
