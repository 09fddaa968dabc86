//! What the kernel and the user side of the sampler share.
//!
//! ```text
//! kernel events → histogram → window → demand → allocation → resize → outcome
//!  sampler-ebpf   ^^^^^^^^^   ^^^^^^           controller
//!                 this crate: what a histogram row is, and what a window of rows is
//! ```
//!
//! Without features this crate is `no_std` and holds the layout of every BPF map ([`abi`]) and the
//! arithmetic that the BPF programs and the tests on the host run alike: the bucket of a delay
//! ([`buckets`]), who held a CPU during a wait ([`timeline`]), when a task group was throttled
//! ([`throttle`]), which few neighbours held it most ([`neighbors`]), what a thread would have run while it waited
//! ([`pace`]), and whether it sleeps the less for it ([`cycles`]). None of it calls anything.
//!
//! With the feature `user` it also holds what user space makes of the rows: a [`histogram`] that
//! merges and subtracts, a cumulative [`snapshot`] with each cgroup's [`identity`] and [`resources`], the [`window`]
//! between two of them, and what it says of the container's [`demand`].
//!
//! # Terms
//!
//! * **delay**: one stay of one thread on a run queue, from the moment it became runnable until it
//!   was switched in, in ns of that CPU's run-queue clock. **wait**: a sum of delays.
//! * **row**: the counters of one cgroup on one CPU. **slot**: the number of a cgroup's rows.
//! * **cause**: what held the CPU during a piece of a wait ([`abi::Cause`]).
//! * **pace**: the part of a CPU that a thread uses when it need not wait. **unmet**: what threads would have run, each at
//!   its pace, in the time that they waited. **cycle**: a thread's run and waits, and the sleep after them.
//!
//! # Invariants
//!
//! * A row, and everything else that is indexed by CPU, has one writer at a time: a program that
//!   runs under that CPU's run-queue lock. Hence plain additions; only sums of cycles, which are by container, are added to
//!   atomically, once a sleep.
//! * Kernel counters only grow (u32 ones wrap). Nobody resets them; readers subtract.
//! * The count of a row is the sum of its buckets, its wait the sum of its causes. What else says so
//!   ([`abi::Row::counted`]) only marks a change and is never read as a count.
#![cfg_attr(not(feature = "user"), no_std)]

pub mod abi;
pub mod buckets;
pub mod cycles;
#[cfg(feature = "user")]
pub mod demand;
#[cfg(feature = "user")]
pub mod histogram;
#[cfg(feature = "user")]
pub mod identity;
pub mod neighbors;
pub mod pace;
#[cfg(feature = "user")]
pub mod recording;
#[cfg(feature = "user")]
pub mod report;
#[cfg(feature = "user")]
pub mod resources;
#[cfg(feature = "user")]
pub mod snapshot;
#[cfg(feature = "user")]
mod sparse;
pub mod throttle;
pub mod timeline;
#[cfg(feature = "user")]
pub mod window;
