//! Names of this node's pods and containers, from the API server where there is one.
//!
//! ```text
//! API server ─ list, watch ─▶ pod ─ names_of ─▶ table ─ join ─▶ identity of a cgroup
//!      └─ 401 403 410, no answer ─▶ trouble ─▶ status
//! ```
//!
//! Read-only, and of this node's pods alone (`spec.nodeName`): a [`Pods`] lists them and then watches, until it is
//! dropped. It never holds anybody up: without an API server containers go by their ids, and with one that has gone
//! away by the names that were known. What is missing, and why, is in [`Named::status`]. Only a kubeconfig that somebody
//! has named and that is of no use ends the start, before anything is measured. A failed watch begins anew
//! with a list, after 0.8 to 30 s and some jitter, as the API server's own clients do.
//!
//! A name may change from "the pod" to "the container": the kubelet tells of a container a moment after it has made
//! it. And it goes when the pod is deleted, which may be before its cgroups do: the [`join`] keeps it for as long.

mod connect;
pub mod join;
mod named;
mod pod;
mod table;
mod trouble;

use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use sampler_common::identity::{ContainerId, Names, PodUid, QosClass};
use thiserror::Error;
use tokio::task::AbortHandle;

pub use connect::{ConnectError, connect};
pub use named::{Access, Named, NamedError};
pub use pod::{Pod, PodError, PodNames, names_of};
pub use table::Table;
pub use trouble::{RESOURCE, Trouble, VERBS};

/// A list of one node's pods comes from the API server's memory; this is for one in great distress.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// The name of a node, as it may stand in a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

/// Text that is no node's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no name of a node: 1 to 253 of a-z, 0-9, '-' and '.' (spec.nodeName of this pod)")]
pub struct NodeNameError(String);

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(text: String) -> Result<Self, NodeNameError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let fits = (1..=pod::LONGEST_NAME).contains(&text.len());
        if fits && text.bytes().all(allowed) { Ok(Self(text)) } else { Err(NodeNameError(text)) }
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How things stand with the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The first list has not come yet.
    #[default]
    Starting,
    /// Names are current.
    Watching,
    /// The names that were known last are used, until it is over.
    Troubled(Trouble),
}

/// What the source of names says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How things stand.
    pub state: State,
    /// How often it has come to trouble.
    pub troubles: u64,
    /// How often all pods were listed.
    pub lists: u64,
    /// Pods that are known now.
    pub pods: usize,
    /// Containers that are known now.
    pub containers: usize,
    /// Pods and containers that were left out, because what was said of them cannot be or there was no room. One that
    /// is told of again is counted again.
    pub left_out: u64,
}

/// The names of one node's pods, kept current in the background. Dropping it ends that.
#[derive(Debug)]
pub struct Pods {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    table: RwLock<Table>,
    status: RwLock<Status>,
}

impl Pods {
    /// Starts to list and watch the pods of `node`, in the tokio runtime that this is called in.
    pub fn watch(client: Client, node: &NodeName) -> Self {
        let mut config =
            watcher::Config::default().any_semantic().fields(&format!("spec.nodeName={}", node.0));
        // Lists come from the API server's memory, as the kubelet's do: a sampler per node must not cost etcd
        // anything. It has no pages there; kube asks etcd if one is wanted.
        config.page_size = None;
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(keep_current(Api::all(client), config, Arc::clone(&shared))).abort_handle();
        Self { shared, task }
    }

    /// What is known now. The watch waits while this is held, and nobody ever waits for the API server.
    pub fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.shared.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the API server calls the container `id`, whose cgroup is that of the pod `uid`. It may know the pod alone
    /// ([`Names::container`] is `None`).
    pub fn names(&self, id: &ContainerId, uid: Option<&PodUid>) -> Option<Names> {
        self.table().names(id, uid)
    }

    /// The QoS class of the pod `uid`, for cgroup paths that do not tell it.
    pub fn qos(&self, uid: &PodUid) -> Option<QosClass> {
        self.table().qos(uid)
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        self.shared.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Never returns: whatever happens is told and tried again.
async fn keep_current(api: Api<Pod>, config: watcher::Config, shared: Arc<Shared>) {
    // Once it has not been asked for two minutes it starts with short delays again; it has no end.
    let mut delays = DefaultBackoff::default();
    loop {
        let trouble = follow(api.clone(), config.clone(), &shared).await;
        shared.tell(trouble);
        tokio::time::sleep(delays.next().unwrap_or(LIST_LIMIT)).await;
    }
}

/// Lists, then watches, until something is wrong. The watcher could go on by itself, but does not say when it has
/// succeeded again: a new one does, with its list.
async fn follow(api: Api<Pod>, config: watcher::Config, shared: &Shared) -> Trouble {
    let mut events = pin!(watcher(api, config));
    let mut listing = Some(Table::default());
    loop {
        let event = if listing.is_some() {
            match tokio::time::timeout(LIST_LIMIT, events.next()).await {
                Ok(event) => event,
                Err(_) => return Trouble::Unreachable(format!("no answer in {} s", LIST_LIMIT.as_secs())),
            }
        } else {
            // No limit: on a node where nothing happens there is nothing to tell.
            events.next().await
        };
        match event {
            Some(Ok(Event::Init)) => listing = Some(Table::default()),
            Some(Ok(Event::InitApply(pod))) => {
                if let Some(listing) = &mut listing {
                    shared.apply(&pod, listing);
                }
            }
            Some(Ok(Event::InitDone)) => {
                if let Some(listed) = listing.take() {
                    shared.replace(listed);
                }
            }
            Some(Ok(Event::Apply(pod))) => shared.change(|table| shared.apply(&pod, table)),
            Some(Ok(Event::Delete(pod))) => shared.change(|table| {
                if let Ok(names) = names_of(&pod) {
                    table.remove(&names.uid);
                }
            }),
            Some(Err(error)) => return error.into(),
            None => return Trouble::Unreachable("the watch has ended".to_owned()),
        }
    }
}

impl Shared {
    /// Takes in what one pod says.
    fn apply(&self, pod: &Pod, table: &mut Table) {
        let left_out = match names_of(pod) {
            Ok(names) => {
                let containers = u64::from(names.left_out);
                containers + u64::from(!table.apply(names))
            }
            Err(error) => {
                tracing::warn!(%error, "a pod is left out");
                1
            }
        };
        self.status.write().unwrap_or_else(PoisonError::into_inner).left_out += left_out;
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut table);
        self.count(&table);
    }

    /// A list is complete: what is not in it is gone.
    fn replace(&self, listed: Table) {
        self.change(|table| *table = listed);
        let mut status = self.status.write().unwrap_or_else(PoisonError::into_inner);
        status.lists += 1;
        if status.state != State::Watching {
            tracing::info!(pods = status.pods, "names come from the API server");
        }
        status.state = State::Watching;
    }

    fn count(&self, table: &Table) {
        let mut status = self.status.write().unwrap_or_else(PoisonError::into_inner);
        status.pods = table.pods();
        status.containers = table.containers();
    }

    fn tell(&self, trouble: Trouble) {
        let mut status = self.status.write().unwrap_or_else(PoisonError::into_inner);
        let state = State::Troubled(trouble.clone());
        // The same again is no news.
        if status.state != state {
            if trouble.needs_somebody() {
                tracing::warn!("containers go by the names known so far, or their ids: {trouble}");
            } else {
                tracing::info!("{trouble}");
            }
        }
        status.state = state;
        status.troubles += 1;
    }
}

#[cfg(test)]
mod tests;
