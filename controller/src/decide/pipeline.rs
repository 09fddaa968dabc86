//! The pipeline: from an observation to a plan, a record for every container, and what to remember.
//!
//! ```text
//! for each pod        select ─▶ remember what is new ─▶ who is sized together
//! for each container  data ─▶ target ─▶ bounds (policy, LimitRange, own limit)
//! for each namespace  quota
//! for each node       market ─▶ guards
//! for each pod        class, disruption ─▶ one action
//! for each node       order: what frees before what takes ─▶ plan
//! ```
//!
//! # Invariants
//!
//! * A function of its arguments: same observation, state and time, byte-equal plan.
//! * Every container of every pod gets exactly one record with exactly one reason.
//! * What is only shown (Recommend, dry run) changes nothing for those that are applied: it takes neither room nor quota.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::allocate::Price;
use super::autoscalers::Autoscalers;
use super::bounds;
use super::by_namespace::ByNamespace;
use super::draft::{Draft, Place, Remembered};
use super::guards::{self, Facts, refused};
use super::node::Held;
use super::observation::{ContainerKind, LimitRange, MadeBy, Observation, Pod, PodUid, Priority};
use super::plan::{ActionKind, Plan};
use super::policy::Mode;
use super::quota::Ledger;
use super::reason::Reason;
use super::record::{ContainerRef, DecisionRecord, Inputs, Step, Waits};
use super::select::{self, Chosen};
use super::size;
use super::sizes::{Resource, Sizes};
use super::state::{ContainerState, Owner, State};
use super::target::memory;
use super::together::{Known, Together};
use super::units::Timestamp;
use super::{market, order, pod};

/// What was decided.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What is to be done.
    pub plan: Plan,
    /// One for every container, by namespace, pod and name.
    pub records: Vec<DecisionRecord>,
    /// What is to be remembered.
    pub state: State,
    /// What one more core on each node would be worth; not of those whose requests do not fit.
    pub prices: BTreeMap<String, Price>,
}

/// Decides. The state goes in and comes out again: it is large, and nobody needs it twice.
pub fn decide(observation: &Observation, state: State, now: Timestamp) -> Outcome {
    let chosen = select::policies(observation, &state);
    let held = Held::by_node(observation);
    let mut state = remember(observation, state, &chosen, &held, now);
    let settings = |uid: &PodUid| Some(&chosen.get(uid)?.as_ref().ok()?.policy.history);
    let together = Together::of(&state, settings, now);
    let around = Around {
        autoscalers: Autoscalers::of(&observation.autoscalers),
        limit_ranges: ByNamespace::of(&observation.limit_ranges, |range| &range.namespace),
        held: &held,
    };

    let mut records = Vec::new();
    let mut drafts = Vec::new();
    for (uid, pod) in &observation.pods {
        for name in pod.containers.keys() {
            let place = Place { uid, pod, name };
            match consider(observation, &around, &chosen[uid], &state, &together, place, now) {
                Ok(draft) => drafts.push(draft),
                Err(record) => records.push(*record),
            }
        }
    }
    within_quotas(observation, &mut drafts);
    let prices = market::within_nodes(observation, &held, &mut drafts);
    for draft in &mut drafts {
        draft.guard();
    }
    let actions = pod::actions(observation, &state, now, &mut drafts);
    let plan = order::plan(observation, &state, now, actions, &mut drafts);

    let remembered: Vec<_> = drafts.iter().map(Draft::to_remember).collect();
    let apart = together.apart();
    records.extend(drafts.into_iter().map(Draft::finish));
    records.sort_by(|one, other| one.container.cmp(&other.container));
    state.apart = apart;
    for action in plan.actions.iter().filter(|action| action.kind == ActionKind::Recreate) {
        let Ok(Chosen { policy, .. }) = &chosen[&action.uid] else { continue };
        let made_by = state.made_by(&action.uid, &observation.pods[&action.uid]);
        let MadeBy::Workload(workload) = made_by else { continue };
        let owner = Owner { namespace: action.namespace.clone(), workload: workload.clone() };
        state.recreated.entry(owner).or_default().plan(action, policy.resize.cooldown, now);
    }
    for Remembered { uid, container, found, known_since, planned, boosted_from } in remembered {
        if let Some(of) = state.pods.get_mut(&uid).and_then(|pod| pod.get_mut(&container)) {
            of.found = Some(found);
            of.known_since = known_since;
            of.planned = planned.or(of.planned);
            of.boosted_from = boosted_from;
        }
    }
    Outcome { plan, records, state, prices }
}

/// The state with what is new in the observation. Of pods that no policy acts on nothing is remembered, of those whose policy is
/// Disabled nothing new.
fn remember(
    observation: &Observation,
    mut state: State,
    chosen: &BTreeMap<&PodUid, Result<Chosen, Reason>>,
    held: &BTreeMap<&str, Held>,
    now: Timestamp,
) -> State {
    state.recreated.values_mut().for_each(|recreation| recreation.look(observation, now));
    for (uid, pod) in &observation.pods {
        let Ok(Chosen { policy, .. }) = &chosen[uid] else { continue };
        let Some((name, node)) = pod.node.as_ref().and_then(|node| observation.nodes.get_key_value(node))
        else {
            continue;
        };
        let place = refused::Place { pod, node, held: held.get(name.as_str()).copied().unwrap_or_default() };
        let is_new = !state.pods.contains_key(uid);
        let of_pod = state.pods.entry(uid.clone()).or_default();
        match &pod.made_by {
            MadeBy::Unknown => {}
            MadeBy::Nobody => of_pod.owner = None,
            MadeBy::Workload(workload) => {
                if !of_pod.owner.as_ref().is_some_and(|owner| owner.is(&pod.namespace, workload)) {
                    of_pod.owner =
                        Some(Owner { namespace: pod.namespace.clone(), workload: workload.clone() });
                }
            }
        }
        if let Some(owner) = of_pod.owner.as_ref().filter(|_| is_new)
            && let Some(recreation) = state.recreated.get_mut(owner)
        {
            recreation.see(pod);
        }
        for (name, container) in &pod.containers {
            if container.kind == ContainerKind::Init {
                continue;
            }
            let of = of_pod.get_or_insert_with(name, || ContainerState::new(container.desired, policy, now));
            if policy.mode == Mode::Disabled {
                of.last_seen = now;
            } else {
                of.observe(&place, container, policy, now);
            }
        }
    }
    state.forget(now);
    state
}

/// A container up to its bounds, or the record of why it is not looked at any further.
fn consider<'a>(
    observation: &'a Observation,
    around: &'a Around<'a>,
    chosen: &'a Result<Chosen, Reason>,
    state: &'a State,
    together: &Together<'_>,
    place: Place<'a>,
    now: Timestamp,
) -> Result<Draft<'a>, Box<DecisionRecord>> {
    let Place { uid, pod, name } = place;
    let container = &pod.containers[name];
    let mut record = DecisionRecord {
        container: ContainerRef {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: uid.clone(),
            container: name.to_owned(),
        },
        at: now,
        node: pod.node.clone(),
        policy: None,
        overruled: Vec::new(),
        inputs: Inputs::default(),
        current: container.desired,
        target: None,
        marks: Vec::new(),
        result: container.desired,
        reason: Reason::NoPolicy,
        notes: Vec::new(),
    };
    let stop = |record: DecisionRecord, reason| Err(Box::new(DecisionRecord { reason, ..record }));
    let Chosen { id, policy, overruled } = match chosen {
        Ok(chosen) => chosen,
        Err(reason) => return stop(record, reason.clone()),
    };
    record.policy = Some((id.clone(), policy.mode));
    record.overruled.clone_from(overruled);
    if policy.mode == Mode::Disabled {
        return stop(record, Reason::Disabled);
    }
    let node = pod.node.as_ref().and_then(|node| observation.nodes.get_key_value(node));
    if let Some(reason) = select::out_of_reach(pod, node.map(|(_, node)| node), policy) {
        return stop(record, reason);
    }
    let (Some((node_name, node)), Some(of)) = (node, state.container(uid, name)) else {
        let reason = select::not_running(container).unwrap_or(Reason::NodeNotReady);
        return stop(record, reason);
    };
    let known = together.known(uid, name, of);
    let made_by = state.made_by(uid, pod);
    record.inputs = inputs(of, &known, container, policy, now);
    let facts = Facts {
        now,
        pod,
        container,
        node,
        policy,
        state: of,
        limit_ranges: around.limit_ranges.get(&pod.namespace),
        made_by,
        autoscalers: around.autoscalers.scaling(pod, made_by),
        held: around.held.get(node_name.as_str()).copied().unwrap_or_default(),
        known_for: known.age(),
        urgent: size::urgent(container, of, policy, now),
    };
    let no_data = || select::no_data(container, of, known.age(), policy, now);
    let lacks = select::not_running(container).or_else(no_data);
    let undone = guards::revert(&facts).is_some();
    if let Some(reason) = &lacks
        && !undone
        && !size::is_sized_unmeasured(container, of, policy, now)
    {
        return stop(record, reason.clone());
    }
    if policy.mode == Mode::Observe {
        return stop(record, Reason::Observed);
    }
    let size::Sized { found, marks, unknown, unmeasured } =
        size::size(container, pod.qos, of, &known, lacks.is_none(), policy, now);
    let sizes = found.sizes;
    record.marks = marks;
    record.inputs.seasonal_skill = found.seasonal_skill;
    if let Some(reason) = lacks.filter(|_| !undone && sizes == container.desired) {
        // Of one that is killed again and again, what would help says more than that it is.
        let binds = found.reasons.memory.filter(|memory| *memory == memory::Reason::LimitBinds);
        return stop(record, binds.map_or(reason, Reason::MemoryTarget));
    }
    let mut draft = Draft {
        place,
        node_name,
        facts,
        applies: policy.mode == Mode::Apply,
        dry_run: observation.settings.dry_run,
        sizes,
        guarded: sizes,
        found,
        known_since: known.since(),
        record,
        outcome: None,
    };
    draft.bound(&unknown, unmeasured);
    draft.guarded = guards::all(&draft.facts, draft.sizes);
    Ok(draft)
}

fn inputs(
    state: &ContainerState,
    known: &Known<'_>,
    container: &super::observation::Container,
    policy: &super::policy::Policy,
    now: Timestamp,
) -> Inputs {
    let latest = container.latest_by(now);
    let waits = state.signal.as_ref().map(|signal| Waits {
        demand: signal.demand,
        p99: signal.p99_wait,
        throttled: signal.throttled_share,
        objectives: policy.objectives.clone(),
    });
    Inputs {
        age: state.read_until.map(|until| super::duration::Seconds(now.seconds_since(until))),
        history: known.age(),
        whose: known.whose(),
        cores: latest.and_then(super::observation::Reading::cores),
        memory: latest.and_then(super::observation::Reading::memory),
        memory_peak: state.memory.recent_peak(now),
        seasonal_skill: None,
        waits,
    }
}

/// What is around a pod, to be looked up for each.
struct Around<'a> {
    autoscalers: Autoscalers<'a>,
    limit_ranges: ByNamespace<'a, LimitRange>,
    held: &'a BTreeMap<&'a str, Held>,
}

/// A pod's priority as a number.
pub(super) fn priority(observation: &Observation, pod: &Pod) -> i32 {
    let Priority { value, class } = &pod.priority;
    let of_class = || observation.priority_classes.get(class.as_ref()?).copied();
    value.or_else(of_class).unwrap_or_default()
}

/// The order in which what is short is given out: who is being hurt, then by priority, then by uid.
fn neediest_first(observation: &Observation, drafts: &[Draft<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|index| {
        let Draft { facts, place, .. } = &drafts[*index];
        (!facts.urgent.any(), Reverse(priority(observation, facts.pod)), place.uid, place.name)
    });
    order
}

fn within_quotas(observation: &Observation, drafts: &mut [Draft<'_>]) {
    if observation.quotas.is_empty() {
        return;
    }
    let mut ledger = Ledger::new(&observation.quotas);
    for index in neediest_first(observation, drafts) {
        let draft = &mut drafts[index];
        let Facts { pod, container, policy, .. } = draft.facts;
        let (current, held) = (draft.current(), container.held(false));
        // What the guards hold back takes no quota from others.
        let (granted, objection) = ledger.grant(pod, current, held, draft.guarded);
        if let Some(reason) = objection {
            let granted = bounds::equal_limits(pod, granted);
            let granted = match bounds::within_limits(policy, granted).pop() {
                // A limit that was not granted keeps the request below it.
                Some(_) => below_limits(granted),
                None => granted,
            };
            let cut = |resource: &Resource| !granted.same(*resource, &draft.guarded);
            let cut = Resource::ALL.into_iter().filter(cut);
            let left = cut.fold(draft.sizes, |left, resource| left.with(resource, &granted));
            draft.mark(Step::Bounds, left, reason);
            draft.guarded = guards::all(&draft.facts, left);
        }
        if draft.applies {
            ledger.take(pod, held, draft.guarded);
        }
    }
}

fn below_limits(sizes: Sizes) -> Sizes {
    Sizes {
        cpu_request: sizes.cpu_request.map(|cpu| sizes.cpu_limit.map_or(cpu, |limit| cpu.min(limit))),
        memory_request: sizes
            .memory_request
            .map(|memory| sizes.memory_limit.map_or(memory, |limit| memory.min(limit))),
        ..sizes
    }
}
