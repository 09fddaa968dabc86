//! `dist`: the sampler as it is deployed: one static binary with the BPF programs in it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::programs::{self, SAMPLER};
use crate::{cache::Cache, ebpf, files, workspace::Workspace};

/// Builds everything, and returns where the binary is.
pub fn run(cache: &Cache, workspace: &Workspace) -> Result<PathBuf> {
    ebpf::build(cache, workspace, ebpf::PACKAGE)?;
    let built = programs::build_of(workspace, &[SAMPLER], &[SAMPLER])?;
    let built = built.first().context("no program was built")?;
    let place = workspace.target.join("dist").join(SAMPLER);
    let binary = std::fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    files::write_executable(&place, &binary)?;
    Ok(place)
}
