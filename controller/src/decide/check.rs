//! Is this plan safe? A second opinion on every plan: in tests, in simulations and before it is executed.
//!
//! It shares no code with the pipeline but the types, the choice of a policy and what is remembered of a pod. It looks
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
//! | memory | never below the recent peak with headroom, nor less while a day has not been seen |
//! | what a node can do | resized in place where that is possible, else made anew where the policy allows it |
//! | disruptions | as many as each budget allows, one of a workload, never the only one that is ready |
//! | what is taken back | a resize that has come to nothing, to what the node has agreed to |
//!
//! | room | what is checked there |
//! |---|---|
//! | [`change`] | what one container gets |
//! | [`sums`] | what is added up: nodes, quotas, a pod's containers |
//! | [`disruption`] | who is restarted or evicted |

mod change;
mod disruption;
mod sums;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::change::Changed;
use super::labels::Labels;
use super::observation::{
    Autoscaler, LimitRange, MadeBy, Observation, Phase, Pod, PodUid, Qos, ResizeState, Workload,
};
use super::plan::{Action, ActionKind, Plan};
use super::policy::{GuaranteedPods, Mode, Policy};
use super::scope::{Scopes, Selection, Subject};
use super::sizes::Sizes;
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
    /// The node cannot do that to what runs, or could do without making the pod anew.
    #[error("the node cannot resize what runs so, or need not make the pod anew")]
    Unsupported,
    /// More is restarted or evicted than may be.
    #[error("it restarts or evicts what must not be disrupted now")]
    Disruption,
    /// Something else is taken back than a resize of ours that has come to nothing.
    #[error("it takes back more or less than a resize of ours that has come to nothing")]
    NotToRevert,
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
    let mut check = Check {
        observation,
        state,
        now,
        scopes: Scopes::of(&observation.policies),
        limit_ranges: grouped(&observation.limit_ranges, |range| &range.namespace),
        autoscalers: grouped(&observation.autoscalers, |autoscaler| &autoscaler.namespace),
        found: BTreeSet::new(),
    };
    let mut seen = BTreeSet::new();
    for action in &plan.actions {
        if !seen.insert(&action.uid) {
            check.find(action, "", Violation::TwoActions);
        }
        check.action(action);
    }
    check.nodes(&plan);
    check.quotas(&plan);
    check.disruptions(&plan);
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

/// By namespace.
fn grouped<'a, T>(all: &'a [T], namespace: impl Fn(&'a T) -> &'a String) -> BTreeMap<&'a str, Vec<&'a T>> {
    let mut groups: BTreeMap<&str, Vec<&T>> = BTreeMap::new();
    all.iter().for_each(|one| groups.entry(namespace(one)).or_default().push(one));
    groups
}

struct Check<'a> {
    observation: &'a Observation,
    state: &'a State,
    now: Timestamp,
    scopes: Scopes<'a>,
    limit_ranges: BTreeMap<&'a str, Vec<&'a LimitRange>>,
    autoscalers: BTreeMap<&'a str, Vec<&'a Autoscaler>>,
    found: BTreeSet<(PodUid, String, Violation)>,
}

impl<'a> Check<'a> {
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
        let Some(policy) = self.policy(&action.uid, pod) else {
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
        self.require(action, "", sums::class(before) == sums::class(after), Violation::Class);
        self.pod_limit_range(action, pod);
        for (name, change) in &action.containers {
            match pod.containers.get(name) {
                Some(container) => {
                    self.change(&Changed { action, pod, policy: &policy, name, container, change });
                }
                None => self.find(action, name, Violation::Unknown),
            }
        }
    }

    /// The LimitRanges of a namespace.
    fn limit_ranges(&self, namespace: &str) -> Vec<&'a LimitRange> {
        self.limit_ranges.get(namespace).cloned().unwrap_or_default()
    }

    /// Who made a pod, as is observed or remembered.
    fn maker<'b>(&'b self, uid: &PodUid, pod: &'b Pod) -> MadeBy<&'b Workload> {
        let remembered = self.state.pods.get(uid).and_then(|remembered| remembered.owner.as_ref());
        match (&pod.made_by, remembered) {
            (MadeBy::Nobody, _) => MadeBy::Nobody,
            (MadeBy::Workload(workload), _) => MadeBy::Workload(workload),
            (MadeBy::Unknown, Some(owner)) if owner.namespace == pod.namespace => {
                MadeBy::Workload(&owner.workload)
            }
            (MadeBy::Unknown, _) => MadeBy::Unknown,
        }
    }

    /// The policy that applies changes to this pod.
    fn policy(&self, uid: &PodUid, pod: &Pod) -> Option<Policy> {
        let none = Labels::new();
        let namespace_labels = self.observation.namespaces.get(&pod.namespace).unwrap_or(&none);
        let out = |labels: &Labels| labels.get("loadline.dev/enabled").is_some_and(|value| value == "false");
        if self.observation.settings.excluded_namespaces.contains(&pod.namespace)
            || out(namespace_labels)
            || out(&pod.labels)
        {
            return None;
        }
        let made_by = self.maker(uid, pod);
        let subject = Subject { made_by, labels: &pod.labels };
        match self.scopes.in_namespace(&pod.namespace, namespace_labels).select(&subject) {
            Selection::Chosen { policy, .. } if policy.mode == Mode::Apply => Some(*policy),
            _ => None,
        }
    }
}
