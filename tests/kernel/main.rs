//! Loadline against real kernels: every test loads the programs, makes something happen, and compares what was
//! counted with what the kernel itself says.
//!
//! Modules are named as those of `sampler-ebpf` that they hold to account. Runs as init of a virtual machine
//! (`cargo xtask test`), or as root on a host.
//!
//! ```text
//! kernel test [FILTER...]    runs each test as often as a FILTER fits: part of its name, or `=NAME`, the whole
//! kernel list                names them
//! ```
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

mod attribution;
mod cause;
mod counting;
mod daemon;
mod demand;
mod fentry;
mod hold;
mod kernel;
mod layout;
mod oracle;
mod privileges;
mod resources;
mod runq;
mod runqlat;
mod slot;
mod throttle;
mod window;

use loadline_tests::{guest, runner, tests};

/// All tests, in the order in which they run: what else relies on comes first.
const TESTS: &[&[runner::Test]] = &[
    kernel::TESTS,
    cause::TESTS,
    oracle::TESTS,
    attribution::TESTS,
    runq::TESTS,
    slot::TESTS,
    throttle::TESTS,
    window::TESTS,
    resources::TESTS,
    demand::TESTS,
    privileges::TESTS,
    daemon::TESTS,
    // It takes the CPU out of v2 for a while.
    layout::TESTS,
];

fn main() {
    guest::run(|arguments| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let tests = TESTS.iter().copied().flatten();
        match arguments[..] {
            ["test", ref filters @ ..] => runner::run(tests, filters),
            ["list"] => {
                tests.for_each(|test| println!("{}", test.name));
                0
            }
            _ => {
                eprintln!("usage: kernel test [FILTER...] | kernel list");
                2
            }
        }
    })
}

#[cfg(test)]
mod limits {
    use super::*;

    /// What `cargo xtask test` gives a machine for all tests.
    const MACHINE_S: u64 = 40 * 60;

    #[test]
    fn a_test_that_hangs_is_ended_before_its_machine_is() {
        let xtask = include_str!("../../xtask/src/test.rs");
        assert!(
            xtask.contains("const LIMIT: Duration = Duration::from_secs(40 * 60);"),
            "say here what it is"
        );
        for test in TESTS.iter().copied().flatten() {
            let limit_s = (test.limit_s)();
            assert!(limit_s <= MACHINE_S / 2, "{}: {limit_s} s", test.name);
        }
    }
}
