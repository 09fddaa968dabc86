//! Cgroups: which there are, whose they are, and what their files say.
//!
//! * [`layout`] finds where the host keeps them, of the file systems that [`mounts`] has.
//! * [`tree`] walks a hierarchy.
//! * [`path`] tells whose a cgroup is, by its path alone.
//! * [`surroundings`] tells Kubernetes, runtimes and drivers, for a person to read.
//! * [`files`] reads a cgroup's files, whichever version: [`stat`], [`limits`], [`memory`] and [`pressure`], each one
//!   [`file`] at a time.
//!
//! Cgroups come and go while they are looked at: that one is gone is never an error of a walk, and a
//! variant of its own of a read.

pub mod file;
pub mod files;
mod flat;
pub mod layout;
pub mod limits;
pub mod memory;
pub mod mounts;
pub mod path;
pub mod pressure;
pub mod stat;
pub mod surroundings;
pub mod tree;

use std::io;

use nix::errno::Errno;

/// Which names and contents the files of a controller have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Those of cgroup v1.
    V1,
    /// Those of cgroup v2.
    V2,
}

/// Whether an error of a read says that the cgroup was removed: before the file was opened, or after.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENODEV))
}
