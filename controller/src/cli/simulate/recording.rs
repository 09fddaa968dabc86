//! `loadline simulate --recording`: what would have been decided about what a sampler recorded.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context as _;

use super::explain::Moment;
use super::{policy, show};
use crate::decide::units::MilliCpu;
use crate::simulate::recorded::{Decision, Usual, replay, usual};

/// Prints what was decided about each container most of the time, or about one at one moment.
pub fn run(
    recording: &Path,
    policy: Option<&Path>,
    request: MilliCpu,
    explain: Option<&Moment>,
) -> anyhow::Result<()> {
    let policy = policy::read_or(policy, policy::APPLY)?;
    let file = File::open(recording).with_context(|| format!("cannot read {}", recording.display()))?;
    let decisions =
        replay(BufReader::new(file), policy, request).with_context(|| recording.display().to_string())?;
    match explain {
        Some(moment) => {
            let full = |decision: &Decision| format!("{}/{}", decision.name.pod, decision.name.container);
            let named = |decision: &&Decision| {
                decision.name.container == moment.series || full(decision) == moment.series
            };
            let at = |decision: &&Decision| decision.at_seconds <= moment.at;
            let found = decisions.iter().filter(named).rfind(at);
            let found = found.with_context(|| {
                let names: BTreeSet<String> = decisions.iter().map(full).collect();
                let names: Vec<String> = names.into_iter().collect();
                format!("--explain: nothing was decided about {moment}; there are: {}", names.join(", "))
            })?;
            show(format_args!("{}\n", found.record))?;
        }
        None => {
            let told = |usual: Usual<'_>| {
                format!("{}\n  so in     {} of {} decisions\n\n", usual.last.record, usual.times, usual.of)
            };
            show(usual(&decisions).into_iter().map(told).collect::<String>())?;
        }
    }
    Ok(())
}
