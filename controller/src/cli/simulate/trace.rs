//! `loadline simulate --trace`: traces through the sizing code, beside what another method makes of them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Output, progress, write};

use crate::decide::target::Prices;
use crate::simulate::Sizer;
use crate::simulate::baseline::{Static, Vpa, Window};
use crate::simulate::ours::Ours;
use crate::simulate::plot::{Panel, plot};
use crate::simulate::report::{Report, Series};
use crate::simulate::score::{Run, replay};
use crate::simulate::trace::Trace;

/// What to replay, and where to write the outcome.
#[derive(Args)]
#[group(skip)]
pub struct Arguments {
    /// Traces: CSV files with lines `ts,value` (seconds since the epoch, cores), one container each.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    trace: Vec<PathBuf>,
    /// Another method to set beside ours.
    #[arg(long, value_enum)]
    baseline: Option<Baseline>,
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
    let mut series = Vec::with_capacity(arguments.trace.len());
    let mut panels = Vec::new();
    for (index, path) in arguments.trace.iter().enumerate() {
        progress(&format!("{} of {}: {}", index + 1, arguments.trace.len(), path.display()));
        let trace = Trace::read(path)?;
        let ours = replay(&trace, &mut Ours::new(Prices::default()));
        let baseline = arguments.baseline.map(|baseline| replay(&trace, &mut *baseline.sizer()));
        series.push(Series::new(&trace, ours.score, baseline.as_ref().map(|run| run.score)));
        if arguments.output.plot.is_some() {
            let lines =
                [Some(&ours), baseline.as_ref()].map(|run| run.map(|run: &Run| run.allocated.as_slice()));
            panels.push(Panel::new(&trace, lines));
        }
    }
    progress("");
    let report = Report::new(series);
    print!("{report}");
    arguments.output.write_json(&report)?;
    if let Some(path) = &arguments.output.plot {
        write(path, &plot(&panels)?)?;
    }
    Ok(())
}
