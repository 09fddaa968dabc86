//! What decisions cost: the division of a node's CPU among its containers, by their number; a container's sample and
//! target; a pass over a whole cluster, and over ever more nodes in one observation; and what is remembered of a container.
//!
//! Prints a line for each figure; `--json FILE` writes them as `cargo xtask bench` merges them. A cost per n·log₂ n that stays
//! level is the O(n log n) that is promised.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use controller::api::policy::{PolicyError, parse};
use controller::decide::allocate::{Bid, allocate};
use controller::decide::check::check;
use controller::decide::history::History;
use controller::decide::labels::LabelSelector;
use controller::decide::observation::{DisruptionBudget, LimitRange, MadeBy, Qos, Quota, ResizePolicy};
use controller::decide::pipeline::decide;
use controller::decide::policy::Policy;
use controller::decide::scope::{NamespaceScope, PolicyId, PolicyObject};
use controller::decide::sizes::Sizes;
use controller::decide::state::State;
use controller::decide::target::{Changes, CpuInputs, cpu};
use controller::decide::units::{MilliCpu, Timestamp};
use controller::simulate::cluster::{Cluster, Shape};

/// Counts what is allocated, so that the bytes of a state are those that it takes, not those that somebody added up.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: does what the system's allocator does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: u64 = 301;
const SIZES: [usize; 7] = [10, 50, 250, 1_000, 2_500, 5_000, 10_000];
/// The largest cluster that is aimed at.
const NODES: u32 = 5_000;
const CONTAINERS: u32 = 550_000;
/// It is made of groups of so many nodes: no node's decision depends on another's.
const GROUP_NODES: u32 = 20;
/// Groups that differ; the others are these again.
const GROUPS: u64 = 2;
const THREADS: usize = 2;
const PASSES: usize = 3;
/// Of history that the containers have.
const HISTORY_MINUTES: u32 = 30;
/// Nodes that are in one observation together: what a container costs must not grow with them.
const TOGETHER: [u32; 3] = [20, 200, 1_000];
const TOGETHER_HISTORY_MINUTES: u32 = 5;

/// One figure.
struct Row {
    name: String,
    unit: &'static str,
    value: f64,
    min: Option<f64>,
    max: Option<f64>,
    note: String,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let Self { name, unit, value, min, max, note } = self;
        serde_json::json!({ "name": name, "unit": unit, "value": value, "min": min, "max": max, "note": note })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let json = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => None,
        (Some("--json"), Some(file)) => Some(file),
        _ => return Err("write: cargo bench -p controller [-- --json FILE]".into()),
    };
    let mut rows = markets();
    rows.extend(one_container());
    rows.extend(whole_cluster()?);
    rows.extend(together()?);
    for Row { name, unit, value, min, max, note } in &rows {
        let range = min.zip(*max).map_or(String::new(), |(min, max)| format!("{min:.2}..{max:.2}"));
        println!("{name:16} {value:>10.2} {unit:6} {range:>20}  {note}");
    }
    if let Some(file) = json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        std::fs::write(file, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    Ok(())
}

fn markets() -> Vec<Row> {
    let market = |n: usize| {
        let mut rounds_us: Vec<f64> = (0..ROUNDS)
            .map(|seed| {
                let bids = node(n, seed);
                // Half of what is asked for.
                let budget = MilliCpu(bids.iter().map(|bid| bid.cap().0 + bid.floor().0).sum::<u64>() / 2);
                let start = Instant::now();
                let allocation = black_box(allocate(budget, black_box(&bids)));
                let taken = start.elapsed();
                drop(allocation);
                taken.as_secs_f64() * 1e6
            })
            .collect();
        rounds_us.sort_unstable_by(f64::total_cmp);
        let value = rounds_us[rounds_us.len() / 2];
        let per_step = value * 1e3 / (n as f64 * (n as f64).log2());
        Row {
            name: format!("allocate.{n}"),
            unit: "µs",
            value,
            min: rounds_us.first().copied(),
            max: rounds_us.last().copied(),
            note: format!("one node of {n} containers; {per_step:.2} ns per n·log₂ n"),
        }
    };
    SIZES.into_iter().map(market).collect()
}

fn one_container() -> Vec<Row> {
    const MINUTES: u64 = 7 * 1440;
    const START: u64 = 1_700_006_400;
    let at = |minute: u64| Timestamp(START + 60 * minute);
    let cores = |minute: u64| 1.0 + (minute % 1440) as f64 / 720.0 + (minute * 7919 % 101) as f64 / 200.0;
    let policy = Policy::default();
    let mut history = History::new(Timestamp(START), policy.history.window);
    let start = Instant::now();
    for minute in 0..MINUTES {
        black_box(history.observe(at(minute), cores(minute)));
    }
    let observe_ns = start.elapsed().as_nanos() as f64 / MINUTES as f64;
    let now = at(MINUTES - 1);
    let start = Instant::now();
    for current in 0..MINUTES {
        let request = MilliCpu(1_000 + current);
        black_box(cpu(&CpuInputs {
            history: &history,
            request,
            limit: None,
            qos: Qos::Burstable,
            started_with: request,
            started_limit: None,
            signal: None,
            changes: Changes::default(),
            policy: &policy,
            age_seconds: u64::MAX,
            now,
        }));
    }
    let target_us = start.elapsed().as_nanos() as f64 / 1e3 / MINUTES as f64;
    let row = |name: &str, unit, value, note: &str| Row {
        name: name.into(),
        unit,
        value,
        min: None,
        max: None,
        note: note.into(),
    };
    vec![
        row("history.sample", "ns", observe_ns, "a sample of a container's use, over a week"),
        row("target.cpu", "µs", target_us, "a container's CPU target, from a week of use"),
        row("history.cpu", "bytes", history.bytes() as f64, "of CPU history after a week"),
    ]
}

/// A part of the cluster, with what is remembered of it.
struct Group {
    cluster: Cluster,
    state: State,
}

impl Group {
    fn new(nodes: u32, minutes: u32, seed: u64, policy: &PolicyObject) -> Self {
        let containers = nodes * (CONTAINERS / NODES);
        let shape = Shape { nodes, containers, seed };
        let mut group = Self { cluster: Cluster::new(shape, vec![policy.clone()]), state: State::default() };
        for _ in 0..minutes {
            group.cluster.minute();
            let outcome =
                decide(&group.cluster.observation, std::mem::take(&mut group.state), group.cluster.now);
            group.cluster.apply(&outcome.plan);
            group.state = outcome.state;
        }
        group.cluster.minute();
        group
    }

    /// With a namespace for each node, each with a policy, a LimitRange, a quota and a budget of its own, and pods of which some are
    /// restarted by every change: all that is looked up by namespace and workload grows with the nodes.
    fn in_many_namespaces(mut self, nodes: u32) -> Self {
        let observation = &mut self.cluster.observation;
        let mut namespaces = BTreeMap::new();
        for (index, (uid, pod)) in observation.pods.iter_mut().enumerate() {
            let MadeBy::Workload(workload) = &pod.made_by else { continue };
            let next = namespaces.len() % nodes as usize;
            let number = *namespaces.entry((pod.namespace.clone(), workload.clone())).or_insert(next);
            pod.namespace = format!("{}-{number}", pod.namespace);
            if let Some(owner) = self.state.pods.get_mut(uid).and_then(|pod| pod.owner.as_mut()) {
                owner.namespace.clone_from(&pod.namespace);
            }
            for container in pod.containers.values_mut().filter(|_| index % 10 == 0) {
                container.resize_policy = ResizePolicy { cpu_restarts: true, memory_restarts: true };
            }
        }
        let names: BTreeSet<String> = observation.pods.values().map(|pod| pod.namespace.clone()).collect();
        for namespace in names {
            let (name, own) = ("own".to_owned(), namespace.clone());
            observation.limit_ranges.push(LimitRange { namespace: own, name, ..LimitRange::default() });
            let (name, own) = ("own".to_owned(), namespace.clone());
            let (hard, used, scopes) = (Sizes::default(), Sizes::default(), Vec::new());
            observation.quotas.push(Quota { namespace: own, name, hard, used, scopes });
            observation.disruption_budgets.push(DisruptionBudget {
                namespace: namespace.clone(),
                name: "own".into(),
                selector: LabelSelector::default(),
                disruptions_allowed: 1,
            });
            observation.policies.push(PolicyObject {
                id: PolicyId { namespace: Some(namespace.clone()), name: "own".into() },
                namespaces: NamespaceScope::own(&namespace),
                ..observation.policies[0].clone()
            });
        }
        self
    }
}

/// A policy that applies everywhere.
fn applied() -> Result<PolicyObject, PolicyError> {
    parse(
        "apiVersion: loadline.dev/v1alpha1\nkind: ClusterAllocationPolicy\nmetadata: {name: all}\nspec: {mode: Apply}\n",
    )
}

/// A decision and its check over ever more nodes in one observation, on one thread, for each container.
fn together() -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let policy = applied()?;
    let mut rows: Vec<Row> = Vec::new();
    for nodes in TOGETHER {
        let Group { cluster, state } =
            Group::new(nodes, TOGETHER_HISTORY_MINUTES, 0, &policy).in_many_namespaces(nodes);
        let (mut decisions, mut checks, mut actions) = (Vec::new(), Vec::new(), 0);
        for _ in 0..PASSES {
            let state = state.clone();
            let start = Instant::now();
            let outcome = black_box(decide(&cluster.observation, state, cluster.now));
            let each = |start: Instant| start.elapsed().as_secs_f64() * 1e6 / outcome.records.len() as f64;
            decisions.push(each(start));
            actions = outcome.plan.actions.len();
            let start = Instant::now();
            drop(black_box(check(&cluster.observation, &outcome.state, outcome.plan.clone(), cluster.now)?));
            checks.push(each(start));
        }
        for (what, mut passes) in [("decide", decisions), ("check", checks)] {
            passes.sort_unstable_by(f64::total_cmp);
            let value = passes[passes.len() / 2];
            let first = rows.iter().find(|row| row.name == format!("{what}.nodes.{}", TOGETHER[0]));
            let growth = first.map_or(String::new(), |first| {
                let slope = (value / first.value).ln() / (f64::from(nodes) / f64::from(TOGETHER[0])).ln();
                format!("; grows as nodes to the {:.2}", 1.0 + slope)
            });
            rows.push(Row {
                name: format!("{what}.nodes.{nodes}"),
                unit: "µs",
                value,
                min: passes.first().copied(),
                max: passes.last().copied(),
                note: format!("for each of {} containers, {actions} actions{growth}", cluster.containers()),
            });
        }
    }
    Ok(rows)
}

fn whole_cluster() -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let policy = applied()?;
    let group = |seed| Group::new(GROUP_NODES, HISTORY_MINUTES, seed, &policy);
    let groups: Vec<Group> = (0..GROUPS).map(group).collect();
    let mut passes: Vec<f64> = (0..PASSES).map(|_| pass(&groups)).collect();
    passes.sort_unstable_by(f64::total_cmp);
    let containers: usize = groups.iter().map(|group| group.cluster.containers()).sum();
    let before = ALLOCATED.load(Ordering::Relaxed);
    let copies: Vec<State> = groups.iter().map(|group| group.state.clone()).collect();
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    let remembered: usize = copies.iter().flat_map(|state| state.pods.values()).map(|pod| pod.len()).sum();
    let each = containers as f64 / GROUPS as f64 / f64::from(GROUP_NODES);
    Ok(vec![
        Row {
            name: "decide.pass".into(),
            unit: "s",
            value: passes[passes.len() / 2],
            min: passes.first().copied(),
            max: passes.last().copied(),
            note: format!(
                "{CONTAINERS} containers, {each:.0} a node, {THREADS} threads; {GROUPS} groups of {GROUP_NODES} nodes again and again, their state copied each time"
            ),
        },
        Row {
            name: "decide.state".into(),
            unit: "bytes",
            value: bytes as f64 / remembered as f64,
            min: None,
            max: None,
            note: format!("allocated for each of {remembered} containers, {HISTORY_MINUTES} minutes old"),
        },
    ])
}

/// Decides about as many containers as the whole cluster has, in seconds.
fn pass(groups: &[Group]) -> f64 {
    let next = AtomicUsize::new(0);
    let decided = AtomicUsize::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while decided.load(Ordering::Relaxed) < CONTAINERS as usize {
                    let Group { cluster, state } =
                        &groups[next.fetch_add(1, Ordering::Relaxed) % groups.len()];
                    let outcome = black_box(decide(&cluster.observation, state.clone(), cluster.now));
                    decided.fetch_add(outcome.records.len(), Ordering::Relaxed);
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

/// Containers of mixed size and weight, named as pods are.
fn node(n: usize, seed: u64) -> Vec<Bid<String>> {
    // splitmix64: the same node in each run.
    let mut state = seed;
    let mut next = |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    (0..n)
        .map(|i| {
            let floor = next(500);
            let weight = NonZeroU32::new(1 + next(100_000) as u32).unwrap_or(NonZeroU32::MIN);
            let uid = format!("0b5ae6e7-8fd1-4a6c-9d8e-{i:012}/main");
            Bid::new(uid, weight, MilliCpu(floor), MilliCpu(floor + next(4_000)))
        })
        .collect()
}
