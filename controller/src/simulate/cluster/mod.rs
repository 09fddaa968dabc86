//! A made-up cluster: nodes, pods that come and go, and what they use, as the [`Observation`] that decisions look at.
//!
//! ```text
//! load.rs ─▶ what each container wants ─▶ its node's CPUs, its limit ─▶ what it gets ─▶ reading.rs ─▶ Observation
//!                                                    ▲                                                    │
//!                                                    └──────────── the kubelet here ◀── Plan ◀── decide ──┘
//! ```
//!
//! It is made to be awkward rather than typical: some containers have no limit, some no request, some pods are Guaranteed,
//! BestEffort, opted out, not ready, crash-looping, scaled by an autoscaler or under a budget; some have a memory limit that is far too
//! low and are killed for it; some nodes come under pressure, cannot resize or send nothing for a while; some resizes are
//! deferred, and some patches are lost on their way; a quota and a LimitRange are in the way.
//!
//! # Invariants
//!
//! * Same shape, same cluster, to the byte.
//! * Pods are placed where their requests fit, as a scheduler would. Node's CPUs are divided by request, as the kernel would.

pub mod load;
pub mod reading;
pub mod run;

use std::collections::{BTreeMap, BTreeSet};

use self::load::Load;
use self::reading::Minute;
use super::random::Random;
use crate::decide::labels::LabelSelector;
use crate::decide::observation::{
    Autoscaler, Container, ContainerKind, ContainerStatus, DisruptionBudget, LimitRange, MadeBy, Node,
    NodePressure, Observation, Phase, Pod, PodUid, Priority, Qos, Quota, Range, Reading, ResizePolicy,
    ResizeState, ResizeSupport, Workload,
};
use crate::decide::plan::{ActionKind, Plan};
use crate::decide::scope::{PolicyObject, WorkloadKind};
use crate::decide::select::{OPT_OUT_LABEL, opted_out};
use crate::decide::sizes::{Resource, Sizes};
use crate::decide::units::{Bytes, MilliCpu, Timestamp};

/// When it begins: midnight.
pub const START: Timestamp = Timestamp(1_700_006_400);
const MINUTE_SECONDS: u64 = 60;
/// Of patches and evictions so many are lost: the API server was away, or somebody else was faster.
const LOST: f64 = 0.05;
/// Of Burstable containers so many have a memory limit that is far too low.
const STINGY: f64 = 0.03;
const STINGY_MEMORY: Bytes = Bytes(48 << 20);
/// Who was killed is started again after at most so long, as the kubelet's back-off has it.
const DOWN_MINUTES: u64 = 5;
/// CPUs of a node.
const CPUS: u32 = 32;
/// Containers of ordinary size that a node has room for.
const ROOMY: f64 = 40.0;
/// What the node keeps for itself.
const RESERVED: MilliCpu = MilliCpu(500);
const NODE_MEMORY: Bytes = Bytes(128 << 30);
/// A pod lives so long on average.
const LIFE_MINUTES: f64 = 2.0 * 1440.0;
/// Pods of a workload, on average.
const REPLICAS: f64 = 6.0;
const NAMESPACES: u64 = 8;
/// The one with a LimitRange, and the largest CPU limit there.
const LIMITED: &str = "team-1";
const MOST: MilliCpu = MilliCpu(8_000);
/// One that is always left alone.
const SYSTEM: &str = "kube-system";

/// How large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Nodes.
    pub nodes: u32,
    /// Containers that there are at any time, as far as they find room.
    pub containers: u32,
    /// Of the random numbers.
    pub seed: u64,
}

/// What was written in the manifest of a workload, and what it is like.
#[derive(Clone, Debug)]
struct Template {
    namespace: String,
    workload: Workload,
    labels: BTreeMap<String, String>,
    qos: Qos,
    priority: i32,
    containers: Vec<(Sizes, f64)>,
    crashes: bool,
}

/// The cluster.
pub struct Cluster {
    shape: Shape,
    random: Random,
    /// Of what goes wrong: so that the rest is the same whatever does.
    mishaps: Random,
    /// What decisions look at.
    pub observation: Observation,
    /// Now.
    pub now: Timestamp,
    templates: Vec<Template>,
    /// Which template a pod was made of.
    made_of: BTreeMap<PodUid, usize>,
    loads: BTreeMap<(PodUid, String), Load>,
    /// What each container wanted in the last minute, in cores.
    wanted: BTreeMap<(PodUid, String), f64>,
    /// Nodes whose sampler is silent, and until when.
    silent: BTreeMap<String, Timestamp>,
    /// Containers that were killed, and until when they are down.
    down: BTreeMap<(PodUid, String), Timestamp>,
    /// Containers that have been killed for want of memory, all in all.
    pub kills: u64,
    /// Actions that have been lost, all in all.
    pub lost: u64,
    pods_made: u64,
    versions: u64,
}

impl Cluster {
    /// A new cluster on which these policies act.
    pub fn new(shape: Shape, policies: Vec<PolicyObject>) -> Self {
        let mut cluster = Self {
            shape,
            random: Random::new(shape.seed, 0),
            mishaps: Random::new(shape.seed, u64::MAX),
            observation: Observation { policies, ..Observation::default() },
            now: START,
            templates: Vec::new(),
            made_of: BTreeMap::new(),
            loads: BTreeMap::new(),
            wanted: BTreeMap::new(),
            silent: BTreeMap::new(),
            down: BTreeMap::new(),
            kills: 0,
            lost: 0,
            pods_made: 0,
            versions: 0,
        };
        for index in 0..shape.nodes {
            let resize = match cluster.random.below(20) {
                0 => ResizeSupport::None,
                1 => ResizeSupport::NoMemoryDecrease,
                _ => ResizeSupport::Full,
            };
            let cpu = MilliCpu(u64::from(CPUS) * 1000).saturating_sub(RESERVED);
            let node =
                Node { cpu, memory: NODE_MEMORY, cpus: CPUS, ready: true, pressure: BTreeSet::new(), resize };
            cluster.observation.nodes.insert(format!("node-{index:04}"), node);
        }
        for index in 0..NAMESPACES {
            cluster.observation.namespaces.insert(namespace(index), BTreeMap::new());
        }
        cluster.observation.namespaces.insert(SYSTEM.into(), BTreeMap::new());
        cluster.make_rules();
        cluster.fill();
        cluster
    }

    fn make_rules(&mut self) {
        let mut container = Range::default();
        container.min.cpu = Some(MilliCpu(20));
        container.max.cpu = Some(MOST);
        let of = LimitRange {
            namespace: LIMITED.into(),
            name: "sizes".into(),
            container,
            ..LimitRange::default()
        };
        self.observation.limit_ranges.push(of);
        let hard =
            Sizes { cpu_request: Some(MilliCpu(u64::from(self.shape.nodes) * 3_500)), ..Sizes::default() };
        let used = Sizes::default();
        self.observation.quotas.push(Quota {
            namespace: namespace(2),
            name: "team".into(),
            hard,
            used,
            scopes: Vec::new(),
        });
        self.observation.disruption_budgets.push(DisruptionBudget {
            namespace: namespace(3),
            name: "all".into(),
            selector: LabelSelector::default(),
            disruptions_allowed: 0,
        });
    }

    /// Makes pods until there are as many containers as there should be, or no room is left.
    fn fill(&mut self) {
        if self.loads.len() >= self.shape.containers as usize {
            return;
        }
        let mut rooms = self.rooms();
        let mut misses = 0;
        while self.loads.len() < self.shape.containers as usize && misses < 5 {
            let another = self.templates.is_empty() || self.random.happens(1.0 / REPLICAS) && misses == 0;
            let template = match another {
                true => self.make_template(),
                false => self.random.below(self.templates.len() as u64) as usize,
            };
            misses = if self.make_pod(template, &mut rooms) { 0 } else { misses + 1 };
        }
    }

    /// CPU (milli-CPU) and memory (bytes) that nobody holds, of each node that takes pods.
    fn rooms(&self) -> BTreeMap<String, (u64, u64)> {
        let open = self.observation.nodes.iter().filter(|(_, node)| node.pressure.is_empty());
        let mut rooms: BTreeMap<String, (u64, u64)> =
            open.map(|(name, node)| (name.clone(), (node.cpu.0, node.memory.0))).collect();
        for pod in self.observation.pods.values() {
            let held = pod.held();
            if let Some(room) = pod.node.as_ref().and_then(|node| rooms.get_mut(node)) {
                *room = (room.0.saturating_sub(held.cpu().0), room.1.saturating_sub(held.memory().0));
            }
        }
        rooms
    }

    fn make_template(&mut self) -> usize {
        // The more there are on a node, the smaller they are: about as many as fit.
        let scale = (ROOMY * f64::from(self.shape.nodes) / f64::from(self.shape.containers)).min(1.0);
        let random = &mut self.random;
        let index = self.templates.len();
        let system = random.happens(0.02);
        let kind = match random.below(20) {
            0..3 => WorkloadKind::StatefulSet,
            3 => WorkloadKind::DaemonSet,
            _ => WorkloadKind::Deployment,
        };
        let qos = match random.below(20) {
            0 => Qos::BestEffort,
            1 => Qos::Guaranteed,
            _ => Qos::Burstable,
        };
        let mut labels = BTreeMap::from([("app".to_owned(), format!("app-{index}"))]);
        if random.happens(0.02) {
            labels.insert(OPT_OUT_LABEL.into(), "false".into());
        }
        let count = 1 + usize::from(random.happens(0.3));
        let priority = if random.happens(0.1) { 1000 } else { 0 };
        let namespace = if system { SYSTEM.into() } else { namespace(random.below(NAMESPACES)) };
        let crashes = random.happens(0.01);
        // What a LimitRange forbids the server would not have let in.
        let most = if namespace == LIMITED { MOST } else { MilliCpu::MAX };
        let mut containers: Vec<_> = (0..count).map(|_| container_sizes(random, qos, most, scale)).collect();
        for (sizes, _) in containers.iter_mut().filter(|_| qos == Qos::Burstable) {
            if self.mishaps.happens(STINGY) {
                (sizes.memory_request, sizes.memory_limit) = (Some(STINGY_MEMORY), Some(STINGY_MEMORY));
                // Else it could be Guaranteed.
                sizes.cpu_limit = None;
            }
        }
        let workload = Workload { kind, name: format!("app-{index}") };
        if random.happens(0.1) {
            self.observation.autoscalers.push(Autoscaler {
                namespace: namespace.clone(),
                name: workload.name.clone(),
                workload: workload.clone(),
                utilisation_of: BTreeSet::from([Resource::Cpu]),
            });
        }
        self.templates.push(Template { namespace, workload, labels, qos, priority, containers, crashes });
        index
    }

    /// Makes a pod where it fits, on the node with most room; whether there is one.
    fn make_pod(&mut self, template: usize, rooms: &mut BTreeMap<String, (u64, u64)>) -> bool {
        let Template { namespace, workload, labels, qos, priority, containers, crashes } =
            self.templates[template].clone();
        let sum = |get: fn(&Sizes) -> u64| containers.iter().map(|(sizes, _)| get(sizes)).sum::<u64>();
        let (cpu, memory) = (sum(|sizes| sizes.cpu().0), sum(|sizes| sizes.memory().0));
        if !self.quota_has_room(&namespace, MilliCpu(cpu)) {
            return false;
        }
        let fits = rooms.iter_mut().filter(|(_, room)| room.0 >= cpu && room.1 >= memory);
        let Some((node, room)) = fits.max_by_key(|(name, room)| (room.0, std::cmp::Reverse(*name))) else {
            return false;
        };
        *room = (room.0 - cpu, room.1 - memory);
        let node = node.clone();
        self.pods_made += 1;
        let uid = PodUid(format!("{:08x}-0000-4000-8000-{:012x}", self.shape.seed as u32, self.pods_made));
        let status = if crashes {
            ContainerStatus::CrashLooping
        } else {
            ContainerStatus::Running { since: self.now }
        };
        let mut all = BTreeMap::new();
        for (index, (sizes, mean_cores)) in containers.iter().enumerate() {
            let name = format!("c{index}");
            let stream = self.pods_made * 8 + index as u64 + 1;
            let load = Load::new(Random::new(self.shape.seed, stream), *mean_cores);
            self.loads.insert((uid.clone(), name.clone()), load);
            all.insert(
                name,
                Container {
                    kind: ContainerKind::App,
                    desired: *sizes,
                    allocated: Some(*sizes),
                    actual: Some(*sizes),
                    resize_policy: ResizePolicy::default(),
                    status,
                    ready: !crashes,
                    restarts: 0,
                    oom_killed: None,
                    readings: Vec::new(),
                },
            );
        }
        let pod = Pod {
            namespace,
            name: format!("{}-{:x}", workload.name, self.pods_made),
            resource_version: self.version(),
            node: Some(node),
            made_by: MadeBy::Workload(workload),
            labels,
            qos,
            phase: Phase::Running,
            terminating: false,
            is_static: false,
            ready: !crashes,
            priority: Priority { value: Some(priority), class: None },
            has_deadline: false,
            affinity_across_namespaces: false,
            overhead: Sizes::default(),
            resources: Sizes::default(),
            resize: ResizeState::Settled,
            containers: all,
        };
        self.made_of.insert(uid.clone(), template);
        let quotas = self.observation.quotas.iter_mut().filter(|quota| quota.namespace == pod.namespace);
        for quota in quotas {
            quota.used.cpu_request = Some(quota.used.cpu().saturating_add(MilliCpu(cpu)));
        }
        self.observation.pods.insert(uid, pod);
        true
    }

    fn version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    fn quota_has_room(&self, namespace: &str, cpu: MilliCpu) -> bool {
        self.observation.quotas.iter().filter(|quota| quota.namespace == namespace).all(|quota| {
            quota.hard.cpu_request.is_none_or(|hard| quota.used.cpu().saturating_add(cpu) <= hard)
        })
    }

    fn count_quotas(&mut self) {
        for quota in &mut self.observation.quotas {
            let pods = self.observation.pods.values().filter(|pod| pod.namespace == quota.namespace);
            let cpu = pods.map(|pod| pod.held().cpu()).sum::<MilliCpu>();
            quota.used.cpu_request = Some(cpu);
        }
    }

    /// A minute goes by: pods come and go, everybody uses what he can, and it is measured.
    pub fn minute(&mut self) {
        self.now = self.now.plus_seconds(MINUTE_SECONDS);
        self.churn();
        self.weather();
        self.revive();
        self.work();
        self.settle();
    }

    fn churn(&mut self) {
        let uids: Vec<PodUid> = self.observation.pods.keys().cloned().collect();
        let gone: Vec<PodUid> =
            uids.into_iter().filter(|_| self.random.happens(1.0 / LIFE_MINUTES)).collect();
        let templates: Vec<usize> = gone.iter().filter_map(|uid| self.remove(uid)).collect();
        if !templates.is_empty() {
            self.count_quotas();
            let mut rooms = self.rooms();
            // Their successors are born with their templates' sizes.
            for template in templates {
                self.make_pod(template, &mut rooms);
            }
        }
        self.fill();
    }

    /// Takes a pod away; which template it was made of.
    fn remove(&mut self, uid: &PodUid) -> Option<usize> {
        for name in self.observation.pods.remove(uid)?.containers.into_keys() {
            let key = (uid.clone(), name);
            self.loads.remove(&key);
            self.wanted.remove(&key);
            self.down.remove(&key);
        }
        self.made_of.remove(uid)
    }

    /// Nodes come under pressure or fall silent, pods lose their readiness, and it passes.
    fn weather(&mut self) {
        let now = self.now;
        for (name, node) in &mut self.observation.nodes {
            if node.pressure.is_empty() && self.random.happens(1.0 / 5_000.0) {
                node.pressure.insert(NodePressure::Memory);
            } else if self.random.happens(1.0 / 20.0) {
                node.pressure.clear();
            }
            if self.random.happens(1.0 / 5_000.0) {
                self.silent
                    .insert(name.clone(), now.plus_seconds(MINUTE_SECONDS * (1 + self.random.below(30))));
            }
        }
        self.silent.retain(|_, until| *until > now);
        let mut flipped = Vec::new();
        for (uid, pod) in &mut self.observation.pods {
            if pod.ready && self.random.happens(1.0 / 5_000.0) || !pod.ready && self.random.happens(0.1) {
                flipped.push(uid.clone());
            }
        }
        for uid in flipped {
            let version = self.version();
            let crashes = self.made_of.get(&uid).is_some_and(|template| self.templates[*template].crashes);
            let down = self.down.keys().any(|(of, _)| *of == uid);
            if let Some(pod) = self.observation.pods.get_mut(&uid).filter(|_| !crashes && !down) {
                pod.ready = !pod.ready;
                pod.containers.values_mut().for_each(|container| container.ready = pod.ready);
                pod.resource_version = version;
            }
        }
    }

    /// Who was killed is started again, when his time is over.
    fn revive(&mut self) {
        let now = self.now;
        for (uid, name) in self.down.extract_if(.., |_, until| *until <= now).map(|(key, _)| key) {
            let Some(pod) = self.observation.pods.get_mut(&uid) else { continue };
            if let Some(container) = pod.containers.get_mut(&name) {
                (container.status, container.ready) = (ContainerStatus::Running { since: now }, true);
            }
            pod.ready = pod.containers.values().all(|container| container.ready);
        }
    }

    /// Kills those who use more memory than their limit in force.
    fn kill(&mut self, starved: Vec<(PodUid, String)>) {
        for (uid, name) in starved {
            let version = self.version();
            let Some(pod) = self.observation.pods.get_mut(&uid) else { continue };
            let Some(container) = pod.containers.get_mut(&name) else { continue };
            (container.oom_killed, container.ready) = (Some(self.now), false);
            container.status = ContainerStatus::CrashLooping;
            container.restarts += 1;
            (pod.ready, pod.resource_version) = (false, version);
            let minutes = 1 + self.mishaps.below(DOWN_MINUTES);
            self.wanted.remove(&(uid.clone(), name.clone()));
            self.down.insert((uid, name), self.now.plus_seconds(MINUTE_SECONDS * minutes));
            self.kills += 1;
        }
    }

    /// Everybody wants, the limits and the nodes give.
    fn work(&mut self) {
        let mut starved = Vec::new();
        let mut by_node: BTreeMap<String, Vec<(PodUid, String, Share)>> = BTreeMap::new();
        for (uid, pod) in &self.observation.pods {
            let Some(node) = &pod.node else { continue };
            for (name, container) in &pod.containers {
                let key = (uid.clone(), name.clone());
                let Some(load) = self.loads.get_mut(&key).filter(|_| !self.down.contains_key(&key)) else {
                    continue;
                };
                let (wants, memory) = load.minute(self.now);
                if container.actual.unwrap_or_default().memory_limit.is_some_and(|limit| memory > limit) {
                    starved.push(key);
                    continue;
                }
                let wants = if pod.ready { wants } else { wants * 0.1 };
                self.wanted.insert(key, wants);
                let in_force = container.actual.unwrap_or_default();
                let limit = in_force.cpu_limit;
                let cap = limit.map_or(f64::INFINITY, MilliCpu::cores).min(wants);
                let weight = in_force.cpu().0.max(2) as f64;
                let share = Share { wants, cap, weight, limit, memory };
                by_node.entry(node.clone()).or_default().push((uid.clone(), name.clone(), share));
            }
        }
        self.kill(starved);
        for (node, containers) in by_node {
            let shares: Vec<Share> = containers.iter().map(|(.., share)| *share).collect();
            let given = divide(f64::from(CPUS), &shares);
            if self.silent.contains_key(&node) {
                continue;
            }
            for ((uid, name, share), gets) in containers.into_iter().zip(given) {
                let Share { wants, limit, memory, cap, .. } = share;
                let held_by_limit = gets >= cap && cap < wants;
                let minute = Minute { wants, gets, held_by_limit, limit, memory, until: self.now };
                let container =
                    self.observation.pods.get_mut(&uid).and_then(|pod| pod.containers.get_mut(&name));
                if let Some(container) = container {
                    let window = Box::new(minute.window());
                    // One at a time is kept: a decision is made every minute.
                    container.readings.clear();
                    container.readings.push(Reading::Window { until: self.now, window });
                }
            }
        }
    }

    /// What was asked for comes into force, as the kubelets get to it.
    fn settle(&mut self) {
        for pod in self.observation.pods.values_mut() {
            match pod.resize {
                ResizeState::Deferred { .. } if !self.random.happens(0.2) => continue,
                ResizeState::Settled => continue,
                _ => pod.resize = ResizeState::Settled,
            }
            for container in pod.containers.values_mut() {
                (container.allocated, container.actual) = (Some(container.desired), Some(container.desired));
            }
        }
        self.count_quotas();
    }

    /// Does what a plan says, as the API server and the kubelets would: now and then a resize is deferred for some minutes, and now
    /// and then nobody hears of it.
    pub fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            if self.mishaps.happens(LOST) {
                self.lost += 1;
                continue;
            }
            let version = self.version();
            let deferred = self.random.happens(0.02);
            if action.kind == ActionKind::Recreate {
                self.remove(&action.uid);
                continue;
            }
            let Some(pod) = self.observation.pods.get_mut(&action.uid) else { continue };
            pod.resource_version = version;
            for (name, change) in &action.containers {
                if let Some(container) = pod.containers.get_mut(name) {
                    container.desired = change.to;
                    if !deferred {
                        (container.allocated, container.actual) = (Some(change.to), Some(change.to));
                    }
                }
            }
            pod.resize = match deferred {
                true => ResizeState::Deferred { since: self.now },
                false => ResizeState::Settled,
            };
        }
        self.count_quotas();
    }

    /// What each container wanted in the last minute (cores), and its request in force; of those that a policy may act on.
    pub fn wanted(&self) -> impl Iterator<Item = (f64, MilliCpu)> {
        self.wanted.iter().filter_map(|((uid, name), wants)| {
            let pod = self.observation.pods.get(uid)?;
            let container = pod.containers.get(name)?;
            let out = pod.namespace == SYSTEM || opted_out(&pod.labels);
            let sized = pod.qos == Qos::Burstable && pod.ready && !out;
            sized.then(|| (*wants, container.actual.unwrap_or_default().cpu()))
        })
    }

    /// Containers that there are.
    pub fn containers(&self) -> usize {
        self.loads.len()
    }
}

fn namespace(index: u64) -> String {
    format!("team-{index}")
}

/// A guess, as people write them into manifests: mostly too much, sometimes far too little.
fn container_sizes(random: &mut Random, qos: Qos, most: MilliCpu, scale: f64) -> (Sizes, f64) {
    let mean_cores = scale * (0.25 * (1.1 * random.normal()).exp()).clamp(0.005, 6.0);
    let guess = mean_cores * (0.5 + 0.7 * random.normal()).exp();
    let request = MilliCpu::ceil_cores(guess.clamp(0.02, 8.0));
    let limit = MilliCpu(request.0 * (1 + random.below(3))).min(most);
    let memory = Bytes((256 << 20) + random.below(1 << 30));
    let sizes = match qos {
        Qos::BestEffort => Sizes::default(),
        Qos::Guaranteed => Sizes {
            cpu_request: Some(request),
            cpu_limit: Some(request),
            memory_request: Some(memory),
            memory_limit: Some(memory),
        },
        Qos::Burstable => Sizes {
            cpu_request: Some(request),
            cpu_limit: random.happens(0.5).then_some(limit),
            memory_request: Some(memory),
            memory_limit: random.happens(0.7).then_some(Bytes(memory.0 * 2)),
        },
    };
    (sizes, mean_cores)
}

/// What a container may get.
#[derive(Clone, Copy, Debug)]
struct Share {
    wants: f64,
    /// What it wants, as far as its limit goes.
    cap: f64,
    weight: f64,
    limit: Option<MilliCpu>,
    memory: Bytes,
}

/// Divides CPUs by weight: nobody gets more than he may, and what he leaves goes to the others.
fn divide(cpus: f64, shares: &[Share]) -> Vec<f64> {
    let mut given = vec![0.0; shares.len()];
    let mut open: Vec<usize> = (0..shares.len()).collect();
    let mut left = cpus;
    loop {
        let weights: f64 = open.iter().map(|index| shares[*index].weight).sum();
        let fair = |index: usize| left * shares[index].weight / weights;
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|index| shares[**index].cap <= fair(**index));
        if full.is_empty() {
            open.iter().for_each(|index| given[*index] = fair(*index));
            return given;
        }
        for index in full {
            given[index] = shares[index].cap;
            left -= shares[index].cap;
        }
        open = rest;
    }
}
