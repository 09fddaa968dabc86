//! The policy that a simulation runs under.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::api::policy::parse;
use crate::decide::scope::PolicyObject;

/// What holds where nobody gives a policy: the defaults, everywhere, and they are applied.
const DEFAULT: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ClusterAllocationPolicy
metadata: {name: simulation}
spec: {mode: Apply}
";

/// The policy of a file.
pub fn read(path: &Path) -> anyhow::Result<PolicyObject> {
    let yaml = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&yaml).with_context(|| path.display().to_string())
}

/// The policy of a file, or the defaults, applied.
pub fn read_or_apply(path: Option<&Path>) -> anyhow::Result<PolicyObject> {
    match path {
        Some(path) => read(path),
        None => parse(DEFAULT).context("the default policy"),
    }
}
