//! `demo`: the sampler at work, on this host if it can, else in a virtual machine.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    cache::Cache,
    debian::find_program,
    ebpf, files, host,
    initramfs::Initramfs,
    kernel::Series,
    machine::{Job, Lab},
    process::{Running, Stop, terminal_is_live},
    programs, runtime, step, vm,
    workspace::Workspace,
};

const PROGRAM: &str = "demo";
/// The file in which a guest sends its recording.
const RECORDING: &str = "demo.recording";
/// What most nodes run.
const KERNEL: Series = Series::V6_12;
/// A live view is watched for as long as somebody likes, but a machine is not left behind for ever.
const LIMIT: Duration = Duration::from_secs(3600);

/// What is chosen.
pub struct Options {
    /// In a virtual machine even if this host could.
    pub in_vm: bool,
    /// The file for a recording.
    pub record: Option<PathBuf>,
    /// Go to the demo as they are.
    pub arguments: Vec<String>,
}

/// Fetches and builds all that the demo in a machine needs.
pub fn prepare(cache: &Cache, workspace: &Workspace) -> Result<()> {
    programs::build(workspace, &[PROGRAM])?;
    // What cannot be had is said when it is missed.
    let _ = runtime::add_containerd(cache, workspace, &mut Initramfs::new());
    Lab::open(cache, workspace)?.prepare(KERNEL)
}

/// Runs the demo and passes its exit code on.
pub fn run(cache: &Cache, workspace: &Workspace, options: Options) -> Result<ExitCode> {
    let Options { in_vm, record, arguments } = options;
    ebpf::build(cache, workspace, ebpf::PACKAGE)?;
    let built = programs::build(workspace, &[PROGRAM])?;
    let program = built.first().context("no demo program")?;

    let live = std::io::stdout().is_terminal();
    let mut passed = arguments;
    if live {
        passed.push("--live".into());
    }
    let (columns, rows) = step::terminal_size();
    let environment =
        [("COLUMNS", columns.to_string()), ("LINES", rows.to_string()), ("TERM", vm::terminal())]
            .map(|(name, value)| (name.to_owned(), value));

    if in_vm {
        eprintln!("Running in a virtual machine (Linux {KERNEL}), as asked.");
    } else {
        match host::can_run(program)? {
            Ok(root) => {
                eprintln!("Running on this host.");
                passed.extend(on_host(cache, workspace)?);
                if let Some(file) = &record {
                    passed.extend(["--record".into(), text(file)?.into()]);
                }
                let mut command = root.command(program, &environment);
                // It stays in the terminal's foreground: Ctrl-C reaches it, and it cleans up before it ends.
                let status = Running::start(command.args(&passed), Stop::Forward)?.wait()?;
                return Ok(pass_on(status));
            }
            Err(missing) => say_missing(&missing),
        }
    }
    let mut root = Initramfs::new();
    root.host_program("/init", program);
    // What it shows is the same without; only its containers are not real then.
    match runtime::add_containerd(cache, workspace, &mut root) {
        Ok(()) => passed.extend(image_argument(runtime::IMAGE_IN_GUEST)),
        Err(error) => eprintln!("Without a container runtime, which cannot be had: {error:#}"),
    }
    if record.is_some() {
        passed.extend(["--record".into(), format!("/tmp/{RECORDING}")]);
    }
    let job = Job {
        series: KERNEL,
        root,
        arguments: passed,
        environment: environment.into(),
        watched: true,
        limit: LIMIT,
    };
    let lab = Lab::open(cache, workspace)?;
    lab.prepare(KERNEL)?;
    terminal_is_live(live);
    let finished = lab.run(&job, "demo", &mut |said| Ok(said.pass_on()?));
    terminal_is_live(false);
    let finished = finished?;
    if let Some(file) = record {
        let digits = finished.files.get(RECORDING).context("the machine has sent no recording")?;
        files::write(&file, &bytes_of(digits).context("the recording has come damaged")?)?;
    }
    Ok(vm::exit_code(finished.code))
}

/// Bytes that were sent as hex digits, in lines.
fn bytes_of(digits: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<_> = digits.iter().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(value(high)? << 4 | value(low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// Arguments for real containers, where the host has a containerd that we may ask.
fn on_host(cache: &Cache, workspace: &Workspace) -> Result<Vec<String>> {
    const SOCKET: &str = "/run/containerd/containerd.sock";
    let tools = ["ctr", "runc", "containerd-shim-runc-v2"];
    if !Path::new(SOCKET).exists() || tools.iter().any(|tool| find_program(tool).is_none()) {
        return Ok(Vec::new());
    }
    let image = runtime::image(cache, workspace)?;
    Ok(image_argument(text(&image)?).into())
}

fn image_argument(path: &str) -> [String; 2] {
    ["--image".into(), path.into()]
}

fn say_missing(missing: &[String]) {
    eprintln!("This host cannot run the demo itself. It lacks:");
    for one in missing {
        eprintln!("  - {one}");
    }
    eprintln!("So it runs in a virtual machine (Linux {KERNEL}).");
}

/// The exit code of a child as our own; death by signal as a shell would say it.
fn pass_on(status: ExitStatus) -> ExitCode {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(1);
    vm::exit_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_are_bytes_and_anything_else_is_damage() {
        assert_eq!(bytes_of(b"00ff\n7A\n"), Some(vec![0, 255, 122]));
        assert_eq!(bytes_of(b""), Some(vec![]));
        assert_eq!(bytes_of(b"00f"), None);
        assert_eq!(bytes_of(b"0g"), None);
    }
}
