//! The tests of the real sampler, and of its parts, against a real API server, on this host.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    cache::Cache,
    control_plane::ControlPlane,
    programs,
    suite::{self, Outcome},
    workspace::Workspace,
};

/// The program with the tests; the suite is named so too.
pub const PROGRAM: &str = "apiserver";

/// Runs the tests whose names contain the filter.
pub fn run(cache: &Cache, workspace: &Workspace, filter: Option<&str>) -> Result<Outcome> {
    let control_plane = ControlPlane::prepare(cache, workspace)?;
    let built = programs::build(workspace, &[PROGRAM, programs::SAMPLER])?;
    let [program, sampler] = &built[..] else { bail!("not all programs were built") };
    let mut command = Command::new(program);
    command.arg("test").args(filter).envs(control_plane.environment());
    command.env("LOADLINE_SAMPLER", sampler);
    suite::run_here(PROGRAM, &mut command)
}
