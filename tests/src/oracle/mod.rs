//! The independent oracle for wait by cause: an off-line replay of the kernel's own trace of the same run.
//!
//! ```text
//! tracefs instance → ring-buffer pages → records → events → timeline → waits, cut by cause → score
//!    tracefs            ring             format    trace    timeline   replay                 score
//! ```
//!
//! It shares no code with the sampler that it judges: own BTF reader, own cgroup walk, own words for the causes. Where
//! the sampler sees a thread only as it is switched in, the oracle has every event of the run, so it can cut each wait
//! exactly, at any age and on any CPU.
//!
//! # Terms
//! - *wait*: from the moment a thread becomes runnable (woken, or switched out still runnable) until it is switched in.
//! - *part*: the piece of a wait during which the thread was queued on one CPU; a migration begins another part.
//! - *holder*: who ran on that CPU at a moment: a cgroup, or nobody (idle).
//! - *row*: what waits are added up for: a container, or a cgroup that is called system.
//!
//! # Properties (held by tests)
//! - The causes of every row add up to the row's waits, to the nanosecond.
//! - A trace that lost one event is an error, never a result.
//! - What cannot be judged (waits begun before the trace or unfinished at its end) is set aside and counted.

pub mod assignment;
pub mod btf;
pub mod cgroups;
pub mod exactness;
pub mod format;
pub mod lengths;
pub mod replay;
pub mod ring;
pub mod schedstat;
pub mod score;
mod timeline;
pub mod trace;
pub mod tracefs;
