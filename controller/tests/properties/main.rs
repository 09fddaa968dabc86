//! The properties of a rightsizer, each over clusters of every kind and named after its number.
//!
//! Not here, because another layer holds them:
//!
//! | # | holds | where |
//! |---|---|---|
//! | 1, 11 | windows are collected, of each container of its own | the sampler; what is done with them is `p11` here |
//! | 9 | status is written when it changed | status writer; that all is evaluated in each cycle is `p17` |
//! | 10, 23 | status is readable, and has its times | status writer |
//! | 13 | percentiles in order, within the stated error | tests of `decide::history` |
//! | 15 | malformed policies are refused | tests of `api::policy`, and the schema at the API server |
//! | 27 | deny wins | tests of `decide::scope`; its effect on plans is `p27` here |
//! | 20 | support is detected per node | observer; what follows from it is `p20` here |
//! | 25, 26, 28 | metrics, events, missing permissions | runtime; that a quota's reason says what is missing is `p26` here |
//! | 30 | metrics sources are configured | observer |
//! | 32 | API calls do not grow with idle workloads | runtime; that a plan changes nothing in vain is `p32` here |
//! | 12, 14 | by window, percentile and margin | `p12` and `p14` here, of policies that name a percentile; the default bets, on a week whatever the window is |
//! | 36 | original resources are put back | `loadline restore`; that a deleted policy changes nothing is `p36` here |

mod cluster;
mod scopes;
mod sizing;
mod spoiled;

use std::collections::{BTreeMap, BTreeSet};

use cluster::{Cluster, NOW, cluster, crowded, peak_of};
use controller::decide::check::check;
use controller::decide::labels::Labels;
use controller::decide::observation::*;
use controller::decide::pipeline::{Outcome, decide};
use controller::decide::plan::{Action, ActionKind, Change, Plan};
use controller::decide::policy::*;
use controller::decide::reason::{Missing, Reason};
use controller::decide::record::{ContainerRef, DecisionRecord, Step};
use controller::decide::scope::{PolicyObject, Scopes, Selection, Subject, WorkloadKind};
use controller::decide::sizes::{Direction, Resource, Sizes};
use controller::decide::state::State;
use controller::decide::target;
use controller::decide::units::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sampler_common::window::Window;

fn decided(cluster: &Cluster) -> Outcome {
    decide(&cluster.observation, cluster.state.clone(), NOW)
}

/// The policy that holds for a pod, by the rules of scopes alone and what was last known of who made it.
fn policy_of(observation: &Observation, state: &State, uid: &PodUid) -> Option<Policy> {
    let pod = &observation.pods[uid];
    let owner = state.pods.get(uid).and_then(|remembered| remembered.owner.as_ref());
    let made_by = match (pod.made_by.as_ref(), owner) {
        (MadeBy::Unknown, Some(owner)) => MadeBy::Workload(&owner.workload),
        (observed, _) => observed,
    };
    let none = BTreeMap::new();
    let labels = observation.namespaces.get(&pod.namespace).unwrap_or(&none);
    let subject = Subject { made_by, labels: &pod.labels };
    match Scopes::of(&observation.policies).in_namespace(&pod.namespace, labels).select(&subject) {
        Selection::Chosen { policy, .. } => Some(*policy),
        _ => None,
    }
}

/// Each change of a plan, with its pod, container and policy.
fn changes<'a>(
    cluster: &'a Cluster,
    plan: &'a Plan,
) -> impl Iterator<Item = (&'a Action, &'a Pod, &'a Container, Policy, &'a Change)> {
    plan.actions.iter().flat_map(|action| {
        let pod = &cluster.observation.pods[&action.uid];
        let policy = policy_of(&cluster.observation, &cluster.state, &action.uid)
            .expect("a policy for what is changed");
        let of_pod = action.containers.iter();
        of_pod.map(move |(name, change)| (action, pod, &pod.containers[name], policy.clone(), change))
    })
}

/// Whether what came to nothing is undone, or shown to be.
fn is_undone(record: &DecisionRecord) -> bool {
    record.marks.iter().any(|mark| mark.reason == Reason::Reverted)
}

fn in_mode(cluster: &Cluster, mode: Mode) -> Cluster {
    let mut cluster = cluster.clone();
    cluster.observation.policies.iter_mut().for_each(|object| object.policy.mode = mode);
    cluster
}

fn record<'a>(outcome: &'a Outcome, uid: &PodUid, container: &str) -> &'a DecisionRecord {
    let of_it =
        |record: &&DecisionRecord| record.container.uid == *uid && record.container.container == container;
    outcome.records.iter().find(of_it).expect("a record for every container")
}

/// So many of each property, by random numbers that cost little: proptest's own take a quarter of the time, unoptimised.
fn cases() -> Config {
    Config { cases: 256, rng_algorithm: RngAlgorithm::XorShift, ..Config::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn p02_a_target_that_differs_leads_to_a_resize_or_to_the_guard_that_says_no(cluster in cluster()) {
        let outcome = decided(&cluster);
        for record in outcome.records.iter().filter(|record| record.target.is_some()) {
            let hysteresis = 0.05;
            let (target, current) = (record.target.unwrap_or_default(), record.current);
            let differs = |to: u64, from: u64| to.abs_diff(from) as f64 > hysteresis * from as f64;
            for resource in Resource::ALL {
                let [target, current, result] =
                    [target, current, record.result].map(|sizes| sizes.pair(resource).0.unwrap_or(0));
                if differs(target, current) && result == current {
                    let said_no = record.marks.iter().any(|mark| {
                        mark.step > Step::Target && mark.after.pair(resource).0 != mark.before.pair(resource).0
                    });
                    prop_assert!(said_no, "{record}");
                    prop_assert!(!matches!(record.reason, Reason::OnTarget), "{record}");
                }
            }
        }
    }

    #[test]
    fn p03_only_requests_change_unless_the_policy_says_otherwise(cluster in cluster()) {
        let plan = decided(&cluster).plan;
        for (action, pod, _, policy, Change { from, to }) in changes(&cluster, &plan) {
            let limits = |sizes: &Sizes| (sizes.cpu_limit, sizes.memory_limit);
            let opted_in = pod.qos == Qos::Guaranteed && policy.guaranteed_pods == GuaranteedPods::Resize;
            if policy.controlled_values == ControlledValues::RequestsOnly
                && !opted_in
                && action.kind != ActionKind::Revert
            {
                prop_assert_eq!(limits(from), limits(to));
            }
        }
    }

    #[test]
    fn p04_targets_lie_between_min_allowed_and_max_allowed(cluster in cluster()) {
        for record in decided(&cluster).records {
            let Some(target) = record.target else { continue };
            let policy = policy_of(&cluster.observation, &cluster.state, &record.container.uid);
            let policy = policy.expect("a policy for what has a target");
            if let Some(cpu) = target.cpu_request {
                prop_assert!(policy.cpu.min_allowed <= cpu && cpu <= policy.cpu.max_allowed, "{record}");
            }
            if let Some(memory) = target.memory_request {
                prop_assert!(policy.memory.min_allowed <= memory && memory <= policy.memory.max_allowed, "{record}");
            }
            // What is given, after every later step and all rounding, lies there, too, or is on its way.
            if is_undone(&record) {
                continue;
            }
            let bounds = [
                (Resource::Cpu, policy.cpu.min_allowed.0, policy.cpu.max_allowed.0),
                (Resource::Memory, policy.memory.min_allowed.0, policy.memory.max_allowed.0),
            ];
            for (resource, least, most) in bounds {
                let (from, to) = (record.current.pair(resource).0, record.result.pair(resource).0);
                let nearer = if to < Some(least) { to >= from } else { to <= Some(most) || to <= from };
                prop_assert!(to == from || nearer, "{record}");
            }
        }
    }

    #[test]
    fn p05_memory_never_shrinks_below_its_recent_peak_with_headroom(cluster in cluster()) {
        let outcome = decided(&cluster);
        for (action, _, container, policy, Change { from, to }) in changes(&cluster, &outcome.plan) {
            if action.kind == ActionKind::Revert {
                continue;
            }
            let used = container.latest().and_then(Reading::memory).map(peak_of).unwrap_or_default();
            let headroom = 1000 + u64::from(policy.objectives.memory_headroom.0);
            let least = used.scale_up(headroom, 1000);
            prop_assert!(to.memory_request >= from.memory_request || to.memory() >= least);
            prop_assert!(to.memory_limit >= from.memory_limit || to.memory_limit >= Some(least));
        }
    }

    #[test]
    fn p06_p21_p22_a_new_pod_only_where_the_policy_allows_it_and_nothing_else_will_do(cluster in cluster()) {
        let plan = decided(&cluster).plan;
        for (action, pod, container, policy, _) in changes(&cluster, &plan) {
            let node = &cluster.observation.nodes[&action.node];
            let every = pod.containers.values().all(|container| container.actual.is_some());
            if action.kind == ActionKind::Recreate {
                prop_assert_eq!(policy.resize.fallback, Fallback::Recreate);
                prop_assert!(node.resize == ResizeSupport::None || !every, "in place is preferred");
            } else if action.kind == ActionKind::Resize {
                prop_assert!(node.resize != ResizeSupport::None && container.actual.is_some());
            }
        }
    }

    #[test]
    fn p07_without_metrics_nothing_changes(mut cluster in cluster(), all in any::<bool>(), ever in any::<bool>()) {
        let lacks = |name: &str| all || name == "c0";
        for pod in cluster.observation.pods.values_mut() {
            let lacking = pod.containers.iter_mut().filter(|(name, _)| lacks(name));
            lacking.for_each(|(_, container)| container.readings.clear());
        }
        for pod in cluster.state.pods.values_mut() {
            if ever {
                // It was measured until its samples became too old.
                let names: Vec<String> = pod.iter().map(|(name, _)| name.to_owned()).collect();
                for name in names.iter().filter(|name| lacks(name)) {
                    pod.get_mut(name).expect("its own name").read_until = Some(Timestamp(NOW.0 - 301));
                }
            } else {
                let known = pod.iter().filter(|(name, _)| !lacks(name));
                *pod = known.map(|(name, of)| (name.into(), of.clone())).collect();
            }
        }
        for record in decided(&cluster).records {
            // To undo what has come to nothing takes no data.
            if lacks(&record.container.container) && !is_undone(&record) {
                // Nor does the CPU that a policy gives to start with, nor memory after an OOM kill.
                let given = [
                    (Resource::Cpu, Reason::CpuTarget(target::cpu::Reason::StartupBoost)),
                    (Resource::Memory, Reason::MemoryTarget(target::memory::Reason::OutOfMemory)),
                ];
                let says = |reason: &Reason| record.marks.iter().any(|mark| mark.reason == *reason);
                if given.iter().any(|(_, reason)| says(reason)) {
                    for (resource, reason) in &given {
                        let (to, from) = (record.result.pair(*resource), record.current.pair(*resource));
                        prop_assert!(to == from || says(reason) && to >= from, "{record}");
                    }
                    continue;
                }
                prop_assert_eq!(record.result, record.current, "{}", record);
                prop_assert_eq!(record.target, None, "{}", record);
            }
        }
    }

    #[test]
    fn p08_p18_recommend_evaluates_and_never_modifies(cluster in cluster()) {
        let applied = decided(&in_mode(&cluster, Mode::Apply));
        let recommended = decided(&in_mode(&cluster, Mode::Recommend));
        prop_assert!(recommended.plan.actions.is_empty());
        for (applied, recommended) in applied.records.iter().zip(&recommended.records) {
            prop_assert_eq!(applied.target, recommended.target, "{}", recommended);
        }
    }

    #[test]
    fn p11_each_container_is_sized_by_its_own_data(cluster in cluster()) {
        let before = decided(&cluster);
        let mut other = cluster.clone();
        for pod in other.observation.pods.values_mut() {
            for container in pod.containers.iter_mut().filter(|(name, _)| *name != "c0").map(|(_, c)| c) {
                container.readings.clear();
            }
        }
        let after = decided(&other);
        for uid in cluster.observation.pods.keys() {
            prop_assert_eq!(record(&before, uid, "c0").target, record(&after, uid, "c0").target);
        }
    }

    #[test]
    fn p17_p24_every_container_gets_one_record_and_one_reason(cluster in cluster()) {
        let outcome = decided(&cluster);
        let told: Vec<_> =
            outcome.records.iter().map(|record| (&record.container.uid, record.container.container.as_str())).collect();
        let there: BTreeSet<_> = cluster.observation.pods.iter()
            .flat_map(|(uid, pod)| pod.containers.keys().map(move |name| (uid, name.as_str())))
            .collect();
        prop_assert_eq!(told.len(), there.len());
        prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), there);
        let planned: BTreeSet<_> = outcome.plan.actions.iter()
            .flat_map(|action| action.containers.keys().map(|name| (&action.uid, name.as_str())))
            .collect();
        for record in &outcome.records {
            let done = matches!(
                record.reason,
                Reason::Raised(_) | Reason::Lowered(_) | Reason::Rebalanced(_) | Reason::Reverted | Reason::Recreated(_)
            );
            let planned = planned.contains(&(&record.container.uid, record.container.container.as_str()));
            prop_assert_eq!(done, planned, "the reason says what is done: {}", record);
        }
    }

    #[test]
    fn p19_disabled_finds_nothing_new_and_keeps_what_there_is(cluster in cluster()) {
        let disabled = in_mode(&cluster, Mode::Disabled);
        let outcome = decided(&disabled);
        prop_assert!(outcome.plan.actions.is_empty());
        prop_assert!(outcome.records.iter().all(|record| record.target.is_none()));
        for (uid, containers) in &cluster.state.pods {
            for (name, state) in containers.iter() {
                let after = outcome.state.container(uid, name).expect("what is remembered stays");
                prop_assert_eq!((&after.history, &after.memory), (&state.history, &state.memory));
            }
        }
    }

    #[test]
    fn p20_nodes_that_cannot_resize_are_an_outcome_and_no_error(mut cluster in cluster(), never: bool) {
        let (resize, reason) = match never {
            true => (ResizeSupport::NotLinux, Reason::NotLinux),
            false => (ResizeSupport::None, Reason::ResizeUnsupported),
        };
        cluster.observation.policies.iter_mut().for_each(|object| object.policy.resize.fallback = Fallback::None);
        let decided_on = |cluster: &mut Cluster, resize| {
            cluster.observation.nodes.values_mut().for_each(|node| node.resize = resize);
            decided(cluster)
        };
        let able = decided_on(&mut cluster, ResizeSupport::Full);
        let outcome = decided_on(&mut cluster, resize);
        prop_assert!(outcome.plan.actions.iter().all(|action| action.kind == ActionKind::Revert));
        // Who would be resized if its node could is told that it cannot.
        for action in able.plan.actions.iter().filter(|action| action.kind == ActionKind::Resize) {
            for name in action.containers.keys() {
                let of = |record: &&DecisionRecord| {
                    record.container.uid == action.uid && record.container.container == *name
                };
                let record = outcome.records.iter().find(of).expect("each has a record");
                prop_assert!(record.marks.iter().any(|mark| mark.reason == reason), "{record}");
            }
        }
    }

    #[test]
    fn p26_a_quotas_reason_says_how_much_is_missing(cluster in cluster()) {
        for record in decided(&cluster).records {
            for mark in &record.marks {
                let Reason::QuotaExceeded(_, missing) = &mark.reason else { continue };
                // Another quota may leave even less.
                let taken = |asked: Option<u64>, granted: Option<u64>| asked.unwrap_or(0) - granted.unwrap_or(0);
                let (resource, missing) = match missing {
                    Missing::Cpu(cpu) => (Resource::Cpu, cpu.0),
                    Missing::Memory(memory) => (Resource::Memory, memory.0),
                };
                let (asked, granted) = (mark.before.pair(resource), mark.after.pair(resource));
                let most = taken(asked.0, granted.0).max(taken(asked.1, granted.1));
                prop_assert!((1..=most).contains(&missing), "{record}");
            }
        }
    }

    #[test]
    fn p26_a_quota_holds_only_what_it_counts(cluster in cluster()) {
        let mut without = cluster.clone();
        let others = [QuotaScope::BestEffort, QuotaScope::CrossNamespacePodAffinity];
        without.observation.quotas.retain(|quota| !quota.scopes.iter().any(|scope| others.contains(scope)));
        prop_assert_eq!(decided(&without), decided(&cluster), "no pod that is sized is of these");
        let classes: Vec<_> = cluster.observation.pods.values().filter_map(|pod| pod.priority.class.as_ref()).collect();
        let batch = |quota: &Quota| quota.scopes.contains(&QuotaScope::PriorityClassIn(["batch".to_owned()].into()));
        if !classes.iter().any(|class| *class == "batch") {
            without.observation.quotas.retain(|quota| !batch(quota));
            prop_assert_eq!(decided(&without), decided(&cluster));
        }
    }

    #[test]
    fn p27_nobody_is_touched_whom_no_policy_applies_to(cluster in cluster()) {
        let outcome = decided(&cluster);
        for (_, pod, _, policy, _) in changes(&cluster, &outcome.plan) {
            prop_assert_eq!(policy.mode, Mode::Apply);
            prop_assert!(!pod.terminating && !pod.is_static && pod.resources == Sizes::default());
        }
        // Who is left out is told so, whatever else there is to say.
        let out = |labels: &Labels| labels.get("loadline.dev/enabled").is_some_and(|value| value == "false");
        for record in &outcome.records {
            let pod = &cluster.observation.pods[&record.container.uid];
            let denied = cluster.observation.policies.iter().find(|object| {
                object.id.namespace.is_none() && object.namespaces.deny.contains(&pod.namespace)
            });
            let none = Labels::new();
            let of_namespace = cluster.observation.namespaces.get(&pod.namespace).unwrap_or(&none);
            let reason = match denied {
                _ if pod.namespace == "kube-system" => Reason::NamespaceExcluded,
                _ if out(&pod.labels) || out(of_namespace) => Reason::OptedOut,
                Some(object) => Reason::NamespaceDenied(object.id.clone()),
                None => continue,
            };
            prop_assert_eq!(&record.reason, &reason);
            prop_assert_eq!((record.target, record.result), (None, record.current));
        }
    }

    #[test]
    fn p29_a_dry_run_computes_everything_and_does_nothing(mut cluster in cluster()) {
        cluster.observation.settings.dry_run = false;
        let wet = decided(&cluster);
        cluster.observation.settings.dry_run = true;
        let dry = decided(&cluster);
        prop_assert!(dry.plan.actions.is_empty());
        for (wet, dry) in wet.records.iter().zip(&dry.records) {
            prop_assert_eq!(wet.target, dry.target);
            if dry.result != dry.current && dry.policy.as_ref().is_some_and(|(_, mode)| *mode == Mode::Apply) {
                prop_assert!(matches!(dry.reason, Reason::DryRun(_)), "{dry}");
                // How many are disrupted at once shows only where they are.
                if wet.result == dry.result {
                    prop_assert_eq!(&dry.reason, &Reason::DryRun(Box::new(wet.reason.clone())), "{}", dry);
                }
            }
        }
    }

    #[test]
    fn p31_what_is_stored_is_restored_without_loss(cluster in cluster()) {
        let stored = serde_json::to_string(&(&cluster.observation, &cluster.state)).unwrap();
        let (observation, state): (Observation, State) = serde_json::from_str(&stored).unwrap();
        prop_assert_eq!(&observation, &cluster.observation);
        prop_assert_eq!(&state, &cluster.state);
    }

    #[test]
    fn p31_decisions_after_a_restart_are_those_without_it(cluster in cluster(), odd in 1..9_999_991u64) {
        const LATER: Timestamp = Timestamp(NOW.0 + 2 * 3600);
        let mut observation = cluster.observation.clone();
        let containers = observation.pods.values_mut().flat_map(|pod| pod.containers.values_mut());
        for reading in containers.flat_map(|container| &mut container.readings) {
            let usage_ns = (reading.cores().unwrap_or(0.1) * 15e9) as u64 + odd;
            let mut window = Window { length_ns: 15_000_000_000, usage_ns, ..Window::default() };
            window.causes.neighbor_ns = 997 * odd;
            *reading = Reading::Window { until: Timestamp(LATER.0 - 15), window: Box::new(window) };
        }
        // One that is gone for so long is remembered by its workload.
        let gone = observation.pods.keys().next().cloned();
        gone.iter().for_each(|uid| drop(observation.pods.remove(uid)));
        let state = decide(&observation, decided(&cluster).state, LATER).state;
        prop_assert!(gone.is_none_or(|uid| !state.pods.contains_key(&uid)));

        let stored = state.stored().unwrap();
        let (restored, lost) = State::restored(stored.as_bytes()).unwrap();
        prop_assert!(lost.is_empty(), "{:?}", lost);
        prop_assert_eq!(&restored, &state);
        let decided = |state| {
            let Outcome { plan, records, .. } = decide(&observation, state, LATER.plus_seconds(15));
            serde_json::to_string(&(plan, records)).unwrap()
        };
        prop_assert_eq!(decided(restored), decided(state));
    }

    #[test]
    fn p32_what_is_done_is_not_done_again(cluster in cluster()) {
        let first = decided(&cluster);
        let mut next = Cluster { observation: cluster.observation.clone(), state: first.state };
        for action in first.plan.actions.iter().filter(|action| action.kind != ActionKind::Recreate) {
            let pod = next.observation.pods.get_mut(&action.uid).expect("the pod");
            pod.resize = ResizeState::Settled;
            for (name, change) in &action.containers {
                let container = pod.containers.get_mut(name).expect("the container");
                container.desired = change.to;
                (container.allocated, container.actual) = (Some(change.to), Some(change.to));
            }
        }
        let done: BTreeSet<_> = first.plan.actions.iter()
            .filter(|action| action.kind != ActionKind::Recreate)
            .flat_map(|action| action.containers.keys().map(|name| (action.uid.clone(), name.clone())))
            .collect();
        for action in decided(&next).plan.actions {
            for (name, Change { from, to }) in &action.containers {
                // Only what hurts moves on, and only upwards.
                if done.contains(&(action.uid.clone(), name.clone())) {
                    prop_assert!(to.cpu() >= from.cpu() && to.memory() >= from.memory(), "{from} → {to}");
                }
            }
        }
        // Nor later, with the cooldown over and the same use: who got all that was found for it stays there. More CPU is for what
        // still hurts, and for use that has gone on for long enough to count.
        let cooldown = 301;
        let later = Timestamp(NOW.0 + cooldown);
        for pod in next.observation.pods.values_mut() {
            for container in pod.containers.values_mut() {
                for reading in &mut container.readings {
                    let until = match reading {
                        Reading::Usage { until, .. } | Reading::Window { until, .. } => until,
                    };
                    *until = until.plus_seconds(cooldown);
                }
            }
        }
        let again = decide(&next.observation, next.state.clone(), later);
        for before in first.records.iter().filter(|record| record.target == Some(record.result)) {
            let ContainerRef { uid, container, .. } = &before.container;
            if done.contains(&(uid.clone(), container.clone())) {
                let after = record(&again, uid, container);
                let (from, to) = (after.current, after.result);
                let not_back = matches!(to.direction(&from), Direction::Same | Direction::Up);
                let memory = |sizes: Sizes| (sizes.memory_request, sizes.memory_limit);
                prop_assert!(not_back && memory(from) == memory(to), "{before}\n{after}");
            }
        }
    }

    #[test]
    fn p33_a_switch_of_mode_takes_effect_in_the_next_cycle(cluster in cluster()) {
        let outcome = decided(&in_mode(&cluster, Mode::Apply));
        for mode in [Mode::Recommend, Mode::Observe, Mode::Disabled] {
            let mut next = in_mode(&cluster, mode);
            next.state = outcome.state.clone();
            prop_assert!(decided(&next).plan.actions.is_empty());
        }
    }

    #[test]
    fn p35_one_action_for_all_containers_of_a_pod(cluster in cluster()) {
        let plan = decided(&cluster).plan;
        let pods: BTreeSet<_> = plan.actions.iter().map(|action| &action.uid).collect();
        prop_assert_eq!(pods.len(), plan.actions.len());
    }

    #[test]
    fn p36_a_deleted_policy_changes_nothing(mut cluster in cluster()) {
        cluster.observation.policies.clear();
        let outcome = decided(&cluster);
        prop_assert!(outcome.plan.actions.is_empty());
        prop_assert!(outcome.records.iter().all(|record| record.result == record.current && record.policy.is_none()));
    }

    #[test]
    fn p37_guaranteed_pods_opt_in_and_no_class_ever_changes(cluster in cluster()) {
        let plan = decided(&cluster).plan;
        for (action, pod, _, policy, _) in changes(&cluster, &plan) {
            let after: Vec<Sizes> = pod.containers.iter()
                .map(|(name, container)| action.containers.get(name).map_or(container.desired, |change| change.to))
                .collect();
            let equal = |sizes: &Sizes| {
                sizes.cpu_limit.is_some() && sizes.memory_limit.is_some()
                    && sizes.cpu_request == sizes.cpu_limit && sizes.memory_request == sizes.memory_limit
            };
            prop_assert_eq!(after.iter().all(equal), pod.qos == Qos::Guaranteed);
            prop_assert!(pod.qos != Qos::BestEffort);
            if pod.qos == Qos::Guaranteed {
                prop_assert_eq!(policy.guaranteed_pods, GuaranteedPods::Resize);
            }
        }
    }

    #[test]
    fn every_plan_passes_the_check(cluster in cluster()) {
        let Outcome { plan, state, .. } = decided(&cluster);
        if let Err(error) = check(&cluster.observation, &state, plan.clone(), NOW) {
            prop_assert!(false, "{error}\n{plan}");
        }
    }

    #[test]
    fn an_owner_that_cannot_be_told_for_a_while_is_the_one_that_was_known(cluster in cluster()) {
        let mut known = cluster.clone();
        known.state = decided(&cluster).state;
        let mut untold = known.clone();
        for pod in untold.observation.pods.values_mut().filter(|pod| pod.made_by != MadeBy::Nobody) {
            pod.made_by = MadeBy::Unknown;
        }
        // Of those that no policy acts on nothing is remembered: whose they are is not, either.
        let owned = |uid: &PodUid| known.state.pods.get(uid).is_some_and(|pod| pod.owner.is_some());
        for (uid, pod) in &mut untold.observation.pods {
            if !owned(uid) {
                pod.made_by = known.observation.pods[uid].made_by.clone();
            }
        }
        prop_assert_eq!(decided(&untold), decided(&known));
    }

    #[test]
    fn what_is_planned_while_an_owner_cannot_be_told_is_right_whoever_it_is(
        cluster in cluster(), who in prop::option::of(0..3usize), fellows in any::<bool>()
    ) {
        let Outcome { plan, state, .. } = decided(&cluster);
        let mut told = cluster.observation.clone();
        for pod in told.pods.values_mut().filter(|pod| pod.made_by == MadeBy::Unknown) {
            let of = |who| Workload { kind: WorkloadKind::Deployment, name: format!("w{who}") };
            pod.made_by = match who {
                Some(who) if fellows || pod.labels["app"] == format!("w{who}") => MadeBy::Workload(of(who)),
                _ => MadeBy::Nobody,
            };
        }
        for (uid, pod) in &mut told.pods {
            // Of whom it is remembered, that is who it is.
            if let Some(owner) = cluster.state.pods.get(uid).and_then(|pod| pod.owner.as_ref()) {
                pod.made_by = MadeBy::Workload(owner.workload.clone());
            }
        }
        let checked = check(&told, &state, plan.clone(), NOW);
        prop_assert!(checked.is_ok(), "{:?}\n{plan}", checked.err());
    }

    #[test]
    fn what_was_read_before_counts_once(cluster in cluster()) {
        let once = decided(&cluster).state;
        let twice = decide(&cluster.observation, once.clone(), NOW).state;
        for (uid, containers) in &once.pods {
            for (name, before) in containers.iter() {
                let after = twice.container(uid, name).expect("what is there is remembered");
                prop_assert_eq!((&before.history, &before.memory), (&after.history, &after.memory));
            }
        }
    }

    #[test]
    fn what_is_only_shown_takes_nothing_from_what_is_done(cluster in cluster()) {
        let mut cluster = crowded(cluster);
        for (index, pod) in cluster.observation.pods.values_mut().enumerate().filter(|(index, _)| index % 2 == 0) {
            (pod.namespace, pod.name) = ("bank".into(), format!("shown-{index}"));
        }
        let plan = |mode| {
            let mut cluster = cluster.clone();
            let of_bank = |object: &&mut PolicyObject| object.id.namespace.as_deref() == Some("bank");
            cluster.observation.policies.iter_mut().filter(of_bank).for_each(|object| object.policy.mode = mode);
            decided(&cluster).plan
        };
        prop_assert_eq!(plan(Mode::Recommend), plan(Mode::Observe));
    }

    #[test]
    fn whichever_actions_are_done_the_requests_fit(cluster in cluster(), full in any::<bool>(), done in any::<u32>()) {
        let cluster = if full { crowded(cluster) } else { cluster };
        let Outcome { plan, state, .. } = decided(&cluster);
        let checked = check(&cluster.observation, &state, plan.clone(), NOW);
        prop_assert!(checked.is_ok(), "{:?}\n{plan}", checked.err());
        let mut after = cluster.observation.clone();
        let chosen = |(index, _): &(usize, &Action)| done >> (index % 32) & 1 == 1;
        for (_, action) in plan.actions.iter().enumerate().filter(chosen) {
            let pod = after.pods.get_mut(&action.uid).expect("the pod");
            pod.resize = ResizeState::Settled;
            for (name, change) in &action.containers {
                let container = pod.containers.get_mut(name).expect("the container");
                container.desired = change.to;
                (container.allocated, container.actual) = (Some(change.to), Some(change.to));
            }
        }
        let held = |observation: &Observation, node: &str, resource| -> u64 {
            let on_it = observation.pods.values().filter(|pod| pod.node.as_deref() == Some(node));
            on_it.map(|pod| pod.held().pair(resource).0.unwrap_or(0)).sum()
        };
        for (name, node) in &cluster.observation.nodes {
            for (resource, has) in [(Resource::Cpu, node.cpu.0), (Resource::Memory, node.memory.0)] {
                let before = held(&cluster.observation, name, resource);
                let after = held(&after, name, resource);
                prop_assert!(after <= has.max(before), "{after} of {has} on {name}, {before} before\n{plan}");
            }
        }
    }

    #[test]
    fn the_order_in_which_things_were_observed_does_not_matter(cluster in cluster()) {
        let mut turned = cluster.clone();
        turned.observation.policies.reverse();
        prop_assert_eq!(decided(&cluster), decided(&turned));
    }
}

/// A cluster of its own for each seed.
fn seeded(seed: u64) -> Cluster {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    cluster().new_tree(&mut runner).expect("a cluster").current()
}

#[test]
fn the_same_observation_makes_a_byte_equal_plan_over_a_thousand_seeds() {
    let mut actions = 0;
    let mut plans = BTreeSet::new();
    for seed in 0..1000 {
        let cluster = seeded(seed);
        let outcome = decided(&cluster);
        // The second time from values at other addresses.
        let again = decided(&cluster.clone());
        let bytes = |outcome: &Outcome| serde_json::to_vec(&(&outcome.plan, &outcome.records)).unwrap();
        assert_eq!(bytes(&outcome), bytes(&again), "seed {seed}");
        actions += outcome.plan.actions.len();
        plans.insert(serde_json::to_string(&outcome.plan).unwrap());
    }
    assert!(
        actions > 300 && plans.len() > 200,
        "{actions} actions in {} plans are too few to tell",
        plans.len()
    );
}
