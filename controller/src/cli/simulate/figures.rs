//! The figures of traces and recordings: printed, as JSON, drawn; and what another method makes of the same use.

use std::fmt::Display;

use clap::{Args, ValueEnum};

use super::{Output, progress, show, write};
use crate::simulate::Sizer;
use crate::simulate::baseline::{Static, Vpa, Window};
use crate::simulate::plot::{Panel, plot};
use crate::simulate::report::{Report, Series};
use crate::simulate::score::{self, Played};

/// What to show beside our figures, and where else they go.
#[derive(Args)]
#[group(skip)]
pub struct Figures {
    /// Another method to set beside ours. It begins with the same request, and sizes each container as if it were alone on
    /// its node; ours shares a node out among the containers of a recording.
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

impl Figures {
    /// Prints the figures of every series after what is to be said before them, and writes what was asked for.
    pub fn tell(
        &self,
        before: impl Display,
        series: impl IntoIterator<Item = anyhow::Result<Played>>,
    ) -> anyhow::Result<()> {
        let (mut figures, mut panels) = (Vec::new(), Vec::new());
        for played in series {
            let Played { trace, terms, run: ours } = played?;
            let baseline = self.baseline.map(|baseline| score::replay(&trace, terms, &mut *baseline.sizer()));
            figures.push(Series::new(&trace, terms, ours.score, baseline.as_ref().map(|run| run.score)));
            if self.output.plot.is_some() {
                let lines =
                    [Some(&ours), baseline.as_ref()].map(|run| run.map(|run| run.allocated.as_slice()));
                panels.push(Panel::new(&trace, lines));
            }
        }
        progress("");
        let report = Report::new(figures);
        show(format_args!("{before}{report}"))?;
        self.output.write_json(&report)?;
        match &self.output.plot {
            Some(path) => write(path, &plot(&panels)?),
            None => Ok(()),
        }
    }
}
