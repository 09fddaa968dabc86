//! What is asked for again and again of a cluster that says no: decisions for a day, a minute apart, against a node that
//! answers as kubelets do.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use controller::decide::check::check;
use controller::decide::duration::Seconds;
use controller::decide::observation::*;
use controller::decide::pipeline::{Outcome, decide};
use controller::decide::plan::{ActionKind, Change};
use controller::decide::policy::{ControlledValues, Fallback, Mode, Percentile, Policy, StartupBoost};
use controller::decide::reason::Reason;
use controller::decide::record::DecisionRecord;
use controller::decide::scope::{NamespaceScope, PolicyId, PolicyObject, WorkloadKind, WorkloadSelector};
use controller::decide::share::PerMille;
use controller::decide::sizes::{Resource, Sizes};
use controller::decide::state::State;
use controller::decide::units::{Bytes, MilliCpu, Timestamp};

const START: u64 = 1_800_000_000;
const MIB: u64 = 1 << 20;

/// What the node says to an ask: from what it has agreed to, to what is asked for.
type Answer = fn(&Sizes, &Sizes) -> Said;

#[derive(Clone, Copy, PartialEq)]
enum Said {
    Yes,
    Never,
    Later,
    /// The node agrees and cannot do it.
    Fails,
    /// By the API server: it is not let into the spec.
    Forbidden,
}

/// A cluster of one node.
struct World {
    observation: Observation,
    state: State,
    now: Timestamp,
    answer: Answer,
    /// What a pod that is made anew is born with, where the one before it had the first and was to get the second.
    born: fn(Sizes, Sizes) -> Sizes,
    /// How many pods have been made anew.
    recreated: u64,
    /// Whether what is asked for gets lost on its way.
    lost: bool,
    /// What each container uses: cores and MiB.
    uses: (f64, u64),
    /// Whether anybody tells that.
    measured: bool,
    /// By how many seconds the clock of who does is ahead.
    ahead: u64,
    /// How many times a minute each container is read.
    readings: u64,
    /// What was asked for, and when (minutes from the start).
    asked: Vec<(u64, ActionKind, Sizes)>,
}

fn sizes(cpu: u64, memory: u64) -> Sizes {
    Sizes { cpu_request: Some(MilliCpu(cpu)), memory_request: Some(Bytes(memory * MIB)), ..Sizes::default() }
}

fn policy() -> Policy {
    let mut policy = Policy { mode: Mode::Apply, ..Policy::default() };
    policy.history.percentile = Percentile::new(95);
    policy
}

fn pod(name: &str, has: Sizes, since: Timestamp) -> Pod {
    let container = Container {
        kind: ContainerKind::App,
        desired: has,
        allocated: Some(has),
        actual: Some(has),
        resize_policy: ResizePolicy::default(),
        status: ContainerStatus::Running { since },
        ready: true,
        restarts: 0,
        oom_killed: None,
        readings: Vec::new(),
    };
    Pod {
        namespace: "shop".into(),
        name: name.into(),
        resource_version: "1".into(),
        node: Some("a".into()),
        made_by: MadeBy::Workload(Workload { kind: WorkloadKind::Deployment, name: "web".into() }),
        labels: BTreeMap::new(),
        qos: Qos::Burstable,
        phase: Phase::Running,
        terminating: false,
        is_static: false,
        ready: true,
        priority: Priority::default(),
        has_deadline: false,
        affinity_across_namespaces: false,
        overhead: Sizes::default(),
        resources: Sizes::default(),
        resize: ResizeState::Settled,
        containers: BTreeMap::from([("app".to_owned(), container)]),
    }
}

impl World {
    fn new(policy: Policy, has: Sizes, uses: (f64, u64), answer: Answer) -> Self {
        let now = Timestamp(START);
        let node = Node {
            cpu: MilliCpu(16_000),
            memory: Bytes(32_768 * MIB),
            cpus: 16,
            ready: true,
            pressure: Default::default(),
            resize: ResizeSupport::Full,
        };
        let object = PolicyObject {
            id: PolicyId { namespace: Some("shop".into()), name: "all".into() },
            created: Timestamp(0),
            namespaces: NamespaceScope::own("shop"),
            selector: WorkloadSelector::default(),
            policy,
        };
        let observation = Observation {
            nodes: BTreeMap::from([("a".to_owned(), node)]),
            pods: BTreeMap::from([(PodUid("web-0".into()), pod("web-0", has, now))]),
            policies: vec![object],
            ..Observation::default()
        };
        Self {
            observation,
            state: State::default(),
            now,
            answer,
            born: |before, _| before,
            recreated: 0,
            lost: false,
            uses,
            measured: true,
            ahead: 0,
            readings: 1,
            asked: Vec::new(),
        }
    }

    fn minute(&self) -> u64 {
        self.now.seconds_since(Timestamp(START)) / 60
    }

    /// The only pod's container.
    fn container(&mut self) -> &mut Container {
        let pod = self.observation.pods.values_mut().next().expect("a pod");
        pod.containers.get_mut("app").expect("its container")
    }

    /// A minute goes by, in which it is read so many times. Returns what was decided of each container.
    fn step(&mut self) -> Vec<DecisionRecord> {
        self.now = self.now.plus_seconds(60);
        let (until, (cores, memory)) = (self.now.plus_seconds(self.ahead), self.uses);
        let before = |reading| Timestamp(until.0 - 60 / self.readings * reading);
        let readings = (0..self.readings).rev().map(before);
        let readings =
            readings.map(|until| Reading::Usage { until, cores, memory: Some(Bytes(memory * MIB)) });
        let readings: Vec<_> = readings.collect();
        for container in self.observation.pods.values_mut().flat_map(|pod| pod.containers.values_mut()) {
            if self.measured && matches!(container.status, ContainerStatus::Running { .. }) {
                container.readings = readings.clone();
            }
        }
        let Outcome { plan, records, state, .. } =
            decide(&self.observation, std::mem::take(&mut self.state), self.now);
        if let Err(error) = check(&self.observation, &state, plan.clone(), self.now) {
            panic!("{error}\n{plan}");
        }
        self.state = state;
        for pod in self.observation.pods.values_mut() {
            // What was forbidden is told once.
            let forbidden = matches!(pod.resize, ResizeState::Infeasible { .. });
            if forbidden && pod.containers["app"].allocated == Some(pod.containers["app"].desired) {
                pod.resize = ResizeState::Settled;
            }
        }
        for action in &plan.actions {
            let Change { from, to } = action.containers["app"];
            self.asked.push((self.minute(), action.kind, to));
            if self.lost {
                continue;
            }
            if action.kind == ActionKind::Recreate {
                self.recreated += 1;
                let name = format!("again-{}", self.recreated);
                let anew = pod(&name, (self.born)(from, to), self.now);
                self.observation.pods.remove(&action.uid);
                self.observation.pods.insert(PodUid(name), anew);
                continue;
            }
            let pod = self.observation.pods.get_mut(&action.uid).expect("the pod");
            let container = pod.containers.get_mut("app").expect("its container");
            let agreed = container.allocated.expect("it says so");
            let said = if to == agreed { Said::Yes } else { (self.answer)(&agreed, &to) };
            if said != Said::Forbidden {
                container.desired = to;
            }
            pod.resize = match said {
                Said::Yes => {
                    (container.allocated, container.actual) = (Some(to), Some(to));
                    ResizeState::Settled
                }
                Said::Never | Said::Forbidden => ResizeState::Infeasible { since: self.now },
                Said::Later => ResizeState::Deferred { since: self.now },
                Said::Fails => {
                    container.allocated = Some(to);
                    ResizeState::Failing { since: self.now }
                }
            };
        }
        records
    }

    fn steps(&mut self, minutes: u64) {
        for _ in 0..minutes {
            self.step();
        }
    }

    /// At which minutes a resource was asked for to be moved, but not back.
    fn asks(&self, resource: Resource, from: &Sizes) -> Vec<u64> {
        let moved = |(_, kind, to): &&(u64, ActionKind, Sizes)| {
            *kind != ActionKind::Revert && !to.same(resource, from)
        };
        self.asked.iter().filter(moved).map(|(minute, ..)| *minute).collect()
    }

    /// Within a day, each time after twice as long.
    fn asks_ever_more_rarely(&self, resource: Resource, from: &Sizes) {
        let asks = self.asks(resource, from);
        let gaps: Vec<_> = asks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!((5..=8).contains(&asks.len()), "{asks:?}");
        assert!(gaps.windows(2).all(|pair| pair[1] >= 2 * pair[0] - 5), "{asks:?}");
    }
}

fn no_more_cpu(has: &Sizes, to: &Sizes) -> Said {
    if to.cpu() > has.cpu() { Said::Never } else { Said::Yes }
}

#[test]
fn cpu_that_is_refused_is_asked_for_ever_more_rarely_and_memory_is_had_at_once() {
    let has = sizes(500, 256);
    let mut world = World::new(policy(), has, (2.0, 400), no_more_cpu);
    world.steps(24 * 60);
    let container = world.container();
    assert_eq!(container.allocated.unwrap().cpu(), MilliCpu(500));
    assert!(container.allocated.unwrap().memory() > Bytes(400 * MIB), "{:?}", world.asked);
    let memory = world.asks(Resource::Memory, &has);
    assert!(memory.first().is_some_and(|first| *first <= 15), "{memory:?}");
    world.asks_ever_more_rarely(Resource::Cpu, &has);
}

#[test]
fn cpu_that_the_api_server_forbids_is_asked_for_ever_more_rarely_and_memory_is_had() {
    let has = sizes(500, 256);
    let forbid = |has: &Sizes, to: &Sizes| if to.cpu() > has.cpu() { Said::Forbidden } else { Said::Yes };
    let mut world = World::new(policy(), has, (2.0, 400), forbid);
    world.steps(24 * 60);
    assert!(world.container().allocated.unwrap().memory() > Bytes(400 * MIB), "{:?}", world.asked);
    world.asks_ever_more_rarely(Resource::Cpu, &has);
}

#[test]
fn a_shrink_that_is_refused_is_not_asked_for_in_every_pass() {
    let has = sizes(4000, 4096);
    let mut world = World::new(policy(), has, (0.2, 300), |_, _| Said::Never);
    // Nothing shrinks in the first day.
    world.steps(3 * 24 * 60);
    for resource in Resource::ALL {
        let asks = world.asks(resource, &has);
        assert!((2..=12).contains(&asks.len()), "{resource}: {asks:?}");
    }
}

#[test]
fn what_is_deferred_is_taken_back_and_asked_for_ever_more_rarely() {
    let has = sizes(500, 256);
    let later = |has: &Sizes, to: &Sizes| if to.cpu() > has.cpu() { Said::Later } else { Said::Yes };
    let mut world = World::new(policy(), has, (2.0, 200), later);
    let mut waited = 0;
    for _ in 0..24 * 60 {
        world.step();
        waited += u64::from(world.container().desired != has);
    }
    let asks = world.asks(Resource::Cpu, &has);
    assert!((5..=8).contains(&asks.len()), "{asks:?}");
    // Each waits for five minutes, and keeps others from being scheduled for no longer.
    assert!(waited <= 6 * asks.len() as u64, "{waited} minutes in {asks:?}");
}

#[test]
fn what_fails_is_taken_back_and_asked_for_again_as_soon_as_the_first_time() {
    let has = Sizes { cpu_limit: Some(MilliCpu(500)), ..sizes(500, 256) };
    let mut policy = policy();
    policy.controlled_values = ControlledValues::RequestsAndLimits;
    let fails = |has: &Sizes, to: &Sizes| if to.cpu() > has.cpu() { Said::Fails } else { Said::Yes };
    let mut world = World::new(policy, has, (2.0, 200), fails);
    world.steps(24 * 60);
    let asks = world.asks(Resource::Cpu, &has);
    let gaps: Vec<_> = asks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Five minutes for the node to manage it, and ten until the next time.
    assert!(gaps.iter().skip(1).all(|gap| (14..=17).contains(gap)), "{asks:?}");
    assert!(asks.len() > 80, "{asks:?}");
}

#[test]
fn once_the_node_has_more_to_give_it_is_asked_at_once() {
    let has = sizes(500, 256);
    let mut world = World::new(policy(), has, (2.0, 200), no_more_cpu);
    world.steps(12 * 60);
    let asks = world.asks(Resource::Cpu, &has).len();
    world.answer = |_, _| Said::Yes;
    world.observation.nodes.get_mut("a").unwrap().cpu = MilliCpu(32_000);
    world.steps(2);
    assert_eq!(world.asks(Resource::Cpu, &has).len(), asks + 1);
    assert!(world.container().allocated.unwrap().cpu() > MilliCpu(2_000));
}

#[test]
fn what_was_deferred_is_asked_for_again_once_others_have_made_room() {
    let has = sizes(500, 256);
    let later = |has: &Sizes, to: &Sizes| if to.cpu() > has.cpu() { Said::Later } else { Said::Yes };
    let mut world = World::new(policy(), has, (2.0, 200), later);
    let mut large = pod("large", sizes(8000, 256), world.now);
    large.namespace = "bank".into();
    let name = PodUid("z-large".into());
    world.observation.pods.insert(name.clone(), large.clone());
    world.steps(12 * 60);
    let asks = world.asks(Resource::Cpu, &has).len();
    let rise = world.asked.iter().map(|(.., to)| to.cpu().0).max().unwrap() - 500;
    world.answer = |_, _| Said::Yes;
    // Less than it was to get says nothing.
    let mut smaller = large;
    for (milli, more) in [(8000 - rise / 2, 0), (8000 - rise, 1)] {
        smaller.containers = pod("large", sizes(milli, 256), world.now).containers;
        world.observation.pods.insert(name.clone(), smaller.clone());
        world.steps(2);
        assert_eq!(world.asks(Resource::Cpu, &has).len(), asks + more, "{milli}m: {:?}", world.asked);
    }
    assert!(world.container().allocated.unwrap().cpu() > MilliCpu(2_000));
}

#[test]
fn a_controller_that_remembers_nothing_takes_back_what_is_deferred_too_long() {
    let has = sizes(500, 256);
    let later = |has: &Sizes, to: &Sizes| if to.cpu() > has.cpu() { Said::Later } else { Said::Yes };
    let mut world = World::new(policy(), has, (2.0, 200), later);
    while world.container().desired == has {
        world.step();
    }
    world.state = State::default();
    world.steps(7);
    assert_eq!(world.container().desired, has);
}

#[test]
fn a_patch_that_is_lost_is_sent_again() {
    let has = sizes(500, 256);
    let later = |has: &Sizes, to: &Sizes| if to.cpu() > has.cpu() { Said::Later } else { Said::Yes };
    let mut world = World::new(policy(), has, (2.0, 200), later);
    while world.container().desired == has {
        world.step();
    }
    let since = world.now;
    let asked = world.container().desired;
    while world.container().desired == asked {
        world.step();
    }
    // It was to be taken back, and the API server has never heard of it.
    world.container().desired = asked;
    world.observation.pods.values_mut().next().unwrap().resize = ResizeState::Deferred { since };
    world.step();
    assert_eq!(world.container().desired, has);
}

/// Three replicas on a node that cannot resize what runs, and a policy that lets them be made anew.
fn on_an_old_node(born: fn(Sizes, Sizes) -> Sizes) -> World {
    let mut policy = policy();
    policy.resize.fallback = Fallback::Recreate;
    let has = sizes(500, 256);
    let mut world = World::new(policy, has, (1.0, 200), |_, _| Said::Yes);
    world.observation.nodes.get_mut("a").expect("its node").resize = ResizeSupport::None;
    for replica in ["web-1", "web-2"] {
        world.observation.pods.insert(PodUid(replica.into()), pod(replica, has, world.now));
    }
    world.born = born;
    world
}

#[test]
fn a_workload_whose_pods_come_back_as_they_were_is_made_anew_ever_more_rarely() {
    let mut world = on_an_old_node(|before, _| before);
    let mut told = String::new();
    for _ in 0..24 * 60 {
        told = world.step().last().unwrap().reason.name();
    }
    assert!((5..=8).contains(&world.recreated), "{} pods: {:?}", world.recreated, world.asked);
    assert_eq!(told, "RecreatedInVain");
}

#[test]
fn an_eviction_that_did_not_happen_does_not_count() {
    let mut world = on_an_old_node(|_, planned| planned);
    world.lost = true;
    world.steps(60);
    // Tried again every ten minutes, and not ever more rarely: nothing came of it in vain.
    let asks: Vec<_> = world.asked.iter().map(|(minute, ..)| *minute).collect();
    assert!(asks.windows(2).all(|pair| pair[1] - pair[0] == 10) && asks.len() >= 5, "{asks:?}");
    let told = world.step().last().unwrap().reason.name();
    assert_eq!(told, "EvictionPending");
    // Once they get there, they count, one after the other.
    world.lost = false;
    world.steps(60);
    assert_eq!(world.recreated, 3, "{:?}", world.asked);
}

#[test]
fn a_workload_whose_pods_are_born_as_planned_is_made_anew_one_after_the_other() {
    let mut world = on_an_old_node(|_, planned| planned);
    world.steps(60);
    assert_eq!(world.recreated, 3, "{:?}", world.asked);
    let gaps: Vec<_> = world.asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap >= 5), "{gaps:?}");
}

#[test]
fn a_container_that_is_killed_whenever_it_starts_gets_what_it_takes_and_no_more() {
    let mut policy = policy();
    policy.controlled_values = ControlledValues::RequestsAndLimits;
    let has = Sizes { memory_limit: Some(Bytes(256 * MIB)), ..sizes(500, 256) };
    let mut world = World::new(policy, has, (0.4, 200), |_, _| Said::Yes);
    world.step();
    // From now on it needs 500 MiB to start, and is tried again every five minutes.
    for minute in 0..120 {
        let now = world.now;
        let container = world.container();
        let starves = container.actual.unwrap().memory_limit < Some(Bytes(500 * MIB));
        if minute % 5 == 0 {
            if starves {
                container.oom_killed = Some(now);
                container.status = ContainerStatus::CrashLooping;
            } else if container.status == ContainerStatus::CrashLooping {
                container.status = ContainerStatus::Running { since: now };
            }
            container.ready = !starves;
        }
        let ready = container.ready;
        world.observation.pods.values_mut().for_each(|pod| pod.ready = ready);
        world.step();
    }
    assert!(world.container().ready, "{:?}", world.asked);
    // 356, 456 and 556 MiB: a step for each kill, and none after the last.
    let limits: Vec<_> = world.asked.iter().map(|(.., to)| to.memory_limit.unwrap().0 / MIB).collect();
    assert_eq!(limits, [356, 456, 556]);
}

#[test]
fn a_container_that_is_killed_whatever_it_gets_does_not_take_the_node() {
    for changes_per_hour in [12, 3] {
        let mut policy = policy();
        policy.controlled_values = ControlledValues::RequestsAndLimits;
        policy.resize.changes_per_hour = NonZeroU32::new(changes_per_hour).unwrap();
        let has = Sizes { memory_limit: Some(Bytes(256 * MIB)), ..sizes(500, 256) };
        let mut world = World::new(policy, has, (0.4, 200), |_, _| Said::Yes);
        world.step();
        let mut reason = String::new();
        for minute in 0..24 * 60 - 1 {
            let now = world.now;
            let container = world.container();
            if minute % 5 == 0 {
                (container.oom_killed, container.ready) = (Some(now), false);
                container.status = ContainerStatus::CrashLooping;
            }
            reason = world.step()[0].reason.name();
        }
        let minutes: Vec<_> = world.asked.iter().map(|(minute, ..)| *minute).collect();
        let in_an_hour = |from: &u64| minutes.iter().filter(|at| (*from..from + 60).contains(at)).count();
        assert!(minutes.iter().map(in_an_hour).max() <= Some(changes_per_hour as usize), "{minutes:?}");
        // 4 GiB more than it had, of 32: more than that is for somebody to look at.
        let limit = world.container().desired.memory_limit.unwrap();
        assert!(limit > Bytes(4096 * MIB) && limit <= Bytes((4096 + 256) * MIB), "{limit} {minutes:?}");
        assert_eq!(reason, "KilledAgain");
        // A day later it may have as much again.
        for minute in 0..60 {
            let now = world.now;
            if minute % 5 == 0 {
                world.container().oom_killed = Some(now);
            }
            world.step();
        }
        assert!(world.container().desired.memory_limit > Some(limit));
    }
}

#[test]
fn what_is_given_to_start_with_is_there_at_once_and_is_taken_back_with_and_without_data() {
    for measured in [true, false] {
        let mut policy = policy();
        policy.startup_boost = Some(StartupBoost { factor: PerMille(3000), duration: Seconds(300) });
        let has = sizes(500, 256);
        let mut world = World::new(policy, has, (0.4, 200), |_, _| Said::Yes);
        world.measured = measured;
        world.step();
        assert_eq!(world.container().allocated.unwrap().cpu(), MilliCpu(1500), "measured: {measured}");
        world.steps(4);
        assert_eq!(world.container().allocated.unwrap().cpu(), MilliCpu(1500));
        // By halves, with a cooldown between.
        world.steps(20);
        assert_eq!(world.container().allocated.unwrap(), has, "measured: {measured}: {:?}", world.asked);
        world.steps(120);
        assert_eq!(world.asks(Resource::Cpu, &has).len(), 2, "{:?}", world.asked);
    }
}

#[test]
fn what_a_clock_that_is_ahead_tells_moves_nothing() {
    let mut world = World::new(policy(), sizes(500, 256), (2.0, 400), |_, _| Said::Yes);
    world.ahead = 1800;
    for _ in 0..120 {
        assert_eq!(world.step()[0].reason, Reason::DataFromFuture(Seconds(1800)));
    }
    assert_eq!(world.asked, []);
    // The clocks agree again.
    world.ahead = 0;
    world.steps(5);
    assert!(world.container().desired.cpu() > MilliCpu(2000));
}

#[test]
fn a_policy_that_changes_counts_in_the_next_pass() {
    let mut world = World::new(policy(), sizes(500, 256), (1.0, 200), |_, _| Said::Yes);
    world.steps(60);
    // In the middle of a slot of the history.
    while world.now.0 % 300 != 120 {
        world.step();
    }
    let before = world.step()[0].target.unwrap();
    world.observation.policies[0].policy.history.margin = PerMille::percent(100);
    let after = world.step()[0].target.unwrap();
    assert!(after.cpu().0.abs_diff(before.cpu().0 * 200 / 115) <= 2, "{before} {after}");
    assert_eq!(world.step()[0].target.unwrap(), after);
}

#[test]
fn what_it_should_have_is_found_anew_within_the_policys_interval_and_at_once_where_it_is_hurt() {
    let minutes = |interval: u64, outgrown_at: Option<u64>, readings: u64| {
        let mut policy = policy();
        policy.history.interval = Seconds(interval);
        let mut world = World::new(policy, sizes(1_000, 256), (0.5, 100), |_, _| Said::Yes);
        world.readings = readings;
        let mut found = Vec::new();
        for minute in 1..=6 * 60 {
            world.uses.0 = if outgrown_at.is_some_and(|at| minute >= at) { 3.0 } else { 0.5 };
            world.step();
            let container = world.state.container(&PodUid("web-0".into()), "app").expect("it was seen");
            found.extend(container.found.as_ref().map(|found| found.at));
        }
        found.dedup();
        found.into_iter().map(|at| at.seconds_since(Timestamp(START)) / 60).collect::<Vec<_>>()
    };
    let longest = |at: &[u64]| at.windows(2).map(|pair| pair[1] - pair[0]).max().expect("two");
    // Also where several readings are told at once, of which the first of a slot is not the last.
    for readings in [1, 4] {
        assert_eq!(longest(&minutes(60, None, readings)), 5, "as slots end");
        let hourly = minutes(3_600, None, readings);
        assert!(hourly.windows(2).skip(1).all(|pair| (55..=60).contains(&(pair[1] - pair[0]))), "{hourly:?}");
        let outgrown = minutes(3_600, Some(200), readings);
        assert!(outgrown.contains(&200), "{outgrown:?}");
    }
}
