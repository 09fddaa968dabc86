//! Small clusters of every kind: what may be odd about a pod is odd about some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::LazyLock;

use controller::decide::duration::Seconds;
use controller::decide::labels::Labels;
use controller::decide::observation::*;
use controller::decide::policy::*;
use controller::decide::scope::{NamespaceScope, PolicyId, PolicyObject, WorkloadKind, WorkloadSelector};
use controller::decide::share::PerMille;
use controller::decide::sizes::{Resource, Sizes};
use controller::decide::state::{ContainerState, Owner, PodState, State};
use controller::decide::units::{Bytes, MilliCpu, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use sampler_common::buckets;
use sampler_common::resources::{CpuLimit, LimitOf, Limits, Memory};
use sampler_common::snapshot::Cause;
use sampler_common::window::Window;

/// The moment of every decision.
pub const NOW: Timestamp = Timestamp(1_800_000_000);
const MIB: u64 = 1 << 20;
const CORES: [f64; 5] = [0.02, 0.15, 0.5, 1.2, 3.0];
const MEMORY: [u64; 3] = [40 * MIB, 300 * MIB, 1024 * MIB];
/// For how long it has been measured, and how often.
const MEASURED: [(u64, u64); 3] = [(30, 15), (1800, 60), (2 * 86_400, 300)];

/// A cluster and what is remembered of it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub observation: Observation,
    pub state: State,
}

/// What memory was at its highest, within the last six hours, of a container that uses so much now.
pub fn peak_of(used: Bytes) -> Bytes {
    used.scale_up(3, 2)
}

/// What is remembered of steady use, but for a peak of memory, by how long it was measured, cores and memory.
static REMEMBERED: LazyLock<Vec<ContainerState>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for (length, every) in MEASURED {
        for cores in CORES {
            for memory in MEMORY {
                let from = NOW.0 - length - 15;
                let mut state = ContainerState::new(Sizes::default(), &Policy::default(), Timestamp(from));
                let times = || (from..NOW.0 - 15).step_by(every as usize);
                let peak_at = times().find(|at| *at + 6 * 3600 >= NOW.0);
                for at in times() {
                    state.history.observe(Timestamp(at), cores);
                    let used = if Some(at) == peak_at { peak_of(Bytes(memory)) } else { Bytes(memory) };
                    state.memory.observe(Timestamp(at), used);
                    state.read_until = Some(Timestamp(at));
                }
                all.push(state);
            }
        }
    }
    all
});

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        8 => Just(Mode::Apply),
        1 => Just(Mode::Recommend),
        1 => Just(Mode::Observe),
        1 => Just(Mode::Disabled),
    ]
}

prop_compose! {
    /// What a policy says.
    fn policy()(
        mode in mode(),
        profile in select(vec![Profile::Balanced, Profile::Latency, Profile::Throughput, Profile::Batch]),
        limits in any::<bool>(),
        guaranteed in any::<bool>(),
        recreate in any::<bool>(),
        hpa in select(vec![HpaPods::HoldRequest, HpaPods::RecommendOnly, HpaPods::Ignore]),
        percentile in prop::option::weighted(0.8, 50..=100u8),
        cpu in (10..500u64, 0..4000u64),
        memory in (32..200u64, 0..2000u64),
        bounded in any::<bool>(),
        steps in (prop::option::of(100..3000u32), 100..999u32),
        weight in 1..500u32,
        boost in prop::option::weighted(0.2, 1000..4000u32),
    ) -> Policy {
        let mut policy = Policy::of(profile);
        policy.mode = mode;
        if limits {
            policy.controlled_values = ControlledValues::RequestsAndLimits;
        }
        if guaranteed {
            policy.guaranteed_pods = GuaranteedPods::Resize;
        }
        if recreate {
            policy.resize.fallback = Fallback::Recreate;
        }
        policy.hpa_pods = hpa;
        policy.history.percentile = percentile.and_then(Percentile::new);
        if bounded {
            policy.cpu = CpuBounds { min_allowed: MilliCpu(cpu.0), max_allowed: MilliCpu(cpu.0 + cpu.1) };
            let (min, max) = (memory.0 * MIB, (memory.0 + memory.1) * MIB);
            policy.memory = MemoryBounds { min_allowed: Bytes(min), max_allowed: Bytes(max) };
        }
        policy.resize.max_step_up = steps.0.map(PerMille);
        policy.resize.max_step_down = PerMille(steps.1);
        policy.weight.0 = NonZeroU32::new(weight).expect("from 1 on");
        policy.startup_boost =
            boost.map(|factor| StartupBoost { factor: PerMille(factor), duration: Seconds(120) });
        policy
    }
}

fn object(namespace: Option<&str>, policy: Policy) -> PolicyObject {
    PolicyObject {
        id: PolicyId { namespace: namespace.map(Into::into), name: "policy".into() },
        created: Timestamp(1),
        namespaces: namespace.map(NamespaceScope::own).unwrap_or_default(),
        selector: WorkloadSelector::default(),
        policy,
    }
}

/// What a container's threads wait for, a fifth of the time, 20 ms each time.
#[derive(Clone, Copy, Debug)]
enum Waits {
    For(Cause),
    /// For its own limit, in a third of all periods.
    Throttled,
}

fn waits() -> impl Strategy<Value = Waits> {
    let causes = vec![Cause::Own, Cause::Neighbor, Cause::System, Cause::Unknown];
    prop_oneof![3 => select(causes).prop_map(Waits::For), 1 => Just(Waits::Throttled)]
}

/// The sampler's window of 15 s.
fn window(cores: f64, memory: u64, limit: Option<MilliCpu>, waits: Option<Waits>) -> Window {
    const LENGTH_NS: u64 = 15_000_000_000;
    const DELAY_NS: u64 = 20_000_000;
    const DELAYS: u64 = LENGTH_NS / 5 / DELAY_NS;
    let usage_ns = (cores * LENGTH_NS as f64) as u64;
    let mut window = Window { length_ns: LENGTH_NS, usage_ns, ..Window::default() };
    let cause = match waits {
        Some(Waits::For(cause)) => Some(cause),
        Some(Waits::Throttled) if limit.is_some() => Some(Cause::Quota),
        _ => None,
    };
    if let Some(cause) = cause {
        let of_cause = match cause {
            Cause::Quota => &mut window.causes.quota_ns,
            Cause::Own => &mut window.causes.self_ns,
            Cause::Neighbor => &mut window.causes.neighbor_ns,
            Cause::System => &mut window.causes.system_ns,
            Cause::Idle => &mut window.causes.idle_ns,
            Cause::Unknown => &mut window.causes.away_ns,
        };
        *of_cause = DELAYS * DELAY_NS;
        if let Some(coarse) = window.coarse.get_mut(cause as usize) {
            coarse.counts[buckets::octave(buckets::bucket(DELAY_NS)) as usize] += DELAYS;
        }
        (0..DELAYS).for_each(|_| window.latency.record(DELAY_NS));
    }
    if let Some(limit) = limit {
        window.throttling.periods = 150;
        if cause == Some(Cause::Quota) {
            window.throttling.throttled_periods = 50;
            window.throttling.throttled_ns = DELAYS * DELAY_NS;
        }
        let cpu = CpuLimit { quota_us: limit.0 * 100, period_us: 100_000, of: LimitOf::Own };
        window.limits = Limits { cpu: Some(cpu), ..Limits::default() };
    }
    window.memory =
        Some(Memory { current_bytes: memory, working_set_bytes: memory, peak_bytes: None, read_ns: 0 });
    window
}

/// A container, what is remembered of it, and whether that is anything.
type Draft = (Container, Option<ContainerState>);

prop_compose! {
    fn sizes(guaranteed: bool)(
        cpu in prop::option::weighted(0.9, 5..4000u64),
        memory in prop::option::weighted(0.9, 32..2048u64),
        cpu_room in prop::option::of(0..4000u64),
        memory_room in prop::option::of(0..1024u64),
    ) -> Sizes {
        let (cpu, memory) = if guaranteed { (cpu.or(Some(500)), memory.or(Some(256))) } else { (cpu, memory) };
        let (cpu_room, memory_room) = if guaranteed { (Some(0), Some(0)) } else { (cpu_room, memory_room) };
        Sizes {
            cpu_request: cpu.map(MilliCpu),
            cpu_limit: cpu.zip(cpu_room).map(|(cpu, room)| MilliCpu((cpu + room).max(10))),
            memory_request: memory.map(|memory| Bytes(memory * MIB)),
            memory_limit: memory.zip(memory_room).map(|(memory, room)| Bytes((memory + room) * MIB)),
        }
    }
}

prop_compose! {
    fn container(guaranteed: bool)(
        desired in sizes(guaranteed),
        kind in prop_oneof![6 => Just(ContainerKind::App), 1 => Just(ContainerKind::Sidecar), 1 => Just(ContainerKind::Init)],
        status in prop_oneof![30 => Just(0), 1 => Just(1), 1 => Just(2)],
        ready in prop::bool::weighted(0.85),
        old_node in prop::bool::weighted(0.05),
        restarts in (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        measured in prop_oneof![1 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1)), 12 => Just(Some(2usize))],
        used in (0..CORES.len(), 0..MEMORY.len()),
        now in prop::option::weighted(0.3, 0..CORES.len()),
        age in prop_oneof![20 => Just(15u64), 1 => Just(1200u64)],
        changed in prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..5000u64, 0..7)],
        by_other in prop::bool::weighted(0.1),
        planned in any::<bool>(),
        killed in prop::option::weighted(0.1, 0..600u64),
        lagging in prop::option::weighted(0.1, 1..2000u64),
        running in 0..400u64,
        windows in any::<bool>(),
        waits in prop::option::of(waits()),
    ) -> Draft {
        let state = measured.map(|measured| {
            let index = (measured * CORES.len() + used.0) * MEMORY.len() + used.1;
            let mut state = REMEMBERED[index].clone();
            state.seen = desired;
            state.started_with = desired;
            state.last_seen = NOW;
            state.changed = changed.iter().filter(|ago| **ago < 3600).map(|ago| Timestamp(NOW.0 - ago)).collect();
            state.changed.sort();
            state.last_change = state.changed.last().copied();
            state.changed_by_other = by_other;
            state.planned = (planned && !by_other).then_some(desired);
            if age > 15 {
                state.read_until = Some(Timestamp(NOW.0 - age));
            }
            state
        });
        let cores = CORES[now.unwrap_or(used.0)];
        let (until, memory) = (Timestamp(NOW.0 - age), MEMORY[used.1]);
        let reading = match windows {
            true => Reading::Window { until, window: Box::new(window(cores, memory, desired.cpu_limit, waits)) },
            false => Reading::Usage { until, cores, memory: Some(Bytes(memory)) },
        };
        let readings: Vec<_> = measured.map(|_| reading).into_iter().collect();
        let lag = |sizes: Sizes| match lagging {
            Some(milli) => Sizes { cpu_request: sizes.cpu_request.map(|_| MilliCpu(milli)), ..sizes },
            None => sizes,
        };
        let container = Container {
            kind,
            desired,
            allocated: Some(lag(desired)),
            actual: (!old_node).then(|| lag(desired)),
            resize_policy: ResizePolicy { cpu_restarts: restarts.0, memory_restarts: restarts.1 },
            status: match status {
                0 => ContainerStatus::Running { since: Timestamp(NOW.0 - running) },
                1 => ContainerStatus::CrashLooping,
                _ => ContainerStatus::Waiting,
            },
            ready,
            restarts: 0,
            oom_killed: killed.map(|ago| Timestamp(NOW.0 - ago)),
            readings,
        };
        (container, state)
    }
}

fn resize_state() -> impl Strategy<Value = ResizeState> {
    let since = (0..1000u64).prop_map(|ago| Timestamp(NOW.0 - ago));
    prop_oneof![
        20 => Just(ResizeState::Settled),
        1 => since.clone().prop_map(|since| ResizeState::Deferred { since }),
        1 => since.clone().prop_map(|since| ResizeState::Infeasible { since }),
        1 => since.clone().prop_map(|since| ResizeState::InProgress { since }),
        1 => since.prop_map(|since| ResizeState::Failing { since }),
    ]
}

/// What pods have beside, or instead of, what their containers have.
const POD_HAS: Sizes = Sizes {
    cpu_request: Some(MilliCpu(250)),
    cpu_limit: None,
    memory_request: Some(Bytes(160 * MIB)),
    memory_limit: None,
};

/// What is known of who made a pod.
#[derive(Clone, Copy, Debug)]
enum Owned {
    Told,
    Remembered,
    Unknown,
    ByNobody,
}

fn owned() -> impl Strategy<Value = Owned> {
    prop_oneof![
        12 => Just(Owned::Told),
        2 => Just(Owned::Remembered),
        2 => Just(Owned::Unknown),
        1 => Just(Owned::ByNobody),
    ]
}

/// A pod, what is remembered of its containers, and of who made it.
type PodDraft = (Pod, BTreeMap<String, ContainerState>, Option<Workload>);

fn pod() -> impl Strategy<Value = PodDraft> {
    let containers = prop::bool::weighted(0.2)
        .prop_flat_map(|guaranteed| prop::collection::vec(container(guaranteed), 1..3));
    let rare = || prop::bool::weighted(0.05);
    let odd = (rare(), rare(), rare(), prop::bool::weighted(0.1), rare(), prop::bool::weighted(0.2));
    (
        containers,
        0..3usize,
        prop_oneof![9 => 0..3usize, 1 => Just(3)],
        0..3usize,
        resize_state(),
        -5..2_000_000_000i32,
        owned(),
        (rare(), prop::option::of(select(CLASSES.to_vec()).prop_map(Into::into))),
        odd,
    )
        .prop_map(
            |(
                drafts,
                node,
                namespace,
                workload,
                resize,
                priority,
                owner,
                (has_deadline, class),
                (terminating, is_static, opted_out, unready, together, sandboxed),
            )| {
                let of = || Workload { kind: WorkloadKind::Deployment, name: format!("w{workload}") };
                let (made_by, known) = match owner {
                    Owned::Told => (MadeBy::Workload(of()), None),
                    Owned::Remembered => (MadeBy::Unknown, Some(of())),
                    Owned::Unknown => (MadeBy::Unknown, None),
                    Owned::ByNobody => (MadeBy::Nobody, None),
                };
                let (mut containers, mut states) = (BTreeMap::new(), BTreeMap::new());
                for (index, (container, state)) in drafts.into_iter().enumerate() {
                    let name = format!("c{index}");
                    states.extend(state.map(|state| (name.clone(), state)));
                    containers.insert(name, container);
                }
                let mut labels = Labels::from([("app".to_owned(), format!("w{workload}"))]);
                if opted_out {
                    labels.insert("loadline.dev/enabled".into(), "false".into());
                }
                let pod = Pod {
                    namespace: ["shop", "bank", "lab", "kube-system"][namespace].into(),
                    name: String::new(),
                    resource_version: "1".into(),
                    node: Some(["a", "b", "c"][node].into()),
                    made_by,
                    labels,
                    qos: controller::decide::pod::class(
                        containers.values().map(|container| &container.desired),
                    ),
                    phase: Phase::Running,
                    terminating,
                    is_static,
                    ready: !unready,
                    priority: Priority { value: Some(priority), class },
                    has_deadline,
                    affinity_across_namespaces: false,
                    overhead: if sandboxed { POD_HAS } else { Sizes::default() },
                    resources: if together { POD_HAS } else { Sizes::default() },
                    resize,
                    containers,
                };
                (pod, states, known)
            },
        )
}

prop_compose! {
    fn node()(
        cpu in 1000..16_000u64,
        memory in 2048..32_768u64,
        ready in prop::bool::weighted(0.95),
        pressure in prop::bool::weighted(0.1),
        resize in prop_oneof![
            6 => Just(ResizeSupport::Full),
            1 => Just(ResizeSupport::NoMemoryDecrease),
            1 => Just(ResizeSupport::None)
        ],
    ) -> Node {
        let pressure = if pressure { BTreeSet::from([NodePressure::Memory]) } else { BTreeSet::new() };
        Node {
            cpu: MilliCpu(cpu),
            memory: Bytes(memory * MIB),
            cpus: cpu.div_ceil(1000) as u32,
            ready,
            pressure,
            resize,
        }
    }
}

prop_compose! {
    fn range()(
        min in prop::option::of(1..200u64), max in prop::option::of(500..4000u64),
        ratio in prop::option::of(1000..5000u64), memory_max in prop::option::of(512..4096u64),
    ) -> Range {
        Range {
            min: Amounts { cpu: min.map(MilliCpu), memory: None },
            max: Amounts { cpu: max.map(MilliCpu), memory: memory_max.map(|max| Bytes(max * MIB)) },
            max_limit_request_ratio: Ratios { cpu: ratio, memory: ratio },
        }
    }
}

/// Priority classes.
const CLASSES: [&str; 2] = ["batch", "web"];

/// Which pods a quota counts.
fn scope() -> impl Strategy<Value = QuotaScope> {
    let classes = || BTreeSet::from(["batch".to_owned()]);
    select(vec![
        QuotaScope::Terminating,
        QuotaScope::NotTerminating,
        QuotaScope::BestEffort,
        QuotaScope::NotBestEffort,
        QuotaScope::CrossNamespacePodAffinity,
        QuotaScope::PriorityClass,
        QuotaScope::NoPriorityClass,
        QuotaScope::PriorityClassIn(classes()),
        QuotaScope::PriorityClassNotIn(classes()),
    ])
}

prop_compose! {
    /// What of a namespace is limited, scaled and kept.
    fn surroundings()(
        quota in prop::option::of((0..3000u64, 0..4096u64)),
        scopes in prop::collection::vec(scope(), 0..3),
        range in prop::option::weighted(0.3, (range(), any::<bool>())),
        scaled in prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any::<bool>(), 1..3)],
        budget in prop::option::weighted(0.3, 0..3u32),
    ) -> (Vec<Quota>, Vec<LimitRange>, Vec<Autoscaler>, Vec<DisruptionBudget>) {
        let namespace = || "shop".to_owned();
        let name = namespace;
        let quota = quota.map(|(cpu, memory)| {
            let used = Sizes {
                cpu_request: Some(MilliCpu(1000)),
                memory_request: Some(Bytes(1024 * MIB)),
                ..Sizes::default()
            };
            let hard = Sizes {
                cpu_request: Some(MilliCpu(1000 + cpu)),
                memory_request: Some(Bytes((1024 + memory) * MIB)),
                ..Sizes::default()
            };
            Quota { namespace: namespace(), name: name(), hard, used, scopes: scopes.clone() }
        });
        let range = range.map(|(range, of_pod)| {
            let (container, pod) = if of_pod { (Range::default(), range) } else { (range, Range::default()) };
            LimitRange { namespace: namespace(), name: name(), container, pod }
        });
        let scaled = scaled.into_iter().enumerate().map(|(index, memory)| Autoscaler {
            namespace: namespace(),
            name: format!("scaler-{index}"),
            workload: Workload { kind: WorkloadKind::Deployment, name: "w0".into() },
            utilisation_of: [if memory { Resource::Memory } else { Resource::Cpu }].into(),
        });
        let budget = budget.map(|disruptions_allowed| DisruptionBudget {
            namespace: namespace(),
            name: name(),
            selector: Default::default(),
            disruptions_allowed,
        });
        (quota.into_iter().collect(), range.into_iter().collect(), scaled.collect(), budget.into_iter().collect())
    }
}

/// The same pods on one node that has hardly more than they hold, with nothing that would keep them from changing: what is given
/// to one must come from somewhere.
pub fn crowded(mut cluster: Cluster) -> Cluster {
    let observation = &mut cluster.observation;
    observation.settings.dry_run = false;
    observation.namespaces.clear();
    observation.quotas.clear();
    observation.limit_ranges.clear();
    observation.autoscalers.clear();
    observation.disruption_budgets.clear();
    for object in &mut observation.policies {
        object.policy.mode = Mode::Apply;
        object.policy.guaranteed_pods = GuaranteedPods::Resize;
    }
    for pod in observation.pods.values_mut() {
        (pod.namespace, pod.node) = ("shop".into(), Some("a".into()));
        (pod.ready, pod.terminating, pod.is_static, pod.resize) = (true, false, false, ResizeState::Settled);
        pod.labels.remove("loadline.dev/enabled");
        for container in pod.containers.values_mut() {
            container.ready = true;
            (container.allocated, container.actual) = (Some(container.desired), Some(container.desired));
        }
    }
    for pod in cluster.state.pods.values_mut() {
        pod.owner.iter_mut().for_each(|owner| owner.namespace = "shop".into());
        let names: Vec<String> = pod.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let state = pod.get_mut(&name).expect("its own name");
            (state.last_change, state.changed_by_other) = (None, false);
            state.changed.clear();
        }
    }
    let held = |of: fn(&Sizes) -> u64| observation.pods.values().map(|pod| of(&pod.held())).sum::<u64>();
    let (cpu, memory) = (held(|sizes| sizes.cpu().0), held(|sizes| sizes.memory().0));
    let node = observation.nodes.get_mut("a").expect("the node");
    (node.cpu, node.memory) = (MilliCpu(cpu + 50), Bytes(memory + 20 * MIB));
    (node.ready, node.resize) = (true, ResizeSupport::Full);
    node.pressure.clear();
    cluster
}

prop_compose! {
    /// A cluster of three nodes, three namespaces with policies and one without, and a few pods.
    pub fn cluster()(
        nodes in prop::collection::vec(node(), 3),
        policies in (policy(), policy(), prop::option::of(policy()), any::<bool>()),
        named in prop::option::weighted(0.3, (policy(), 0..3usize)),
        pods in prop::collection::vec(pod(), 1..5),
        (quotas, limit_ranges, autoscalers, disruption_budgets) in surroundings(),
        dry_run in prop::bool::weighted(0.05),
        opted_out in prop::option::weighted(0.1, select(vec!["shop", "bank", "lab"])),
    ) -> Cluster {
        let (shop, bank, cluster, denies) = policies;
        let mut objects = vec![object(Some("shop"), shop), object(Some("bank"), bank)];
        objects.extend(cluster.map(|policy| {
            let mut object = object(None, policy);
            if denies {
                object.namespaces.deny.insert("bank".into());
            }
            object
        }));
        objects.extend(named.map(|(policy, workload)| {
            let mut object = object(Some("shop"), policy);
            object.id.name = "named".into();
            object.selector.names.insert(format!("w{workload}"));
            object
        }));
        let mut observation = Observation { policies: objects, quotas, limit_ranges, ..Observation::default() };
        observation.autoscalers = autoscalers;
        observation.disruption_budgets = disruption_budgets;
        observation.settings.dry_run = dry_run;
        let opted_out = opted_out.map(|namespace| {
            (namespace.to_owned(), Labels::from([("loadline.dev/enabled".into(), "false".into())]))
        });
        observation.namespaces.extend(opted_out);
        observation.nodes = ["a", "b", "c"].map(Into::into).into_iter().zip(nodes).collect();
        let mut state = State::default();
        for (index, (mut pod, states, known)) in pods.into_iter().enumerate() {
            let uid = PodUid(format!("uid-{index}"));
            pod.name = format!("pod-{index}");
            let mut remembered: PodState = states.into_iter().collect();
            remembered.owner = known.map(|workload| Owner { namespace: pod.namespace.clone(), workload });
            state.pods.insert(uid.clone(), remembered);
            observation.pods.insert(uid, pod);
        }
        Cluster { observation, state }
    }
}
