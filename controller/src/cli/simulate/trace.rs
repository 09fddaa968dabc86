//! `loadline simulate --trace`: traces through the controller's decisions, beside what another method makes of them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::explain::Moment;
use super::{Output, policy, progress, show, write};
use crate::decide::scope::PolicyObject;
use crate::decide::units::{MilliCpu, Timestamp};
use crate::simulate::Sizer;
use crate::simulate::baseline::{Static, Vpa, Window};
use crate::simulate::plot::{Panel, plot};
use crate::simulate::report::{Report, Series};
use crate::simulate::score::{self, Run};
use crate::simulate::trace::{Trace, name_of};
use crate::simulate::traced::{decision, replay};

/// What to replay, and where to write the outcome.
#[derive(Args)]
#[group(skip)]
pub struct Arguments {
    /// Traces: CSV files with lines `ts,value` (seconds since the epoch, cores), one container each.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "recording")]
    trace: Vec<PathBuf>,
    /// Another method to set beside ours.
    #[arg(long, value_enum)]
    baseline: Option<Baseline>,
    /// A sampler's recording: what would have been decided about each of its containers. One of less than a day is played
    /// slowly, since histories take hours.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "baseline", "json", "plot"])]
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
    output: Output,
}

/// The methods that others use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Baseline {
    /// The Vertical Pod Autoscaler's recommender and its updater's gate.
    Vpa,
    /// The 90th percentile of the last 24 hours × 1.2, looked at every hour.
    Window,
    /// The request that it began with.
    Static,
}

impl Baseline {
    fn sizer(self) -> Box<dyn Sizer> {
        match self {
            Self::Vpa => Box::new(Vpa::new()),
            Self::Window => Box::new(Window::default()),
            Self::Static => Box::new(Static),
        }
    }
}

/// Replays every trace, prints the figures and writes what was asked for.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { recording, request, explain, .. } = arguments;
    let given = arguments.policy.as_deref();
    if let Some(recording) = recording {
        return super::recording::run(recording, given, *request, explain.as_ref());
    }
    let (policy, note) = policy::acting(given, policy::APPLY)?;
    let named = named(&arguments.trace);
    if let Some(moment) = explain {
        return one_decision(&named, moment, policy);
    }
    let mut series = Vec::with_capacity(named.len());
    let mut panels = Vec::new();
    for (index, (name, path)) in named.iter().enumerate() {
        progress(&format!("{} of {}: {}", index + 1, named.len(), path.display()));
        let trace = Trace { name: name.clone(), ..Trace::read(path)? };
        let ours = replay(&trace, policy.clone()).context("a plan was not safe")?;
        let baseline = arguments.baseline.map(|baseline| score::replay(&trace, &mut *baseline.sizer()));
        series.push(Series::new(&trace, ours.score, baseline.as_ref().map(|run| run.score)));
        if arguments.output.plot.is_some() {
            let lines =
                [Some(&ours), baseline.as_ref()].map(|run| run.map(|run: &Run| run.allocated.as_slice()));
            panels.push(Panel::new(&trace, lines));
        }
    }
    progress("");
    let report = Report::new(series);
    show(format_args!("{note}{report}"))?;
    arguments.output.write_json(&report)?;
    if let Some(path) = &arguments.output.plot {
        write(path, &plot(&panels)?)?;
    }
    Ok(())
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
