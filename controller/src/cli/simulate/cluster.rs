//! `loadline simulate cluster`: a made-up cluster under the whole pipeline, every plan checked.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, value_parser};

use super::{policy, progress, show, write_json};
use crate::simulate::cluster::Shape;
use crate::simulate::cluster::run::run as simulate;

/// How large, and for how long.
///
/// Pods come and go, containers use more by day, make noise and have bursts; nodes come under pressure, samplers fall silent,
/// resizes are deferred. A decision is made every minute, and every plan is checked. The first day is not judged. Fails when a
/// plan fails.
#[derive(Args)]
#[group(skip)]
pub struct Arguments {
    /// Nodes, of 32 CPUs each.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = value_parser!(u32).range(1..=5000))]
    nodes: u32,
    /// Containers, as far as they find room.
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = value_parser!(u32).range(1..=550_000))]
    containers: u32,
    /// Of the random numbers.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Simulated hours.
    #[arg(long, value_name = "NUMBER", default_value_t = 48, value_parser = value_parser!(u64).range(1..=8760))]
    hours: u64,
    /// The policy that acts on it: its YAML. Without, the defaults in mode Apply.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write the figures as JSON, shares as fractions.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Lets the cluster live, prints the totals, and fails when a plan did.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { nodes, containers, seed, hours, .. } = *arguments;
    let (policy, note) = policy::acting(arguments.policy.as_deref(), policy::APPLY)?;
    let totals = simulate(Shape { nodes, containers, seed }, vec![policy], hours, &mut |hour| {
        progress(&format!("{hour} of {hours} hours"));
    });
    progress("");
    show(format_args!("{note}{totals}"))?;
    write_json(arguments.json.as_deref(), &totals)?;
    ensure!(totals.violations == 0, "{} violations in {} plans", totals.violations, totals.plans_checked);
    Ok(())
}
