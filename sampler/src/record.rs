//! `sampler record`: every snapshot into a file, each with one write, so that a crash costs the last one at most.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampler_common::recording::{AppendError, Header, Writer};
use sampler_common::snapshot::Snapshot;
use thiserror::Error;
use tokio::time::Instant;

use crate::args;
use crate::signals::Stop;
use crate::source::{Source, SourceError, clocks};

/// Why nothing is recorded, or no more.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Nothing can be measured.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file cannot be made, written or removed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A snapshot cannot be appended.
    #[error("{}", path.display())]
    Append {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// No runtime to wait in.
    #[error("cannot wait for the next snapshot")]
    Runtime(#[source] io::Error),
    /// No handlers for signals.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
}

impl RecordError {
    /// See [`SourceError::is_not_allowed`].
    pub fn is_not_allowed(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_not_allowed())
    }

    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// Records until it is asked to stop, or for as long as it was told to.
pub fn run(arguments: &args::Record) -> Result<(), RecordError> {
    let file = create(&arguments.file)?;
    let mut snapshots = 0;
    let recorded = record(arguments, file, &mut snapshots);
    if snapshots != 0 {
        // What has been written is good, whatever came after it.
        return recorded;
    }
    // A file without a snapshot is of no use, and would be in the way of the next attempt.
    let removed = fs::remove_file(&arguments.file);
    recorded?;
    removed.map_err(RecordError::file("remove the empty", &arguments.file))
}

/// A new file; one that exists may be somebody's recording.
fn create(path: &Path) -> Result<File, RecordError> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(RecordError::file("make", path))
}

/// Records into a file, and counts what is written.
fn record(arguments: &args::Record, file: File, snapshots: &mut u64) -> Result<(), RecordError> {
    let mut source = Source::open(&arguments.live, &args::Replay { file: None }, false)?;
    let node = arguments.live.node_name.as_ref().map(ToString::to_string);
    let header = header(source.cpus(), arguments.live.interval, node);
    let mut writer = Writer::create(file, header).map_err(RecordError::file("write", &arguments.file))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RecordError::Runtime)?;
    runtime.block_on(async {
        let mut stop = Stop::new().map_err(RecordError::Signals)?;
        let begun = Instant::now();
        let end = arguments.duration.map(|duration| begun + duration);
        let (mut due, mut bytes) = (begun, 0);
        tracing::info!(file = %arguments.file.display(), "recording");
        while let Some(wait) = source.due()? {
            due = (due + wait).max(Instant::now());
            let last = end.filter(|end| *end <= due);
            let asked = tokio::select! {
                () = tokio::time::sleep_until(last.unwrap_or(due)) => None,
                signal = stop.asked() => Some(signal),
            };
            // Also when it is asked to stop: what has happened since the last snapshot is in this one.
            let Some(snapshot) = source.next()? else { break };
            let appended = append(&mut writer, &snapshot, arguments)?;
            bytes += appended;
            *snapshots += u64::from(appended != 0);
            if asked.is_some() || last.is_some() {
                break;
            }
        }
        tracing::info!(snapshots = *snapshots, bytes, "recorded");
        Ok(())
    })
}

/// Appends a snapshot, and says how many bytes that took. One that is too large is left out.
fn append(
    writer: &mut Writer<File>,
    snapshot: &Snapshot,
    arguments: &args::Record,
) -> Result<usize, RecordError> {
    match writer.append(snapshot) {
        Ok(bytes) => Ok(bytes),
        Err(error @ AppendError::TooLarge { .. }) => {
            tracing::warn!("{error}: it is left out");
            Ok(0)
        }
        Err(source) => Err(RecordError::Append { path: arguments.file.clone(), source }),
    }
}

/// What is to be said of a recording that begins now on this machine.
pub fn header(cpus: u32, interval: Duration, node: Option<String>) -> Header {
    let (started_unix_ns, started_ns) = clocks();
    let kernel = nix::sys::utsname::uname();
    Header {
        started_unix_ns,
        started_ns,
        interval_ns: interval.as_nanos() as u64,
        kernel: kernel.map(|kernel| kernel.release().to_string_lossy().into_owned()).unwrap_or_default(),
        cpus,
        node,
        sampler: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
