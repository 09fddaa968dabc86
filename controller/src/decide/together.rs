//! By what a container is sized: by what it did itself, or by what the replicas of its workload did together.
//!
//! Replicas are sized together until they show that they differ ([`Replicas`]), and a new one is sized by the others until
//! enough is known of it: it is not cold. Those that are gone count as well. Nothing is copied into a container's own
//! history, so that nothing counts twice.
//!
//! # Invariants
//!
//! * A container without replicas, living or gone, or of unknown owner is sized by what it did itself.
//! * Whatever the others did, a container moves only on a fresh reading of its own ([`super::select::no_data`]).

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::duration::Seconds;
use super::history::History;
use super::history::memory::MemoryHistory;
use super::history::workload::{Remembered, Workloads};
use super::observation::PodUid;
use super::policy::HistorySettings;
use super::record::Whose;
use super::state::{ContainerState, Owner, Role, State};
use super::target::Replicas;
use super::target::replicas::is_known;
use super::units::Timestamp;

/// The replicas of each workload, by owner and container.
#[derive(Debug)]
pub struct Together<'a> {
    state: &'a State,
    groups: BTreeMap<(&'a Owner, &'a str), Group<'a>>,
}

/// Containers of one name of one workload.
#[derive(Debug)]
struct Group<'a> {
    replicas: Vec<&'a ContainerState>,
    role: Role,
    /// Some are gone.
    lost: bool,
    sized: Replicas,
    /// As the policy of the first that is there has it; `None` where none is.
    settings: Option<&'a HistorySettings>,
    merged: OnceCell<Option<Remembered>>,
}

impl Group<'_> {
    fn new(state: &State, owner: &Owner, container: &str) -> Self {
        let role = Role { owner: owner.clone(), container: container.to_owned() };
        let sized = if state.apart.contains(&role) { Replicas::Apart } else { Replicas::Together };
        let lost = state.gone.get(&role).is_some();
        Self { replicas: Vec::new(), role, lost, sized, settings: None, merged: OnceCell::new() }
    }
}

impl<'a> Together<'a> {
    /// Of what is remembered; `settings` are those of the pods that are there.
    pub fn of(
        state: &'a State,
        settings: impl Fn(&PodUid) -> Option<&'a HistorySettings>,
        now: Timestamp,
    ) -> Self {
        let mut groups: BTreeMap<_, Group<'_>> = BTreeMap::new();
        for (uid, pod) in &state.pods {
            let Some(owner) = &pod.owner else { continue };
            for (name, container) in pod.iter() {
                let group = groups.entry((owner, name)).or_insert_with(|| Group::new(state, owner, name));
                group.replicas.push(container);
                group.settings = group.settings.or_else(|| settings(uid));
            }
        }
        for group in groups.values_mut() {
            // Only where a slot of somebody's history has ended, or somebody is new, can that be otherwise.
            let Some(settings) = group.settings else { continue };
            let is_due = |of: &&ContainerState| {
                of.found.as_ref().is_none_or(|found| found.is_outdated(&of.history, settings, now))
            };
            let replicas = &group.replicas;
            if replicas.len() > 1 && replicas.iter().any(is_due) {
                let histories = replicas.iter().map(|of| &of.history);
                group.sized = group.sized.after(histories, now, settings).0;
            }
        }
        Self { state, groups }
    }

    /// What is known of a container.
    pub fn known<'b>(&'b self, uid: &PodUid, name: &'b str, own: &'b ContainerState) -> Known<'b> {
        let owner = self.state.pods.get(uid).and_then(|pod| pod.owner.as_ref());
        let group = owner.and_then(|owner| self.groups.get(&(owner, name)));
        let shared = |group: &&Group<'_>| group.replicas.len() > 1 || group.lost;
        let told_apart = |group: &Group<'_>| {
            group.sized == Replicas::Apart
                && group.settings.is_some_and(|settings| is_known(&own.history, settings))
        };
        let group = group.filter(shared).filter(|group| !told_apart(group));
        Known { own, group, gone: &self.state.gone }
    }

    /// Whose replicas are sized apart, to be remembered: also of those of whom none is left but what they did.
    pub fn apart(&self) -> BTreeSet<Role> {
        let living = self.groups.values().filter(|group| group.sized == Replicas::Apart);
        let mut apart: BTreeSet<_> = living.map(|group| group.role.clone()).collect();
        let gone = |role: &&Role| {
            !self.groups.contains_key(&(&role.owner, role.container.as_str()))
                && self.state.gone.get(role).is_some()
        };
        apart.extend(self.state.apart.iter().filter(gone).cloned());
        apart
    }
}

/// What is known of a container.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    own: &'a ContainerState,
    group: Option<&'a Group<'a>>,
    gone: &'a Workloads<Role>,
}

impl<'a> Known<'a> {
    /// Whose history it is.
    pub fn whose(&self) -> Whose {
        if self.group.is_some() { Whose::Workload } else { Whose::Own }
    }

    /// Since when there have been samples.
    pub fn since(&self) -> Option<Timestamp> {
        let own = self.own.history.since();
        let Some(group) = self.group else { return own };
        let living = group.replicas.iter().filter_map(|of| of.history.since());
        let gone = self.gone.get(&group.role).and_then(|gone| gone.cpu.since());
        living.chain(gone).min()
    }

    /// For how long it had been measured when its own last reading was taken: none of its own is none.
    pub fn age(&self) -> Seconds {
        let age = self.own.history.latest().zip(self.since());
        Seconds(age.map_or(0, |(latest, since)| latest.seconds_since(since)))
    }

    /// CPU.
    pub fn cpu(&self) -> &'a History {
        self.merged().map_or(&self.own.history, |merged| &merged.cpu)
    }

    /// Memory.
    pub fn memory(&self) -> &'a MemoryHistory {
        self.merged().map_or(&self.own.memory, |merged| &merged.memory)
    }

    /// Of all together, as if one had counted for all: merged when it is first asked for, which is once in five minutes.
    fn merged(&self) -> Option<&'a Remembered> {
        let Group { replicas, role, merged, .. } = self.group?;
        let living = || replicas.iter().map(|of| (&of.history, &of.memory));
        merged.get_or_init(|| self.gone.together(role, living())).as_ref()
    }
}
