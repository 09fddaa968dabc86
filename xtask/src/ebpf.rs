//! `build-ebpf`: compiles the BPF programs to `target/bpf/NAME`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{cache::Cache, files, step::Step, toolchain, workspace::Workspace};

/// The package that holds the BPF programs.
pub const PACKAGE: &str = "sampler-ebpf";

/// Builds every program of a BPF package and returns the objects.
pub fn build(cache: &Cache, workspace: &Workspace, package: &str) -> Result<Vec<PathBuf>> {
    let toolchain = toolchain::bpf(cache)?;
    let mut command = command(&toolchain, workspace, package, "build");
    let mut step = Step::start(format!("Building {package} ({})", toolchain.name));
    let output = step.command(&mut command, None)?;
    step.done();
    // Warnings of the compiler are shown although the build went well: nobody else compiles these programs.
    for line in output.lines().skip_while(|line| !line.starts_with("warning")) {
        eprintln!("{line}");
    }

    let built = build_dir(workspace).join(toolchain::TARGET).join("release");
    let mut objects = Vec::new();
    for program in workspace.programs(package)? {
        let from = built.join(&program);
        let to = workspace.target.join("bpf").join(&program);
        let object = fs::read(&from).with_context(|| format!("the build left no {}", from.display()))?;
        // Left alone if unchanged, so that nothing that embeds it is built again.
        if fs::read(&to).ok().as_deref() != Some(&object) {
            files::write(&to, &object)?;
        }
        objects.push(to);
    }
    Ok(objects)
}

/// Clippy for a BPF package, warnings being errors.
pub fn clippy(cache: &Cache, workspace: &Workspace, package: &str) -> Result<()> {
    let toolchain = toolchain::bpf(cache)?;
    let mut command = command(&toolchain, workspace, package, "clippy");
    command.args(["--", "-D", "warnings"]);
    let mut step = Step::start(format!("clippy for {package} ({})", toolchain.name));
    step.command(&mut command, None)?;
    step.done();
    Ok(())
}

fn command(
    toolchain: &toolchain::Toolchain,
    workspace: &Workspace,
    package: &str,
    verb: &str,
) -> std::process::Command {
    let mut command = toolchain.cargo(verb);
    command.args(["--package", package]);
    // A directory of its own: other flags and another toolchain would throw the host build's work away.
    command.env("CARGO_TARGET_DIR", build_dir(workspace));
    command.current_dir(&workspace.root);
    command
}

fn build_dir(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf-build")
}
