//! The first step: is this container looked at, by which policy, and is there anything to go by?
//!
//! Each check is a small function with one reason; the first that objects decides.

use std::collections::BTreeMap;

use super::duration::Seconds;
use super::labels::Labels;
use super::observation::{
    CLOCK_SKEW, Container, ContainerKind, ContainerStatus, MadeBy, Node, Observation, Phase, Pod, PodUid,
    Qos, Reading, Workload,
};
use super::policy::{ControlledValues, GuaranteedPods, Policy};
use super::reason::{ByOwner, Reason};
use super::scope::{InNamespace, PolicyId, Scopes, Selection, Subject};
use super::sizes::Sizes;
use super::state::{ContainerState, State};
use super::units::Timestamp;

/// `false` on a pod or a namespace: no policy acts there.
pub const OPT_OUT_LABEL: &str = "loadline.dev/enabled";

/// The policy that acts on a pod.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Which.
    pub id: PolicyId,
    /// What it says, bounds of cluster policies included.
    pub policy: Box<Policy>,
    /// Those that were less specific.
    pub overruled: Vec<PolicyId>,
}

/// The policy that acts on each pod, or why none does.
pub fn policies<'a>(
    observation: &'a Observation,
    state: &State,
) -> BTreeMap<&'a PodUid, Result<Chosen, Reason>> {
    static NO_LABELS: Labels = BTreeMap::new();
    let scopes = Scopes::of(&observation.policies);
    let mut namespaces: BTreeMap<&str, Result<InNamespace<'_>, Reason>> = BTreeMap::new();
    let look = |namespace: &str| {
        let labels = observation.namespaces.get(namespace).unwrap_or(&NO_LABELS);
        if observation.settings.excluded_namespaces.contains(namespace) {
            Err(Reason::NamespaceExcluded)
        } else if opted_out(labels) {
            Err(Reason::OptedOut)
        } else {
            Ok(scopes.in_namespace(namespace, labels))
        }
    };
    let mut chosen = BTreeMap::new();
    for (uid, pod) in &observation.pods {
        let namespace = namespaces.entry(&pod.namespace).or_insert_with(|| look(&pod.namespace));
        let of_pod = match namespace {
            Err(reason) => Err(reason.clone()),
            Ok(namespace) => policy(namespace, pod, state.made_by(uid, pod)),
        };
        chosen.insert(uid, of_pod);
    }
    chosen
}

/// The policy that acts on a pod, which was `made_by` this one as far as is known.
fn policy(namespace: &InNamespace<'_>, pod: &Pod, made_by: MadeBy<&Workload>) -> Result<Chosen, Reason> {
    if opted_out(&pod.labels) {
        return Err(Reason::OptedOut);
    }
    match namespace.select(&Subject { made_by, labels: &pod.labels }) {
        Selection::Chosen { id, mut policy, overruled } => {
            if pod.qos == Qos::Guaranteed && policy.guaranteed_pods == GuaranteedPods::Resize {
                // There is no other way to resize them.
                policy.controlled_values = ControlledValues::RequestsAndLimits;
            }
            Ok(Chosen { id, policy, overruled })
        }
        Selection::None => Err(Reason::NoPolicy),
        Selection::Denied(by) => Err(Reason::NamespaceDenied(by)),
        Selection::OwnerUnknown(id) => Err(Reason::OwnerUnknown(ByOwner::Policy(id))),
    }
}

/// Whether labels say that nothing is to be done.
pub fn opted_out(labels: &Labels) -> bool {
    labels.get(OPT_OUT_LABEL).is_some_and(|value| value == "false")
}

/// A pod that cannot be resized, whatever is asked for.
pub fn out_of_reach(pod: &Pod, node: Option<&Node>, policy: &Policy) -> Option<Reason> {
    if pod.terminating || matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
        return Some(Reason::PodGone);
    }
    if pod.is_static {
        return Some(Reason::StaticPod);
    }
    if pod.node.is_none() || pod.phase == Phase::Pending {
        return Some(Reason::PodNotRunning);
    }
    if pod.phase == Phase::Unknown || node.is_none_or(|node| !node.ready) {
        return Some(Reason::NodeNotReady);
    }
    if pod.resources != Sizes::default() {
        return Some(Reason::PodLevelResources);
    }
    match (pod.qos, policy.guaranteed_pods) {
        (Qos::BestEffort, _) => Some(Reason::BestEffortPod),
        (Qos::Guaranteed, GuaranteedPods::Skip) => Some(Reason::GuaranteedPod),
        _ => None,
    }
}

/// A container that a resize would not reach.
pub fn not_running(container: &Container) -> Option<Reason> {
    match (container.kind, container.status) {
        (ContainerKind::Init, _) => Some(Reason::InitContainer),
        (_, ContainerStatus::CrashLooping) => Some(Reason::CrashLooping),
        (_, ContainerStatus::Waiting | ContainerStatus::Terminated) => Some(Reason::NotRunning),
        (_, ContainerStatus::Running { .. }) => None,
    }
}

/// Data that are missing, stale or thin: nothing moves on them.
pub fn no_data(
    container: &Container,
    state: &ContainerState,
    known_for: Seconds,
    policy: &Policy,
    now: Timestamp,
) -> Option<Reason> {
    // What was measured counts once the clock gets there: a clock that is ahead is no reason to move on what it will say.
    let ahead =
        |until: Timestamp| Some(Seconds(until.seconds_since(now))).filter(|ahead| *ahead > CLOCK_SKEW);
    let latest = container.latest().map(Reading::until);
    if let Some(ahead) = state.read_until.and_then(ahead) {
        return Some(Reason::DataFromFuture(ahead));
    }
    let age = state.read_until.map(|until| Seconds(now.seconds_since(until)));
    if age.is_none_or(|age| age > policy.history.stale_after) {
        let past = age.map_or(Reason::MetricsMissing, Reason::DataStale);
        return Some(latest.and_then(ahead).map_or(past, Reason::DataFromFuture));
    }
    let (have, need) = (known_for, policy.history.minimum_data);
    (have < need).then_some(Reason::DataThin(have, need))
}
