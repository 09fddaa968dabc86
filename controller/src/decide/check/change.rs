//! What one container gets.

use super::{Check, Violation};
use crate::decide::observation::{
    CLOCK_SKEW, Container, ContainerKind, ContainerStatus, MadeBy, Pod, Qos, ResizeState, ResizeSupport,
};
use crate::decide::plan::{Action, ActionKind, Change};
use crate::decide::policy::{ControlledValues, Fallback, GuaranteedPods, HpaPods, Policy};
use crate::decide::sizes::{Resource, Sizes};
use crate::decide::state::ContainerState;

/// CPU limits that differ by less are the same to what enforces them.
const QUOTA_GRAIN_MILLI: u64 = 10;

/// A container that is changed, and all that belongs to it.
pub(super) struct Changed<'a> {
    pub(super) action: &'a Action,
    pub(super) pod: &'a Pod,
    pub(super) policy: &'a Policy,
    pub(super) name: &'a str,
    pub(super) container: &'a Container,
    pub(super) change: &'a Change,
}

/// Whether `to` lies in `least..=most`, or between it and `from`.
fn in_or_nearer(from: Option<u64>, to: Option<u64>, least: u64, most: u64) -> bool {
    let Some(to) = to else { return true };
    let from = from.unwrap_or(0);
    if to < least { to >= from } else { to <= most || to <= from }
}

/// What the node has agreed to of a container: requests, limits in force, and no request above its limit; what the
/// node does not say is as it was asked for.
fn agreed(container: &Container) -> Option<Sizes> {
    let (allocated, actual) = (container.allocated?, container.actual?);
    let of = |resource| {
        let ((request, limit), agreed, runs) =
            (container.desired.pair(resource), allocated.pair(resource).0, actual.pair(resource).1);
        let far = |runs: &u64| match (resource, limit) {
            (_, None) => false,
            (Resource::Cpu, Some(limit)) => runs.abs_diff(limit) >= QUOTA_GRAIN_MILLI,
            (Resource::Memory, Some(_)) => true,
        };
        let limit = runs.filter(far).or(limit);
        let request = request.map(|request| agreed.unwrap_or(request).min(limit.unwrap_or(u64::MAX)));
        (request, limit)
    };
    let both = Sizes::default().with_pair(Resource::Cpu, of(Resource::Cpu));
    Some(both.with_pair(Resource::Memory, of(Resource::Memory)))
}

impl Check<'_> {
    fn hold(&mut self, changed: &Changed<'_>, holds: bool, violation: Violation) {
        self.require(changed.action, changed.name, holds, violation);
    }

    pub(super) fn change(&mut self, changed: &Changed<'_>) {
        let &Changed { action, container, change: Change { from, to }, .. } = changed;
        self.hold(changed, *from == container.desired, Violation::NotAsPlanned);
        self.hold(changed, from != to, Violation::Empty);
        self.hold(changed, container.kind != ContainerKind::Init, Violation::OutOfReach);
        for resource in Resource::ALL {
            let ((request, limit), (had_request, had_limit)) = (to.pair(resource), from.pair(resource));
            let within = request.zip(limit).is_none_or(|(request, limit)| request <= limit);
            self.hold(changed, within, Violation::RequestAboveLimit);
            let keys = limit.is_some() == had_limit.is_some() && (request.is_some() || had_request.is_none());
            self.hold(changed, keys, Violation::KeyChanged);
        }
        self.support(changed);
        if action.kind == ActionKind::Revert {
            // What its node has agreed to needs neither data nor bounds.
            return self.revert(changed);
        }
        self.limits(changed);
        self.bounds(changed);
        self.conditions(changed);
        self.data(changed);
    }

    /// It undoes, and that is all: a resize of ours that has come to nothing, back to what the node has agreed to.
    fn revert(&mut self, changed: &Changed<'_>) {
        let &Changed { action, pod, policy, name, container, change } = changed;
        let is_over = match pod.resize {
            ResizeState::Settled | ResizeState::InProgress { .. } => false,
            ResizeState::Infeasible { .. } => true,
            ResizeState::Deferred { since } | ResizeState::Failing { since } => {
                self.now.seconds_since(since) >= policy.resize.deferred_deadline.0
            }
        };
        let state = self.state.container(&action.uid, name);
        let of_other = state.is_none_or(|state| state.changed_by_other);
        // A memory limit that its node cannot lower stays, and what must equal it, too.
        let back = agreed(container).map(|back| {
            match (back.memory_limit < change.from.memory_limit, self.may_lower_memory_limit(changed)) {
                (false, _) | (_, true) => back,
                _ if pod.qos == Qos::Guaranteed => back.with(Resource::Memory, &change.from),
                _ => Sizes { memory_limit: change.from.memory_limit, ..back },
            }
        });
        self.hold(changed, is_over && !of_other && back == Some(change.to), Violation::NotToRevert);
    }

    /// Whether the node can take memory limit from what runs.
    fn may_lower_memory_limit(&self, changed: &Changed<'_>) -> bool {
        let node = self.observation.nodes.get(&changed.action.node);
        changed.container.resize_policy.memory_restarts
            || node.is_some_and(|node| node.resize == ResizeSupport::Full)
    }

    /// What the node can do.
    fn support(&mut self, changed: &Changed<'_>) {
        let &Changed { action, pod, policy, change, .. } = changed;
        let node = self.observation.nodes.get(&action.node);
        let resizes = node.is_some_and(|node| node.resize >= ResizeSupport::NoMemoryDecrease);
        let supported = match action.kind {
            ActionKind::Resize | ActionKind::Revert => {
                let lowers = change.to.memory_limit < change.from.memory_limit;
                resizes
                    && changed.container.actual.is_some()
                    && (!lowers || self.may_lower_memory_limit(changed))
            }
            ActionKind::Recreate => {
                let mut all = action.containers.keys().filter_map(|name| pod.containers.get(name));
                policy.resize.fallback == Fallback::Recreate
                    && !(resizes && all.all(|container| container.actual.is_some()))
            }
        };
        self.hold(changed, supported, Violation::Unsupported);
    }

    fn limits(&mut self, changed: &Changed<'_>) {
        let &Changed { pod, policy, change: Change { from, to }, .. } = changed;
        let limits_move = policy.controlled_values == ControlledValues::RequestsAndLimits
            || pod.qos == Qos::Guaranteed && policy.guaranteed_pods == GuaranteedPods::Resize;
        let same_limits = (from.cpu_limit, from.memory_limit) == (to.cpu_limit, to.memory_limit);
        self.hold(changed, limits_move || same_limits, Violation::LimitMoved);
    }

    fn bounds(&mut self, changed: &Changed<'_>) {
        let &Changed { pod, policy, change, .. } = changed;
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
            self.hold(changed, holds, Violation::PolicyBounds);
            for range in self.limit_ranges(&pod.namespace) {
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
                self.hold(changed, holds, Violation::LimitRange);
            }
        }
    }

    fn conditions(&mut self, changed: &Changed<'_>) {
        let &Changed { action, pod, policy, container, change, .. } = changed;
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
        self.hold(changed, calm, Violation::NodeCondition);
        let ready = container.ready && pod.ready;
        self.hold(changed, ready || !shrinks, Violation::NotReady);
        let maker = self.maker(&action.uid, pod);
        // Of one of which nobody knows who made it, each in its namespace may be the one that scales it.
        let scales = |workload| match maker {
            MadeBy::Nobody => false,
            MadeBy::Workload(of) => of == workload,
            MadeBy::Unknown => true,
        };
        let scaled = |resource| {
            let mut of_namespace = self.autoscalers.get(pod.namespace.as_str()).into_iter().flatten();
            of_namespace.any(|autoscaler| {
                scales(&autoscaler.workload) && autoscaler.utilisation_of.contains(&resource)
            })
        };
        let held = |resource| change.from.pair(resource).0 == change.to.pair(resource).0;
        let mut all = Resource::ALL.into_iter();
        let free = match policy.hpa_pods {
            HpaPods::Ignore => true,
            HpaPods::HoldRequest => all.all(|resource| !scaled(resource) || held(resource)),
            HpaPods::RecommendOnly => !all.any(scaled),
        };
        self.hold(changed, free, Violation::Autoscaler);
    }

    fn data(&mut self, changed: &Changed<'_>) {
        let &Changed { action, policy, name, container, change, .. } = changed;
        let Some(state) = self.state.container(&action.uid, name) else {
            return self.find(action, name, Violation::Data);
        };
        let fresh = state
            .read_until
            .filter(|until| *until <= self.now.plus_seconds(CLOCK_SKEW.0))
            .is_some_and(|until| self.now.seconds_since(until) <= policy.history.stale_after.0);
        let thick = state.known_for() >= policy.history.minimum_data;
        self.hold(changed, fresh && thick || self.takes_no_measurement(changed, state), Violation::Data);
        let used = container.readings.last().and_then(|reading| reading.memory());
        let peak = state.memory.recent_peak(self.now).max(used).map(|peak| peak.0);
        let headroom = 1000 + u128::from(policy.objectives.memory_headroom.0);
        // Of less than a day nobody knows the peak.
        let seen = state.known_for().0 >= policy.history.window.0.min(86_400);
        let holds = |peak: u64, to: u64| seen && u128::from(to) * 1000 >= u128::from(peak) * headroom;
        let safe = |from: Option<u64>, to: Option<u64>| {
            to >= from || peak.zip(to).is_some_and(|(peak, to)| holds(peak, to))
        };
        let ((from, from_limit), (to, to_limit)) =
            (change.from.pair(Resource::Memory), change.to.pair(Resource::Memory));
        self.hold(changed, safe(from, to) && safe(from_limit, to_limit), Violation::MemoryPeak);
    }

    /// Whether it is no more than the memory that it takes after an OOM kill, and the CPU that a policy gives to start with, or the
    /// end of that.
    fn takes_no_measurement(&self, changed: &Changed<'_>, state: &ContainerState) -> bool {
        let &Changed { policy, container, change: Change { from, to }, .. } = changed;
        let killed = state.memory.kill(self.now, &policy.history).is_some()
            && to.memory_request >= from.memory_request
            && to.memory_limit >= from.memory_limit;
        let boosted = policy.startup_boost.is_some_and(|boost| {
            let starts = |since| self.now.seconds_since(since) < boost.duration.0;
            matches!(container.status, ContainerStatus::Running { since } if starts(since))
                && to.cpu_request >= from.cpu_request
                && to.cpu_limit >= from.cpu_limit
        });
        let unboosted = state.boosted_from.as_deref().is_some_and(|least| {
            (least.cpu_request..=from.cpu_request).contains(&to.cpu_request)
                && (least.cpu_limit..=from.cpu_limit).contains(&to.cpu_limit)
        });
        let memory = killed || to.same(Resource::Memory, from);
        memory && (boosted || unboosted || to.same(Resource::Cpu, from))
    }
}
