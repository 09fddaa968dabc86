//! `bench`: what the sampler costs.
//!
//! ```text
//! main ─→ switch ─→ pingpong, queued     ns per context switch, against nothing attached
//!      ├→ insns                          size of the programs
//!      ├→ throttle                       the throttle programs (needs fentry: in a virtual machine)
//!      ├→ drain                          reading the rows
//!      ├→ files                          a whole look, files of cgroups included
//!      ├→ cpu ─→ resident ─→ containers  CPU time of the daemon with everything on
//!      ├→ memory ─→ resident             kernel memory, and resident memory of that daemon
//!      ├→ scrape ─→ node                 a scrape of a node that does not exist
//!      └→ record ─→ node                 bytes of a recording of it
//! ```
//!
//! `bench native` runs on the host, `bench vm` as init of a virtual machine. Both hand over a list of
//! [`report::Figure`]s; progress goes to stderr.

mod containers;
mod cpu;
mod designs;
mod drain;
mod files;
mod groups;
mod insns;
mod machine;
mod memory;
mod node;
mod pingpong;
mod queued;
mod record;
mod report;
mod resident;
mod rounds;
mod scrape;
mod switch;
mod throttle;
mod traced;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use loadline_tests::guest;

use crate::designs::Designs;
use crate::groups::Groups;
use crate::report::Report;
use crate::switch::Series;

/// The exit code by which we say that this kernel cannot run us.
const CANNOT: i32 = 3;

/// What the sampler costs
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// On this host, at real speed
    Native(Asked),
    /// As init of a virtual machine, where only ratios mean something
    Vm(Asked),
    /// The other end of the ping-pong
    #[command(hide = true)]
    Peer,
    /// A thread that uses up its limit
    #[command(hide = true)]
    Spin,
    /// Reads rows, for whoever counts its system calls
    #[command(hide = true)]
    Drains {
        /// Containers
        containers: usize,
    },
    /// Looks at containers that ran, for whoever counts its system calls
    #[command(hide = true)]
    LookRan {
        /// Containers
        containers: usize,
    },
    /// Looks at new containers, for whoever counts its system calls
    #[command(hide = true)]
    LookNew {
        /// Containers
        containers: usize,
    },
}

#[derive(Args)]
struct Asked {
    /// Where libbpf-tools' runqlat is
    #[arg(long)]
    runqlat: Option<PathBuf>,
    /// The file for the figures
    #[arg(long, default_value = "bench.json")]
    json: PathBuf,
    /// Rounds of each comparison; 101 on a host, 61 in a virtual machine
    #[arg(long)]
    rounds: Option<usize>,
    /// Only figures whose group is named: switch, queued, neighbors, insns, throttle, drain, files,
    /// cpu, memory, scrape, record
    #[arg(long)]
    only: Vec<String>,
}

impl Asked {
    fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == group)
    }
}

fn main() {
    guest::run(|arguments| {
        let asked = Arguments::try_parse_from(std::iter::once("bench".to_owned()).chain(arguments));
        let result = match asked.map(|asked| asked.command) {
            Ok(Commands::Native(asked)) => measure(&asked, false),
            Ok(Commands::Vm(asked)) => measure(&asked, true),
            Ok(Commands::Peer) => return pingpong::peer(),
            Ok(Commands::Spin) => throttle::spin(),
            Ok(Commands::Drains { containers }) => drain::traced(containers),
            Ok(Commands::LookRan { containers }) => files::traced_ran(containers),
            Ok(Commands::LookNew { containers }) => files::traced_new(containers),
            Err(error) => {
                eprintln!("{error}");
                return error.exit_code();
            }
        };
        match result {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("error: {error:#}");
                if error.downcast_ref::<sampler::kernel::load::LoadError>().is_some() { CANNOT } else { 1 }
            }
        }
    })
}

fn measure(asked: &Asked, in_vm: bool) -> Result<()> {
    let mut report = Report::default();
    let mut designs = Designs::load(asked.runqlat.as_deref())?;
    eprintln!("{}", designs.in_words());
    if let Some(why) = designs.no_runqlat() {
        eprintln!("no runqlat here: {why}");
    }
    if asked.wants("insns") {
        insns::run(&designs, &mut report);
    }
    switches(asked, in_vm, &mut designs, &mut report)?;
    if asked.wants("throttle") {
        throttle::run(&mut designs, &mut report)?;
    }
    drop(designs);
    if asked.wants("drain") {
        drain::run(in_vm, &mut report)?;
    }
    if asked.wants("files") {
        files::run(in_vm, &mut report)?;
    }
    if asked.wants("cpu") {
        cpu::run(in_vm, asked.runqlat.as_deref(), &mut report)?;
    }
    if asked.wants("memory") {
        memory::run(&mut report)?;
    }
    // Nothing of the kernel is in these.
    if asked.wants("scrape") && !in_vm {
        scrape::run(&mut report)?;
    }
    if asked.wants("record") && !in_vm {
        record::run(&mut report)?;
    }
    hand_over(&asked.json, &report)
}

/// Context switches with short queues, with a switch of containers each time, and with long queues.
fn switches(asked: &Asked, in_vm: bool, designs: &mut Designs, report: &mut Report) -> Result<()> {
    let trips = if in_vm { 2_000 } else { 20_000 };
    let batches = if in_vm { 100 } else { 1_000 };
    let rounds = asked.rounds.unwrap_or(if in_vm { 61 } else { 101 });
    machine::undisturbed(|_cpu| {
        if asked.wants("switch") {
            let mut workload = pingpong::PingPong::start(trips)?;
            let what = "two processes pass a byte";
            let series = Series { name: "switch.added", what, rounds, in_vm };
            switch::run(designs, &mut workload, &series, report)?;
        }
        if asked.wants("neighbors") {
            let groups = Groups::make(2)?;
            groups.enter(0)?;
            let mut workload = pingpong::PingPong::start(trips)?;
            groups.enter(1)?;
            let what = "two processes in two cgroups pass a byte";
            let series = Series { name: "switch.neighbors", what, rounds, in_vm };
            let result = switch::run(designs, &mut workload, &series, report);
            groups.leave()?;
            result?;
        }
        if asked.wants("queued") {
            let groups = Arc::new(Groups::make(queued::THREADS)?);
            let mut workload = queued::Queued::start(&groups, batches)?;
            let what = &format!("{} threads, each in its own cgroup, woken at once", queued::THREADS);
            let series = Series { name: "switch.queued", what, rounds, in_vm };
            switch::run(designs, &mut workload, &series, report)?;
        }
        Ok(())
    })
}

fn hand_over(path: &Path, report: &Report) -> Result<()> {
    let json = report.json().context("writing JSON")?;
    let path = path.to_str().context("the file's name is not UTF-8")?;
    guest::hand_over(path, &(json + "\n")).with_context(|| format!("cannot hand over {path}"))
}
