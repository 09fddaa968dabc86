//! Who may be disrupted: as many as each PodDisruptionBudget allows, one of a workload at a time, the next only when all others of
//! it answer; and nobody is evicted who would be missed.
//!
//! A pod that is evicted to be made anew is born with its template's sizes, unless something gives it others at birth. Where
//! nothing does, evicting the next one is no use: a workload whose pods come back as they were is left alone for a time that
//! doubles each time, from [`FIRST`] to [`LONGEST`] ([`Recreation`]).
//!
//! An eviction counts once its pod is seen to go. One that is planned and not seen, since the plan was not executed or the API server
//! said no, is forgotten after [`FIRST`], and may be planned again.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::by_namespace::ByNamespace;
use super::duration::Seconds;
use super::guards::refused::{FIRST, LONGEST};
use super::observation::{DisruptionBudget, MadeBy, Observation, Phase, Pod, PodUid, Workload};
use super::plan::{Action, Change};
use super::reason::{ByOwner, Reason};
use super::sizes::Resource;
use super::state::{Owner, State};
use super::units::Timestamp;

/// What came of evicting pods of a workload to be made anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recreation {
    /// The eviction that was planned, and has not been seen to happen.
    planned: Option<Planned>,
    /// The last one that happened.
    last: Option<Evicted>,
}

/// An eviction that was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Planned {
    /// Of which pod.
    uid: PodUid,
    /// When.
    at: Timestamp,
    /// Between two evictions of its workload that are of use.
    cooldown: Seconds,
    /// What its containers had and were to get.
    changes: BTreeMap<String, Change>,
}

/// An eviction that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Evicted {
    planned: Planned,
    /// How often in a row that was to no avail, this time included, as far as is known.
    times: u32,
    /// What the next pod had when it was first seen.
    born: Option<Born>,
}

/// What a pod had when it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Born {
    /// Nearer to what was planned than to what the one before it had.
    AsPlanned,
    /// As the one before it.
    AsBefore,
}

impl Recreation {
    /// A pod is to be evicted.
    pub(super) fn plan(&mut self, action: &Action, cooldown: Seconds, now: Timestamp) {
        let (uid, changes) = (action.uid.clone(), action.containers.clone());
        self.planned = Some(Planned { uid, at: now, cooldown, changes });
    }

    /// Whether what was planned has happened: its pod goes or is gone.
    pub(super) fn look(&mut self, observation: &Observation, now: Timestamp) {
        let Some(planned) = &self.planned else { return };
        let over = |pod: &Pod| pod.terminating || matches!(pod.phase, Phase::Succeeded | Phase::Failed);
        if observation.pods.get(&planned.uid).is_some_and(|pod| !over(pod)) {
            self.planned.take_if(|planned| now.seconds_since(planned.at) >= FIRST.0);
        } else if let Some(planned) = self.planned.take() {
            let in_vain = self.last.as_ref().filter(|last| last.born != Some(Born::AsPlanned));
            let times = in_vain.map_or(1, |last| last.times.saturating_add(1));
            self.last = Some(Evicted { planned, times, born: None });
        }
    }

    /// Takes note of a pod of the workload that was not there before.
    pub(super) fn see(&mut self, pod: &Pod) {
        if let Some(last) = &mut self.last {
            last.see(pod);
        }
    }

    /// Whether it says nothing about now any more.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        let old = |last: &Evicted| now.seconds_since(last.planned.at) > 2 * LONGEST.0;
        self.planned.is_none() && self.last.as_ref().is_none_or(old)
    }

    /// Why no other pod of the workload is evicted now, if none is.
    fn refusal(&self, now: Timestamp) -> Option<Reason> {
        let pending = self.planned.as_ref().and_then(|planned| {
            let left = FIRST.0.saturating_sub(now.seconds_since(planned.at));
            (left > 0).then_some(Reason::EvictionPending(Seconds(left)))
        });
        pending.or_else(|| self.last.as_ref()?.refusal(now))
    }
}

impl Evicted {
    fn see(&mut self, pod: &Pod) {
        let nearer =
            |from: u64, to: u64, has: u64| (from != to).then_some(has.abs_diff(to) < has.abs_diff(from));
        let mut moves = Vec::new();
        for (name, Change { from, to }) in &self.planned.changes {
            let Some(container) = pod.containers.get(name) else { continue };
            for resource in Resource::ALL {
                let [from, to, has] = [from, to, &container.desired].map(|sizes| sizes.pair(resource));
                let limit = |pair: (Option<u64>, Option<u64>)| pair.1.unwrap_or(u64::MAX);
                moves.extend(nearer(from.0.unwrap_or(0), to.0.unwrap_or(0), has.0.unwrap_or(0)));
                moves.extend(nearer(limit(from), limit(to), limit(has)));
            }
        }
        let as_planned = !moves.is_empty() && moves.iter().all(|nearer| *nearer);
        self.born = Some(if as_planned { Born::AsPlanned } else { Born::AsBefore });
    }

    fn refusal(&self, now: Timestamp) -> Option<Reason> {
        let Planned { at, cooldown, .. } = self.planned;
        let doubled = (FIRST.0 << (self.times.max(1) - 1).min(16)).min(LONGEST.0);
        let (length, reason): (_, fn(Seconds) -> Reason) = match self.born {
            Some(Born::AsPlanned) => (cooldown.0, Reason::RecreatedLately),
            Some(Born::AsBefore) => (doubled, Reason::RecreatedInVain),
            None => (doubled, Reason::RecreatedLately),
        };
        let left = length.saturating_sub(now.seconds_since(at));
        (left > 0).then(|| reason(Seconds(left)))
    }
}

/// What a change does to who is changed, beside changing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Disrupts {
    /// A container is started again.
    Restart,
    /// The pod is evicted.
    Eviction,
}

impl fmt::Display for Disrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "changing it restarts it",
            Self::Eviction => "changing it evicts its pod",
        })
    }
}

/// What a plan has disrupted so far.
pub(super) struct Disruption<'a> {
    observation: &'a Observation,
    state: &'a State,
    now: Timestamp,
    budgets: ByNamespace<'a, DisruptionBudget>,
    /// Of each budget, by its namespace and name.
    taken: BTreeMap<(&'a str, &'a str), u32>,
    workloads: BTreeSet<(&'a str, &'a Workload)>,
    /// Only looked at where something would be disrupted.
    pods: OnceCell<Pods<'a>>,
}

/// How many pods of each workload do their work.
struct Pods<'a> {
    by_workload: BTreeMap<(&'a str, &'a Workload), Replicas>,
    /// Namespaces in which a pod does not answer that may be of any workload there: nobody knows who made it.
    unknown_away: BTreeSet<&'a str>,
}

/// The pods of a workload, but those that have ended.
#[derive(Clone, Copy, Default)]
struct Replicas {
    answering: usize,
    away: usize,
}

impl<'a> Pods<'a> {
    fn in_sight(observation: &'a Observation, state: &'a State) -> Self {
        let mut pods = Self { by_workload: BTreeMap::new(), unknown_away: BTreeSet::new() };
        let over = |pod: &Pod| matches!(pod.phase, Phase::Succeeded | Phase::Failed);
        for (uid, pod) in observation.pods.iter().filter(|(_, pod)| !over(pod)) {
            let namespace = pod.namespace.as_str();
            match state.made_by(uid, pod) {
                MadeBy::Workload(workload) => {
                    let replicas = pods.by_workload.entry((namespace, workload)).or_default();
                    let of = if answers(pod) { &mut replicas.answering } else { &mut replicas.away };
                    *of += 1;
                }
                MadeBy::Unknown if !answers(pod) => drop(pods.unknown_away.insert(namespace)),
                MadeBy::Unknown | MadeBy::Nobody => {}
            }
        }
        pods
    }

    /// Those of a pod's workload, itself included.
    fn of(&self, pod: &Pod, workload: &Workload) -> Replicas {
        self.by_workload.get(&(pod.namespace.as_str(), workload)).copied().unwrap_or_default()
    }

    /// Whether beside a pod that answers another one of its workload does not, or one that may be: it may be the one that was
    /// disrupted last.
    fn another_is_away(&self, pod: &Pod, workload: &Workload) -> bool {
        self.of(pod, workload).away > 0 || self.unknown_away.contains(pod.namespace.as_str())
    }
}

impl<'a> Disruption<'a> {
    /// Nobody yet.
    pub(super) fn new(observation: &'a Observation, state: &'a State, now: Timestamp) -> Self {
        let budgets = ByNamespace::of(&observation.disruption_budgets, |budget| &budget.namespace);
        let (taken, workloads) = (BTreeMap::new(), BTreeSet::new());
        Self { observation, state, now, budgets, taken, workloads, pods: OnceCell::new() }
    }

    /// Why this pod may not be disrupted, if it may not.
    pub(super) fn refusal(&self, uid: &PodUid, pod: &'a Pod, disrupts: Disrupts) -> Option<Reason> {
        let workload = match self.state.made_by(uid, pod) {
            MadeBy::Workload(workload) => Some(workload),
            MadeBy::Nobody => None,
            MadeBy::Unknown => return Some(Reason::OwnerUnknown(ByOwner::Disruption(disrupts))),
        };
        if disrupts == Disrupts::Eviction {
            let Some(workload) = workload else { return Some(Reason::NoOwner) };
            let owner = Owner { namespace: pod.namespace.clone(), workload: workload.clone() };
            let last = self.state.recreated.get(&owner);
            if let Some(reason) = last.and_then(|last| last.refusal(self.now)) {
                return Some(reason);
            }
            if answers(pod) && self.pods().of(pod, workload).answering <= 1 {
                return Some(Reason::OnlyReplica);
            }
        }
        for budget in self.budgets(pod) {
            if budget.disruptions_allowed == 0 {
                return Some(Reason::DisruptionBudget(disrupts, budget.name.clone()));
            }
            let taken = self.taken.get(&(budget.namespace.as_str(), budget.name.as_str()));
            if taken.is_some_and(|taken| *taken >= budget.disruptions_allowed) {
                return Some(Reason::DisruptionTaken(disrupts, budget.name.clone()));
            }
        }
        let workload = workload?;
        let under_way = self.workloads.contains(&(pod.namespace.as_str(), workload))
            || answers(pod) && self.pods().another_is_away(pod, workload);
        under_way.then_some(Reason::WorkloadDisrupted(disrupts))
    }

    /// This pod is disrupted.
    pub(super) fn take(&mut self, uid: &PodUid, pod: &'a Pod) {
        for budget in self.budgets(pod).collect::<Vec<_>>() {
            *self.taken.entry((&budget.namespace, &budget.name)).or_default() += 1;
        }
        if let MadeBy::Workload(workload) = self.state.made_by(uid, pod) {
            self.workloads.insert((&pod.namespace, workload));
        }
    }

    /// The budgets that count a pod.
    fn budgets(&self, pod: &Pod) -> impl Iterator<Item = &'a DisruptionBudget> {
        let of_namespace = self.budgets.get(&pod.namespace).iter().copied();
        of_namespace.filter(|budget| budget.selector.matches(&pod.labels))
    }

    fn pods(&self) -> &Pods<'a> {
        self.pods.get_or_init(|| Pods::in_sight(self.observation, self.state))
    }
}

/// Whether a pod does its work, so that it would be missed.
fn answers(pod: &Pod) -> bool {
    pod.ready && !pod.terminating && pod.phase == Phase::Running
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::decide::sizes::Sizes;
    use crate::decide::units::MilliCpu;

    /// One that happened, after which a pod was born, and one that is to happen.
    pub(in crate::decide) fn all_of_a_recreation(at: Timestamp) -> Recreation {
        let sizes = |cpu| Sizes { cpu_request: Some(MilliCpu(cpu)), ..Sizes::default() };
        let change = Change { from: sizes(500), to: sizes(900) };
        let planned = |uid: &str| Planned {
            uid: PodUid(uid.into()),
            at,
            cooldown: Seconds(300),
            changes: BTreeMap::from([("app".to_owned(), change)]),
        };
        let last = Evicted { planned: planned("uid-web-0"), times: 1, born: Some(Born::AsPlanned) };
        Recreation { planned: Some(planned("uid-web-1")), last: Some(last) }
    }
}
