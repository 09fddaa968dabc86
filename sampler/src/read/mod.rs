//! Reading: rows, events and files become one [`sampler_common::snapshot::Snapshot`].

pub mod cgroups;
pub mod events;
pub mod files;
pub mod oom_kills;
pub mod reader;
pub mod rows;
pub mod slots;
pub mod tended;
pub mod throttles;

pub use reader::{Reader, Start, StartError};
pub use tended::Tended;
