//! The report: what a sampler tells a controller of one window of its node.
//!
//! `report.proto` is the contract, [`wire`] what prost makes of it, and [`Report`] what the two sides work with: a
//! message is parsed once, at the border, and what cannot be is refused with a [`ReportError`] that names the field.
//!
//! # Bounds
//!
//! At most [`CONTAINERS`] containers in a message, [`NEIGHBORS`] neighbours of each, [`NAME_BYTES`] of a name, and
//! [`MESSAGE_BYTES`] in all. [`Report::messages`] keeps to them: more containers are more parts, smaller neighbours
//! are counted without a name, and names that are too long are left out.

mod parse;
#[rustfmt::skip]
#[allow(missing_docs, reason = "generated: report.proto says it")]
pub mod wire;
mod write;

use std::collections::BTreeMap;

use crate::demand::{self, Demand};
use crate::identity::Container;
use crate::snapshot::{CgroupId, Snapshot};
use crate::window::{Window, Windows};

/// The version of the contract that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// Most containers in a message.
pub const CONTAINERS: usize = 256;
/// Most neighbours of a container.
pub const NEIGHBORS: usize = 8;
/// Most kinds of losses.
pub const LOSSES: usize = 64;
/// Longest name of a kind of loss, in bytes.
pub const LOSS_BYTES: usize = 64;
/// Longest name of a node, namespace, pod or container, in bytes: Kubernetes' own bound.
pub const NAME_BYTES: usize = 253;
/// Most bytes of a message: one within the other bounds is never longer. To decode one takes at most some hundred MiB,
/// whatever is in it: set this as the limit of whatever decodes it.
pub const MESSAGE_BYTES: usize = 2 << 20;

/// Which window of which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Name of the node; 1 to [`NAME_BYTES`] bytes without control characters.
    pub node: String,
    /// Number of the window within the sampler's life, from 1.
    pub sequence: u64,
    /// Its end: ns since 1970, UTC.
    pub end_unix_ns: u64,
    /// CPUs of the node, at least 1.
    pub cpus: u32,
}

/// One container in a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// Who it is.
    pub container: Container,
    /// What happened to it. A report has no more than [`NEIGHBORS`] neighbours of it.
    pub window: Window,
    /// The CPU that it would use.
    pub demand: Demand,
}

/// Everything that happened to containers of a node in one window, or, parsed, a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which window.
    pub heading: Heading,
    /// Which life of the sampler this is.
    pub epoch: u64,
    /// Which part this is and of how many.
    pub part: Part,
    /// The end of the window on the clock of [`crate::resources::Memory::read_ns`].
    pub end_ns: u64,
    /// Length of the window in ns.
    pub length_ns: u64,
    /// Whether the cause `quota` can be told.
    pub throttle_hooks: bool,
    /// Context switches of the node.
    pub switches: u64,
    /// How many cgroups were lost sight of ([`Windows::missed`]).
    pub missed: u64,
    /// What was lost on the node, by its name; what was not is left out.
    pub losses: BTreeMap<String, u64>,
    /// The containers, by ascending cgroup.
    pub containers: Vec<Measured>,
}

/// One of the messages that a report is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0.
    pub number: u32,
    /// Of how many, at least 1.
    pub of: u32,
}

impl Part {
    /// The only one.
    pub const WHOLE: Self = Self { number: 0, of: 1 };
}

impl Report {
    /// The report of the window that ended with `later`.
    pub fn from_windows(heading: Heading, windows: &Windows, later: &Snapshot) -> Self {
        let measured = |(cgroup, window): (&CgroupId, &Window)| {
            let container = later.cgroups.get(cgroup)?.identity.container()?;
            Some(Measured {
                cgroup: *cgroup,
                container: container.clone(),
                window: window.clone(),
                demand: demand::estimate(window, heading.cpus),
            })
        };
        let lost = windows.losses.named().into_iter().filter(|(_, lost)| *lost != 0);
        Self {
            epoch: later.epoch,
            part: Part::WHOLE,
            end_ns: later.at_ns,
            length_ns: windows.length_ns,
            throttle_hooks: windows.throttle_hooks,
            switches: windows.switches,
            missed: windows.missed.len() as u64,
            losses: lost.map(|(name, lost)| (name.to_owned(), lost)).collect(),
            containers: windows.cgroups.iter().filter_map(measured).collect(),
            heading,
        }
    }
}

/// Why a message is no report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// Not the protobuf that it should be.
    #[error("the report cannot be decoded: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Of another version.
    #[error(
        "the report has version {version}; this program reads {VERSION}: bring sampler and controller to one release"
    )]
    Version {
        /// Its version; 0 where it has none.
        version: u32,
    },
    /// More of something than is allowed.
    #[error("the report has {count} {what}, more than {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are allowed.
        most: usize,
    },
    /// A field that cannot be.
    #[error("field {field} of the report {what}")]
    Field {
        /// Its name in `report.proto`.
        field: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Whether a reader accepts this name.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests;
