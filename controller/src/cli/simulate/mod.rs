//! `loadline simulate`: traces, recordings and loads that we make up, through the controller's own decisions.

mod cluster;
mod explain;
mod figures;
mod policy;
mod recording;
mod service;
mod trace;

use std::fmt::Display;
use std::fs;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

/// All forms: one of them is needed.
const USAGE: &str = "\
loadline simulate --trace <FILE>... [OPTIONS]
       loadline simulate --recording <FILE> [OPTIONS]
       loadline simulate loop --rps <FILE>... [OPTIONS]
       loadline simulate cluster [OPTIONS]";

/// What to simulate.
#[derive(Args)]
#[group(skip)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, override_usage = USAGE)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    trace: trace::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Size a service on a modelled machine, where wait and throttling answer to what it gets.
    Loop(service::Arguments),
    /// Let a made-up cluster live under the whole pipeline, and check every plan.
    Cluster(cluster::Arguments),
}

/// Where figures go beside the terminal.
#[derive(Args)]
#[group(skip)]
struct Output {
    /// Write the figures as JSON, shares as fractions.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw use and allocations as an SVG.
    #[arg(long, value_name = "FILE.svg", value_parser = svg)]
    plot: Option<PathBuf>,
}

impl Output {
    fn write_json(&self, report: &impl Serialize) -> anyhow::Result<()> {
        write_json(self.json.as_deref(), report)
    }
}

fn svg(path: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(path);
    if path.extension().is_some_and(|ending| ending == "svg") {
        Ok(path)
    } else {
        Err("plots are drawn as SVG: the name must end in .svg")
    }
}

/// Prints to whoever still listens: one that has seen enough (`| head`) ends the printing and is no error.
fn show(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

fn write_json(path: Option<&Path>, report: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let json = serde_json::to_string_pretty(report)? + "\n";
    write(path, &json)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Simulates what was asked for.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        None => trace::run(&arguments.trace),
        Some(Command::Loop(arguments)) => service::run(arguments),
        Some(Command::Cluster(arguments)) => cluster::run(arguments),
    }
}

/// Shows what is being done where somebody watches; an empty text clears it.
fn progress(doing: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // Whoever watches loses nothing when a line cannot be shown.
        let _ = write!(stderr, "\r\x1b[2K{doing}").and_then(|()| stderr.flush());
    }
}
