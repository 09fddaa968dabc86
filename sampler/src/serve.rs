//! `sampler serve`: the daemon.
//!
//! One thread takes snapshots at the pace of the interval and hands each to what is published; the first thread
//! answers HTTP and waits for signals. They share the [`Publisher`] and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::args;
use crate::publish::Publisher;
use crate::publish::server::{self, ServerError};
use crate::source::{Source, SourceError};

/// Why the daemon cannot run, or not go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address is in use, or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nothing can be measured or replayed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No thread for it.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// HTTP.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl ServeError {
    /// See [`SourceError::is_not_allowed`].
    pub fn is_not_allowed(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_not_allowed())
    }
}

/// Runs until it is asked to stop. What can be wrong with the address is found before anything is loaded.
pub fn run(arguments: &args::Serve) -> Result<(), ServeError> {
    let address = arguments.listen;
    let listener =
        std::net::TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source })?;
    let mut source = Source::open(&arguments.live, &arguments.replay, arguments.bpf_stats)?;
    let publisher =
        Arc::new(Publisher::new(source.cpus(), arguments.max_containers as usize, source.interval()));
    let (stop, stopped) = mpsc::channel();
    let (alive, failed) = oneshot::channel();
    let sampling = std::thread::Builder::new().name("sampling".to_owned()).spawn({
        let publisher = publisher.clone();
        move || {
            let sampled = sample(&mut source, &publisher, &stopped);
            drop(alive);
            sampled
        }
    });
    let sampling = sampling.map_err(ServeError::Thread)?;
    let served = server::run(listener, publisher, failed);
    // Nobody is left to tell it to go on: the thread ends, and with it the programs are detached.
    drop(stop);
    match sampling.join() {
        Ok(sampled) => sampled.and(served.map_err(ServeError::from)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Publishes every snapshot when it is due, until it is stopped.
fn sample(source: &mut Source, publisher: &Publisher, stopped: &Receiver<()>) -> Result<(), ServeError> {
    let mut due = Instant::now();
    while let Some(wait) = source.due()? {
        // After a delay the pace is taken up again, not made up for.
        due = (due + wait).max(Instant::now());
        if stops(stopped, due.saturating_duration_since(Instant::now())) {
            return Ok(());
        }
        let Some(snapshot) = source.next()? else { break };
        if let Err(error) = publisher.observe(snapshot, source.health()) {
            tracing::warn!(%error, "a snapshot is left out");
        }
    }
    tracing::info!("the recording is over; its last state stays");
    publisher.ended();
    stops(stopped, Duration::MAX);
    Ok(())
}

/// Waits, and says whether it was told to stop meanwhile.
fn stops(stopped: &Receiver<()>, wait: Duration) -> bool {
    if wait == Duration::MAX {
        let _ = stopped.recv();
        return true;
    }
    !matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
}
