//! Real Prometheus servers against the real sampler, on this host.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    cache::Cache,
    debian::{Apt, Suite},
    programs,
    suite::{self, Outcome},
    workspace::Workspace,
};

/// The program with the tests; the suite is named so too.
pub const PROGRAM: &str = "prometheus";

/// Debian's package, by the suite that it is from: 2.42 with classic histograms, and the newest with native ones.
fn server(cache: &Cache, suite: Suite, name: &str) -> Result<std::path::PathBuf> {
    let entry = cache.entry(name, |dir| {
        let apt = Apt::open(cache, suite, "apt (for Debian's prometheus)")?;
        apt.fetch(name, &["prometheus".into()], dir)
    })?;
    Ok(entry.join("usr/bin/prometheus"))
}

/// Runs the tests whose names contain the filter.
pub fn run(cache: &Cache, workspace: &Workspace, filter: Option<&str>) -> Result<Outcome> {
    let built = programs::build(workspace, &[PROGRAM, programs::SAMPLER])?;
    let [program, sampler] = &built[..] else { bail!("not all programs were built") };
    let mut command = Command::new(program);
    command.arg("test").args(filter);
    command.env("LOADLINE_SAMPLER", sampler);
    command.env("LOADLINE_PROMETHEUS", server(cache, Suite::Bookworm, "prometheus-bookworm")?);
    command.env("LOADLINE_PROMETHEUS_NATIVE", server(cache, Suite::Sid, "prometheus-sid")?);
    suite::run_here(PROGRAM, &mut command)
}
