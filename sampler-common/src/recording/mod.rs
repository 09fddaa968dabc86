//! Recordings: the snapshots of a node in a file, so that what was measured once can be looked at again.
//!
//! A [`Writer`] appends snapshots, each with one write; a [`Reader`] gives them back exactly as they were.
//! Cumulative counters change little from one snapshot to the next, so that almost all of them are recorded as the
//! difference to the one before.
//!
//! # Format
//!
//! ```text
//! "LOADLINE"  version (u32)  header  key frame  difference  difference  …  key frame  …
//! ```
//!
//! Numbers are little-endian. A **key** frame holds a whole snapshot, a **difference** what has changed since the
//! snapshot before it. Every frame has its length, its number and checksums before its payload (`frame.rs`), which is
//! protobuf (`wire.rs`), compressed with zstd but in the header.
//!
//! # Damage
//!
//! A crash while a frame is written costs that frame: what is before it is given, then
//! [`RecordingError::Cut`]. Damage in the middle costs what lies up to the next key frame, one in every [`KEY_EVERY`]:
//! [`RecordingError::Damaged`] says how much, and a reader that is asked for more goes on after it. No snapshot
//! is given that was not written.
//!
//! # Versions
//!
//! [`VERSION`] rises with every change by which an older reader would not give back exactly what was written, be it one
//! more field; such a reader refuses the file. A newer one reads all older versions: what they did not have is
//! [`Default`]. Version 2 has what containers would have used while they waited
//! ([`crate::snapshot::Unmet`]), version 3 how their cycles went with their waits ([`crate::snapshot::Cycles`]).

mod difference;
mod frame;
mod pack;
mod reader;
mod text;
mod wire;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use crate::sparse::Malformed;

/// The version of the format that is written, and the highest that is read.
pub const VERSION: u32 = 3;
/// Every so many snapshots one is whole.
pub const KEY_EVERY: u64 = 64;
/// Most cgroups in a snapshot.
pub const CGROUPS: usize = 16_384;
/// Most bytes of a frame's payload.
pub const PAYLOAD_BYTES: usize = 16 << 20;
/// Most bytes of a key frame and the differences up to the next one, before compression. With [`CGROUPS`] it bounds the
/// memory of a reader, also of a file that lies: a few hundred MiB at the very most. (A node with 500 containers
/// takes some 3 MiB.)
pub const RUN_BYTES: usize = 32 << 20;

const MAGIC: [u8; 8] = *b"LOADLINE";

/// What a recording is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// When it was begun: ns since 1970, UTC.
    pub started_unix_ns: u64,
    /// The same moment on the clock of the snapshots (`CLOCK_MONOTONIC`, ns).
    pub started_ns: u64,
    /// Time between two snapshots that was aimed at, in ns.
    pub interval_ns: u64,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Name of the node, where there is one.
    pub node: Option<String>,
    /// Version of the sampler that recorded.
    pub sampler: String,
}

impl From<Header> for wire::Header {
    fn from(header: Header) -> Self {
        let Header { started_unix_ns, started_ns, interval_ns, kernel, cpus, node, sampler } = header;
        Self { started_unix_ns, started_ns, interval_ns, kernel, cpus, node, sampler }
    }
}

impl From<wire::Header> for Header {
    fn from(header: wire::Header) -> Self {
        let wire::Header { started_unix_ns, started_ns, interval_ns, kernel, cpus, node, sampler } = header;
        Self { started_unix_ns, started_ns, interval_ns, kernel, cpus, node, sampler }
    }
}

/// What is wrong with a payload whose checksum is right: whoever wrote it was wrong, or meant harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(&'static str);

impl From<prost::DecodeError> for Invalid {
    fn from(_: prost::DecodeError) -> Self {
        Self("not the protobuf that it should be")
    }
}

impl From<Malformed> for Invalid {
    fn from(Malformed(what): Malformed) -> Self {
        Self(what)
    }
}

/// Why a recording cannot be read, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file, or whatever it is read from.
    #[error("cannot read the recording: {0}")]
    Io(#[from] std::io::Error),
    /// Something else than a recording.
    #[error("this is not a recording: it does not begin as `sampler record` begins one")]
    NotARecording,
    /// Of another version.
    #[error(
        "the recording has format version {version}; this program reads 1 to {VERSION}: \
         read it with the sampler that recorded it, or a newer one"
    )]
    Version {
        /// Its version.
        version: u32,
    },
    /// The header is damaged: nothing else can be trusted.
    #[error("the header of the recording is damaged")]
    Header,
    /// The end of the last frame is missing: whoever wrote it was stopped, or the file was cut. Nothing comes after it.
    #[error(
        "the recording was cut: its last snapshot, from byte {at_byte}, is not whole ({bytes} bytes lost)"
    )]
    Cut {
        /// Where the torn frame begins.
        at_byte: u64,
        /// What there is of it.
        bytes: u64,
    },
    /// Something is damaged or missing. What is still good comes after it.
    #[error(
        "the recording is damaged at byte {at_byte}: {bytes} bytes are lost, {}",
        match snapshots {
            Some(snapshots) => format!("{snapshots} snapshots"),
            None => "and all snapshots from there on".to_owned(),
        }
    )]
    Damaged {
        /// Where.
        at_byte: u64,
        /// What had to be skipped.
        bytes: u64,
        /// How many snapshots were lost; `None` where nothing came after them that would tell.
        snapshots: Option<u64>,
    },
    /// A frame is whole, and what it says cannot be. What is still good comes after it.
    #[error("the recording is wrong at byte {at_byte}: {what}")]
    Invalid {
        /// Where its frame begins.
        at_byte: u64,
        /// What is wrong.
        what: Invalid,
    },
}

/// Why a snapshot could not be recorded. The recording may go on with the next one.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The file, or whatever it is written to. A part of the snapshot may have been written.
    #[error("cannot write the recording: {0}")]
    Io(#[from] std::io::Error),
    /// More than a reader would accept.
    #[error(
        "a snapshot of {cgroups} cgroups and {bytes} bytes is too large for a recording ({CGROUPS}, {RUN_BYTES})"
    )]
    TooLarge {
        /// Its cgroups.
        cgroups: usize,
        /// Its bytes before compression; 0 where the cgroups alone are too many.
        bytes: usize,
    },
}

#[cfg(test)]
mod stored;
#[cfg(test)]
pub(crate) mod tests;
