//! Is this plan safe? A second opinion on every plan: in tests, in simulations and before it is executed.
//!
//! It shares no code with the pipeline but the types, the choice of a policy and what is remembered of a container. It looks
//! at what is observed and at what is planned, and knows nothing of how the plan came about. A plan that fails is
//! not executed: only a [`Checked`] one can be. What is planned on the nodes that nothing is wrong with makes such a plan of its
//! own ([`safe_part`]), so that one pod does not stop the whole cluster.
//!
//! | what is held | of which |
//! |---|---|
//! | a plan is for what is there | each action: uid, version, node, one per pod |
//! | nobody is touched whom no policy applies to | mode, dry run, opt-out, exclusions, deny |
//! | sizes are sizes | request ≤ limit, nothing set or taken away, limits as the policy says |
//! | bounds | policy, LimitRange, ResourceQuota, or at least nearer to them than before |
//! | nodes | never more than allocatable, whichever actions are done; nothing rises under pressure |
//! | pods | the class stays; nothing is taken from what is not ready |
//! | data | nothing moves on missing, stale or thin data |
//! | memory | never below the recent peak with headroom |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::observation::{Container, ContainerKind, Observation, Phase, Pod, PodUid, Qos, ResizeState};
use super::plan::{Action, ActionKind, Change, Plan};
use super::policy::{ControlledValues, GuaranteedPods, HpaPods, Mode, Policy};
use super::scope::{Selection, Subject, select};
use super::sizes::{Resource, Sizes};
use super::state::State;
use super::units::Timestamp;

/// What is wrong with an action.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
pub enum Violation {
    /// There is no such pod or container.
    #[error("there is no such pod or container")]
    Unknown,
    /// The pod is not as it was when the plan was made.
    #[error("the pod has another version, node or size than the plan was made for")]
    NotAsPlanned,
    /// The pod has an action already.
    #[error("the pod has another action before this one")]
    TwoActions,
    /// It changes nothing.
    #[error("it changes nothing")]
    Empty,
    /// No policy applies to it.
    #[error("no policy applies changes to it")]
    NotApplied,
    /// The controller runs dry.
    #[error("the controller runs dry")]
    DryRun,
    /// The pod cannot be resized.
    #[error("the pod or container is not one that runs and can be resized")]
    OutOfReach,
    /// A resize of the pod is under way.
    #[error("a resize of the pod is under way")]
    UnderWay,
    /// A request is above its limit.
    #[error("a request is above its limit")]
    RequestAboveLimit,
    /// A request or limit is set that was not, or taken away.
    #[error("a request or limit is taken away, or a limit set that was not")]
    KeyChanged,
    /// A limit moves though the policy leaves limits alone.
    #[error("a limit moves though the policy leaves limits alone")]
    LimitMoved,
    /// Outside `minAllowed` and `maxAllowed`, and no nearer to them.
    #[error("a request is outside minAllowed and maxAllowed, and no nearer to them than before")]
    PolicyBounds,
    /// Outside a LimitRange, and no nearer to it.
    #[error("a request or limit is outside a LimitRange, and no nearer to it than before")]
    LimitRange,
    /// More than a quota has left.
    #[error("a ResourceQuota has not so much left")]
    Quota,
    /// More than the node has.
    #[error("the node has not so much left")]
    NodeRoom,
    /// Raised on a node under pressure, or one that is not ready.
    #[error("the node is under pressure or not ready")]
    NodeCondition,
    /// The class changes.
    #[error("the pod's class changes")]
    Class,
    /// Something is taken from a container that is not ready.
    #[error("something is taken from what is not ready")]
    NotReady,
    /// There is nothing to go by.
    #[error("it moves on missing, stale or thin data")]
    Data,
    /// Memory below its recent peak with headroom.
    #[error("memory shrinks below its recent peak with headroom")]
    MemoryPeak,
    /// A request moves on whose utilisation an autoscaler scales.
    #[error("a HorizontalPodAutoscaler scales on the request")]
    Autoscaler,
}

/// A plan that may be executed.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked(Plan);

impl Checked {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.0
    }
}

/// Why a plan must not be executed: what is wrong, and with which pod and container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is planned breaks what it must hold, and is not executed: {}", list(.0))]
pub struct Unsafe(pub BTreeSet<(PodUid, String, Violation)>);

fn list(violations: &BTreeSet<(PodUid, String, Violation)>) -> String {
    let all: Vec<_> = violations
        .iter()
        .map(|(uid, container, violation)| format!("{uid} {container}: {violation}"))
        .collect();
    all.join("; ")
}

/// Checks a plan against what it was made from: the observation, and the state that came out of the decision.
///
/// # Errors
///
/// All that is wrong with it.
pub fn check(
    observation: &Observation,
    state: &State,
    plan: Plan,
    now: Timestamp,
) -> Result<Checked, Unsafe> {
    let mut check = Check { observation, state, now, found: BTreeSet::new() };
    let mut seen = BTreeSet::new();
    for action in &plan.actions {
        if !seen.insert(&action.uid) {
            check.find(action, "", Violation::TwoActions);
        }
        check.action(action);
    }
    check.nodes(&plan);
    check.quotas(&plan);
    if check.found.is_empty() { Ok(Checked(plan)) } else { Err(Unsafe(check.found)) }
}

/// What of a plan may be executed, and what is wrong with the rest.
///
/// What is wrong with an action costs all that is planned on its node, since something is not as it was taken to be there.
/// The rest is checked again as a plan of its own, and so on, until nothing is wrong with it.
pub fn safe_part(
    observation: &Observation,
    state: &State,
    plan: Plan,
    now: Timestamp,
) -> (Checked, Option<Unsafe>) {
    let mut wrong = BTreeSet::new();
    let mut left = plan;
    loop {
        match check(observation, state, left.clone(), now) {
            Ok(checked) => return (checked, (!wrong.is_empty()).then_some(Unsafe(wrong))),
            Err(Unsafe(found)) => {
                let pods: BTreeSet<_> = found.iter().map(|(uid, ..)| uid).collect();
                let with = |action: &&Action| pods.contains(&action.uid);
                let nodes: BTreeSet<_> =
                    left.actions.iter().filter(with).map(|action| action.node.clone()).collect();
                // Each violation is an action's, so that there are fewer left each time, and at last none.
                left.actions.retain(|action| !nodes.contains(&action.node));
                wrong.extend(found);
            }
        }
    }
}

struct Check<'a> {
    observation: &'a Observation,
    state: &'a State,
    now: Timestamp,
    found: BTreeSet<(PodUid, String, Violation)>,
}

/// Whether `to` lies in `least..=most`, or between it and `from`.
fn in_or_nearer(from: Option<u64>, to: Option<u64>, least: u64, most: u64) -> bool {
    let Some(to) = to else { return true };
    let from = from.unwrap_or(0);
    if to < least { to >= from } else { to <= most || to <= from }
}

impl Check<'_> {
    fn find(&mut self, action: &Action, container: &str, violation: Violation) {
        self.found.insert((action.uid.clone(), container.to_owned(), violation));
    }

    fn require(&mut self, action: &Action, container: &str, holds: bool, violation: Violation) {
        if !holds {
            self.find(action, container, violation);
        }
    }

    fn action(&mut self, action: &Action) {
        let Some(pod) = self.observation.pods.get(&action.uid) else {
            return self.find(action, "", Violation::Unknown);
        };
        let as_planned = pod.resource_version == action.resource_version
            && pod.node.as_ref() == Some(&action.node)
            && (&pod.namespace, &pod.name) == (&action.namespace, &action.pod);
        self.require(action, "", as_planned, Violation::NotAsPlanned);
        self.require(action, "", !action.containers.is_empty(), Violation::Empty);
        self.require(action, "", !self.observation.settings.dry_run, Violation::DryRun);
        let Some(policy) = self.policy(pod) else {
            return self.find(action, "", Violation::NotApplied);
        };
        let lives = !pod.terminating && pod.phase == Phase::Running && !pod.is_static;
        let by_containers = pod.resources == Sizes::default();
        let in_class = match pod.qos {
            Qos::BestEffort => false,
            Qos::Burstable => true,
            Qos::Guaranteed => policy.guaranteed_pods == GuaranteedPods::Resize,
        };
        self.require(action, "", lives && in_class && by_containers, Violation::OutOfReach);
        let settled = pod.resize == ResizeState::Settled;
        self.require(action, "", settled || action.kind == ActionKind::Revert, Violation::UnderWay);
        let before = pod.containers.values().map(|container| container.desired);
        let after = pod.containers.iter().map(|(name, container)| {
            action.containers.get(name).map_or(container.desired, |change| change.to)
        });
        self.require(action, "", class(before) == class(after), Violation::Class);
        self.pod_limit_range(action, pod);
        for (name, change) in &action.containers {
            match pod.containers.get(name) {
                Some(container) => self.container(action, pod, &policy, name, container, change),
                None => self.find(action, name, Violation::Unknown),
            }
        }
    }

    /// The policy that applies changes to this pod.
    fn policy(&self, pod: &Pod) -> Option<Policy> {
        let none = Labels::new();
        let namespace_labels = self.observation.namespaces.get(&pod.namespace).unwrap_or(&none);
        let out = |labels: &Labels| labels.get("loadline.dev/enabled").is_some_and(|value| value == "false");
        if self.observation.settings.excluded_namespaces.contains(&pod.namespace)
            || out(namespace_labels)
            || out(&pod.labels)
        {
            return None;
        }
        let workload = pod.workload.as_ref().map(|workload| (workload.kind, workload.name.as_str()));
        let subject = Subject { namespace: &pod.namespace, namespace_labels, workload, labels: &pod.labels };
        match select(self.observation.policies.iter(), &subject) {
            Selection::Chosen { policy, .. } if policy.mode == Mode::Apply => Some(*policy),
            _ => None,
        }
    }

    fn container(
        &mut self,
        action: &Action,
        pod: &Pod,
        policy: &Policy,
        name: &str,
        container: &Container,
        change: &Change,
    ) {
        let Change { from, to } = change;
        self.require(action, name, *from == container.desired, Violation::NotAsPlanned);
        self.require(action, name, from != to, Violation::Empty);
        self.require(action, name, container.kind != ContainerKind::Init, Violation::OutOfReach);
        for resource in Resource::ALL {
            let ((request, limit), (had_request, had_limit)) = (to.pair(resource), from.pair(resource));
            let within = request.zip(limit).is_none_or(|(request, limit)| request <= limit);
            self.require(action, name, within, Violation::RequestAboveLimit);
            let keys = limit.is_some() == had_limit.is_some() && (request.is_some() || had_request.is_none());
            self.require(action, name, keys, Violation::KeyChanged);
        }
        if action.kind == ActionKind::Revert {
            // It only undoes: what its node has agreed to needs neither data nor bounds.
            return;
        }
        let limits_move = policy.controlled_values == ControlledValues::RequestsAndLimits
            || pod.qos == Qos::Guaranteed && policy.guaranteed_pods == GuaranteedPods::Resize;
        let same_limits = (from.cpu_limit, from.memory_limit) == (to.cpu_limit, to.memory_limit);
        self.require(action, name, limits_move || same_limits, Violation::LimitMoved);
        self.bounds(action, pod, policy, name, change);
        self.conditions(action, pod, policy, name, container, change);
        self.data(action, policy, name, container, change);
    }

    fn bounds(&mut self, action: &Action, pod: &Pod, policy: &Policy, name: &str, change: &Change) {
        for resource in Resource::ALL {
            let ((request, limit), (had, had_limit)) = (change.to.pair(resource), change.from.pair(resource));
            if (request, limit) == (had, had_limit) {
                continue;
            }
            let (least, most) = match resource {
                Resource::Cpu => (policy.cpu.min_allowed.0, policy.cpu.max_allowed.0),
                Resource::Memory => (policy.memory.min_allowed.0, policy.memory.max_allowed.0),
            };
            // A limit that stays may be below minAllowed: then the request goes as far as it.
            let least = if limit == had_limit { least.min(limit.unwrap_or(u64::MAX)) } else { least };
            let holds = request == had || in_or_nearer(had, request, least, most);
            self.require(action, name, holds, Violation::PolicyBounds);
            for range in self.observation.limit_ranges.iter().filter(|range| range.namespace == pod.namespace)
            {
                let (min, max, ratio) = range.container.of(resource);
                let (least, most) = (min.unwrap_or(0), max.unwrap_or(u64::MAX));
                let steep = |request: Option<u64>, limit: Option<u64>| match (request, limit, ratio) {
                    (Some(request), Some(limit), Some(ratio)) => {
                        u128::from(limit) * 1000 > u128::from(request) * u128::from(ratio)
                    }
                    _ => false,
                };
                let holds = in_or_nearer(had, request, least, most)
                    && in_or_nearer(had_limit, limit, least, most)
                    && (!steep(request, limit) || steep(had, had_limit) && request >= had);
                self.require(action, name, holds, Violation::LimitRange);
            }
        }
    }

    fn pod_limit_range(&mut self, action: &Action, pod: &Pod) {
        for range in self.observation.limit_ranges.iter().filter(|range| range.namespace == pod.namespace) {
            for resource in Resource::ALL {
                let (min, max, _) = range.pod.of(resource);
                let sum = |limits: bool| -> u64 {
                    let of = |(name, container): (&String, &Container)| {
                        let sizes = action.containers.get(name).map_or(container.desired, |change| change.to);
                        let (request, limit) = sizes.pair(resource);
                        (if limits { limit } else { request }).unwrap_or(0)
                    };
                    pod.containers.iter().map(of).fold(0, u64::saturating_add)
                };
                let holds = min.is_none_or(|min| sum(false) >= min)
                    && max.is_none_or(|max| sum(false).max(sum(true)) <= max);
                self.require(action, "", holds, Violation::LimitRange);
            }
        }
    }

    fn conditions(
        &mut self,
        action: &Action,
        pod: &Pod,
        policy: &Policy,
        name: &str,
        container: &Container,
        change: &Change,
    ) {
        let node = self.observation.nodes.get(&action.node);
        let values = |sizes: &Sizes| {
            let ((cpu, cpu_limit), (memory, memory_limit)) =
                (sizes.pair(Resource::Cpu), sizes.pair(Resource::Memory));
            [cpu, cpu_limit, memory, memory_limit].map(|size| size.unwrap_or(0))
        };
        let (from, to) = (values(&change.from), values(&change.to));
        let raises = from.iter().zip(&to).any(|(from, to)| to > from);
        let shrinks = from.iter().zip(&to).any(|(from, to)| to < from);
        let calm = node.is_some_and(|node| node.ready && (node.pressure.is_empty() || !raises));
        self.require(action, name, calm, Violation::NodeCondition);
        let ready = container.ready && pod.ready;
        self.require(action, name, ready || !shrinks, Violation::NotReady);
        let scaled = |resource| {
            self.observation.autoscalers.iter().any(|autoscaler| {
                autoscaler.namespace == pod.namespace
                    && Some(&autoscaler.workload) == pod.workload.as_ref()
                    && autoscaler.utilisation_of.contains(&resource)
            })
        };
        let held = |resource| change.from.pair(resource).0 == change.to.pair(resource).0;
        let free = Resource::ALL.into_iter().all(|resource| !scaled(resource) || held(resource));
        self.require(action, name, free || policy.hpa_pods == HpaPods::Ignore, Violation::Autoscaler);
    }

    fn data(&mut self, action: &Action, policy: &Policy, name: &str, container: &Container, change: &Change) {
        let Some(state) = self.state.container(&action.uid, name) else {
            return self.find(action, name, Violation::Data);
        };
        let fresh = state
            .read_until
            .is_some_and(|until| self.now.seconds_since(until) <= policy.history.stale_after.0);
        let thick = state.known_for() >= policy.history.minimum_data;
        self.require(action, name, fresh && thick, Violation::Data);
        let used = container.readings.last().and_then(|reading| reading.memory());
        let peak = state.memory.recent_peak(self.now).max(used).map(|peak| peak.0);
        let headroom = 1000 + u128::from(policy.objectives.memory_headroom.0);
        let safe = |from: Option<u64>, to: Option<u64>| {
            to >= from
                || peak.zip(to).is_some_and(|(peak, to)| u128::from(to) * 1000 >= u128::from(peak) * headroom)
        };
        let ((from, from_limit), (to, to_limit)) =
            (change.from.pair(Resource::Memory), change.to.pair(Resource::Memory));
        self.require(action, name, safe(from, to) && safe(from_limit, to_limit), Violation::MemoryPeak);
    }

    /// Requests on a node do not grow beyond what it has, whichever of the actions are done: one that shrinks may be refused or
    /// take its time, and counts for nothing.
    fn nodes(&mut self, plan: &Plan) {
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
    fn quotas(&mut self, plan: &Plan) {
        for quota in &self.observation.quotas {
            for resource in Resource::ALL {
                let ((hard, hard_limit), (used, used_limit)) =
                    (quota.hard.pair(resource), quota.used.pair(resource));
                for (hard, used, limits) in [(hard, used, false), (hard_limit, used_limit, true)] {
                    let Some(hard) = hard else { continue };
                    let mut left = hard.saturating_sub(used.unwrap_or(0));
                    for action in plan.actions.iter().filter(|action| action.namespace == quota.namespace) {
                        for (name, change) in &action.containers {
                            let part = |sizes: &Sizes| {
                                let (request, limit) = sizes.pair(resource);
                                (if limits { limit } else { request }).unwrap_or(0)
                            };
                            // A quota charges the largest of what is asked for, agreed to and there.
                            let container = self
                                .observation
                                .pods
                                .get(&action.uid)
                                .and_then(|pod| pod.containers.get(name));
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
fn class(sizes: impl Iterator<Item = Sizes>) -> Qos {
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
