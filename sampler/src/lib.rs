//! The sampler: loads the BPF programs, reads their rows, joins them to cgroups.
//!
//! ```text
//! kernel events → histogram → window → demand → allocation → resize → outcome
//!  sampler-ebpf   ^^^^^^^^^^^^^^^^^^            controller
//!                 this crate fills what sampler-common defines
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | [`kernel`] | the running kernel's BTF, loading and attaching, the maps in memory, the self-check |
//! | [`cgroup`] | the tree of cgroups, what a path says of a cgroup, `cpu.stat` |
//! | [`pods`] | names of this node's pods and containers, from the API server where there is one |
//! | [`read`] | rows, events and files become one snapshot: [`read::Reader`] |
//! | [`source`] | snapshots of the running kernel, with its privileges given up, or of a recording |
//! | [`publish`] | what Prometheus scrapes |
//! | [`view`] | a window as a table and in words |
//! | [`args`], [`logging`], [`serve`], [`record`], [`signals`], [`allocator`] | the binary `sampler`: its command line and what it runs |
//!
//! # Terms
//!
//! Those of [`sampler_common`]; and **key**: the controller whose groups get a row each.
//!
//! # Invariants
//!
//! * Nothing is measured unless the self-check has found our counts equal to the kernel's.
//! * The sampler writes to no file of a cgroup and to no process; it knows no policy.
//! * Every count is read from shared memory: reading the rows makes no system call, however many there are.
//! * A cgroup's last counts are in a snapshot, marked as removed, before its slot is given to another.
//! * Whatever cannot be had or told is counted in [`sampler_common::snapshot::Losses`], but for what the files of a cgroup
//!   would have said between the last look and its removal: nobody knows that there was anything.

pub mod allocator;
pub mod args;
pub mod cgroup;
pub mod cost;
pub mod kernel;
pub mod logging;
pub mod pods;
pub mod privileges;
pub mod publish;
pub mod read;
pub mod record;
pub mod serve;
pub mod signals;
pub mod source;
pub mod view;
