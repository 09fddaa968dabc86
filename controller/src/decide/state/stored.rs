//! A [`State`] as a checkpoint, and back: an entry for each pod and each workload, so that damage costs one of them.

use serde::{Deserialize, Serialize};

use super::{Owner, PodState, Role, State};
use crate::decide::disruption::Recreation;
use crate::decide::history::checkpoint::{self, CheckpointError, Loss, Restored, WriteError};
use crate::decide::history::workload::Gone;
use crate::decide::observation::PodUid;

/// What a line holds: borrowed to be written, owned when read.
#[derive(Serialize, Deserialize)]
enum Entry<Uid, Pod, Role, Gone, Owner, Recreation> {
    Pod(Uid, Pod),
    Gone(Role, Gone),
    Apart(Role),
    Recreated(Owner, Recreation),
}

type Stored = Entry<PodUid, PodState, Role, Gone, Owner, Recreation>;

impl State {
    /// The text of a checkpoint of it.
    ///
    /// # Errors
    ///
    /// Something cannot be written as JSON.
    pub fn stored(&self) -> Result<String, WriteError> {
        let Self { pods, gone, apart, recreated } = self;
        let pods = pods.iter().map(|(uid, pod)| Entry::Pod(uid, pod));
        let gone = gone.iter().map(|(role, gone)| Entry::Gone(role, gone));
        let recreated = recreated.iter().map(|(owner, recreation)| Entry::Recreated(owner, recreation));
        checkpoint::write(pods.chain(gone).chain(apart.iter().map(Entry::Apart)).chain(recreated))
    }

    /// What a checkpoint holds, and what is missing of it.
    ///
    /// # Errors
    ///
    /// It is no checkpoint, or of another version.
    pub fn restored(text: &[u8]) -> Result<(Self, Vec<Loss>), CheckpointError> {
        let Restored { entries, lost } = checkpoint::read::<Stored>(text)?;
        let mut state = Self::default();
        for entry in entries {
            match entry {
                Entry::Pod(uid, pod) => drop(state.pods.insert(uid, pod)),
                Entry::Gone(role, gone) => state.gone.insert(role, gone),
                Entry::Apart(role) => drop(state.apart.insert(role)),
                Entry::Recreated(owner, recreation) => drop(state.recreated.insert(owner, recreation)),
            }
        }
        Ok((state, lost))
    }
}

#[cfg(test)]
mod tests;
