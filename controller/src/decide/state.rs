//! What is remembered from one decision to the next: histories, changes, and what came of them.
//!
//! It goes into a decision and comes out of it; nothing else keeps anything. A checkpoint is this, [stored](State::stored).
//! A container half an hour old takes some 2,100 bytes, its pod's and its name's share included (`decide.state` of `cargo
//! bench`), most of it [`History`], which is 1,544 after a week of varied use (`history.cpu`).
//!
//! # Invariants
//!
//! * A reading counts once, however often it is observed.
//! * A container that is not observed is kept for [`FORGET_AFTER`]: a short gap loses nothing. Then it is forgotten, and what
//!   it did stays with its workload for as long as [`Workloads::forget`] says, and of workloads of which nothing is left with the
//!   [`MOST_GONE`](super::history::workload::MOST_GONE) that went last.
//! * An owner that cannot be told for a while is the one that was last known.

mod stored;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::disruption::Recreation;
use super::duration::Seconds;
use super::guards::refused::{self, Place, Refused};
use super::guards::under_way;
use super::history::History;
use super::history::memory::MemoryHistory;
use super::history::workload::Workloads;
use super::observation::{Container, MadeBy, Node, Pod, PodUid, Reading, ResizeState, Workload};
use super::policy::Policy;
use super::size::Found;
use super::sizes::Sizes;
use super::target::{Calm, Changes, Signal};
use super::units::Timestamp;

/// For so long a container that is not there any more is remembered.
pub const FORGET_AFTER: Seconds = Seconds(3600);
const HOUR_SECONDS: u64 = 3600;
/// Whoever was not looked at for longer was not watched: who changed it then cannot be told.
const AWAY: Seconds = Seconds(600);
/// More changes than this within the hour are not told apart.
const MOST_CHANGES: usize = 64;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Of each pod.
    pub pods: BTreeMap<PodUid, PodState>,
    /// Of replicas that have been forgotten, by what they were to their workload.
    pub gone: Workloads<Role>,
    /// Whose replicas are sized apart ([`Replicas::Apart`](super::target::Replicas)).
    pub apart: BTreeSet<Role>,
    /// What came of evicting pods to be made anew, by workload.
    pub recreated: BTreeMap<Owner, Recreation>,
}

/// A workload in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The namespace.
    pub namespace: String,
    /// The workload.
    pub workload: Workload,
}

impl Owner {
    /// Whether it is this workload.
    pub fn is(&self, namespace: &str, workload: &Workload) -> bool {
        self.namespace == namespace && self.workload == *workload
    }
}

/// What a container is to its workload: all containers with the same are its replicas.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Role {
    /// Whose it is.
    pub owner: Owner,
    /// The container's name.
    pub container: String,
}

impl State {
    /// What is remembered of a container.
    pub fn container(&self, uid: &PodUid, name: &str) -> Option<&ContainerState> {
        self.pods.get(uid)?.get(name)
    }

    /// Who made a pod: as is observed, or, where that cannot be told, as was last known.
    pub fn made_by<'a>(&'a self, uid: &PodUid, pod: &'a Pod) -> MadeBy<&'a Workload> {
        let owner = || self.pods.get(uid)?.owner.as_ref();
        match pod.made_by.as_ref() {
            MadeBy::Unknown => owner().map_or(MadeBy::Unknown, |owner| MadeBy::Workload(&owner.workload)),
            observed => observed,
        }
    }

    /// Forgets those that have not been there for long. What they did stays with their workload, until that has not been
    /// there for long, either.
    pub fn forget(&mut self, now: Timestamp) {
        let Self { pods, gone, apart: _, recreated } = self;
        recreated.retain(|_, recreation| !recreation.is_old(now));
        pods.retain(|_, PodState { owner, containers }| {
            let role =
                |container: &str| Some(Role { owner: owner.clone()?, container: container.to_owned() });
            containers.retain(|(name, state)| {
                let stays = now.seconds_since(state.last_seen) <= FORGET_AFTER.0;
                let measured = state.history.latest().is_some();
                if let Some(role) = role(name).filter(|_| !stays && measured) {
                    gone.retire(role, &state.history, &state.memory, state.last_seen);
                } else if let Some(role) = role(name).filter(|_| stays && !gone.is_empty()) {
                    gone.seen(&role, state.last_seen);
                }
                stays
            });
            !containers.is_empty()
        });
        gone.forget(now);
    }
}

/// What is remembered of a pod's containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodState {
    /// Who made it, as was last known: an owner that cannot be told for a while is not another one.
    pub owner: Option<Owner>,
    /// In the order of their names. A map would take room for eleven where there are one or two.
    containers: Vec<(String, ContainerState)>,
}

impl PodState {
    /// What is remembered of the container of this name.
    pub fn get(&self, name: &str) -> Option<&ContainerState> {
        Some(&self.containers[self.place(name).ok()?].1)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut ContainerState> {
        let place = self.place(name).ok()?;
        Some(&mut self.containers[place].1)
    }

    /// What is remembered of the container of this name, or else `new`, from now on.
    pub fn get_or_insert_with(
        &mut self,
        name: &str,
        new: impl FnOnce() -> ContainerState,
    ) -> &mut ContainerState {
        let place = self.place(name).unwrap_or_else(|place| {
            // No more room than is needed: each is more than a kilobyte.
            self.containers.reserve_exact(1);
            self.containers.insert(place, (name.to_owned(), new()));
            place
        });
        &mut self.containers[place].1
    }

    /// Its containers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ContainerState)> {
        self.containers.iter().map(|(name, state)| (name.as_str(), state))
    }

    /// Of how many containers something is remembered.
    pub fn len(&self) -> usize {
        self.containers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.containers.binary_search_by(|(other, _)| other.as_str().cmp(name))
    }
}

impl FromIterator<(String, ContainerState)> for PodState {
    fn from_iter<I: IntoIterator<Item = (String, ContainerState)>>(containers: I) -> Self {
        let containers = BTreeMap::from_iter(containers);
        Self { owner: None, containers: containers.into_iter().collect() }
    }
}

/// What is remembered of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    /// CPU that it used, or would have.
    pub history: History,
    /// Memory that it used.
    pub memory: MemoryHistory,
    /// For how long there has been room.
    pub calm: Calm,
    /// How often its CPU has changed lately.
    pub changes: Changes,
    /// When it changed within the last hour, the oldest first.
    pub changed: Vec<Timestamp>,
    /// When it last changed.
    pub last_change: Option<Timestamp>,
    /// What it had when it was first seen: what its weight on its node goes by, and what is boosted while it starts. After a cold
    /// start that is what it was resized to: a node that is short then gives more of what is left to those that had
    /// got more. A checkpoint keeps it.
    pub started_with: Sizes,
    /// What it had when it was last seen.
    pub seen: Sizes,
    /// What it was last planned to get.
    pub planned: Option<Sizes>,
    /// Whether its last change was not ours.
    pub changed_by_other: bool,
    /// What was refused.
    pub refused: Option<Box<Refused>>,
    /// What it should have, as was last found.
    pub found: Option<Found>,
    /// When it was first there.
    pub first_seen: Timestamp,
    /// When it was last there.
    pub last_seen: Timestamp,
    /// What it had before it was given more to start with; `None` once it has what it should have without.
    pub boosted_from: Option<Box<Sizes>>,
    /// When the last reading that counted ended.
    pub read_until: Option<Timestamp>,
    /// Since when it, or the replicas that it is sized by, have been measured; `None` before a reading counted.
    pub known_since: Option<Timestamp>,
    /// What the last window said.
    pub signal: Option<Signal>,
}

impl ContainerState {
    /// Nothing is known yet of a container that has so much.
    pub fn new(has: Sizes, policy: &Policy, now: Timestamp) -> Self {
        Self {
            history: History::new(now, policy.history.window),
            memory: MemoryHistory::new(now, policy.history.window),
            calm: Calm::default(),
            changes: Changes::default(),
            changed: Vec::new(),
            last_change: None,
            started_with: has,
            seen: has,
            planned: None,
            changed_by_other: false,
            refused: None,
            found: None,
            first_seen: now,
            last_seen: now,
            boosted_from: None,
            read_until: None,
            known_since: None,
            signal: None,
        }
    }

    /// What we last asked for it, where that is not what its node has agreed to: what its spec says, or, where that is what the
    /// node has agreed to, what was planned and the API server did not let into the spec.
    fn ask<'a>(&self, place: &Place<'a>, container: &Container) -> Option<refused::Ask<'a>> {
        let (desired, has) = (container.desired, under_way::agreed(container)?);
        if desired != has {
            let at = self.last_change;
            return self.may_be_ours().then_some(refused::Ask { place: *place, asked: desired, has, at });
        }
        let asked = self.planned.filter(|planned| *planned != has && !self.changed_by_other)?;
        let ResizeState::Infeasible { since } = place.pod.resize else { return None };
        Some(refused::Ask { place: *place, asked, has, at: Some(since) })
    }

    /// Whether what its spec asks for was asked for by us, as far as is known: after a cold start nobody knows, and it is taken
    /// for ours. What was planned last says nothing of that: it may never have come to be.
    pub fn may_be_ours(&self) -> bool {
        !self.changed_by_other
    }

    /// For how long it, or the replicas that it is sized by, had been measured at its last reading.
    pub fn known_for(&self) -> Seconds {
        let known = self.history.latest().zip(self.known_since);
        Seconds(known.map_or(0, |(latest, since)| latest.seconds_since(since)))
    }

    /// Takes note of what is observed of the container: what it has, and the readings that are new.
    pub fn observe(&mut self, place: &Place<'_>, container: &Container, policy: &Policy, now: Timestamp) {
        let before = self.seen;
        let watched = now.seconds_since(self.last_seen) <= AWAY.0;
        self.last_seen = now;
        self.history.set_window(policy.history.window);
        self.memory.set_window(policy.history.window);
        self.changed.retain(|at| now.seconds_since(*at) < HOUR_SECONDS);
        if container.desired != self.seen {
            if self.changed.len() < MOST_CHANGES {
                self.changed.push(now);
            }
            self.last_change = Some(now);
            if container.desired.cpu_request != self.seen.cpu_request {
                self.changes.add(now);
            }
            let ours = self.planned == Some(container.desired);
            self.changed_by_other = watched && !ours;
            // What changed while nobody looked may have been ours, too: it was planned after what is remembered.
            self.planned = self.planned.filter(|_| watched || ours);
            if self.changed_by_other {
                (self.refused, self.boosted_from) = (None, None);
            }
            self.seen = container.desired;
            self.found = None;
        }
        if under_way::is_over(place.pod.resize, policy, now)
            && let Some(ask) = self.ask(place, container)
        {
            self.refused.get_or_insert_default().note(&ask, now);
        }
        self.refused.take_if(|refused| !refused.settle(container));
        for reading in &container.readings {
            if self.read_until.is_none_or(|until| reading.until() > until) && reading.is_by(now) {
                self.read_until = Some(reading.until());
                self.read(reading, place.node, policy);
            }
        }
        // Of a kill before it was first seen nobody knows what it had then.
        if let Some(at) = container.oom_killed.filter(|at| *at >= self.first_seen) {
            let used = || before.memory().max(self.memory.recent_peak(at).unwrap_or_default());
            self.memory.killed(at, before.memory_limit.unwrap_or_else(used), &policy.history);
        }
    }

    fn read(&mut self, reading: &Reading, node: &Node, policy: &Policy) {
        let until = reading.until();
        let signal = reading.window().and_then(|window| Signal::of(window, node.cpus, &policy.objectives));
        if let Some(cores) = signal.as_ref().map(Signal::remembered).or_else(|| reading.cores()) {
            self.history.observe(until, cores);
        }
        if let Some(memory) = reading.memory() {
            self.memory.observe(until, memory);
        }
        self.signal = signal.map(|mut signal| {
            self.calm.tell(&mut signal, &policy.objectives, until);
            signal
        });
    }
}
