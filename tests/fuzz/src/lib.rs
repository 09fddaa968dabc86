//! The sampler's parsers by themselves. As a dependency the sampler would bring all that it talks HTTP and to an API server
//! with, which takes minutes to build and more than any of it is fuzzed.

#[path = "../../../sampler/src/cgroup/mod.rs"]
pub mod cgroup;

/// What [`cgroup`] needs of it.
#[path = "../../../sampler/src/kernel"]
pub mod kernel {
    pub mod btf;
    pub mod layout;
}
