//! The commands of `loadline`.

pub mod simulate;

use clap::{Parser, Subcommand};

/// Keeps containers at the line where they wait no longer than they may.
#[derive(Parser)]
#[command(name = "loadline", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replay recorded use through the controller's own decisions, and see what they would have cost.
    Simulate(simulate::Arguments),
}

/// Runs what the command line asks for.
pub fn run() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Simulate(arguments) => simulate::run(&arguments),
    }
}
