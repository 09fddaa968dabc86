//! `loadline simulate --trace`: traces through the controller's decisions, beside what another method makes of them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::explain::Moment;
use super::figures::Figures;
use super::{policy, progress, show};
use crate::decide::scope::PolicyObject;
use crate::decide::units::{MilliCpu, Timestamp};
use crate::simulate::score::{Played, Terms};
use crate::simulate::trace::{Trace, name_of};
use crate::simulate::traced::{decision, replay};

/// What to replay, and where to write the outcome.
#[derive(Args)]
#[group(skip)]
pub struct Arguments {
    /// Traces: CSV files with lines `ts,value` (seconds since the epoch, cores), one container each. The first day is not
    /// judged.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "recording")]
    trace: Vec<PathBuf>,
    /// A sampler's recording: what would have been decided about each of its containers, and the figures of that. One of
    /// less than a day is played slowly, since histories take hours. Nothing is applied: each request decided is judged
    /// against the recorded use of the next window. The first day (as played) is not judged, except of containers that end within it.
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    recording: Option<PathBuf>,
    /// What a container without a CPU limit is taken to request: recordings do not say it.
    #[arg(long, value_name = "CPU", default_value = "500m", requires = "recording")]
    request: MilliCpu,
    /// The policy to decide by: its YAML. Without, the defaults in mode Apply.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print one decision instead, with everything that led to it: the last one about a trace or container up to this second
    /// (of the epoch for a trace, from the beginning of a recording).
    #[arg(long, value_name = "SERIES@SECONDS", conflicts_with_all = ["baseline", "json", "plot"])]
    explain: Option<Moment>,
    #[command(flatten)]
    figures: Figures,
}

/// Replays every trace, prints the figures and writes what was asked for.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { recording, request, explain, figures, .. } = arguments;
    let given = arguments.policy.as_deref();
    if let Some(recording) = recording {
        return super::recording::run(recording, given, *request, explain.as_ref(), figures);
    }
    let (policy, note) = policy::acting(given, policy::APPLY)?;
    let named = named(&arguments.trace);
    if let Some(moment) = explain {
        return one_decision(&named, moment, policy);
    }
    let played = named.iter().enumerate().map(|(index, (name, path))| {
        progress(&format!("{} of {}: {}", index + 1, named.len(), path.display()));
        let trace = Trace { name: name.clone(), ..Trace::read(path)? };
        let run = replay(&trace, policy.clone()).context("a plan was not safe")?;
        Ok(Played { terms: Terms::of_trace(&trace), trace, run })
    });
    figures.tell(note, played)
}

/// Each trace and what it is called: its file without folder and ending, as far as that tells it from the others.
fn named(traces: &[PathBuf]) -> Vec<(String, &Path)> {
    let name = |path: &Path| {
        let name = name_of(path);
        let is_one = traces.iter().filter(|other| name_of(other) == name).count() == 1;
        if is_one { name } else { path.with_extension("").display().to_string() }
    };
    traces.iter().map(|path| (name(path), path.as_path())).collect()
}

/// Prints the decision about one trace at one moment.
fn one_decision(named: &[(String, &Path)], moment: &Moment, policy: PolicyObject) -> anyhow::Result<()> {
    let (_, path) = named.iter().find(|(name, _)| *name == moment.series).with_context(|| {
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        format!("--explain: no trace is called {}; there are: {}", moment.series, names.join(", "))
    })?;
    let trace = Trace::read(path)?;
    let begins = trace.samples.first().map_or(0, |(at, _)| at.0);
    let record = decision(&trace, Timestamp(moment.at), policy).context("a plan was not safe")?;
    let record = record.with_context(|| format!("--explain: {} begins at {begins}", moment.series))?;
    show(format_args!("{record}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_of_one_name_go_by_their_paths() {
        let paths = ["a/web.csv", "b/web.csv", "b/db.csv"].map(PathBuf::from);
        let names: Vec<String> = named(&paths).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a/web", "b/web", "db"]);
    }
}
