//! The tests against a real API server, on this host.

use std::process::Command;

use anyhow::{Context as _, Result};

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
    let built = programs::build(workspace, &[PROGRAM])?;
    let mut command = Command::new(built.first().context("no program was built")?);
    command.arg("test").args(filter).envs(control_plane.environment());
    suite::run_here(PROGRAM, &mut command)
}
