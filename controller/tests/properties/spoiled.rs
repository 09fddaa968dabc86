//! Plans that must not be executed: each is one that is fine, with one thing wrong with it.

use std::collections::BTreeSet;

use controller::decide::check::{Unsafe, Violation, safe_part};
use controller::decide::observation::*;
use controller::decide::pipeline::Outcome;
use controller::decide::plan::{Action, ActionKind, Change, Plan};
use controller::decide::policy::*;
use controller::decide::scope::{NamespaceScope, WorkloadKind, WorkloadSelector};
use controller::decide::sizes::{Resource, Sizes};
use controller::decide::state::{Owner, State};
use controller::decide::units::{Bytes, MilliCpu, Timestamp};
use proptest::prelude::*;

use super::cluster::{Cluster, NOW, cluster};
use super::{cases, decided, policy_of, seeded};

/// What is wrong, and what it is wrong with.
#[derive(Clone)]
struct Spoiled {
    violation: Violation,
    observation: Observation,
    state: State,
    plan: Plan,
}

/// The first action and change of a plan, in the making of something that is wrong.
struct Spoiling<'a> {
    fine: Spoiled,
    uid: &'a PodUid,
    name: &'a str,
    spoiled: Vec<Spoiled>,
}

impl Spoiling<'_> {
    /// Something else about what is wrong.
    fn with(&mut self, violation: Violation, spoil: impl FnOnce(&mut Spoiled)) {
        let mut spoiled = Spoiled { violation, ..self.fine.clone() };
        spoil(&mut spoiled);
        self.spoiled.push(spoiled);
    }

    /// Another action.
    fn action(&mut self, violation: Violation, spoil: impl FnOnce(&mut Action)) {
        self.with(violation, |spoiled| spoil(&mut spoiled.plan.actions[0]));
    }

    /// Another size.
    fn to(&mut self, violation: Violation, spoil: impl FnOnce(&mut Sizes)) {
        let name = self.name.to_owned();
        self.action(violation, |action| spoil(&mut action.containers.get_mut(&name).expect("the change").to));
    }

    /// Another pod.
    fn pod(&mut self, violation: Violation, spoil: impl FnOnce(&mut Pod)) {
        let uid = self.uid.clone();
        self.with(violation, |spoiled| spoil(spoiled.observation.pods.get_mut(&uid).expect("the pod")));
    }

    /// Another container.
    fn container(&mut self, violation: Violation, spoil: impl FnOnce(&mut Container)) {
        let name = self.name.to_owned();
        self.pod(violation, |pod| spoil(pod.containers.get_mut(&name).expect("the container")));
    }

    /// Another node.
    fn node(&mut self, violation: Violation, spoil: impl FnOnce(&mut Node)) {
        self.with(violation, |spoiled| {
            let node = spoiled.plan.actions[0].node.clone();
            spoil(spoiled.observation.nodes.get_mut(&node).expect("the node"));
        });
    }
}

/// All that can be wrong with the first action of a plan.
fn spoil(cluster: &Cluster, plan: &Plan, state: &State) -> Vec<Spoiled> {
    let Some(action) = plan.actions.first().filter(|action| action.kind == ActionKind::Resize) else {
        return Vec::new();
    };
    let (name, &Change { from, to }) = action.containers.iter().next().expect("a change");
    let pod = &cluster.observation.pods[&action.uid];
    let container = &pod.containers[name];
    let policy = policy_of(&cluster.observation, state, &action.uid).expect("a policy for what is changed");
    let fine = Spoiled {
        violation: Violation::Empty,
        observation: cluster.observation.clone(),
        state: state.clone(),
        plan: plan.clone(),
    };
    let mut spoiling = Spoiling { fine, uid: &action.uid, name, spoiled: Vec::new() };
    of_action(&mut spoiling, action, from);
    of_policy(&mut spoiling, pod, &policy, from, to);
    of_owner(&mut spoiling, pod, from, to);
    of_pod(&mut spoiling, container, from, to);
    of_node(&mut spoiling, pod, action, from, to);
    of_disruption(&mut spoiling, pod);
    spoiling.spoiled
}

fn of_action(spoiling: &mut Spoiling<'_>, action: &Action, from: Sizes) {
    spoiling.action(Violation::NotAsPlanned, |action| action.resource_version = "another".into());
    spoiling.action(Violation::NotAsPlanned, |action| action.node = "another".into());
    spoiling.action(Violation::Unknown, |action| action.uid.0 = "another".into());
    spoiling.action(Violation::Empty, |action| action.containers.clear());
    spoiling.to(Violation::Empty, |to| *to = from);
    spoiling.with(Violation::TwoActions, |spoiled| spoiled.plan.actions.push(action.clone()));
    spoiling.to(Violation::KeyChanged, |to| {
        to.cpu_limit = if from.cpu_limit.is_some() { None } else { Some(MilliCpu(1_000_000)) };
    });
    if from.cpu_request.is_some() {
        spoiling.to(Violation::KeyChanged, |to| to.cpu_request = None);
    }
    spoiling.to(Violation::RequestAboveLimit, |to| {
        (to.cpu_request, to.cpu_limit) = (Some(MilliCpu(200)), Some(MilliCpu(100)));
    });
}

fn of_policy(spoiling: &mut Spoiling<'_>, pod: &Pod, policy: &Policy, from: Sizes, to: Sizes) {
    spoiling.with(Violation::DryRun, |spoiled| spoiled.observation.settings.dry_run = true);
    spoiling.with(Violation::NotApplied, |spoiled| spoiled.observation.policies.clear());
    spoiling.with(Violation::NotApplied, |spoiled| {
        spoiled.observation.policies.iter_mut().for_each(|object| object.policy.mode = Mode::Recommend);
    });
    spoiling.with(Violation::NotApplied, |spoiled| {
        spoiled.observation.settings.excluded_namespaces.insert(pod.namespace.clone());
    });
    spoiling.pod(Violation::NotApplied, |pod| {
        pod.labels.insert("loadline.dev/enabled".into(), "false".into());
    });
    if from.cpu() > MilliCpu(1) {
        spoiling.to(Violation::PolicyBounds, |to| to.cpu_request = Some(MilliCpu(1)));
    }
    if pod.qos == Qos::Burstable && policy.controlled_values == ControlledValues::RequestsOnly {
        for resource in Resource::ALL.into_iter().filter(|resource| from.pair(*resource).1.is_some()) {
            let (request, limit) = to.pair(resource);
            spoiling.to(Violation::LimitMoved, |to| {
                *to = to.with_pair(resource, (request, limit.map(|limit| limit + 1)));
            });
        }
    }
    for resource in Resource::ALL {
        let ((Some(had), _), (Some(gets), _)) = (from.pair(resource), to.pair(resource)) else { continue };
        let amounts = |size| match resource {
            Resource::Cpu => Amounts { cpu: Some(MilliCpu(size)), memory: None },
            Resource::Memory => Amounts { cpu: None, memory: Some(Bytes(size)) },
        };
        let range = match gets.cmp(&had) {
            std::cmp::Ordering::Equal => continue,
            // Away from a bound that it has kept.
            std::cmp::Ordering::Greater => Range { max: amounts(had), ..Range::default() },
            std::cmp::Ordering::Less => Range { min: amounts(had), ..Range::default() },
        };
        let range = LimitRange {
            namespace: pod.namespace.clone(),
            name: "r".into(),
            container: range,
            pod: Range::default(),
        };
        spoiling.with(Violation::LimitRange, |spoiled| spoiled.observation.limit_ranges.push(range));
        let held = pod.containers[spoiling.name].held(false).pair(resource).0;
        if Some(gets) > held {
            let used = Sizes::default().with_pair(resource, (held, None));
            let deadline = match pod.has_deadline {
                true => QuotaScope::Terminating,
                false => QuotaScope::NotTerminating,
            };
            let class = match &pod.priority.class {
                Some(class) => QuotaScope::PriorityClassIn([class.clone()].into()),
                None => QuotaScope::PriorityClassNotIn(["other".to_owned()].into()),
            };
            for scopes in [vec![], vec![deadline, class]] {
                let (namespace, name) = (pod.namespace.clone(), "q".into());
                let quota = Quota { namespace, name, hard: used, used, scopes };
                spoiling.with(Violation::Quota, |spoiled| spoiled.observation.quotas.push(quota));
            }
        }
    }
}

/// What goes by who made a pod, and what does where that cannot be told.
fn of_owner(spoiling: &mut Spoiling<'_>, pod: &Pod, from: Sizes, to: Sizes) {
    let uid = spoiling.uid.clone();
    // Those that hold whoever made the pod: another may be in force among them than among all.
    let mut for_all = spoiling.fine.observation.clone();
    for_all.policies.retain(|object| object.selector == WorkloadSelector::default());
    let in_force = policy_of(&for_all, &spoiling.fine.state, &uid);
    let goes_by_autoscalers =
        in_force.is_some_and(|policy| policy.mode == Mode::Apply && policy.hpa_pods != HpaPods::Ignore);
    let owner = |workload: Option<&Workload>| {
        let namespace = pod.namespace.clone();
        workload.map(|workload| Owner { namespace, workload: workload.clone() })
    };
    let set = |spoiled: &mut Spoiled, made_by, last: Option<&Workload>| {
        spoiled.observation.pods.get_mut(&uid).expect("the pod").made_by = made_by;
        spoiled.state.pods.get_mut(&uid).expect("what is remembered").owner = owner(last);
    };
    let [own, other] =
        ["own", "other"].map(|name| Workload { kind: WorkloadKind::Deployment, name: name.into() });
    // Told, remembered, or nobody knows: it may be anybody's.
    let told = [
        (MadeBy::Workload(own.clone()), None, &own),
        (MadeBy::Unknown, Some(&own), &own),
        (MadeBy::Unknown, None, &other),
    ];
    for (made_by, last, workload) in told {
        for resource in Resource::ALL {
            if !goes_by_autoscalers || from.pair(resource).0 == to.pair(resource).0 {
                continue;
            }
            let autoscaler = Autoscaler {
                namespace: pod.namespace.clone(),
                name: "h".into(),
                workload: workload.clone(),
                utilisation_of: [resource].into(),
            };
            spoiling.with(Violation::Autoscaler, |spoiled| {
                spoiled.observation.policies.clone_from(&for_all.policies);
                set(spoiled, made_by.clone(), last);
                spoiled.observation.autoscalers.push(autoscaler);
            });
        }
        spoiling.with(Violation::NotApplied, |spoiled| {
            set(spoiled, made_by.clone(), last);
            let mut object = spoiled.observation.policies[0].clone();
            (object.id.namespace, object.id.name) = (Some(pod.namespace.clone()), "left-alone".into());
            object.namespaces = NamespaceScope::own(&pod.namespace);
            object.policy.mode = Mode::Disabled;
            (object.created, object.selector.names) = (Timestamp(0), [workload.name.clone()].into());
            spoiled.observation.policies.push(object);
        });
    }
}

fn of_pod(spoiling: &mut Spoiling<'_>, container: &Container, from: Sizes, to: Sizes) {
    spoiling.pod(Violation::OutOfReach, |pod| pod.terminating = true);
    spoiling.pod(Violation::OutOfReach, |pod| pod.is_static = true);
    spoiling.pod(Violation::OutOfReach, |pod| pod.phase = Phase::Unknown);
    spoiling.pod(Violation::OutOfReach, |pod| pod.resources.cpu_request = Some(MilliCpu(1)));
    spoiling.container(Violation::OutOfReach, |container| container.kind = ContainerKind::Init);
    spoiling.pod(Violation::UnderWay, |pod| pod.resize = ResizeState::InProgress { since: NOW });
    let shrinks = Resource::ALL.into_iter().any(|resource| {
        let ((had, had_limit), (gets, gets_limit)) = (from.pair(resource), to.pair(resource));
        gets < had || gets_limit < had_limit
    });
    if shrinks {
        spoiling.container(Violation::NotReady, |container| container.ready = false);
        spoiling.pod(Violation::NotReady, |pod| pod.ready = false);
    }
    if from.memory_request.is_some() {
        spoiling.to(Violation::MemoryPeak, |to| to.memory_request = Some(Bytes(1)));
    }
    let (uid, name) = (spoiling.uid.clone(), spoiling.name.to_owned());
    // Memory after an OOM kill, and CPU to start with, take no data.
    let Spoiled { observation, state, .. } = &spoiling.fine;
    let pod = &observation.pods[&uid];
    let boosts = policy_of(observation, state, &uid).is_some_and(|policy| policy.startup_boost.is_some());
    let unmeasured = boosts || pod.containers[&name].oom_killed.is_some();
    let mut of_state = |spoil: fn(&mut controller::decide::state::ContainerState)| {
        spoiling.with(Violation::Data, |spoiled| {
            let state = spoiled.state.pods.get_mut(&uid).and_then(|pod| pod.get_mut(&name));
            spoil(state.expect("what is remembered"));
        });
    };
    if !unmeasured {
        of_state(|state| state.read_until = Some(Timestamp(NOW.0 - 301)));
        of_state(|state| state.read_until = Some(Timestamp(NOW.0 + 6)));
        of_state(|state| state.read_until = None);
        of_state(|state| state.known_since = None);
    }
    // A class of its own: what it has is taken for what it had.
    let (below, limits) = (
        Sizes { cpu_request: Some(MilliCpu(1)), cpu_limit: Some(MilliCpu(2)), ..Sizes::default() },
        Sizes { cpu_request: Some(MilliCpu(2)), cpu_limit: Some(MilliCpu(2)), ..Sizes::default() },
    );
    let with_memory =
        |sizes: Sizes| Sizes { memory_request: Some(Bytes(1)), memory_limit: Some(Bytes(1)), ..sizes };
    let (uid, name) = (spoiling.uid.clone(), spoiling.name.to_owned());
    spoiling.with(Violation::Class, |spoiled| {
        let pod = spoiled.observation.pods.get_mut(&uid).expect("the pod");
        pod.containers.retain(|other, _| *other == name);
        let container = pod.containers.get_mut(&name).expect("the container");
        container.desired = with_memory(below);
        let change = Change { from: with_memory(below), to: with_memory(limits) };
        spoiled.plan.actions[0].containers = [(name.clone(), change)].into();
    });
    // Nothing of it has come to nothing yet; or it has, and goes back to something else.
    spoiling.action(Violation::NotToRevert, |action| action.kind = ActionKind::Revert);
    let agreed = container.allocated;
    for resize in [ResizeState::Deferred { since: NOW }, ResizeState::Infeasible { since: NOW }] {
        let never = matches!(resize, ResizeState::Deferred { .. });
        spoiling.with(Violation::NotToRevert, |spoiled| {
            spoiled.plan.actions[0].kind = ActionKind::Revert;
            let pod = spoiled.observation.pods.get_mut(&uid).expect("the pod");
            pod.resize = resize;
            let container = pod.containers.get_mut(&name).expect("the container");
            // Back to what was agreed to is right, but not yet.
            container.allocated = if never { Some(to) } else { agreed };
            container.actual = container.allocated;
        });
    }
}

fn of_node(spoiling: &mut Spoiling<'_>, pod: &Pod, action: &Action, from: Sizes, to: Sizes) {
    spoiling.node(Violation::NodeCondition, |node| node.ready = false);
    let raises = Resource::ALL.into_iter().any(|resource| to.pair(resource).0 > from.pair(resource).0);
    if raises {
        spoiling.node(Violation::NodeCondition, |node| {
            node.pressure.insert(NodePressure::Disk);
        });
    }
    spoiling.to(Violation::NodeRoom, |to| to.cpu_request = Some(MilliCpu(1_000_000)));
    // One of the node's CPUs is missing for what rises, and somebody else's shrink would make up for it.
    let growth = |action: &Action| {
        let pod = &spoiling.fine.observation.pods[&action.uid];
        let mut after = pod.clone();
        for (name, change) in &action.containers {
            let container = after.containers.get_mut(name).expect("the container");
            (container.desired, container.allocated, container.actual) = (change.to, None, None);
        }
        i128::from(after.held().cpu().0) - i128::from(pod.held().cpu().0)
    };
    let on_node = || spoiling.fine.plan.actions.iter().filter(|other| other.node == action.node);
    let rise: i128 = on_node().map(growth).filter(|growth| *growth > 0).sum();
    let on_it = |pod: &&Pod| pod.node.as_deref() == Some(action.node.as_str());
    let held: u64 = spoiling.fine.observation.pods.values().filter(on_it).map(|pod| pod.held().cpu().0).sum();
    if rise > 0 {
        spoiling.node(Violation::NodeRoom, |node| node.cpu = MilliCpu(held + rise as u64 - 1));
    }
    spoiling.node(Violation::Unsupported, |node| node.resize = ResizeSupport::None);
    spoiling.container(Violation::Unsupported, |container| container.actual = None);
    if to.memory_limit < from.memory_limit && !pod.containers[spoiling.name].resize_policy.memory_restarts {
        spoiling.node(Violation::Unsupported, |node| node.resize = ResizeSupport::NoMemoryDecrease);
    }
    spoiling.action(Violation::Unsupported, |action| action.kind = ActionKind::Recreate);
}

fn of_disruption(spoiling: &mut Spoiling<'_>, pod: &Pod) {
    let (uid, name, namespace) = (spoiling.uid.clone(), spoiling.name.to_owned(), pod.namespace.clone());
    let restarts = |spoiled: &mut Spoiled| {
        let pod = spoiled.observation.pods.get_mut(&uid).expect("the pod");
        let container = pod.containers.get_mut(&name).expect("the container");
        container.resize_policy = ResizePolicy { cpu_restarts: true, memory_restarts: true };
    };
    spoiling.with(Violation::Disruption, |spoiled| {
        restarts(spoiled);
        spoiled.observation.disruption_budgets = vec![DisruptionBudget {
            namespace,
            name: "b".into(),
            selector: Default::default(),
            disruptions_allowed: 0,
        }];
    });
    // A second one of the same workload.
    if pod.made_by != MadeBy::Nobody {
        spoiling.with(Violation::Disruption, |spoiled| {
            restarts(spoiled);
            let twin = PodUid("twin".into());
            let pod = Pod { name: "twin".into(), ..spoiled.observation.pods[&uid].clone() };
            spoiled.observation.pods.insert(twin.clone(), pod);
            spoiled.observation.disruption_budgets.clear();
            let action = Action { uid: twin, pod: "twin".into(), ..spoiled.plan.actions[0].clone() };
            spoiled.plan.actions.push(action);
        });
    }
    // The only one of its workload is evicted, or one that nobody would make anew.
    let evicted = |spoiled: &mut Spoiled, made_by| {
        spoiled.plan.actions[0].kind = ActionKind::Recreate;
        spoiled.observation.disruption_budgets.clear();
        spoiled.observation.pods.get_mut(&uid).expect("the pod").made_by = made_by;
    };
    let only = Workload { kind: WorkloadKind::Deployment, name: "only".into() };
    spoiling.with(Violation::Disruption, |spoiled| {
        evicted(spoiled, MadeBy::Workload(only));
        spoiled.observation.pods.get_mut(&uid).expect("the pod").ready = true;
    });
    spoiling.with(Violation::Disruption, |spoiled| evicted(spoiled, MadeBy::Nobody));
    // One of which nobody knows whose it is, or one beside such a one that is away.
    spoiling.with(Violation::Disruption, |spoiled| {
        restarts(spoiled);
        spoiled.observation.pods.get_mut(&uid).expect("the pod").made_by = MadeBy::Unknown;
        spoiled.state.pods.get_mut(&uid).expect("what is remembered").owner = None;
    });
    if pod.ready && matches!(pod.made_by, MadeBy::Workload(_)) {
        spoiling.with(Violation::Disruption, |spoiled| {
            restarts(spoiled);
            let twin = Pod { name: "twin".into(), ready: false, made_by: MadeBy::Unknown, ..pod.clone() };
            spoiled.observation.pods.insert(PodUid("twin".into()), twin);
        });
    }
}

/// All of them.
const VIOLATIONS: [Violation; 24] = [
    Violation::Unknown,
    Violation::NotAsPlanned,
    Violation::TwoActions,
    Violation::Empty,
    Violation::NotApplied,
    Violation::DryRun,
    Violation::OutOfReach,
    Violation::UnderWay,
    Violation::RequestAboveLimit,
    Violation::KeyChanged,
    Violation::LimitMoved,
    Violation::PolicyBounds,
    Violation::LimitRange,
    Violation::Quota,
    Violation::NodeRoom,
    Violation::NodeCondition,
    Violation::Class,
    Violation::NotReady,
    Violation::Data,
    Violation::MemoryPeak,
    Violation::Autoscaler,
    Violation::Unsupported,
    Violation::Disruption,
    Violation::NotToRevert,
];

#[test]
fn every_violation_is_tried() {
    let mut left = BTreeSet::from(VIOLATIONS);
    for seed in 0..200 {
        let cluster = seeded(seed);
        let Outcome { plan, state, .. } = decided(&cluster);
        for Spoiled { violation, .. } in spoil(&cluster, &plan, &state) {
            left.remove(&violation);
        }
    }
    assert!(left.is_empty(), "never tried: {left:?}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_wrong_is_found_and_stops_no_other_node(cluster in cluster()) {
        let Outcome { plan, state, .. } = decided(&cluster);
        for Spoiled { violation, observation, state, plan } in spoil(&cluster, &plan, &state) {
            let (checked, wrong) = safe_part(&observation, &state, plan.clone(), NOW);
            let wrong = wrong.map(|Unsafe(wrong)| wrong).unwrap_or_default();
            let found: Vec<_> = wrong.iter().map(|(_, _, violation)| *violation).collect();
            prop_assert!(found.contains(&violation), "{violation:?} is not in {found:?}\n{plan}");
            let is_wrong = |action: &&Action| wrong.iter().any(|(uid, ..)| *uid == action.uid);
            let nodes: BTreeSet<_> = plan.actions.iter().filter(is_wrong).map(|action| &action.node).collect();
            let others: Vec<_> = plan.actions.iter().filter(|action| !nodes.contains(&action.node)).collect();
            prop_assert_eq!(checked.plan().actions.iter().collect::<Vec<_>>(), others);
        }
    }
}
