//! Where the checkout and its build directory are, and which programs its packages have.

use std::{env, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::step;

/// The checkout.
#[derive(Debug)]
pub struct Workspace {
    /// Its top directory.
    pub root: PathBuf,
    /// Cargo's build directory.
    pub target: PathBuf,
    /// The cargo that runs us.
    pub cargo: PathBuf,
    metadata: Value,
}

impl Workspace {
    /// Asks cargo.
    pub fn find() -> Result<Self> {
        let cargo = PathBuf::from(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let mut command = Command::new(&cargo);
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        command.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        let text = step::ask(&mut command, Duration::from_secs(60))
            .context("cargo metadata failed: is every Cargo.toml of the workspace in order?")?;
        let metadata: Value = serde_json::from_str(&text).context("reading cargo metadata")?;
        let path = |name: &str| {
            let value = metadata[name].as_str();
            value.map(PathBuf::from).with_context(|| format!("cargo metadata has no {name}"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, cargo, metadata })
    }

    /// The names of a package's binaries.
    pub fn programs(&self, package: &str) -> Result<Vec<String>> {
        let packages = self.metadata["packages"].as_array().into_iter().flatten();
        let found = packages
            .into_iter()
            .find(|one| one["name"] == package)
            .with_context(|| format!("the workspace has no package {package}"))?;
        let targets = found["targets"].as_array().into_iter().flatten();
        let binaries = targets.filter(|target| {
            target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"))
        });
        Ok(binaries.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
    }

    /// A cargo command in the checkout.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root);
        command
    }
}
