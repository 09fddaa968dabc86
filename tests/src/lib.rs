//! Loadline on real kernels: what its tests, its demo and its benchmarks have in common.
//!
//! ```text
//! kernel events → histogram → window → demand → allocation → resize → outcome
//! ^^^^^^^^^^^^^   ^^^^^^^^^   ^^^^^^
//! this crate makes the events and knows, by other ways, what must be counted of them
//! ```
//!
//! A [`load`] of known shape runs in a [`cgroup`] made for it, in a virtual machine whose init is one of
//! our programs ([`guest`]), or on the host. What the product says of it is held against what the kernel
//! itself says (schedstat, `cpu.stat`).
//!
//! # Terms
//!
//! * **guest**: the virtual machine that runs one of our programs as init; the **host** (`cargo xtask`)
//!   follows its console.
//! * **load**: a process in a cgroup whose threads have a known pattern of running and sleeping.
//! * **oracle**: another way to the same number, that shares no code with the product.
//!
//! # Invariants
//!
//! * What a test makes is gone at its end, however it ends: processes are killed, cgroups removed.
//! * Nothing waits without a bound, and nothing sleeps in the hope that something has happened meanwhile.
//! * An oracle never uses the product's code.

pub mod cgroup;
pub mod containers;
pub mod control_plane;
pub mod daemon;
pub mod guest;
pub mod kubeconfig;
pub mod load;
pub mod oracle;
pub mod runner;
