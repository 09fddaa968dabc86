//! What gives the containers of a snapshot their names: a thread that keeps them current, and the join.
//!
//! ```text
//! Access::open ─▶ privileges are given up ─▶ Named::start ─▶ name, name, name …
//! files are read   no thread has any          a thread asks
//! ```
//!
//! What says how to reach the API server may be for root alone, so it is read while there are privileges. Threads are
//! started when there are none any more: each has its own.

use std::io;
use std::time::{Duration, Instant};

use kube::Client;
use sampler_common::snapshot::Snapshot;
use thiserror::Error;
use tokio::sync::oneshot;

use super::join::Join;
use super::{ConnectError, NodeName, Pods, State, Status, Trouble, connect};

/// How long the first names are waited for.
const FIRST_NAMES: Duration = Duration::from_secs(2);

/// Why nobody is asked for names.
#[derive(Debug, Error)]
pub enum NamedError {
    /// What somebody has named says nothing of use of an API server.
    #[error("cannot ask the API server for the names of this node's pods")]
    Connect(#[from] ConnectError),
    /// No thread for it.
    #[error("cannot start a thread to ask the API server")]
    Thread(#[source] io::Error),
}

/// How the API server is reached, if it can be.
pub struct Access {
    /// What the client runs in, which no thread drives yet.
    runtime: tokio::runtime::Runtime,
    client: Result<Client, Trouble>,
}

impl Access {
    /// Reads what says how to reach the API server, and asks nobody. Starts no thread. Not to be called within a tokio
    /// runtime: it has its own.
    ///
    /// # Errors
    ///
    /// [`NamedError`]: somebody has named a kubeconfig that is of no use. That there is no API server is none, nor that what
    /// was found by itself is of no use: containers go by their ids then, and [`Named::status`] says so.
    pub fn open() -> Result<Self, NamedError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NamedError::Thread)?;
        let client = match runtime.block_on(connect(None)) {
            Ok(Some(client)) => Ok(client),
            Ok(None) => Err(Trouble::unconfigured()),
            Err(error) if error.is_of_what_was_named() => return Err(error.into()),
            Err(error) => Err(Trouble::unusable(&error)),
        };
        Ok(Self { runtime, client })
    }
}

/// The source of names, and the names that it has given.
#[derive(Debug)]
pub struct Named {
    /// Why there is nobody to ask, if there is not.
    pods: Result<Watched, Status>,
    join: Join,
}

/// Pods, and what keeps them current: dropping it lets the thread end, which is not waited for. It may wait for a name
/// server.
#[derive(Debug)]
struct Watched {
    pods: Pods,
    _stop: oneshot::Sender<()>,
}

impl Named {
    /// Asks the API server for the names of this node's pods from now on, and waits a moment for the first ones.
    ///
    /// # Errors
    ///
    /// [`NamedError::Thread`]. That the API server does not answer is none: see [`Self::status`].
    pub fn start(access: Access, node: &NodeName) -> Result<Self, NamedError> {
        let Access { runtime, client } = access;
        let pods = match client {
            Ok(client) => Ok(watch(runtime, client, node)?),
            Err(trouble) => {
                tracing::warn!("containers go by their ids: {trouble}");
                Err(Status { state: State::Troubled(trouble), troubles: 1, ..Status::default() })
            }
        };
        Ok(Self { pods, join: Join::default() })
    }

    /// Names the containers of a snapshot. Never waits for the API server.
    pub fn name(&mut self, snapshot: &mut Snapshot) {
        if let Ok(Watched { pods, .. }) = &self.pods {
            self.join.name(snapshot, &pods.table());
        }
    }

    /// How things stand with the API server.
    pub fn status(&self) -> Status {
        match &self.pods {
            Ok(Watched { pods, .. }) => pods.status(),
            Err(status) => status.clone(),
        }
    }
}

fn watch(runtime: tokio::runtime::Runtime, client: Client, node: &NodeName) -> Result<Watched, NamedError> {
    let pods = {
        let _inside = runtime.enter();
        Pods::watch(client, node)
    };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("names".to_owned());
    let started = thread.spawn(move || {
        // An error says that the other end is dropped, which is how it is told to stop.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    });
    started.map_err(NamedError::Thread)?;
    // So that what is there has its names from the beginning, if they come soon.
    let until = Instant::now() + FIRST_NAMES;
    while pods.status().state == State::Starting && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Watched { pods, _stop: stop })
}

#[cfg(test)]
mod tests {
    use sampler_common::snapshot::CgroupId;

    use super::*;

    #[test]
    fn without_an_api_server_containers_go_by_their_ids_and_it_is_said() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let access = Access { runtime, client: Err(Trouble::unconfigured()) };
        let node = NodeName::try_from("node-1".to_owned()).unwrap();
        let mut named = Named::start(access, &node).unwrap();
        let mut snapshot = Snapshot::default();
        snapshot.cgroups.entry(CgroupId(7)).or_default();
        let before = snapshot.clone();
        named.name(&mut snapshot);
        assert_eq!(snapshot, before);
        let status = named.status();
        assert_eq!((status.state, status.troubles), (State::Troubled(Trouble::unconfigured()), 1));
    }
}
