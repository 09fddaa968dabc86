//! Every developer command of Loadline. `cargo xtask` lists them.
//!
//! This file only wires: each command has a file of its own, named after it (`build-ebpf` is `ebpf.rs`). Below them:
//!
//! ```text
//! test demo bench vm ─→ machine ─→ qemu kernel initramfs protocol
//!   │                └→ programs ─┐
//!   └→ runtime ─→ go oci
//! build-ebpf lint ───→ ebpf ──────┴→ toolchain ─→ usual, debian ─→ cache
//! ```
//!
//! with `step` (progress) and `process` (children that never outlive us) under all of it.

mod apiserver;
mod bench;
mod bitcode;
mod cache;
mod control_plane;
mod cxx;
mod debian;
mod demo;
mod demo_test;
mod dist;
mod download;
mod ebpf;
mod files;
mod fuzz;
mod go;
mod host;
mod initramfs;
mod kernel;
mod lint;
mod machine;
mod oci;
mod process;
mod programs;
mod prometheus;
mod protocol;
mod qemu;
mod runtime;
mod step;
mod suite;
mod test;
mod toolchain;
mod unit;
mod usual;
mod vm;
mod workspace;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{cache::Cache, kernel::Series, workspace::Workspace};

const TEACH: &str = "\
Each command builds what it needs and fetches what it lacks into a cache outside the checkout ($LOADLINE_CACHE,
else ~/.cache/loadline): nothing is installed and no root is needed for that. The second time is quick. Stopped
half-way (Ctrl-C, no network, a full disk), the next run goes on from what is complete.

  cargo xtask demo                     see it work
  cargo xtask test --pure              before each commit
  cargo xtask test --kernel 6.12 NAME  one kernel test
  cargo xtask vm 7.2                   a shell on a kernel
  cargo xtask COMMAND --help           more";

/// When filling the cache took longer than this, it is said.
const WORTH_SAYING: Duration = Duration::from_secs(10);

/// Every developer command of Loadline
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true, after_help = TEACH)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Commands>,
}

#[derive(Subcommand)]
enum Commands {
    /// Compile the BPF programs to target/bpf; `cargo build` and `cargo test` need them
    BuildEbpf,
    /// Show the sampler at work: on this host if it can (root, BTF, cgroup v2), else in a virtual machine
    Demo {
        /// In a virtual machine even if this host could
        #[arg(long)]
        vm: bool,
        /// Keep a recording of it, for `sampler top --replay FILE`
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// Arguments for the demo itself
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Unit and property tests; then in virtual machines the kernel tests, and those with a container runtime
    ///
    /// Runs all of it, whatever fails, and ends with one line for each suite: `unit: 900 passed, 0 failed`,
    /// `linux-6.12: 36 passed, 0 failed`.
    Test {
        /// Only what needs no kernel: under a minute once built
        #[arg(long, conflicts_with = "kernel")]
        pure: bool,
        /// Only the kernel tests, on this kernel (6.1, 6.12 or 7.2; may be repeated)
        #[arg(long)]
        kernel: Vec<Series>,
        /// Only the tests with a real container runtime (containerd and runc)
        #[arg(long, conflicts_with = "pure")]
        runtime: bool,
        /// Only the tests with real Prometheus servers
        #[arg(long, conflicts_with = "pure")]
        prometheus: bool,
        /// Only the tests with a real API server
        #[arg(long, conflicts_with = "pure")]
        apiserver: bool,
        /// Only the demo, as a user runs it
        #[arg(long, conflicts_with = "pure")]
        demo: bool,
        /// Only the fuzz targets, for this many minutes in all instead of one; 10 if none are given
        #[arg(long, conflicts_with = "pure", value_name = "MINUTES", num_args = 0..=1)]
        #[arg(default_missing_value = "10", value_parser = clap::value_parser!(u64).range(1..=7 * 24 * 60))]
        fuzz: Option<u64>,
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Boot a kernel in a virtual machine: a shell, or one command after `--`
    ///
    /// Our programs are in /usr/bin, bcc's runqlat in /usr/sbin. Example: cargo xtask vm 7.2 -- uname -a
    Vm {
        /// 6.1, 6.12 or 7.2
        kernel: Series,
        /// The command and its arguments; without one, a shell (Ctrl-A X ends it)
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Measure what sampler and decisions cost; prints a table and writes target/bench.json
    Bench {
        /// Leave out what runs on this host at real speed (as root)
        #[arg(long)]
        no_native: bool,
        /// Measure on this kernel in a virtual machine (may be repeated); on the others only the programs' size
        #[arg(long, default_values = ["6.12"])]
        kernel: Vec<Series>,
    },
    /// Build the sampler as it is deployed, a static binary: target/dist/sampler
    Dist,
    /// Formatting, clippy with warnings as errors (BPF programs too), and the rules of the tree
    Lint,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Some(command) => run(command),
        // The list is what was asked for.
        None => Arguments::command().print_help().map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    let making = Cache::time_making();
    if making >= WORTH_SAYING {
        eprintln!("{} s of this were for filling the cache.", making.as_secs());
    }
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Commands) -> Result<ExitCode> {
    process::handle_signals()?;
    let cache = Cache::open()?;
    let workspace = Workspace::find()?;
    match command {
        Commands::BuildEbpf => {
            for object in ebpf::build(&cache, &workspace, ebpf::PACKAGE)? {
                println!("{}", object.display());
            }
        }
        Commands::Demo { vm, record, arguments } => {
            let options = demo::Options { in_vm: vm, record, arguments };
            return demo::run(&cache, &workspace, options);
        }
        Commands::Test { pure, kernel, runtime, prometheus, apiserver, demo, fuzz, filter } => {
            let fuzz = fuzz.map(|minutes| Duration::from_secs(minutes * 60));
            let options =
                test::Options { pure, kernels: kernel, runtime, prometheus, apiserver, demo, fuzz, filter };
            return test::run(&cache, &workspace, &options);
        }
        Commands::Vm { kernel, command } => return vm::run(&cache, &workspace, kernel, &command),
        Commands::Bench { no_native, kernel } => {
            return bench::run(&cache, &workspace, &bench::Options { no_native, kernels: kernel });
        }
        Commands::Dist => println!("{}", dist::run(&cache, &workspace)?.display()),
        Commands::Lint => lint::run(&cache, &workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
