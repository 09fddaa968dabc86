//! `loadline simulate --recording`: what would have been decided about what a sampler recorded, and what that would have cost.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context as _;

use super::explain::Moment;
use super::figures::Figures;
use super::{policy, show};
use crate::decide::units::MilliCpu;
use crate::simulate::recorded::{Decision, Usual, played, replay, series_names, usual};

/// What the figures are of.
const HEADING: &str = "\
What was decided after each window, against what was used in the next (of a day or more: after the first day).
Use is as recorded: what held a container back holds it back here, whatever it is given.
";

/// Prints what was decided about each container most of the time and the figures of it, or the decision about one at one moment.
pub fn run(
    recording: &Path,
    policy: Option<&Path>,
    request: MilliCpu,
    explain: Option<&Moment>,
    figures: &Figures,
) -> anyhow::Result<()> {
    let policy = policy::read_or(policy, policy::APPLY)?;
    let file = File::open(recording).with_context(|| format!("cannot read {}", recording.display()))?;
    let decisions =
        replay(BufReader::new(file), policy, request).with_context(|| recording.display().to_string())?;
    match explain {
        Some(moment) => {
            let names = series_names(&decisions);
            let named = |decision: &&Decision| {
                decision.name.container == moment.series || names[&decision.name] == moment.series
            };
            let at = |decision: &&Decision| decision.at_seconds <= moment.at;
            let found = decisions.iter().filter(named).rfind(at);
            let found = found.with_context(|| {
                let names: Vec<&str> = names.values().map(String::as_str).collect();
                format!("--explain: nothing was decided about {moment}; there are: {}", names.join(", "))
            })?;
            show(format_args!("{}\n", found.record))
        }
        None => {
            let told = |usual: Usual<'_>| {
                format!("{}\n  so in     {} of {} decisions\n\n", usual.last.record, usual.times, usual.of)
            };
            let told: String = usual(&decisions).into_iter().map(told).collect();
            figures.tell(format_args!("{told}{HEADING}"), played(&decisions).into_iter().map(Ok))
        }
    }
}
