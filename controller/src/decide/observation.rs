//! Everything that a decision looks at, as one immutable value: what the cluster is like at one moment.
//!
//! Who fills it (watches and the samplers' reports, a recording, a simulation, a test) has parsed what it read:
//! sizes are sizes, kinds are enums, what may be missing is an `Option`, and a window that says only what was used is a
//! case of its own ([`Reading::Usage`]). Maps are ordered, so that the same observation is decided upon in the
//! same order.
//!
//! # Terms
//!
//! * **desired**: what the pod's spec asks for. **allocated**: what the node has agreed to. **actual**: what runs.
//!   They follow each other in this order only; what counts against a node or a quota is the largest
//!   ([`Container::held`]).
//! * **managed**: selected by a policy whose mode is Apply, and not left out for any reason. Everybody else's requests are
//!   simply not available.

use std::collections::{BTreeMap, BTreeSet};

use sampler_common::window::Window;
use serde::{Deserialize, Serialize};

use super::duration::Seconds;
use super::labels::{LabelSelector, Labels};
use super::scope::{PolicyObject, WorkloadKind};
use super::sizes::{Resource, Sizes};
use super::units::{Bytes, MilliCpu, Timestamp};

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Observation {
    /// How the controller was started.
    pub settings: Settings,
    /// Labels of each namespace, by its name.
    pub namespaces: BTreeMap<String, Labels>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Pods by uid.
    pub pods: BTreeMap<PodUid, Pod>,
    /// Policies of both kinds, in any order.
    pub policies: Vec<PolicyObject>,
    /// Values of priority classes by name, for pods whose own priority is not known.
    pub priority_classes: BTreeMap<String, i32>,
    /// ResourceQuotas.
    pub quotas: Vec<Quota>,
    /// LimitRanges.
    pub limit_ranges: Vec<LimitRange>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Vec<Autoscaler>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Vec<DisruptionBudget>,
}

/// How the controller was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Everything is computed and shown, and nothing is written.
    pub dry_run: bool,
    /// Namespaces in which nothing is ever changed.
    pub excluded_namespaces: BTreeSet<String>,
}

impl Default for Settings {
    /// The namespaces that a cluster cannot do without are left alone.
    fn default() -> Self {
        let excluded = ["kube-system", "kube-node-lease", "kube-public"];
        Self { dry_run: false, excluded_namespaces: excluded.map(Into::into).into() }
    }
}

/// A pod's uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(pub String);

impl std::fmt::Display for PodUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// CPU that pods may request.
    pub cpu: MilliCpu,
    /// Memory that pods may request.
    pub memory: Bytes,
    /// CPUs that it has.
    pub cpus: u32,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// What it is short of.
    pub pressure: BTreeSet<NodePressure>,
    /// What it can do to a running container.
    pub resize: ResizeSupport,
}

/// A condition of a node that is short of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodePressure {
    /// `MemoryPressure`: pods are about to be evicted.
    Memory,
    /// `DiskPressure`.
    Disk,
    /// `PIDPressure`.
    Pid,
}

/// What a node can do to a running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResizeSupport {
    /// It is no Linux (`kubernetes.io/os`), and never can.
    NotLinux,
    /// Older than 1.33, or the feature gate is off.
    None,
    /// 1.33: all but taking memory limit away.
    NoMemoryDecrease,
    /// From 1.34 on.
    Full,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version, as a precondition of changes.
    pub resource_version: String,
    /// Where it runs; `None` while it is not scheduled.
    pub node: Option<String>,
    /// Who made it, as far as that can be told now.
    pub made_by: MadeBy,
    /// Its labels.
    pub labels: Labels,
    /// Its class, which never changes.
    pub qos: Qos,
    /// How far it has come.
    pub phase: Phase,
    /// It is being deleted.
    pub terminating: bool,
    /// It comes from a file of its node; nobody can resize it.
    pub is_static: bool,
    /// Condition `Ready`.
    pub ready: bool,
    /// How much it matters.
    pub priority: Priority,
    /// It may run only for so long (`spec.activeDeadlineSeconds`).
    #[serde(default)]
    pub has_deadline: bool,
    /// It is to be near pods of other namespaces, or far from them.
    #[serde(default)]
    pub affinity_across_namespaces: bool,
    /// What the runtime needs beside its containers.
    pub overhead: Sizes,
    /// `spec.resources`: what its containers have together, whatever each has of its own; usually none.
    #[serde(default)]
    pub resources: Sizes,
    /// What has become of its last resize.
    pub resize: ResizeState,
    /// Its containers, by name.
    pub containers: BTreeMap<String, Container>,
}

impl Pod {
    /// What it holds on its node: its containers, or its sidecars and the init container that needs most, or what all of them
    /// have together; and the overhead.
    ///
    /// Kubernetes counts beside an init container only the sidecars that were started before it. The order is not known here,
    /// so all of them count: never less than what the node holds for it.
    pub fn held(&self) -> Sizes {
        let infeasible = matches!(self.resize, ResizeState::Infeasible { .. });
        let sum = |get: fn(&Sizes) -> u64| -> u64 {
            let held = |container: &Container| get(&container.held(infeasible));
            let of = |kind: ContainerKind| {
                self.containers.values().filter(move |container| container.kind == kind).map(held)
            };
            let apps = of(ContainerKind::App).fold(0, u64::saturating_add);
            let init = of(ContainerKind::Init).max().unwrap_or(0);
            let beside = of(ContainerKind::Sidecar).fold(0, u64::saturating_add);
            let containers = apps.max(init).saturating_add(beside);
            containers.max(get(&self.resources)).saturating_add(get(&self.overhead))
        };
        Sizes {
            cpu_request: Some(MilliCpu(sum(|sizes| sizes.cpu().0))),
            memory_request: Some(Bytes(sum(|sizes| sizes.memory().0))),
            ..Sizes::default()
        }
    }
}

/// Who made a pod. What goes by it takes what was last known where it cannot be told
/// ([`State::made_by`](super::state::State::made_by)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MadeBy<W = Workload> {
    /// Nobody: it has no owner.
    Nobody,
    /// This workload.
    Workload(W),
    /// It has an owner, and whose that is cannot be told: it could not be read, or not yet.
    Unknown,
}

impl MadeBy {
    /// The same, borrowed.
    pub fn as_ref(&self) -> MadeBy<&Workload> {
        match self {
            Self::Nobody => MadeBy::Nobody,
            Self::Workload(workload) => MadeBy::Workload(workload),
            Self::Unknown => MadeBy::Unknown,
        }
    }
}

/// Who made a pod: the topmost of its owners whose replicas can be scaled or that is of one of the kinds that Kubernetes
/// has. An operator's object above that is not looked at: HorizontalPodAutoscalers do not scale it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its name in the pod's namespace.
    pub name: String,
}

/// A pod's class, by which a node chooses whom to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Qos {
    /// All requests are limits.
    Guaranteed,
    /// Some request or limit is set.
    Burstable,
    /// None is.
    BestEffort,
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not all of its containers have been started.
    Pending,
    /// At least one runs.
    Running,
    /// It is over, well.
    Succeeded,
    /// It is over, and failed.
    Failed,
    /// Its node does not answer.
    Unknown,
}

/// A pod's priority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Priority {
    /// As the server resolved it (`spec.priority`); `None`: that of its class.
    pub value: Option<i32>,
    /// The name of its class.
    pub class: Option<String>,
}

/// What has become of a pod's last resize.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResizeState {
    /// Nothing is under way.
    #[default]
    Settled,
    /// `PodResizePending`, reason `Deferred`: it would fit, but not now.
    Deferred {
        /// Since when.
        since: Timestamp,
    },
    /// `PodResizePending`, reason `Infeasible`, or refused for good by admission (from 1.36 on what exceeds the node is): it is not
    /// looked at again. What admission refuses is not in the spec: who observes says so until it has been decided once.
    Infeasible {
        /// Since when.
        since: Timestamp,
    },
    /// `PodResizeInProgress`.
    InProgress {
        /// Since when.
        since: Timestamp,
    },
    /// `PodResizeInProgress`, reason `Error`: tried again on every sync of the pod.
    Failing {
        /// Since when.
        since: Timestamp,
    },
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// What it is to its pod.
    pub kind: ContainerKind,
    /// What its spec asks for.
    pub desired: Sizes,
    /// What the node has agreed to (requests only); `None` where the node does not say.
    pub allocated: Option<Sizes>,
    /// What runs; `None` where the node does not say, which of a running container means that it cannot be resized.
    pub actual: Option<Sizes>,
    /// What changing a resource takes.
    pub resize_policy: ResizePolicy,
    /// What it does.
    pub status: ContainerStatus,
    /// Whether it passes its readiness probe.
    pub ready: bool,
    /// How often it has been started again.
    pub restarts: u32,
    /// When it was last killed for want of memory.
    pub oom_killed: Option<Timestamp>,
    /// What was measured, the oldest first. Readings may come again: those that were seen before count once.
    pub readings: Vec<Reading>,
}

impl Container {
    /// What counts against its node and its quota: the largest of desired, allocated and actual. What is infeasible is
    /// not going to be, and is left out.
    pub fn held(&self, infeasible: bool) -> Sizes {
        let agreed = [&self.allocated, &self.actual]
            .into_iter()
            .flatten()
            .fold(None, |sum: Option<Sizes>, sizes| Some(sum.map_or(*sizes, |sum| sum.max(sizes))));
        match agreed {
            Some(agreed) if infeasible => agreed,
            Some(agreed) => agreed.max(&self.desired),
            None => self.desired,
        }
    }

    /// The last thing that was measured.
    pub fn latest(&self) -> Option<&Reading> {
        self.readings.last()
    }

    /// The last thing that was measured by now.
    pub fn latest_by(&self, now: Timestamp) -> Option<&Reading> {
        self.readings.iter().rfind(|reading| reading.is_by(now))
    }
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ContainerKind {
    /// One of those that the pod is for.
    #[default]
    App,
    /// An init container that stays.
    Sidecar,
    /// One that runs before the others.
    Init,
}

/// What changing a resource of a container takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResizePolicy {
    /// Changing CPU restarts it.
    pub cpu_restarts: bool,
    /// Changing memory restarts it.
    pub memory_restarts: bool,
}

impl ResizePolicy {
    /// Whether changing this resource restarts the container.
    pub fn restarts(self, resource: Resource) -> bool {
        match resource {
            Resource::Cpu => self.cpu_restarts,
            Resource::Memory => self.memory_restarts,
        }
    }
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerStatus {
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It is about to be started.
    Waiting,
    /// It keeps failing, and waits for its next try.
    CrashLooping,
    /// It has ended.
    Terminated,
}

/// Clocks that differ by no more than this are taken to agree: nodes that keep time are well within it.
pub const CLOCK_SKEW: Seconds = Seconds(5);

/// What was measured of a container over some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reading {
    /// By the sampler: waits and their causes, too.
    Window {
        /// When it ended.
        until: Timestamp,
        /// What happened.
        window: Box<Window>,
    },
    /// By something that knows only what was used: percentile sizing works, objective feedback is off.
    Usage {
        /// When it ended.
        until: Timestamp,
        /// CPU used, in cores.
        cores: f64,
        /// Working set at its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<Bytes>,
    },
}

impl Reading {
    /// When it ended.
    pub fn until(&self) -> Timestamp {
        match self {
            Self::Window { until, .. } | Self::Usage { until, .. } => *until,
        }
    }

    /// Whether it had ended by now, as far as clocks agree. One that had not does not count yet.
    pub fn is_by(&self, now: Timestamp) -> bool {
        self.until() <= now.plus_seconds(CLOCK_SKEW.0)
    }

    /// CPU used, in cores; `None` for an empty window.
    pub fn cores(&self) -> Option<f64> {
        match self {
            Self::Window { window, .. } => window.used_cores(),
            Self::Usage { cores, .. } => Some(*cores),
        }
    }

    /// Working set at its end.
    pub fn memory(&self) -> Option<Bytes> {
        match self {
            Self::Window { window, .. } => window.memory.map(|memory| Bytes(memory.working_set_bytes)),
            Self::Usage { memory, .. } => *memory,
        }
    }

    /// The sampler's window.
    pub fn window(&self) -> Option<&Window> {
        match self {
            Self::Window { window, .. } => Some(window),
            Self::Usage { .. } => None,
        }
    }
}

/// Sums of requests and limits of a namespace's pods; `None` is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What they may add up to.
    pub hard: Sizes,
    /// What they add up to.
    pub used: Sizes,
    /// Which pods it counts (`scopes` and `scopeSelector`): those of which all of this holds.
    #[serde(default)]
    pub scopes: Vec<QuotaScope>,
}

impl Quota {
    /// Whether it counts a pod.
    pub fn counts(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace && self.scopes.iter().all(|scope| scope.holds(pod))
    }
}

/// What must hold of the pods that a quota counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuotaScope {
    /// They may run only for so long.
    Terminating,
    /// They may run for ever.
    NotTerminating,
    /// Their class is BestEffort.
    BestEffort,
    /// Their class is another.
    NotBestEffort,
    /// They are to be near pods of other namespaces, or far from them.
    CrossNamespacePodAffinity,
    /// They have a priority class.
    PriorityClass,
    /// They have none.
    NoPriorityClass,
    /// They have one of these priority classes.
    PriorityClassIn(BTreeSet<String>),
    /// They have none of these priority classes.
    PriorityClassNotIn(BTreeSet<String>),
}

impl QuotaScope {
    fn holds(&self, pod: &Pod) -> bool {
        let class = pod.priority.class.as_ref();
        match self {
            Self::Terminating => pod.has_deadline,
            Self::NotTerminating => !pod.has_deadline,
            Self::BestEffort => pod.qos == Qos::BestEffort,
            Self::NotBestEffort => pod.qos != Qos::BestEffort,
            Self::CrossNamespacePodAffinity => pod.affinity_across_namespaces,
            Self::PriorityClass => class.is_some(),
            Self::NoPriorityClass => class.is_none(),
            Self::PriorityClassIn(classes) => class.is_some_and(|class| classes.contains(class)),
            Self::PriorityClassNotIn(classes) => class.is_none_or(|class| !classes.contains(class)),
        }
    }
}

/// What containers and pods of a namespace may be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitRange {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of each container (`type: Container`).
    pub container: Range,
    /// Of each pod's containers together (`type: Pod`).
    pub pod: Range,
}

/// Between which requests and limits must lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Range {
    /// The least request, of CPU and memory.
    pub min: Amounts,
    /// The largest limit, and request.
    pub max: Amounts,
    /// The largest limit ÷ request, in thousandths.
    pub max_limit_request_ratio: Ratios,
}

impl Range {
    /// Least, most and largest limit ÷ request (in thousandths) of a resource, in milli-CPU or bytes.
    pub fn of(&self, resource: Resource) -> (Option<u64>, Option<u64>, Option<u64>) {
        let Self { min, max, max_limit_request_ratio: ratio } = self;
        match resource {
            Resource::Cpu => (min.cpu.map(|cpu| cpu.0), max.cpu.map(|cpu| cpu.0), ratio.cpu),
            Resource::Memory => (min.memory.map(|size| size.0), max.memory.map(|size| size.0), ratio.memory),
        }
    }
}

/// CPU and memory; `None` is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amounts {
    /// CPU.
    pub cpu: Option<MilliCpu>,
    /// Memory.
    pub memory: Option<Bytes>,
}

/// Ratios in thousandths; `None` is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ratios {
    /// Of CPU; at least 1000.
    pub cpu: Option<u64>,
    /// Of memory; at least 1000.
    pub memory: Option<u64>,
}

/// A HorizontalPodAutoscaler, as far as it looks at the use of what is sized here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autoscaler {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whose replicas it sets.
    pub workload: Workload,
    /// On the utilisation of which requests; empty where it scales on something else.
    pub utilisation_of: BTreeSet<Resource>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of which pods.
    pub selector: LabelSelector,
    /// How many of them may be disrupted now.
    pub disruptions_allowed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(kind: ContainerKind, milli: u64) -> Container {
        Container {
            kind,
            desired: Sizes { cpu_request: Some(MilliCpu(milli)), ..Sizes::default() },
            allocated: None,
            actual: None,
            resize_policy: ResizePolicy::default(),
            status: ContainerStatus::Waiting,
            ready: false,
            restarts: 0,
            oom_killed: None,
            readings: Vec::new(),
        }
    }

    fn held(containers: &[(ContainerKind, u64)]) -> u64 {
        held_together(containers, 0)
    }

    /// With a request of the pod as a whole.
    fn held_together(containers: &[(ContainerKind, u64)], together: u64) -> u64 {
        let containers = containers.iter().enumerate();
        let pod = Pod {
            namespace: "shop".into(),
            name: "web".into(),
            resource_version: "1".into(),
            node: None,
            made_by: MadeBy::Nobody,
            labels: Labels::new(),
            qos: Qos::Burstable,
            phase: Phase::Running,
            terminating: false,
            is_static: false,
            ready: true,
            priority: Priority::default(),
            has_deadline: false,
            affinity_across_namespaces: false,
            overhead: Sizes { cpu_request: Some(MilliCpu(7)), ..Sizes::default() },
            resources: Sizes { cpu_request: Some(MilliCpu(together)), ..Sizes::default() },
            resize: ResizeState::Settled,
            containers: containers
                .map(|(index, (kind, milli))| (index.to_string(), container(*kind, *milli)))
                .collect(),
        };
        pod.held().cpu().0
    }

    #[test]
    fn sidecars_are_held_beside_the_containers_and_beside_the_largest_init_container() {
        use ContainerKind::{App, Init, Sidecar};
        assert_eq!(held(&[(App, 100), (App, 50), (Sidecar, 30), (Sidecar, 10)]), 190 + 7);
        // The init containers run one after the other.
        assert_eq!(held(&[(App, 100), (Init, 300), (Init, 200)]), 300 + 7);
        assert_eq!(held(&[(App, 100), (Sidecar, 30), (Init, 300), (Init, 200)]), 330 + 7);
        assert_eq!(held(&[(App, 500), (Sidecar, 30), (Init, 300)]), 530 + 7);
    }

    #[test]
    fn a_request_of_the_pod_as_a_whole_is_held_in_place_of_what_its_containers_request() {
        use ContainerKind::App;
        assert_eq!(held_together(&[(App, 100), (App, 50)], 400), 400 + 7);
        assert_eq!(held_together(&[(App, 0)], 400), 400 + 7);
    }
}
