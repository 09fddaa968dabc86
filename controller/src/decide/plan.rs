//! What is to be done: resize actions in order, with nothing left to choose.
//!
//! # Invariants
//!
//! * One action per pod, with all of its containers.
//! * On a node, what frees room comes before what takes it, and nothing counts on room that is still to be freed: whichever
//!   actions are done, and in whatever order, requests do not exceed what the node has.
//! * Each action carries the uid and the version of the pod that it was decided for: to another one it does not apply.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::observation::PodUid;
use super::sizes::{Difference, Sizes};

/// Actions in the order in which they are to be done.
#[must_use = "a plan that nobody executes changes nothing"]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The actions.
    pub actions: Vec<Action>,
}

/// A change of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The pod's node.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// Precondition: the pod's uid.
    pub uid: PodUid,
    /// Precondition: the pod's version.
    pub resource_version: String,
    /// How.
    pub kind: ActionKind,
    /// What its containers get, by name: only those that change.
    pub containers: BTreeMap<String, Change>,
}

/// How a pod is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionKind {
    /// Resized in place.
    Resize,
    /// Resized in place to what its node had agreed to before.
    Revert,
    /// Evicted, to be born with what its containers get here.
    Recreate,
}

/// What one container has and gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What its spec says now.
    pub from: Sizes,
    /// What it is to say.
    pub to: Sizes,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.actions.is_empty() {
            return f.write_str("nothing is done");
        }
        for (index, action) in self.actions.iter().enumerate() {
            let Action { node, namespace, pod, kind, containers, uid: _, resource_version: _ } = action;
            let kind = match kind {
                ActionKind::Resize => "resize",
                ActionKind::Revert => "revert",
                ActionKind::Recreate => "recreate",
            };
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}. {kind} {namespace}/{pod} on {node}", index + 1)?;
            for (name, Change { from, to }) in containers {
                write!(f, "\n   {name}: {}", Difference(from, to))?;
            }
        }
        Ok(())
    }
}
