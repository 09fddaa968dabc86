//! What concerns a pod as a whole: its class, the LimitRange of pods, disruption, and the one action for all of its containers.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use super::bounds;
use super::disruption::{Disruption, Disrupts};
use super::draft::{Draft, Outcome};
use super::guards::support;
use super::observation::{ContainerKind, Observation, Pod, PodUid, Qos};
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
        if changing.is_empty() {
            continue;
        }
        let kind = how(&changing, drafts);
        let disrupts = disrupts(kind, changing.iter().map(|index| &drafts[*index]));
        // Held whatever the plan does to others.
        if let Some(reason) = disrupts.and_then(|disrupts| disruption.refusal(uid, pod, disrupts)) {
            hold_what_disrupts(kind, &changing, drafts, &reason);
        }
        actions.extend(action(observation, uid, kind, &indices, drafts));
    }
    actions
}

/// What is left of an action that must not disrupt its pod, if anything is: what takes no restart.
pub(super) fn undisrupting(
    observation: &Observation,
    refused: &Action,
    reason: &Reason,
    of_pod: Range<usize>,
    drafts: &mut [Draft<'_>],
) -> Option<Action> {
    let indices: Vec<usize> = of_pod.collect();
    let changing: Vec<usize> = indices.iter().copied().filter(|index| drafts[*index].changes()).collect();
    hold_what_disrupts(refused.kind, &changing, drafts, reason);
    action(observation, &refused.uid, refused.kind, &indices, drafts)
}

/// The action of what is left for a pod, when what looks at all of its containers together has been looked at.
fn action(
    observation: &Observation,
    uid: &PodUid,
    kind: ActionKind,
    indices: &[usize],
    drafts: &mut [Draft<'_>],
) -> Option<Action> {
    let pod = &observation.pods[uid];
    check_class(pod, indices, drafts);
    check_limit_ranges(pod, indices, drafts);
    let changing: Vec<usize> = indices.iter().copied().filter(|index| drafts[*index].changes()).collect();
    if kind == ActionKind::Recreate {
        changing.iter().for_each(|index| drafts[*index].outcome = Some(Outcome::Recreated));
    }
    let node = drafts[*changing.first()?].node_name.to_owned();
    if !changing.iter().all(|index| drafts[*index].is_done()) {
        return None;
    }
    let change = |index: &usize| {
        let draft = &drafts[*index];
        (draft.place.name.to_owned(), Change { from: draft.current(), to: draft.sizes })
    };
    Some(Action {
        node,
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: uid.clone(),
        resource_version: pod.resource_version.clone(),
        kind,
        containers: changing.iter().map(change).collect(),
    })
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
fn check_limit_ranges(pod: &Pod, indices: &[usize], drafts: &mut [Draft<'_>]) {
    let Some(index) = indices.first() else { return };
    for range in drafts[*index].facts.limit_ranges {
        // A guard may have left a request below the part of its limit that the range asks for.
        for index in indices {
            if drafts[*index].outcome == Some(Outcome::Reverted) {
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
            let requests = together(pod, &after, |sizes| sizes.pair(resource).0);
            let limits = together(pod, &after, |sizes| sizes.pair(resource).1);
            min.is_some_and(|min| *requests.start() < min)
                || max.is_some_and(|max| *requests.end().max(limits.end()) > max)
        });
        if broken {
            hold_all(indices, drafts, &Reason::LimitRange(range.name.clone()));
        }
    }
}

/// What a pod's containers come to together, as admission counts it: the containers that stay, or, if that is more, an init container
/// and the sidecars that were started before it. Which those are is not known here: it may be none or all.
fn together(
    pod: &Pod,
    sizes: &BTreeMap<String, Sizes>,
    size: impl Fn(&Sizes) -> Option<u64>,
) -> RangeInclusive<u64> {
    let of = |kind: ContainerKind| {
        let those = pod.containers.iter().filter(move |(_, container)| container.kind == kind);
        those.map(|(name, _)| size(&sizes[name]).unwrap_or(0))
    };
    let sum = |kind| of(kind).fold(0, u64::saturating_add);
    let (apps, beside) = (sum(ContainerKind::App), sum(ContainerKind::Sidecar));
    let init = of(ContainerKind::Init).max().unwrap_or(0);
    apps.saturating_add(beside).max(init)..=apps.max(init).saturating_add(beside)
}

/// How the pod is changed.
fn how(changing: &[usize], drafts: &[Draft<'_>]) -> ActionKind {
    if changing.iter().any(|index| drafts[*index].outcome == Some(Outcome::Reverted)) {
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

/// Holds what disrupts a pod: all of it where that is evicted, else the resources whose change restarts a container.
fn hold_what_disrupts(kind: ActionKind, changing: &[usize], drafts: &mut [Draft<'_>], reason: &Reason) {
    if kind == ActionKind::Recreate {
        hold_all(changing, drafts, reason);
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
