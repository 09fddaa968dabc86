//! What gives the containers of a snapshot their names: a thread that keeps them current, and the join.

use std::io;
use std::time::{Duration, Instant};

use sampler_common::snapshot::Snapshot;
use thiserror::Error;

use super::join::Join;
use super::{ConnectError, NodeName, Pods, State, Status, connect};

/// How long the first names are waited for.
const FIRST_NAMES: Duration = Duration::from_secs(2);

/// Why nobody is asked for names.
#[derive(Debug, Error)]
pub enum NamedError {
    /// There should be an API server, but it cannot be asked.
    #[error("cannot ask the API server for the names of this node's pods")]
    Connect(#[from] ConnectError),
    /// No thread for it.
    #[error("cannot start a thread to ask the API server")]
    Thread(#[source] io::Error),
}

/// The source of names, and the names that it has given.
#[derive(Debug)]
pub struct Named {
    pods: Pods,
    join: Join,
    /// There until it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Named {
    fn drop(&mut self) {
        // Whatever it waits for, such as a name server, is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Named {
    /// Asks the API server for the names of this node's pods from now on; `None` where there is none. Not to be called
    /// within a tokio runtime: it has its own, and waits a moment for the first names.
    ///
    /// # Errors
    ///
    /// [`NamedError`]. That the API server does not answer is none: see [`Self::status`].
    pub fn start(node: &NodeName) -> Result<Option<Self>, NamedError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("names")
            .enable_all()
            .build()
            .map_err(NamedError::Thread)?;
        let Some(client) = runtime.block_on(connect(None))? else {
            tracing::info!("there is no API server: containers go by their ids");
            return Ok(None);
        };
        let pods = {
            let _inside = runtime.enter();
            Pods::watch(client, node)
        };
        // So that what is there has its names from the beginning, if they come soon.
        let until = Instant::now() + FIRST_NAMES;
        while !matches!(pods.status().state, State::Watching) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(Self { pods, join: Join::default(), runtime: Some(runtime) }))
    }

    /// Names the containers of a snapshot. Never waits for the API server.
    pub fn name(&mut self, snapshot: &mut Snapshot) {
        self.join.name(snapshot, &self.pods.table());
    }

    /// How things stand with the API server.
    pub fn status(&self) -> Status {
        self.pods.status()
    }
}
