//! Loadline and real containers: containerd and runc make them in a virtual machine that runs nothing else, and what
//! the sampler says of them is held against what containerd and the kernel say.
//!
//! ```text
//! runtime test [FILTER...]    runs each test as often as a FILTER fits: part of its name, or `=NAME`, the whole
//! ```
//!
//! Runs as init of a virtual machine (`cargo xtask test`), which has the runtime and an image.
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

mod binary;
mod identity;
mod life;
mod within;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::containers::{Containerd, SOCKET};
use loadline_tests::{guest, runner, tests};

/// The archive of the image, as `cargo xtask` puts it into the machine.
const IMAGE: &str = "/images/load.tar";
/// containerd's and ctr's own.
const NAMESPACE: &str = "default";

const TESTS: &[&[runner::Test]] = &[identity::TESTS, life::TESTS, within::TESTS, binary::TESTS];

/// Started before the tests, which run in children of this process.
static CONTAINERD: OnceLock<Arc<Containerd>> = OnceLock::new();

fn containerd() -> &'static Arc<Containerd> {
    CONTAINERD.get().unwrap()
}

/// Removes the cgroups that a runtime has made above those of containers, and leaves.
fn clear() {
    let Ok(root) = cgroup::root() else { return };
    for above in [NAMESPACE, "kubepods", "kubepods.slice", "libpod_parent"] {
        // Not each test has made each; dropping one that is there removes it.
        let _ = Cgroup::existing(root.join(above));
    }
}

fn main() {
    guest::run(|arguments| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let ["test", ref filters @ ..] = arguments[..] else {
            eprintln!("usage: runtime test [FILTER...]");
            return 2;
        };
        // The tests remove all that is in containerd's own namespace.
        if Path::new(SOCKET).exists() {
            eprintln!("a containerd runs here already: these tests are for a machine that is ours alone");
            return 2;
        }
        match Containerd::start(NAMESPACE, Path::new(IMAGE)) {
            Ok(containerd) => {
                CONTAINERD.get_or_init(|| containerd);
                runner::run(TESTS.iter().copied().flatten(), filters)
            }
            Err(error) => {
                eprintln!("no containerd: {error}");
                1
            }
        }
    })
}
