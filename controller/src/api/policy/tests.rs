use super::*;

fn policy(kind: &str, spec: &str) -> Result<PolicyObject, PolicyError> {
    parse(&format!(
        "apiVersion: loadline.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: web, namespace: shop, uid: x, \
         creationTimestamp: 2026-01-02T03:04:05Z}}\nspec: {spec}\n"
    ))
}

#[test]
fn an_empty_policy_has_the_defaults() {
    let object = policy("AllocationPolicy", "{}").unwrap();
    assert_eq!(object.policy, Policy::default());
    assert_eq!(object.created, Timestamp(1_767_323_045));
    assert_eq!(object.id.to_string(), "AllocationPolicy shop/web");
    assert_eq!(object.namespaces, NamespaceScope::own("shop"));
    assert_eq!(
        policy("ClusterAllocationPolicy", "{}").unwrap().id.to_string(),
        "ClusterAllocationPolicy web"
    );
}

#[test]
fn what_is_written_wins_over_the_profile() {
    let object = policy(
        "AllocationPolicy",
        "{profile: Batch, mode: Apply, weight: 80, cpu: {minAllowed: 1m, maxAllowed: 4}, memory: {maxAllowed: 2Gi}, \
          objectives: {throttledShare: 2.5%, causes: [self, neighbor]}, history: {percentile: 95, window: 2d}, \
          resize: {maxStepUp: 300%, fallback: Recreate}, startupBoost: {factor: 200%, duration: 2m}, \
          cost: {unmet: 30}, selector: {kinds: [Deployment], matchLabels: {app: web}}}",
    )
    .unwrap();
    let policy = object.policy;
    assert_eq!(policy.mode, Mode::Apply);
    assert_eq!(policy.objectives.p99_wait, Policy::of(Profile::Batch).objectives.p99_wait);
    assert_eq!(policy.objectives.throttled_share, PerMille(25));
    assert_eq!(policy.cpu, CpuBounds { min_allowed: CpuBounds::LEAST, max_allowed: MilliCpu(4000) });
    assert_eq!(policy.memory.max_allowed, Bytes(2 << 30));
    assert_eq!(policy.history.percentile, Percentile::new(95));
    assert_eq!(policy.resize.max_step_up, Some(PerMille(3000)));
    assert_eq!(policy.cost, Prices { unmet: 30, ..Policy::of(Profile::Batch).cost });
    assert_eq!(policy.weight.0.get(), 80);
    assert_eq!(object.selector.labels.requirements(), 1);
}

/// Property 15, as far as it is not the schema's: the field and the remedy are named.
#[test]
fn p15_malformed_policies_are_refused_with_the_field_and_the_remedy() {
    for (spec, field, remedy) in [
        ("{cpu: {minAllowed: 2, maxAllowed: 1}}", "spec.cpu.minAllowed", "make minAllowed smaller"),
        ("{memory: {minAllowed: 2Gi, maxAllowed: 1Gi}}", "spec.memory.minAllowed", "make minAllowed smaller"),
        ("{cpu: {maxAllowed: 5m}}", "spec.cpu.maxAllowed", "write 10m or more"),
        ("{memory: {maxAllowed: 1Mi}}", "spec.memory.maxAllowed", "write 32Mi or more"),
        ("{objectives: {p99Wait: 0s}}", "spec.objectives.p99Wait", "such as 5ms"),
        ("{objectives: {p99Wait: 5}}", "p99Wait", "write whole numbers with"),
        ("{objectives: {throttledShare: 101%}}", "spec.objectives.throttledShare", "up to 100%"),
        ("{objectives: {throttledShare: 0.01}}", "throttledShare", "write one such as 15% or 0.5%"),
        ("{objectives: {memoryHeadroom: lots}}", "memoryHeadroom", "write one such as 15%"),
        ("{history: {window: 0s}}", "spec.history.window", "such as 1h"),
        ("{history: {percentile: 20}}", "percentile", "write one from 50 to 100"),
        ("{history: {halfLife: 5ms}}", "halfLife", "write whole seconds"),
        ("{history: {staleAfter: 1s}}", "spec.history.staleAfter", "15s or more"),
        ("{cost: {changesPerDay: 0}}", "spec.cost.changesPerDay", "1 or more"),
        ("{resize: {hysteresis: 100%}}", "spec.resize.hysteresis", "less than 100%"),
        ("{resize: {maxStepDown: 100%}}", "spec.resize.maxStepDown", "less than 100%"),
        ("{resize: {maxStepUp: 0%}}", "spec.resize.maxStepUp", "leave it out"),
        ("{resize: {changesPerHour: 0}}", "changesPerHour", "nonzero"),
        ("{resize: {changesPerHour: 61}}", "changesPerHour", "60 or less"),
        ("{startupBoost: {factor: 50%, duration: 1m}}", "spec.startupBoost.factor", "100% or more"),
        ("{namespaces: {allow: [a]}}", "spec.namespaces", "ClusterAllocationPolicy"),
        ("{mode: Aply}", "mode", "Recommend, Apply"),
        ("{modes: Apply}", "modes", "expected one of mode,"),
        ("{cpu: {minAllowed: 1x}}", "minAllowed", "unknown suffix"),
        ("{cpu: {minAllowed: -1}}", "minAllowed", "negative"),
        ("{selector: {matchExpressions: [{key: a, operator: In}]}}", "matchExpressions", "name one or more"),
    ] {
        let error = policy("AllocationPolicy", spec).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains(remedy), "{spec}: {error}");
    }
    let other =
        parse("apiVersion: v1\nkind: AllocationPolicy\nmetadata: {name: x}\n").unwrap_err().to_string();
    assert!(other.contains("apiVersion") && other.contains(API_VERSION), "{other}");
}
