//! `lint`: formatting, clippy, and the rules of the tree that no other tool knows.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{cache::Cache, ebpf, step, workspace::Workspace};

/// The whole of the top level, beside names that start with a dot.
const TOP_LEVEL: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "controller",
    "deploy",
    "sampler",
    "sampler-common",
    "sampler-ebpf",
    "target",
    "tests",
    "xtask",
];

/// Everything that a change must pass before its tests count; what is quick comes first.
pub fn run(cache: &Cache, workspace: &Workspace) -> Result<()> {
    tidy(&workspace.root)?;
    step::run_shown("Formatting", workspace.cargo().args(["fmt", "--all", "--check"]))
        .context("`cargo fmt --all` puts it right")?;
    // The host's programs embed the BPF object.
    ebpf::build(cache, workspace, ebpf::PACKAGE)?;
    ebpf::clippy(cache, workspace, ebpf::PACKAGE)?;
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--all-targets", "--", "-D", "warnings"]);
    step::run_shown("clippy", &mut clippy)
}

/// Fails with all that is out of place.
fn tidy(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&&*name) {
            wrong.push(format!("{name} does not belong at the top level"));
        }
    }
    let mut roots = Vec::new();
    find_roots(root, true, &mut roots)?;
    for path in roots {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not open with `//!` and its one purpose", path.display()));
        }
    }
    if !wrong.is_empty() {
        bail!("the tree is not tidy:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// Every `lib.rs` and `main.rs` below, generated and hidden directories left out.
fn find_roots(dir: &Path, top: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            let skipped = name.to_string_lossy().starts_with('.') || top && name == "target";
            if !skipped {
                find_roots(&entry.path(), false, found)?;
            }
        } else if [OsStr::new("lib.rs"), OsStr::new("main.rs")].contains(&&*name) {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sampler/src/lib.rs", "//! Purpose.\n");
        write("target/x/main.rs", "");
        write(".hidden/main.rs", "");
        tidy(dir.path()).unwrap();
        write("notes.txt", "");
        write("tests/demo/main.rs", "fn main() {}\n");
        let error = tidy(dir.path()).unwrap_err().to_string();
        assert!(error.contains("notes.txt does not belong"), "{error}");
        assert!(error.contains("tests/demo/main.rs does not open"), "{error}");
        assert!(!error.contains("hidden") && !error.contains("target"), "{error}");
    }
}
