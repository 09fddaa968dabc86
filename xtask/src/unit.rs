//! The unit and property tests, as a suite: `cargo test`, all of it also when something fails, told as the others are.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result};

use crate::{
    process::{self, Running, Stop},
    suite::{Listener, Outcome},
    workspace::Workspace,
};

/// What the suite is called.
pub const NAME: &str = "unit";

/// Runs the tests whose names contain the filter. What they say goes on to the terminal.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<Outcome> {
    eprintln!("Unit and property tests …");
    let mut command = workspace.cargo();
    // Else the programs after the first with a failure would not be run.
    command.args(["test", "--no-fail-fast"]).args(filter);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(&mut command, Stop::KillGroup)?;
    let said = running.child().stdout.take().context("cargo without an output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(said).split(b'\n') {
        let line = line.context("reading what the tests say")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.note(&line);
    }
    let status = running.wait()?;
    process::pause_if_stopping();
    let mut listener = Listener::new(NAME);
    listener.hear(tally.told().as_bytes());
    Ok(listener.end(status.code().unwrap_or(1)))
}

/// What Rust's own test programs, one after the other, come to.
#[derive(Default)]
struct Tally {
    programs: u32,
    passed: u32,
    failed: u32,
    /// Names of the tests that failed, with what was said of each.
    failures: Vec<(String, Vec<String>)>,
    in_failure: bool,
}

impl Tally {
    fn note(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            let count = |what: &str| -> Option<u32> {
                result.split([';', '.']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
            };
            self.programs += 1;
            self.passed += count("passed").unwrap_or(0);
            self.failed += count("failed").unwrap_or(0);
            self.in_failure = false;
        } else if let Some(test) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.failures.push((test.to_owned(), Vec::new()));
            self.in_failure = true;
        } else if line == "failures:" {
            self.in_failure = false;
        } else if let Some((_, lines)) = self.failures.last_mut()
            && self.in_failure
            && !line.trim().is_empty()
        {
            lines.push(line.to_owned());
        }
    }

    /// In the words of a suite; nothing where no program came to its end.
    fn told(&self) -> String {
        let failures = self.failures.iter().map(|(test, lines)| {
            let lines: String = lines.iter().map(|line| format!("     {line}\n")).collect();
            format!("test {test} ... FAILED:\n{lines}")
        });
        let summary =
            (self.programs > 0).then(|| format!("{} passed, {} failed\n", self.passed, self.failed));
        failures.chain(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &str) -> String {
        let mut tally = Tally::default();
        said.lines().for_each(|line| tally.note(line));
        tally.told()
    }

    #[test]
    fn programs_are_added_up_and_failures_are_told_with_what_they_said() {
        let said = "
running 2 tests
test a::right ... ok
test a::wrong ... FAILED

failures:

---- a::wrong stdout ----

thread 'a::wrong' panicked at a.rs:3:5:
assertion failed: false


failures:
    a::wrong

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s


running 1 test
test right ... ok

test result: ok. 1 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        assert_eq!(
            told(said),
            "test a::wrong ... FAILED:\n     thread 'a::wrong' panicked at a.rs:3:5:\n     assertion failed: false\n\
             2 passed, 1 failed\n"
        );
    }

    #[test]
    fn what_was_not_built_has_no_summary() {
        assert_eq!(told(""), "");
    }
}
