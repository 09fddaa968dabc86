//! What this host can run itself, and what it lacks for that, in words.

use std::{
    io::IsTerminal as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{debian::find_program, process::Running, process::Stop, step};

/// The exit code by which our programs say that this kernel cannot run them.
pub const CANNOT: i32 = 3;

/// How to become root here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// We are.
    Already,
    /// By sudo.
    Sudo,
}

impl Root {
    /// Finds a way, or says why there is none.
    pub fn find() -> Result<Self, String> {
        if nix::unistd::geteuid().is_root() {
            return Ok(Self::Already);
        }
        if find_program("sudo").is_none() {
            return Err("root (and there is no sudo)".into());
        }
        let asks_nothing = step::ask(Command::new("sudo").args(["-n", "true"]), Duration::from_secs(10));
        if asks_nothing.is_none() && !std::io::stdin().is_terminal() {
            return Err("root (sudo wants a password, and there is no terminal to type it)".into());
        }
        Ok(Self::Sudo)
    }

    /// A command that runs `program` as root with these variables.
    pub fn command(self, program: &Path, environment: &[(String, String)]) -> Command {
        match self {
            Self::Already => {
                let mut command = Command::new(program);
                command.envs(environment.iter().map(|(name, value)| (name, value)));
                command
            }
            Self::Sudo => {
                eprintln!("as root, by sudo: {}", program.display());
                let mut command = Command::new("sudo");
                // sudo drops the environment.
                command.arg("env").args(environment.iter().map(|(name, value)| format!("{name}={value}")));
                command.arg(program);
                command
            }
        }
    }
}

/// How to run `program` as root on this host, or all that it lacks for that. The program itself is the judge; sudo
/// may ask for a password, so that it comes in only where root is all that is missing.
pub fn can_run(program: &Path) -> Result<Result<Root, Vec<String>>> {
    let missing = probe(Root::Already, program)?;
    if missing.is_empty() {
        return Ok(Ok(Root::Already));
    }
    if missing != ["root"] {
        return Ok(Err(missing));
    }
    let root = match Root::find() {
        Ok(root) => root,
        Err(why) => return Ok(Err(vec![why])),
    };
    let missing = probe(root, program)?;
    Ok(if missing.is_empty() { Ok(root) } else { Err(missing) })
}

/// Asks one of our programs with `--probe` whether it can run here: it prints what is missing and exits 3 if not.
fn probe(root: Root, program: &Path) -> Result<Vec<String>> {
    let mut command = root.command(program, &[]);
    command.arg("--probe").stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut running = Running::start(&mut command, Stop::Forward)?;
    let mut said = String::new();
    let stdout = running.child().stdout.take().context("a program without an output")?;
    std::io::Read::read_to_string(&mut std::io::BufReader::new(stdout), &mut said)
        .context("reading the probe's answer")?;
    let status = running.wait()?;
    if status.success() {
        return Ok(Vec::new());
    }
    let mut missing: Vec<_> =
        said.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if missing.is_empty() || status.code() != Some(CANNOT) {
        missing.push(format!("{} --probe: {status}", program.display()));
    }
    Ok(missing)
}
