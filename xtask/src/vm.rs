//! `vm`: one of the kernels with a shell, or with one command.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;

use crate::{
    cache::Cache,
    ebpf,
    kernel::Series,
    machine::{Job, Lab},
    programs, step,
    workspace::Workspace,
};

/// A command in a guest takes at most this long.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs `command` in a guest and passes its exit code on; an interactive shell if there is none.
pub fn run(cache: &Cache, workspace: &Workspace, series: Series, command: &[String]) -> Result<ExitCode> {
    let names = workspace.programs(programs::PACKAGE)?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let ours = if names.is_empty() {
        Vec::new()
    } else {
        ebpf::build(cache, workspace, ebpf::PACKAGE)?;
        programs::build(workspace, &names)?
    };
    let script = if command.is_empty() {
        "echo 'Our programs are in /usr/bin; Ctrl-D or Ctrl-A X ends the machine.'\nsetsid cttyhack sh"
            .to_owned()
    } else {
        command.iter().map(|word| step::quote(word)).collect::<Vec<_>>().join(" ")
    };
    let mut root = programs::shell_root(cache, &script)?;
    for (name, path) in names.iter().zip(&ours) {
        root.host_program(&format!("/usr/bin/{name}"), path);
    }
    programs::add_runqlat(cache, &mut root)?;
    let (columns, rows) = step::terminal_size();
    let environment = [("COLUMNS", columns.to_string()), ("LINES", rows.to_string()), ("TERM", terminal())];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    let job = Job { series, root, arguments: Vec::new(), environment, watched: true, limit: LIMIT };
    let lab = Lab::open(cache, workspace)?;
    if command.is_empty() {
        let status = lab.interact(&job)?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let finished = lab.run(&job, &format!("vm-{series}"), &mut |said| Ok(said.pass_on()?))?;
    Ok(exit_code(finished.code))
}

/// The terminal's type, for a guest that draws on it.
pub fn terminal() -> String {
    let plain = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    std::env::var("TERM").ok().filter(plain).unwrap_or_else(|| "linux".into())
}

/// An exit code to pass on.
pub fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
