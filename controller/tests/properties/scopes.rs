//! Which policy acts where: properties 16 and 34, over whole decisions, by rules that are written down here once more.

use std::cmp::{Ordering, Reverse};

use controller::decide::labels::LabelSelector;
use controller::decide::scope::{NamespaceScope, PolicyId, WorkloadKind, WorkloadSelector};
use proptest::sample::{select as one_of, subsequence};

use super::*;

const NAMESPACES: [&str; 3] = ["shop", "bank", "lab"];
const KINDS: [WorkloadKind; 5] = [
    WorkloadKind::Deployment,
    WorkloadKind::StatefulSet,
    WorkloadKind::DaemonSet,
    WorkloadKind::Job,
    WorkloadKind::CronJob,
];
const APPS: [&str; 3] = ["w0", "w1", "w2"];

/// Nothing, or some of them.
fn some<T: Clone + Ord + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = BTreeSet<T>> + use<T> {
    let whole = of.len();
    prop_oneof![
        1 => Just(BTreeSet::new()),
        1 => subsequence(of.to_vec(), 0..=whole).prop_map(BTreeSet::from_iter),
    ]
}

prop_compose! {
    /// Where a policy acts, on what, and how old it is.
    fn scope()(
        own in one_of(NAMESPACES.to_vec()),
        created in 0..3u64,
        kinds in some(&KINDS),
        names in some(&APPS.map(str::to_owned)),
        app in prop::option::weighted(0.3, one_of(APPS.to_vec())),
        allow in some(&NAMESPACES.map(str::to_owned)),
        deny in prop::option::weighted(0.1, one_of(NAMESPACES.to_vec())),
    ) -> (PolicyObject, NamespaceScope) {
        let labels = app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect();
        let object = PolicyObject {
            id: PolicyId { namespace: Some(own.into()), name: String::new() },
            created: Timestamp(created),
            namespaces: NamespaceScope::own(own),
            selector: WorkloadSelector { kinds, names, labels: LabelSelector { match_labels: labels, ..Default::default() } },
            policy: Policy::default(),
        };
        let deny = deny.into_iter().map(str::to_owned).collect();
        (object, NamespaceScope { allow, deny, ..NamespaceScope::default() })
    }
}

prop_compose! {
    /// A cluster with policies of many scopes, the first a cluster's and the others namespaces', whose pods are made by workloads of
    /// every kind.
    fn scoped()(
        cluster in cluster(),
        scopes in prop::collection::vec(scope(), 1..6),
        kinds in prop::collection::vec(one_of(KINDS.to_vec()), 5),
        opened in any::<bool>(),
    ) -> Cluster {
        let mut cluster = cluster;
        let policies: Vec<Policy> =
            cluster.observation.policies.iter().map(|object| object.policy.clone()).collect();
        let objects = scopes.into_iter().enumerate().map(|(index, (mut object, everywhere))| {
            object.id.name = format!("policy-{index}");
            if index == 0 {
                (object.id.namespace, object.namespaces) = (None, everywhere);
            }
            object.policy = policies[index % policies.len()].clone();
            object
        });
        cluster.observation.policies = objects.collect();
        if opened {
            cluster.observation.namespaces.clear();
        }
        for (pod, kind) in cluster.observation.pods.values_mut().zip(kinds) {
            pod.made_by = MadeBy::Workload(Workload { kind, name: pod.labels["app"].clone() });
        }
        cluster
    }
}

/// Whether a pod lies in the scope of a policy.
fn is_in_scope(object: &PolicyObject, pod: &Pod) -> bool {
    let MadeBy::Workload(Workload { kind, name }) = &pod.made_by else { return false };
    let PolicyObject { id, namespaces: NamespaceScope { allow, .. }, selector, .. } = object;
    let in_namespace = match &id.namespace {
        Some(own) => *own == pod.namespace,
        None => allow.is_empty() || allow.contains(&pod.namespace),
    };
    in_namespace
        && (selector.kinds.is_empty() || selector.kinds.contains(kind))
        && (selector.names.is_empty() || selector.names.contains(name))
        && selector.labels.match_labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

/// Whether something keeps every policy away from a pod: property 27.
fn is_kept_away(observation: &Observation, pod: &Pod) -> bool {
    let out = |labels: &Labels| labels.get("loadline.dev/enabled").is_some_and(|value| value == "false");
    let denies = |object: &PolicyObject| object.namespaces.deny.contains(&pod.namespace);
    pod.namespace == "kube-system"
        || out(&pod.labels)
        || observation.namespaces.get(&pod.namespace).is_some_and(out)
        || observation.policies.iter().any(denies)
}

/// A namespace's own before a cluster's, then who names workloads, asks more of labels, names kinds; then the older, then by name.
fn more_specific(one: &PolicyObject, other: &PolicyObject) -> Ordering {
    let own = |object: &PolicyObject| object.id.namespace.is_some();
    let names = |object: &PolicyObject| !object.selector.names.is_empty();
    let labels = |object: &PolicyObject| object.selector.labels.match_labels.len();
    let kinds = |object: &PolicyObject| !object.selector.kinds.is_empty();
    let by_scope = own(one).cmp(&own(other)).then(names(one).cmp(&names(other)));
    let by_scope = by_scope.then(labels(one).cmp(&labels(other))).then(kinds(one).cmp(&kinds(other)));
    by_scope
        .then(Reverse(one.created).cmp(&Reverse(other.created)))
        .then(Reverse(&one.id.name).cmp(&Reverse(&other.id.name)))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn p16_exactly_the_workloads_that_match_are_found(cluster in scoped()) {
        for record in decided(&cluster).records {
            let pod = &cluster.observation.pods[&record.container.uid];
            let found: BTreeSet<&PolicyId> =
                record.policy.iter().map(|(id, _)| id).chain(&record.overruled).collect();
            let in_scope = cluster.observation.policies.iter().filter(|object| is_in_scope(object, pod));
            if is_kept_away(&cluster.observation, pod) {
                prop_assert!(found.is_empty(), "{record}");
            } else {
                prop_assert_eq!(found, in_scope.map(|object| &object.id).collect(), "{}", record);
                prop_assert_eq!(record.policy.is_none(), record.reason == Reason::NoPolicy, "{}", record);
            }
        }
    }

    #[test]
    fn p34_the_most_specific_policy_wins_and_the_clusters_bounds_clamp_it(cluster in scoped()) {
        for record in decided(&cluster).records {
            let pod = &cluster.observation.pods[&record.container.uid];
            let Some((id, _)) = &record.policy else { continue };
            let in_scope = || cluster.observation.policies.iter().filter(|object| is_in_scope(object, pod));
            let most = in_scope().max_by(|one, other| more_specific(one, other));
            prop_assert_eq!(most.map(|object| &object.id), Some(id), "{}", record);
            // The choice is shown, and so are those that lost.
            prop_assert_eq!(record.overruled.len() + 1, in_scope().count(), "{}", record);
            for object in in_scope().filter(|object| object.id.namespace.is_none()) {
                let Policy { cpu, memory, .. } = &object.policy;
                let target = record.target.unwrap_or_default();
                if let Some(to) = target.cpu_request {
                    prop_assert!(cpu.min_allowed <= to && to <= cpu.max_allowed, "{record}");
                }
                if let Some(to) = target.memory_request {
                    prop_assert!(memory.min_allowed <= to && to <= memory.max_allowed, "{record}");
                }
            }
        }
    }
}
