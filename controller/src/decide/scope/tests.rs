use proptest::prelude::*;

use super::*;
use crate::decide::units::{Bytes, MilliCpu};

fn object(namespace: Option<&str>, name: &str, created: u64) -> PolicyObject {
    PolicyObject {
        id: PolicyId { namespace: namespace.map(Into::into), name: name.into() },
        created: Timestamp(created),
        namespaces: namespace.map(NamespaceScope::own).unwrap_or_default(),
        selector: WorkloadSelector::default(),
        policy: Policy::default(),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The policy that is chosen for the Deployment `web` in `shop`, labelled `app: web`.
fn chosen(policies: &[PolicyObject]) -> Selection {
    let web = Workload { kind: WorkloadKind::Deployment, name: "web".into() };
    chosen_for(policies, MadeBy::Workload(&web))
}

fn chosen_for(policies: &[PolicyObject], made_by: MadeBy<&Workload>) -> Selection {
    let subject = Subject { made_by, labels: &labels(&[("app", "web")]) };
    Scopes::of(policies).in_namespace("shop", &labels(&[("team", "a")])).select(&subject)
}

fn name(selection: &Selection) -> &str {
    match selection {
        Selection::Chosen { id, .. } => &id.name,
        Selection::None => "none",
        Selection::Denied(_) => "denied",
        Selection::OwnerUnknown(_) => "owner unknown",
    }
}

/// Property 34.
#[test]
fn the_most_specific_wins_then_age_then_name() {
    let cluster = object(None, "cluster", 1);
    let own = object(Some("shop"), "own", 9);
    let mut kinds = object(Some("shop"), "kinds", 9);
    kinds.selector.kinds.insert(WorkloadKind::Deployment);
    let mut labelled = object(Some("shop"), "labelled", 9);
    labelled.selector.labels.match_labels = labels(&[("app", "web")]);
    let mut named = object(Some("shop"), "named", 9);
    named.selector.names.insert("web".into());
    // Each beats all before it.
    let ranks = [cluster, own, kinds, labelled, named];
    for rank in 1..=ranks.len() {
        let selection = chosen(&ranks[..rank]);
        assert_eq!(name(&selection), ranks[rank - 1].id.name);
        let Selection::Chosen { overruled, .. } = selection else { panic!("{selection:?}") };
        assert_eq!(overruled.len(), rank - 1, "the choice is shown on the others, too");
    }
    assert_eq!(name(&chosen(&[object(Some("shop"), "b", 5), object(Some("shop"), "c", 4)])), "c", "older");
    assert_eq!(name(&chosen(&[object(Some("shop"), "b", 5), object(Some("shop"), "a", 5)])), "a", "by name");
    assert_eq!(name(&chosen(&[object(Some("other"), "a", 5)])), "none");
}

/// Property 27.
#[test]
fn deny_wins_over_allow_and_over_a_namespaces_own_policy() {
    let mut cluster = object(None, "cluster", 1);
    cluster.namespaces.allow.insert("shop".into());
    assert_eq!(name(&chosen(std::slice::from_ref(&cluster))), "cluster");
    cluster.namespaces.deny.insert("shop".into());
    assert_eq!(name(&chosen(&[cluster, object(Some("shop"), "own", 1)])), "denied");
}

#[test]
fn a_scope_is_the_intersection_of_its_parts() {
    let in_scope = |change: fn(&mut PolicyObject)| {
        let mut cluster = object(None, "cluster", 1);
        change(&mut cluster);
        name(&chosen(&[cluster])) == "cluster"
    };
    assert!(in_scope(|policy| policy.namespaces.selector.match_labels = labels(&[("team", "a")])));
    assert!(!in_scope(|policy| policy.namespaces.selector.match_labels = labels(&[("team", "b")])));
    assert!(!in_scope(|policy| policy.namespaces.allow = ["other".to_owned()].into()));
    assert!(!in_scope(|policy| policy.selector.kinds = [WorkloadKind::DaemonSet].into()));
    assert!(!in_scope(|policy| policy.selector.names = ["api".to_owned()].into()));
    assert!(!in_scope(|policy| policy.selector.labels.match_labels = labels(&[("app", "api")])));
}

/// Property 16.
#[test]
fn workloads_of_other_groups_are_selected_by_their_kind() {
    let mut rollouts = object(None, "rollouts", 1);
    rollouts.selector.kinds.insert("Rollout.argoproj.io".parse().unwrap());
    let name = |kind: &str| {
        let web = Workload { kind: kind.parse().unwrap(), name: "web".into() };
        name(&chosen_for(std::slice::from_ref(&rollouts), MadeBy::Workload(&web))).to_owned()
    };
    assert_eq!(name("Rollout.argoproj.io"), "rollouts");
    assert_eq!(name("Rollout.example.com"), "none");
    assert_eq!(name("Deployment"), "none");
}

#[test]
fn nothing_is_chosen_where_a_policy_goes_by_an_owner_that_cannot_be_told() {
    let cluster = object(None, "cluster", 1);
    let mut named = object(Some("shop"), "named", 9);
    named.selector.names.insert("web".into());
    let both = [cluster, named];
    let name = |made_by, policies: &[PolicyObject]| name(&chosen_for(policies, made_by)).to_owned();
    assert_eq!(name(MadeBy::Unknown, &both), "owner unknown");
    assert_eq!(name(MadeBy::Unknown, &both[..1]), "cluster");
    assert_eq!(name(MadeBy::Nobody, &both), "cluster", "that is known");
    // Whatever its owner is called: its labels are not those.
    let mut labelled = both.clone();
    labelled[1].selector.labels.match_labels = labels(&[("app", "api")]);
    assert_eq!(name(MadeBy::Unknown, &labelled), "cluster");
    let mut elsewhere = both.clone();
    elsewhere[1].namespaces = NamespaceScope::own("other");
    assert_eq!(name(MadeBy::Unknown, &elsewhere), "cluster");
    let mut denied = both;
    denied[0].namespaces.deny.insert("shop".into());
    assert_eq!(name(MadeBy::Unknown, &denied), "denied");
}

proptest! {
    /// Property 34: whatever a namespace's policy says, the cluster's bounds hold.
    #[test]
    fn the_clusters_bounds_always_clamp(
        own in (10..5_000u64, 0..5_000u64), cluster in (10..5_000u64, 0..5_000u64),
        memory in (1..5_000u64, 0..5_000u64, 1..5_000u64, 0..5_000u64)
    ) {
        let cpu = |(min, more): (u64, u64)| CpuBounds { min_allowed: MilliCpu(min), max_allowed: MilliCpu(min + more) };
        let bytes = |min, more| MemoryBounds { min_allowed: Bytes(min), max_allowed: Bytes(min + more) };
        let mut policies = [object(None, "cluster", 1), object(Some("shop"), "own", 1)];
        policies[0].policy.cpu = cpu(cluster);
        policies[0].policy.memory = bytes(memory.0, memory.1);
        policies[1].policy.cpu = cpu(own);
        policies[1].policy.memory = bytes(memory.2, memory.3);
        let Selection::Chosen { id, policy, .. } = chosen(&policies) else { panic!("one is chosen") };
        prop_assert_eq!(&id.name, "own");
        prop_assert!(policy.cpu.min_allowed <= policy.cpu.max_allowed);
        prop_assert!(policies[0].policy.cpu.min_allowed <= policy.cpu.min_allowed);
        prop_assert!(policy.cpu.max_allowed <= policies[0].policy.cpu.max_allowed);
        prop_assert!(policy.memory.min_allowed <= policy.memory.max_allowed);
        prop_assert!(policies[0].policy.memory.min_allowed <= policy.memory.min_allowed);
        prop_assert!(policy.memory.max_allowed <= policies[0].policy.memory.max_allowed);
    }

    #[test]
    fn the_order_of_policies_does_not_matter(created in prop::collection::vec(0..3u64, 1..5)) {
        let mut policies: Vec<_> =
            created.iter().enumerate().map(|(index, at)| object(Some("shop"), &index.to_string(), *at)).collect();
        let first = chosen(&policies);
        policies.reverse();
        prop_assert_eq!(first, chosen(&policies));
    }
}
