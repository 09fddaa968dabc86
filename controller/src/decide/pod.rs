//! What concerns a pod as a whole: its class, the LimitRange of pods, disruption, and the one action for all of its containers.

use std::collections::BTreeMap;

use super::bounds;
use super::disruption::{Disruption, Disrupts};
use super::draft::Draft;
use super::guards::support;
use super::observation::{Observation, Pod, PodUid, Qos};
use super::plan::{Action, ActionKind, Change};
use super::reason::Reason;
use super::record::Step;
use super::sizes::{Resource, Sizes};
use super::state::State;
use super::units::{Bytes, MilliCpu, Timestamp};

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
pub(super) fn actions(
    observation: &Observation,
    state: &State,
    now: Timestamp,
    drafts: &mut [Draft<'_>],
) -> Vec<Action> {
    let mut by_pod: BTreeMap<&PodUid, Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        by_pod.entry(draft.place.uid).or_default().push(index);
    }
    let disruption = Disruption::new(observation, state, now);
    let mut actions = Vec::new();
    for (uid, indices) in by_pod {
        let pod = &observation.pods[uid];
        let changing: Vec<usize> = indices.iter().copied().filter(|index| drafts[*index].changes()).collect();
        let Some(first) = changing.first() else { continue };
        let node = drafts[*first].node_name.to_owned();
        let kind = how(&changing, drafts);
        check_disruption(pod, kind, &changing, drafts, &disruption);
        // Last, of what is left by everything else: these look at all containers together.
        check_class(pod, &indices, drafts);
        check_limit_ranges(observation, pod, &indices, drafts);
        let changing: Vec<usize> = indices.into_iter().filter(|index| drafts[*index].changes()).collect();
        if kind == ActionKind::Recreate {
            changing.iter().for_each(|index| drafts[*index].outcome = Some(Reason::Recreated));
        }
        if changing.is_empty() || !changing.iter().all(|index| drafts[*index].is_done()) {
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

/// The least that sizes of a resource differ by, in milli-CPU or bytes.
fn grain(resource: Resource) -> u64 {
    match resource {
        Resource::Cpu => 1,
        Resource::Memory => 1 << 20,
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
    let reaching = Resource::ALL.into_iter().find_map(|resource| {
        let reaches = |draft: &Draft<'_>| {
            let (request, limit) = draft.sizes.pair(resource);
            request == limit && request > draft.current().pair(resource).0
        };
        Some((resource, *indices.iter().find(|index| reaches(&drafts[**index]))?))
    });
    if let Some((resource, index)) = reaching {
        let draft = &mut drafts[index];
        let (request, limit) = draft.sizes.pair(resource);
        let below =
            limit.map(|limit| limit.saturating_sub(grain(resource))).max(draft.current().pair(resource).0);
        let left = draft.sizes.with_pair(resource, (below.min(request), limit));
        draft.mark(Step::Plan, left, Reason::QosWouldChange);
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

/// How the pod is changed.
fn how(changing: &[usize], drafts: &[Draft<'_>]) -> ActionKind {
    if changing.iter().any(|index| drafts[*index].outcome == Some(Reason::Reverted)) {
        return ActionKind::Revert;
    }
    if changing.iter().all(|index| support::in_place(&drafts[*index].facts)) {
        ActionKind::Resize
    } else {
        ActionKind::Recreate
    }
}

/// What the change of a pod disrupts.
pub(super) fn disrupts<'a, 'b: 'a>(
    kind: ActionKind,
    drafts: impl IntoIterator<Item = &'a Draft<'b>>,
) -> Option<Disrupts> {
    match kind {
        ActionKind::Revert => None,
        ActionKind::Recreate => Some(Disrupts::Eviction),
        ActionKind::Resize => {
            drafts.into_iter().any(|draft| !restarting(draft).is_empty()).then_some(Disrupts::Restart)
        }
    }
}

/// Holds what disrupts a pod that may not be disrupted now, whatever the plan does to others.
fn check_disruption(
    pod: &Pod,
    kind: ActionKind,
    changing: &[usize],
    drafts: &mut [Draft<'_>],
    disruption: &Disruption<'_>,
) {
    let disrupts = disrupts(kind, changing.iter().map(|index| &drafts[*index]));
    let Some(reason) = disrupts.and_then(|disrupts| disruption.refusal(pod, disrupts)) else { return };
    if kind == ActionKind::Recreate {
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

/// The resources whose change restarts the container.
fn restarting(draft: &Draft<'_>) -> Vec<Resource> {
    let container = draft.facts.container;
    let restarts = |resource: &Resource| {
        !draft.sizes.same(*resource, &container.desired) && container.resize_policy.restarts(*resource)
    };
    Resource::ALL.into_iter().filter(restarts).collect()
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
