//! Why a container got what it got: one typed reason for each that was considered, also when nothing was done.
//!
//! The name ([`Reason::name`]) is what conditions, events and metrics carry; the text is what a person reads, and it ends
//! with what would change the outcome where somebody can.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::disruption::Disrupts;
use super::duration::Seconds;
use super::scope::PolicyId;
use super::sizes::Resource;
use super::target::{cpu, memory};
use super::units::{Bytes, MilliCpu};

/// How much of a quota would be needed, and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Missing {
    /// So much CPU.
    Cpu(MilliCpu),
    /// So much memory.
    Memory(Bytes),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(cpu) => write!(f, "{cpu} CPU"),
            Self::Memory(memory) => write!(f, "{memory} memory"),
        }
    }
}

/// What goes by who made a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ByOwner {
    /// Whether this policy selects it.
    Policy(PolicyId),
    /// Whether these HorizontalPodAutoscalers scale it.
    Autoscalers(String),
    /// Which pods are not to be disrupted at once.
    Disruption(Disrupts),
}

impl fmt::Display for ByOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(policy) => write!(f, "{policy} selects by that"),
            Self::Autoscalers(names) => write!(f, "HorizontalPodAutoscaler {names} may scale on it"),
            Self::Disruption(how) => write!(f, "{how}: the other pods of its workload are not known"),
        }
    }
}

/// Why. The order is that of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    // What is done.
    /// It gets more, because of this.
    Raised(Box<Reason>),
    /// It gets less, because of this.
    Lowered(Box<Reason>),
    /// It gets more of one and less of another, because of this.
    Rebalanced(Box<Reason>),
    /// It gets back what its node had agreed to, since more is not to be had.
    Reverted,
    /// This would be done to it, and its pod is made anew, since it cannot be resized in place.
    Recreated(Box<Reason>),
    /// This would be done, and the policy's mode is Recommend.
    Recommended(Box<Reason>),
    /// The policy's mode is Observe.
    Observed,
    /// This would be done, and the controller runs dry.
    DryRun(Box<Reason>),

    // Selection.
    /// No policy selects it.
    NoPolicy,
    /// The controller leaves the namespace alone.
    NamespaceExcluded,
    /// A cluster policy denies the namespace.
    NamespaceDenied(PolicyId),
    /// Its pod or namespace carries the opt-out label.
    OptedOut,
    /// Who made its pod cannot be told, and this goes by that.
    OwnerUnknown(ByOwner),
    /// The policy's mode is Disabled.
    Disabled,

    // Out of reach.
    /// Its pod is being deleted or is over.
    PodGone,
    /// Its pod is not scheduled, or not started.
    PodNotRunning,
    /// Its pod comes from a file of its node.
    StaticPod,
    /// It has no requests or limits, and must not be given any.
    BestEffortPod,
    /// Its pod is Guaranteed, and the policy leaves those alone.
    GuaranteedPod,
    /// Its pod has requests or limits as a whole (`spec.resources`).
    PodLevelResources,
    /// It runs before the others, and is over.
    InitContainer,
    /// Nothing is known of its node, or the node does not answer.
    NodeNotReady,
    /// It keeps failing.
    CrashLooping,
    /// It does not run.
    NotRunning,

    // Data.
    /// Nothing was measured.
    MetricsMissing,
    /// What was measured is too old.
    DataStale(Seconds),
    /// What was measured is so far ahead of the controller's clock.
    DataFromFuture(Seconds),
    /// It has been measured for too short a time: so long, of so long.
    DataThin(Seconds, Seconds),

    // Target.
    /// What its use of CPU, and its wait for it, ask for.
    CpuTarget(cpu::Reason),
    /// What its use of memory asks for.
    MemoryTarget(memory::Reason),
    /// What was found last time still holds.
    TargetKept,
    /// It has what it should have.
    OnTarget,

    // Bounds.
    /// `minAllowed` of the policy.
    MinAllowed(Resource),
    /// `maxAllowed` of the policy.
    MaxAllowed(Resource),
    /// Its own limit, which the policy leaves alone.
    LimitBinds(Resource),
    /// A LimitRange of the namespace.
    LimitRange(String),
    /// A ResourceQuota of the namespace; so much more would be needed.
    QuotaExceeded(String, Missing),

    // Node.
    /// The requests on the node do not fit.
    NodeOversubscribed,
    /// The node has no more to share.
    NodeFull(Resource),
    /// What the node has left is too little for a change to be worth it.
    RoomTooSmall(Resource),
    /// The node has no more to share until what this plan takes from others there has been done.
    RoomNotFreed(Resource),

    // Guards.
    /// Its resize is waiting for room on the node, for so long.
    ResizeDeferred(Seconds),
    /// Its last resize was refused for good.
    ResizeInfeasible,
    /// Its resize is under way.
    ResizeInProgress,
    /// Its resize fails and is tried again.
    ResizeFailing,
    /// As much was refused before; it is not asked for again for so long.
    RefusedBefore(Seconds),
    /// Somebody else changed it.
    ChangedByOther,
    /// Its node cannot resize what runs.
    ResizeUnsupported,
    /// Its node is no Linux.
    NotLinux,
    /// Its node cannot take memory limit away.
    MemoryDecreaseUnsupported,
    /// Changing it would disrupt it, and a PodDisruptionBudget allows no disruption now.
    DisruptionBudget(Disrupts, String),
    /// Changing it would disrupt it, and this plan takes all that a PodDisruptionBudget allows.
    DisruptionTaken(Disrupts, String),
    /// Changing it would disrupt it, and this plan disrupts another pod of its workload, or one does not answer.
    WorkloadDisrupted(Disrupts),
    /// Its pod would be evicted, and an eviction of its workload that was decided has not been seen to happen; not for so long.
    EvictionPending(Seconds),
    /// Its pod would be evicted, and another one of its workload has just been; not for so long.
    RecreatedLately(Seconds),
    /// Its pod would be evicted, has not lived for long, and is short of nothing; not for so long.
    RecreatedEarly(Seconds),
    /// Its pod would be evicted, and the last one of its workload came back as it was; not for so long.
    RecreatedInVain(Seconds),
    /// Its pod would be evicted, and nobody would make it anew.
    NoOwner,
    /// Its pod would be evicted, and is the only one of its workload that is ready.
    OnlyReplica,
    /// Its class would change.
    QosWouldChange,
    /// A HorizontalPodAutoscaler scales on it.
    HpaManaged(String),
    /// The node is short of something.
    NodePressure,
    /// It is not ready.
    NotReady,
    /// Its recent peak of memory, with headroom, is above it.
    MemoryPeak(Bytes),
    /// It is killed for want of memory whatever it gets; that gets it no more than this for now.
    KilledAgain(Bytes),
    /// The change is too small.
    Hysteresis,
    /// The step is too large.
    StepLimit,
    /// It has changed too lately; so long yet.
    Cooldown(Seconds),
    /// It has changed too often within the hour.
    ChangesPerHour(u32),
}

impl Reason {
    /// What is behind what is done, or would be.
    fn cause(&self) -> &Self {
        match self {
            Self::Raised(of)
            | Self::Lowered(of)
            | Self::Rebalanced(of)
            | Self::Recreated(of)
            | Self::Recommended(of)
            | Self::DryRun(of) => of.cause(),
            other => other,
        }
    }

    /// Whether this is the cause of what is done, or would be.
    pub fn is_because_of(&self, cause: &Self) -> bool {
        self.cause() == cause
    }

    /// Its name in conditions, events and metrics.
    pub fn name(&self) -> String {
        let debug = match self {
            Self::CpuTarget(reason) => format!("{reason:?}"),
            Self::MemoryTarget(reason) => format!("{reason:?}"),
            other => format!("{other:?}"),
        };
        let end = debug.find(['(', ' ']).unwrap_or(debug.len());
        debug[..end].to_owned()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raised(because) | Self::Lowered(because) | Self::Rebalanced(because) => because.fmt(f),
            Self::Reverted => f.write_str(
                "it goes back to what its node has agreed to: what it asks for is not to be had, and would keep \
                 others from being scheduled",
            ),
            Self::Recreated(what) => {
                write!(f, "{what}; its pod is evicted and made anew, as the policy allows")
            }
            Self::Recommended(what) => {
                write!(f, "{what}; this is shown and not done: `mode: Apply` would do it")
            }
            Self::Observed => f.write_str("its demand is shown: `mode: Recommend` would show a target, too"),
            Self::DryRun(what) => write!(f, "{what}; this is shown and not done: the controller runs dry"),
            Self::NoPolicy => f.write_str("no policy selects it"),
            Self::NamespaceExcluded => f.write_str("the controller leaves this namespace alone"),
            Self::NamespaceDenied(policy) => write!(f, "{policy} denies this namespace"),
            Self::OptedOut => {
                write!(f, "its pod or namespace carries the label {}: \"false\"", super::select::OPT_OUT_LABEL)
            }
            Self::OwnerUnknown(what) => write!(
                f,
                "who made its pod cannot be told, and {what}: may the controller read the owner that its pod names?"
            ),
            Self::Disabled => f.write_str("the policy is Disabled: nothing new, and what was found stays"),
            Self::PodGone => f.write_str("its pod is being deleted or is over"),
            Self::PodNotRunning => f.write_str("its pod has not been started yet"),
            Self::StaticPod => f.write_str("static pods cannot be resized"),
            Self::BestEffortPod => {
                f.write_str("a pod without any request or limit cannot be given one: its class would change")
            }
            Self::GuaranteedPod => {
                f.write_str("its pod is Guaranteed: `guaranteedPods: Resize` would let it be resized")
            }
            Self::PodLevelResources => f.write_str(
                "its pod has requests or limits as a whole (`spec.resources`), which its containers share: such pods are not \
                 sized yet",
            ),
            Self::InitContainer => f.write_str("it runs before the others, and is over"),
            Self::NodeNotReady => f.write_str("its node does not answer"),
            Self::CrashLooping => f.write_str("it keeps failing: what it needs cannot be told, and a resize does not reach it"),
            Self::NotRunning => f.write_str("it does not run: a resize would not reach it"),
            Self::MetricsMissing => f.write_str("nothing was measured: is a sampler on its node?"),
            Self::DataStale(age) => write!(f, "what was measured is {age} old"),
            Self::DataFromFuture(ahead) => write!(
                f,
                "what was measured is {ahead} ahead of the controller's clock, and does not count before that: are both clocks right?"
            ),
            Self::DataThin(have, need) => write!(f, "it has been measured for {have} of the {need} that it takes"),
            Self::CpuTarget(reason) => reason.fmt(f),
            Self::MemoryTarget(reason) => reason.fmt(f),
            Self::TargetKept => f.write_str("what was found last time still holds"),
            Self::OnTarget => f.write_str("it has what it should have"),
            Self::MinAllowed(resource) => write!(f, "minAllowed of {resource}"),
            Self::MaxAllowed(resource) => write!(f, "maxAllowed of {resource}"),
            Self::LimitBinds(resource) => write!(
                f,
                "its {resource} limit, which the policy leaves alone: `controlledValues: RequestsAndLimits` would let \
                 it be raised"
            ),
            Self::LimitRange(name) => write!(f, "LimitRange {name}"),
            Self::QuotaExceeded(name, missing) => {
                write!(f, "ResourceQuota {name} is used up: {missing} more would be needed")
            }
            Self::NodeOversubscribed => {
                f.write_str("what runs on the node has requested more than it has: nothing rises there")
            }
            Self::NodeFull(resource) => write!(f, "its node has no more {resource} to share"),
            Self::RoomTooSmall(resource) => {
                write!(f, "what its node has left of {resource} is too little for a change to be worth it")
            }
            Self::RoomNotFreed(resource) => write!(
                f,
                "its node has no more {resource} to share yet: others there shrink, and their room is given out once it is free"
            ),
            Self::ResizeDeferred(age) => write!(f, "its resize has been waiting for room on the node for {age}"),
            Self::ResizeInfeasible => f.write_str("its last resize was refused for good"),
            Self::ResizeInProgress => f.write_str("its last resize is under way"),
            Self::ResizeFailing => f.write_str("its last resize fails and is being tried again"),
            Self::RefusedBefore(left) => write!(
                f,
                "as much was refused before, and the node is as it was: not asked for again for another {left}, unless it asks \
                 for less"
            ),
            Self::ChangedByOther => f.write_str("somebody else has just changed it: the last writer has it"),
            Self::ResizeUnsupported => f.write_str(
                "its node cannot resize what runs (that takes Kubernetes 1.33): `resize.fallback: Recreate` would let its pod \
                 be made anew",
            ),
            Self::NotLinux => f.write_str(
                "its node runs Windows, and only Linux resizes what runs: `resize.fallback: Recreate` would let its pod be made \
                 anew",
            ),
            Self::MemoryDecreaseUnsupported => {
                f.write_str("its node cannot take memory limit from what runs: that takes Kubernetes 1.34")
            }
            Self::DisruptionBudget(how, name) => {
                write!(f, "{how}, and PodDisruptionBudget {name} allows no disruption now")
            }
            Self::DisruptionTaken(how, name) => {
                write!(f, "{how}, and this plan disrupts as many others as PodDisruptionBudget {name} allows")
            }
            Self::WorkloadDisrupted(how) => {
                write!(f, "{how}, and another pod of its workload is being disrupted, or does not answer: one at a time")
            }
            Self::EvictionPending(left) => write!(
                f,
                "changing it evicts its pod: an eviction in its workload has been decided and is not seen to happen yet; if it is \
                 not, the next one is in {left}"
            ),
            Self::RecreatedLately(left) => write!(
                f,
                "changing it evicts its pod, and another one of its workload has just been: not for another {left}"
            ),
            Self::RecreatedEarly(left) => write!(
                f,
                "changing it evicts its pod, which has not lived for long and is short of nothing: not for another {left}"
            ),
            Self::RecreatedInVain(left) => write!(
                f,
                "changing it evicts its pod, and the last one of its workload came back with its template's sizes: not for \
                 another {left}; set the sizes in the template"
            ),
            Self::NoOwner => f.write_str(
                "its node cannot resize what runs, and its pod is not evicted: nobody is known who would make it anew",
            ),
            Self::OnlyReplica => f.write_str(
                "its node cannot resize what runs, and its pod is not evicted: it is the only one of its workload that is \
                 ready",
            ),
            Self::QosWouldChange => f.write_str("its pod would change its class"),
            Self::HpaManaged(name) => write!(
                f,
                "HorizontalPodAutoscaler {name} scales on it: request × target utilisation, at which it adds replicas, stays"
            ),
            Self::NodePressure => f.write_str("its node is short of memory, disk or processes: nothing rises there"),
            Self::NotReady => f.write_str("it is not ready: nothing is taken away"),
            Self::MemoryPeak(least) => {
                write!(f, "its recent peak of memory with headroom is {least}: less could end in a kill")
            }
            Self::KilledAgain(most) => write!(
                f,
                "it is killed for want of memory again and again, whatever it gets: does it leak? That raises its memory to no more \
                 than {most} today; set it by hand if it needs more"
            ),
            Self::Hysteresis => f.write_str("the change is too small to be worth one"),
            Self::StepLimit => f.write_str("one step goes no further"),
            Self::Cooldown(left) => write!(f, "it has just changed: not for another {left}"),
            Self::ChangesPerHour(changes) => write!(f, "it has changed {changes} times within the hour"),
        }
    }
}
