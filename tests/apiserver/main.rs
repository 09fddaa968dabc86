//! Loadline against a real kube-apiserver with RBAC: what the product asks of it, and what it makes of its answers.
//!
//! `cargo xtask test` fetches or builds etcd and kube-apiserver and runs this. Every test starts a control plane of
//! its own.
//!
//! ```text
//! apiserver test [FILTER...]    runs each test as often as a FILTER fits: part of its name, or `=NAME`, the whole
//! apiserver list                names them
//! ```
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

mod cluster;
mod daemon;
mod pods;

use loadline_tests::{runner, tests};

/// All tests, in the order in which they run.
const TESTS: &[&[runner::Test]] = &[pods::TESTS, daemon::TESTS];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let tests = TESTS.iter().copied().flatten();
    let code = match arguments[..] {
        ["test", ref filters @ ..] => runner::run_each(tests, filters, runner::in_child),
        ["list"] => {
            tests.for_each(|test| println!("{}", test.name));
            0
        }
        _ => {
            eprintln!("usage: apiserver test [FILTER...] | apiserver list");
            2
        }
    };
    std::process::exit(code)
}
