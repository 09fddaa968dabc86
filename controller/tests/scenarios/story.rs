//! A story's cluster: what is left out is as it usually is.

use std::collections::{BTreeMap, BTreeSet};

use controller::api::policy::Spec;
use controller::decide::duration::{Micros, Seconds};
use controller::decide::guards::refused::{Refusal, Refused};
use controller::decide::labels::{LabelSelector, Labels};
use controller::decide::observation::*;
use controller::decide::policy::{Mode, Policy, Source};
use controller::decide::scope::{PolicyId, WorkloadKind};
use controller::decide::share::PerMille;
use controller::decide::sizes::{Resource, Sizes};
use controller::decide::state::{ContainerState, Owner, PodState, State};
use controller::decide::target::Verdict;
use controller::decide::units::{Bytes, MilliCpu, Timestamp};
use sampler_common::buckets;
use sampler_common::resources::{CpuLimit, LimitOf, Limits, Memory};
use sampler_common::snapshot::{Cause, Durations};
use sampler_common::window::Window;
use serde::Deserialize;

/// The moment of every story.
pub const NOW: Timestamp = Timestamp(1_800_000_000);
const WINDOW_NS: u64 = 15_000_000_000;

/// A cluster with one namespace `shop`, unless a pod says otherwise.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Story {
    /// The spec of the AllocationPolicy `shop/all`; `{mode: Apply}` when left out.
    policy: Option<Spec>,
    /// Further policies: `namespace/name`, or `name` of a cluster's.
    #[serde(default)]
    policies: BTreeMap<String, Spec>,
    #[serde(default)]
    dry_run: bool,
    /// Nodes; one with the name `a`, 8 CPUs and 32 GiB when left out.
    #[serde(default)]
    nodes: BTreeMap<String, StoryNode>,
    pods: BTreeMap<String, StoryPod>,
    #[serde(default)]
    quota: Option<StoryQuota>,
    #[serde(default)]
    limit_range: Option<StoryRange>,
    /// By name.
    #[serde(default)]
    autoscalers: BTreeMap<String, StoryAutoscaler>,
    #[serde(default)]
    disruption_budget: Option<StoryBudget>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StoryNode {
    cpu: MilliCpu,
    memory: Bytes,
    ready: bool,
    pressure: BTreeSet<NodePressure>,
    resize: ResizeSupport,
}

impl Default for StoryNode {
    fn default() -> Self {
        Self {
            cpu: MilliCpu(8000),
            memory: Bytes(32 << 30),
            ready: true,
            pressure: BTreeSet::new(),
            resize: ResizeSupport::Full,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StoryPod {
    namespace: String,
    node: String,
    /// `KIND/NAME`, `nobody` or `unknown`.
    workload: String,
    labels: Labels,
    qos: Qos,
    phase: Phase,
    terminating: bool,
    ready: bool,
    priority: i32,
    priority_class: Option<String>,
    has_deadline: bool,
    /// What it has as a whole.
    resources: Option<String>,
    /// `deferred`, `infeasible`, `in progress` or `failing`, and for how long.
    resize: Option<(String, Seconds)>,
    /// Its owner, as was last known.
    owner: Option<String>,
    /// How long ago it was last there.
    gone: Option<Seconds>,
    containers: BTreeMap<String, StoryContainer>,
}

impl Default for StoryPod {
    fn default() -> Self {
        Self {
            namespace: "shop".into(),
            node: "a".into(),
            workload: "Deployment/web".into(),
            labels: Labels::new(),
            qos: Qos::Burstable,
            phase: Phase::Running,
            terminating: false,
            ready: true,
            priority: 0,
            priority_class: None,
            has_deadline: false,
            resources: None,
            resize: None,
            owner: None,
            gone: None,
            containers: BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StoryContainer {
    /// `cpu REQUEST/LIMIT, memory REQUEST/LIMIT`, with `–` for what is not set.
    has: String,
    /// What its node has agreed to, where that is something else.
    allocated: Option<String>,
    kind: ContainerKind,
    status: Status,
    ready: bool,
    restarts_for: BTreeSet<Resource>,
    /// What it has used all the time; nothing was ever measured when left out.
    cores: Option<f64>,
    memory: Option<Bytes>,
    /// The highest that its memory was, 6 hours ago.
    peak: Option<Bytes>,
    /// For how long it has been measured, once a minute.
    measured: Seconds,
    /// Age of the last reading.
    age: Seconds,
    /// How far the last reading is ahead of the clock, instead.
    ahead: Seconds,
    /// For how long it has been running.
    runs: Seconds,
    /// It uses so much now; as always when left out.
    now: Option<f64>,
    /// Waits per second of time, in seconds, by cause.
    waits: BTreeMap<Cause, f64>,
    /// How long each of them was.
    wait: Micros,
    throttled: PerMille,
    killed: Option<Seconds>,
    /// The first one of a row of kills: how long ago, and what it had then.
    first_killed: Option<(Seconds, Bytes)>,
    /// How long ago it has changed.
    changed: Vec<Seconds>,
    /// The last change was not ours.
    changed_by_other: bool,
    /// What it has is what we planned.
    planned: bool,
    refused: Option<StoryRefusal>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoryRefusal {
    /// What was refused, where it is other than what the container has.
    asked: String,
    ago: Seconds,
    /// What others held on the node then, where there was no room for it for the time being.
    #[serde(default)]
    others: Option<String>,
    /// How often in a row.
    #[serde(default = "once")]
    times: u32,
}

fn once() -> u32 {
    1
}

#[derive(Clone, Copy, Deserialize)]
enum Status {
    Running,
    Waiting,
    CrashLooping,
}

impl Default for StoryContainer {
    fn default() -> Self {
        Self {
            has: "cpu 500m/–, memory 256Mi/–".into(),
            allocated: None,
            kind: ContainerKind::App,
            status: Status::Running,
            ready: true,
            restarts_for: BTreeSet::new(),
            cores: None,
            memory: None,
            peak: None,
            measured: Seconds(2 * 86_400),
            age: Seconds(15),
            ahead: Seconds(0),
            runs: Seconds(7 * 86_400),
            now: None,
            waits: BTreeMap::new(),
            wait: Micros(0),
            throttled: PerMille(0),
            killed: None,
            first_killed: None,
            changed: Vec::new(),
            changed_by_other: false,
            planned: false,
            refused: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoryQuota {
    hard: String,
    used: String,
    #[serde(default)]
    scopes: Vec<QuotaScope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct StoryRange {
    container: Range,
    pod: Range,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoryAutoscaler {
    workload: String,
    utilisation_of: BTreeSet<Resource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoryBudget {
    allows: u32,
}

/// Reads `cpu 500m/1, memory 256Mi/–`.
fn sizes(text: &str) -> Sizes {
    let (cpu, memory) = text.split_once(", ").unwrap_or_else(|| panic!("{text:?} has two parts"));
    let pair = |text: &str, name: &str| -> (String, String) {
        let (request, limit) = text.strip_prefix(name).and_then(|text| text.split_once('/')).expect(text);
        (request.trim().into(), limit.into())
    };
    fn one<T: std::str::FromStr>(text: &str) -> Option<T> {
        (text != "–").then(|| text.parse().unwrap_or_else(|_| panic!("{text:?} is a size")))
    }
    let (cpu, memory) = (pair(cpu, "cpu"), pair(memory, "memory"));
    Sizes {
        cpu_request: one(&cpu.0),
        cpu_limit: one(&cpu.1),
        memory_request: one(&memory.0),
        memory_limit: one(&memory.1),
    }
}

fn workload(text: &str) -> Option<Workload> {
    let (kind, name) = text.split_once('/')?;
    let kind: WorkloadKind = serde_json::from_value(kind.into()).expect(text);
    Some(Workload { kind, name: name.into() })
}

fn made_by(text: &str) -> MadeBy {
    match text {
        "nobody" => MadeBy::Nobody,
        "unknown" => MadeBy::Unknown,
        text => MadeBy::Workload(workload(text).unwrap_or_else(|| panic!("{text:?} is KIND/NAME"))),
    }
}

fn ago(seconds: Seconds) -> Timestamp {
    Timestamp(NOW.0 - seconds.0)
}

impl Story {
    /// The cluster, and what is remembered of it.
    pub fn cluster(self) -> (Observation, State) {
        let mut observation = Observation::default();
        observation.settings.dry_run = self.dry_run;
        let nodes =
            if self.nodes.is_empty() { [("a".into(), StoryNode::default())].into() } else { self.nodes };
        observation.nodes = nodes.into_iter().map(|(name, node)| (name, node.observed())).collect();
        let apply = || Spec { mode: Some(Mode::Apply), ..Spec::default() };
        let all = self.policy.unwrap_or_else(apply);
        let mut policies = vec![("shop/all".to_owned(), all)];
        policies.extend(self.policies);
        for (id, spec) in policies {
            let id = match id.split_once('/') {
                Some((namespace, name)) => PolicyId { namespace: Some(namespace.into()), name: name.into() },
                None => PolicyId { namespace: None, name: id },
            };
            observation.policies.push(spec.resolve(id, Timestamp(0)).expect("a policy that makes sense"));
        }
        let namespace = || "shop".to_owned();
        observation.quotas.extend(self.quota.map(|quota| Quota {
            namespace: namespace(),
            name: "budget".into(),
            hard: sizes(&quota.hard),
            used: sizes(&quota.used),
            scopes: quota.scopes,
        }));
        observation.limit_ranges.extend(self.limit_range.map(|range| LimitRange {
            namespace: namespace(),
            name: "sizes".into(),
            container: range.container,
            pod: range.pod,
        }));
        observation.autoscalers.extend(self.autoscalers.into_iter().map(|(name, autoscaler)| Autoscaler {
            namespace: namespace(),
            name,
            workload: workload(&autoscaler.workload).expect("KIND/NAME"),
            utilisation_of: autoscaler.utilisation_of,
        }));
        observation.disruption_budgets.extend(self.disruption_budget.map(|budget| DisruptionBudget {
            namespace: namespace(),
            name: "keep".into(),
            selector: LabelSelector::default(),
            disruptions_allowed: budget.allows,
        }));
        let policy = observation.policies[0].policy.clone();
        let mut state = State::default();
        for (name, pod) in self.pods {
            let uid = PodUid(format!("uid-{name}"));
            let containers = pod.containers.iter();
            let mut remembered: PodState = containers
                .filter_map(|(name, container)| Some((name.clone(), container.remembered(&policy)?)))
                .collect();
            remembered.owner = pod
                .owner
                .as_deref()
                .and_then(workload)
                .map(|workload| Owner { namespace: pod.namespace.clone(), workload });
            for name in pod.containers.keys().filter(|_| pod.gone.is_some()) {
                let container = remembered.get_mut(name).expect("what is gone was measured");
                container.last_seen = ago(pod.gone.unwrap_or_default());
            }
            state.pods.insert(uid.clone(), remembered);
            if pod.gone.is_some() {
                continue;
            }
            observation.pods.insert(uid, pod.observed(name, policy.history.source));
        }
        (observation, state)
    }
}

impl StoryNode {
    fn observed(self) -> Node {
        let Self { cpu, memory, ready, pressure, resize } = self;
        Node { cpu, memory, cpus: cpu.0.div_ceil(1000) as u32, ready, pressure, resize }
    }
}

impl StoryPod {
    fn observed(self, name: String, source: Source) -> Pod {
        let resize = match self.resize {
            None => ResizeState::Settled,
            Some((state, since)) => match state.as_str() {
                "deferred" => ResizeState::Deferred { since: ago(since) },
                "infeasible" => ResizeState::Infeasible { since: ago(since) },
                "in progress" => ResizeState::InProgress { since: ago(since) },
                "failing" => ResizeState::Failing { since: ago(since) },
                other => panic!("no resize is {other}"),
            },
        };
        let containers: BTreeMap<_, _> =
            self.containers.into_iter().map(|(name, container)| (name, container.observed(source))).collect();
        Pod {
            namespace: self.namespace,
            name,
            resource_version: "7".into(),
            node: Some(self.node).filter(|node| !node.is_empty()),
            made_by: made_by(&self.workload),
            labels: self.labels,
            qos: self.qos,
            phase: self.phase,
            terminating: self.terminating,
            is_static: false,
            ready: self.ready,
            priority: Priority { value: Some(self.priority), class: self.priority_class },
            has_deadline: self.has_deadline,
            affinity_across_namespaces: false,
            overhead: Sizes::default(),
            resources: self.resources.as_deref().map(sizes).unwrap_or_default(),
            resize,
            containers,
        }
    }
}

impl StoryContainer {
    fn observed(self, source: Source) -> Container {
        let desired = sizes(&self.has);
        let readings = self.reading(source).into_iter().collect();
        let allocated = self.allocated.as_deref().map_or(desired, sizes);
        Container {
            kind: self.kind,
            desired,
            allocated: Some(allocated),
            actual: Some(allocated),
            resize_policy: ResizePolicy {
                cpu_restarts: self.restarts_for.contains(&Resource::Cpu),
                memory_restarts: self.restarts_for.contains(&Resource::Memory),
            },
            status: match self.status {
                Status::Running => ContainerStatus::Running { since: ago(self.runs) },
                Status::Waiting => ContainerStatus::Waiting,
                Status::CrashLooping => ContainerStatus::CrashLooping,
            },
            ready: self.ready,
            restarts: 0,
            oom_killed: self.killed.map(ago),
            readings,
        }
    }

    fn reading(&self, source: Source) -> Option<Reading> {
        let until = if self.ahead > Seconds(0) { NOW.plus_seconds(self.ahead.0) } else { ago(self.age) };
        let cores = self.now.or(self.cores)?;
        if source != Source::Sampler {
            return Some(Reading::Usage { until, cores, memory: self.memory });
        }
        Some(Reading::Window { until, window: Box::new(self.window(cores)) })
    }

    /// A window of 15 s in which each wait was as long as the others.
    fn window(&self, cores: f64) -> Window {
        let mut window = Window { length_ns: WINDOW_NS, ..Window::default() };
        window.usage_ns = (cores * WINDOW_NS as f64) as u64;
        let wait_ns = self.wait.0 * 1000;
        for (cause, wait) in &self.waits {
            let total_ns = (wait * WINDOW_NS as f64) as u64;
            let of_cause = match cause {
                Cause::Quota => &mut window.causes.quota_ns,
                Cause::Own => &mut window.causes.self_ns,
                Cause::Neighbor => &mut window.causes.neighbor_ns,
                Cause::System => &mut window.causes.system_ns,
                Cause::Idle => &mut window.causes.idle_ns,
                Cause::Unknown => &mut window.causes.away_ns,
            };
            *of_cause = total_ns;
            let delays = total_ns / wait_ns;
            let octave = buckets::octave(buckets::bucket(wait_ns)) as usize;
            if let Some(coarse) = window.coarse.get_mut(*cause as usize) {
                coarse.counts[octave] += delays;
            }
            (0..delays).for_each(|_| window.latency.record(wait_ns));
        }
        let limit = sizes(&self.has).cpu_limit;
        if let Some(limit) = limit {
            let throttled = 150 * u64::from(self.throttled.0) / 1000;
            window.throttling.periods = 150;
            window.throttling.throttled_periods = throttled;
            window.throttling.throttled_ns = throttled * 60_000_000;
            let mut durations = [0; sampler_common::throttle::DURATIONS];
            durations[sampler_common::throttle::duration_bucket(60_000_000) as usize] = throttled;
            window.throttling.durations = Durations::Counted(durations);
            let cpu = CpuLimit { quota_us: limit.0 * 100, period_us: 100_000, of: LimitOf::Own };
            window.limits = Limits { cpu: Some(cpu), ..Limits::default() };
        }
        window.memory = self.memory.map(|memory| Memory {
            current_bytes: memory.0,
            working_set_bytes: memory.0,
            peak_bytes: None,
            read_ns: 0,
        });
        window
    }

    /// What is remembered: the same use once a minute, until the last reading.
    fn remembered(&self, policy: &Policy) -> Option<ContainerState> {
        let cores = self.cores?;
        let has = sizes(&self.has);
        let from = NOW.0 - self.age.0 - self.measured.0;
        let mut state = ContainerState::new(has, policy, Timestamp(from));
        for at in (from..NOW.0 - self.age.0).step_by(60) {
            state.history.observe(Timestamp(at), cores);
            if let Some(memory) = self.memory {
                let peak = self.peak.filter(|_| NOW.0 - at > 21_000 && NOW.0 - at < 22_000);
                state.memory.observe(Timestamp(at), peak.unwrap_or(memory));
            }
            state.read_until = Some(Timestamp(at));
        }
        if self.waits.is_empty() {
            state.calm.after(Verdict::Room, Timestamp(from));
        }
        if let Some((age, had)) = self.first_killed {
            state.memory.killed(ago(age), had, &policy.history);
        }
        state.changed = self.changed.iter().map(|age| ago(*age)).collect();
        state.last_change = state.changed.iter().max().copied();
        state.changed_by_other = self.changed_by_other;
        state.planned = self.planned.then_some(has);
        state.refused = self.refused.as_ref().map(|refusal| Box::new(refusal.remembered(has)));
        Some(state)
    }
}

impl StoryRefusal {
    fn remembered(&self, has: Sizes) -> Refused {
        let asked = sizes(&self.asked);
        let node = StoryNode::default().observed();
        let of = |resource: Resource, allocatable| {
            let (asked, instead) = (asked.pair(resource), has.pair(resource));
            let others = self.others.as_deref().map(|others| sizes(others).pair(resource).0.unwrap_or(0));
            let refusal =
                Refusal { asked, instead, allocatable, others, at: ago(self.ago), times: self.times };
            (asked != instead).then_some(refusal)
        };
        Refused { cpu: of(Resource::Cpu, node.cpu.0), memory: of(Resource::Memory, node.memory.0) }
    }
}
