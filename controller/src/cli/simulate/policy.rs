//! The policy that a simulation runs under.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::api::policy::parse;
use crate::decide::policy::Mode;
use crate::decide::scope::PolicyObject;

/// What holds where nobody gives a policy: the defaults, everywhere, and they are applied.
pub const APPLY: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ClusterAllocationPolicy
metadata: {name: simulation}
spec: {mode: Apply}
";

/// The same, and limits move, too.
pub const APPLY_LIMITS: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ClusterAllocationPolicy
metadata: {name: simulation}
spec: {mode: Apply, controlledValues: RequestsAndLimits}
";

/// The policy of a file.
pub fn read(path: &Path) -> anyhow::Result<PolicyObject> {
    let yaml = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&yaml).with_context(|| path.display().to_string())
}

/// The policy of a file, or this one.
pub fn read_or(path: Option<&Path>, yaml: &str) -> anyhow::Result<PolicyObject> {
    match path {
        Some(path) => read(path),
        None => parse(yaml).context("the default policy"),
    }
}

/// The policy of a file, or this one, as it is when its changes are made, and what has to be said of that before any figures:
/// how a policy that only recommends would do is seen when its advice is followed.
pub fn acting(path: Option<&Path>, yaml: &str) -> anyhow::Result<(PolicyObject, String)> {
    let mut object = read_or(path, yaml)?;
    let PolicyObject { id, policy, .. } = &mut object;
    let note = match policy.mode {
        Mode::Apply => String::new(),
        Mode::Recommend => {
            format!("{id} has mode Recommend: what it recommends is taken as done (mode Apply).\n\n")
        }
        mode @ (Mode::Observe | Mode::Disabled) => {
            format!(
                "{id} has mode {mode:?}, in which nothing is changed: write `mode: Apply` to see what it would do.\n\n"
            )
        }
    };
    if policy.mode == Mode::Recommend {
        policy.mode = Mode::Apply;
    }
    Ok((object, note))
}
