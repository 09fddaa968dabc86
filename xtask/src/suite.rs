//! A suite of tests that runs as a program of its own, in a virtual machine or here: what it says, and what it came to.
//!
//! Every such program says a line for each test, `test NAME ... ok` or `test NAME ... FAILED: WHY` with further lines
//! below it, and ends with `N passed, M failed`.
//!
//! An emulated machine also depends on what else the host does. So a few tests that failed beside other machines run again
//! with nothing beside them ([`Outcome::settled`]): once where the test judges how the machine shared out its time ([`TIMED`]),
//! and [`IN_A_ROW`] times where what it judges must be exact, because a count that is wrong one time in three is wrong. One
//! that fails in any of them has failed; one that passes each is called unsteady, loudly and with its first failure, and
//! counts as passed. One that found no end ([`Failure::hung`]) has failed: a hang that comes and goes is not the host's, and
//! several more would last for most of an hour.

use std::{
    fmt,
    io::Read as _,
    iter,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    demo_test,
    process::{Running, Stop},
};

/// Lines of a failure that are said again at the end.
const LINES_OF_A_FAILURE: usize = 4;
/// When more tests than these fail, the host is not to blame.
const FEW: usize = 3;
/// How often what must be exact has to pass after it failed. What is wrong one time in three passes them one time in eight.
const IN_A_ROW: usize = 5;
/// How the names of tests begin whose judgement depends on how the host shares out its time: which causes made somebody
/// wait and what share each has, and what would have been used meanwhile.
const TIMED: [&str; 5] =
    ["attribution::", "cause::", "demand::", "life::a_limit_is_the_cause_of_its_wait", demo_test::TIMED];

/// Listens to a suite, and says each of its lines with its name before it.
pub struct Listener {
    name: String,
    line: Vec<u8>,
    summary: Option<Summary>,
    failures: Vec<Failure>,
    in_failure: bool,
}

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    test: String,
    /// The first lines of what was said of it.
    lines: Vec<String>,
}

impl Failure {
    /// Begins with the line of the test, if it is one of a failure.
    fn begin(line: &str) -> Option<Self> {
        let (test, _) = line.strip_prefix("test ")?.split_once(" ... FAILED")?;
        Some(Self { test: test.to_owned(), lines: Vec::new() })
    }

    /// Whether the test was ended because it had no end of its own, which `tests` says so.
    fn hung(&self) -> bool {
        let why = self.lines.first().and_then(|line| line.split_once("): "));
        why.is_some_and(|(_, why)| why.starts_with("no end after "))
    }
}

impl Listener {
    /// Listens to the suite of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), line: Vec::new(), summary: None, failures: Vec::new(), in_failure: false }
    }

    /// Takes what the suite has said next.
    pub fn hear(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let text = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.say(&text);
                self.note(text);
            } else {
                self.line.push(byte);
            }
        }
    }

    /// Says a line of our own in the suite's name.
    pub fn say(&self, text: &str) {
        println!("{:>10} | {text}", self.name);
    }

    fn note(&mut self, text: String) {
        self.summary = Summary::parse(&text).or(self.summary.take());
        if text.starts_with("test ") {
            let failure = Failure::begin(&text);
            self.in_failure = failure.is_some();
            self.failures.extend(failure);
        } else if !text.starts_with(' ') {
            self.in_failure = false;
        }
        if let Some(Failure { lines, .. }) = self.failures.last_mut()
            && self.in_failure
            && lines.len() < LINES_OF_A_FAILURE
        {
            lines.push(text);
        }
    }

    /// What it came to, once it has ended with that exit code.
    pub fn end(mut self, code: i32) -> Outcome {
        if !self.line.is_empty() {
            self.hear(b"\n");
        }
        let Self { name, summary, failures, .. } = self;
        let trouble = match summary {
            None => Some(format!("the tests ended without a summary (exit code {code})")),
            Some(summary) if summary.failed == 0 && code != 0 => {
                Some(format!("all passed, but the exit code is {code}"))
            }
            Some(_) => None,
        };
        Outcome { name, summary: summary.unwrap_or_default(), failures, unsteady: Vec::new(), trouble }
    }
}

/// Runs the program of a suite on this host.
pub fn run_here(name: &str, command: &mut Command) -> Result<Outcome> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut listener = Listener::new(name);
    let mut running = Running::start(command, Stop::KillGroup)?;
    let mut said = running.child().stdout.take().context("a program without an output")?;
    let mut bytes = [0; 4096];
    loop {
        match said.read(&mut bytes).context("reading what the tests say")? {
            0 => break,
            length => listener.hear(&bytes[..length]),
        }
    }
    let status = running.wait()?;
    Ok(listener.end(status.code().unwrap_or(1)))
}

/// What a suite came to.
pub struct Outcome {
    name: String,
    summary: Summary,
    failures: Vec<Failure>,
    /// Those that passed when they were run again.
    unsteady: Vec<Failure>,
    /// What went wrong beside the tests.
    trouble: Option<String>,
}

impl Outcome {
    /// That of a suite that could not be run.
    pub fn broken(name: impl Into<String>, error: &anyhow::Error) -> Self {
        let trouble = Some(format!("{error:#}"));
        Self {
            name: name.into(),
            summary: Summary::default(),
            failures: Vec::new(),
            unsteady: Vec::new(),
            trouble,
        }
    }

    /// What is worth another run, each test as often as it has to pass: what failed, where that is little, none of it
    /// hung, and nothing else went wrong.
    fn worth_another_run(&self) -> Vec<String> {
        if self.trouble.is_some() || self.failures.len() > FEW || self.failures.iter().any(Failure::hung) {
            return Vec::new();
        }
        let again = |failure: &Failure| {
            let timed = TIMED.iter().any(|name| failure.test.starts_with(name));
            iter::repeat_n(failure.test.clone(), if timed { 1 } else { IN_A_ROW })
        };
        self.failures.iter().flat_map(again).collect()
    }

    /// The same after the tests that are worth it have been run `again`, with nothing beside them.
    pub fn settled(mut self, again: impl FnOnce(Vec<String>) -> Self) -> Self {
        let runs = self.worth_another_run();
        if !runs.is_empty() {
            eprintln!("{}: again, with nothing beside it: {} …", self.name, runs.join(", "));
            let asked = runs.len();
            self.settle(asked, &again(runs));
        }
        self
    }

    /// Takes in how the `asked` runs of the tests that failed ended: where all passed, these are unsteady.
    fn settle(&mut self, asked: usize, again: &Self) {
        let Summary { passed, failed } = again.summary;
        if again.trouble.is_none() && failed == 0 && passed as usize == asked {
            self.summary.passed += self.summary.failed;
            self.summary.failed = 0;
            self.unsteady.append(&mut self.failures);
        }
    }
}

/// Says every failure once more and a line for each suite, which whoever counts can read. Returns whether all is
/// well: `filtered` says that a suite may have been left without a test.
pub fn conclude(outcomes: &[Outcome], filtered: bool) -> bool {
    for outcome in outcomes {
        for failure in &outcome.failures {
            failure.lines.iter().for_each(|line| println!("{}: {line}", outcome.name));
        }
        for failure in &outcome.unsteady {
            println!(
                "{}: unsteady: passed each time when run again with nothing beside it; at first:",
                outcome.name
            );
            failure.lines.iter().for_each(|line| println!("{}:   {line}", outcome.name));
        }
    }
    let mut good = true;
    for Outcome { name, summary, unsteady, trouble, .. } in outcomes {
        let nothing =
            (summary.passed + summary.failed == 0 && !filtered).then(|| "no test was run".to_owned());
        // As one failure, so that who counts the lines sees it.
        let summary = match trouble.clone().or(nothing) {
            Some(trouble) => {
                println!("{name}: error: {trouble}");
                Summary { failed: summary.failed.max(1), ..*summary }
            }
            None => *summary,
        };
        good &= summary.failed == 0;
        counts(name, summary, unsteady.len()).for_each(|line| println!("{line}"));
    }
    good
}

/// The lines of a suite that say how much of it passed, failed, and passed only when it was run again.
fn counts(name: &str, summary: Summary, unsteady: usize) -> impl Iterator<Item = String> {
    let unsteady = (unsteady > 0).then(|| format!("{name}: {unsteady} unsteady"));
    iter::once(format!("{name}: {summary}")).chain(unsteady)
}

/// The counts of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u32,
    failed: u32,
}

impl Summary {
    /// Reads `36 passed, 0 failed`, alone on a line.
    fn parse(line: &str) -> Option<Self> {
        let (passed, failed) = line.trim().split_once(" passed, ")?;
        Some(Self { passed: passed.parse().ok()?, failed: failed.strip_suffix(" failed")?.parse().ok()? })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(said: &str, code: i32) -> Outcome {
        let mut listener = Listener::new("suite");
        listener.hear(said.as_bytes());
        listener.end(code)
    }

    #[test]
    fn summaries_are_read_and_written_alike() {
        let line = "36 passed, 1 failed";
        assert_eq!(Summary::parse(line).unwrap().to_string(), line);
    }

    #[test]
    fn other_lines_are_not_summaries() {
        for line in ["", "36 passed", "test result: ok. 3 passed; 0 failed", "x 3 passed, 0 failed"] {
            assert_eq!(Summary::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_failure_is_kept_with_its_first_lines_and_nothing_of_the_next_test() {
        let said = "     a figure\ntest a ... FAILED (1 s): here:\n     left: 1\n     right: 2\n     3\n     4\n\
                    test b ... ok (1 s)\n     a figure\ntest c ... FAILED (1 s): there\n1 passed, 2 failed\n";
        let outcome = outcome(said, 1);
        let first = ["test a ... FAILED (1 s): here:", "     left: 1", "     right: 2", "     3"];
        let failures: Vec<_> =
            outcome.failures.iter().map(|failure| (&*failure.test, failure.lines.clone())).collect();
        let second = vec!["test c ... FAILED (1 s): there".to_owned()];
        assert_eq!(failures, [("a", first.map(str::to_owned).to_vec()), ("c", second)]);
        assert_eq!(outcome.summary, Summary { passed: 1, failed: 2 });
        assert!(!conclude(&[outcome], false));
    }

    const ONE_FAILED: &str =
        "test cause::a ... ok (1 s)\ntest cause::b ... FAILED (1 s): here\n1 passed, 1 failed\n";

    #[test]
    fn a_failure_that_passes_when_run_again_is_unsteady_and_no_other_is() {
        for (again, code, good) in [
            ("test cause::b ... ok (1 s)\n1 passed, 0 failed\n", 0, true),
            ("test cause::b ... FAILED (1 s): here\n0 passed, 1 failed\n", 1, false),
            ("0 passed, 0 failed\n", 0, false),
            ("", 1, false),
        ] {
            let settled = outcome(ONE_FAILED, 1).settled(|runs| {
                assert_eq!(runs, ["cause::b"]);
                outcome(again, code)
            });
            assert_eq!(settled.unsteady.len(), usize::from(good), "{again}");
            assert_eq!(settled.summary, Summary { passed: 1 + u32::from(good), failed: u32::from(!good) });
            assert_eq!(conclude(&[settled], false), good, "{again}");
        }
    }

    #[test]
    fn what_must_be_exact_has_to_pass_each_of_several_runs() {
        for exact in [
            "runq::fork",
            "slot::exhausted",
            "window::of_a_cgroup",
            "throttle::x",
            "kernel::x",
            "daemon::five_hundred",
            "because::x",
        ] {
            let said = format!("test {exact} ... FAILED (1 s): here\n0 passed, 1 failed\n");
            for (passed, failed, good) in [(5, 0, true), (4, 1, false), (4, 0, false), (1, 0, false)] {
                let settled = outcome(&said, 1).settled(|runs| {
                    assert_eq!(runs, [exact; IN_A_ROW]);
                    outcome(&format!("{passed} passed, {failed} failed\n"), i32::from(failed > 0))
                });
                assert_eq!(conclude(&[settled], false), good, "{exact}: {passed} passed, {failed} failed");
            }
        }
    }

    #[test]
    fn many_failures_and_a_broken_suite_are_not_run_again() {
        let failed = |test| format!("test cause::{test} ... FAILED (1 s): here\n");
        let many: String = (0..=FEW).map(failed).collect();
        assert!(outcome(&format!("{many}0 passed, 4 failed\n"), 1).worth_another_run().is_empty());
        assert!(outcome("test cause::b ... FAILED (1 s): here\n", 1).worth_another_run().is_empty());
        assert!(outcome("test b ... ok (1 s)\n1 passed, 0 failed\n", 0).worth_another_run().is_empty());
    }

    #[test]
    fn what_hung_is_not_run_again_nor_what_failed_beside_it() {
        let hung = "test runq::a ... FAILED (60.0 s): no end after 60 s\n";
        assert!(outcome(&format!("{hung}0 passed, 1 failed\n"), 1).worth_another_run().is_empty());
        let beside = "test cause::b ... FAILED (1 s): here\n";
        assert!(outcome(&format!("{hung}{beside}0 passed, 2 failed\n"), 1).worth_another_run().is_empty());
        let other = "test runq::a ... FAILED (1 s): it said: no end after 60 s\n";
        assert_eq!(outcome(&format!("{other}0 passed, 1 failed\n"), 1).worth_another_run().len(), IN_A_ROW);
    }

    #[test]
    fn unsteady_tests_are_counted_in_a_line_of_their_own() {
        let summary = Summary { passed: 2, failed: 0 };
        assert_eq!(counts("suite", summary, 0).collect::<Vec<_>>(), ["suite: 2 passed, 0 failed"]);
        let settled = outcome(ONE_FAILED, 1).settled(|_| outcome("1 passed, 0 failed\n", 0));
        let lines: Vec<_> = counts(&settled.name, settled.summary, settled.unsteady.len()).collect();
        assert_eq!(lines, ["suite: 2 passed, 0 failed", "suite: 1 unsteady"]);
    }

    #[test]
    fn a_suite_that_broke_off_or_ran_nothing_is_a_failure() {
        assert!(conclude(&[outcome("test a ... ok (1 s)\n1 passed, 0 failed\n", 0)], false));
        assert!(!conclude(&[outcome("test a ... ok (1 s)\n", 0)], false), "no summary");
        assert!(!conclude(&[outcome("1 passed, 0 failed\n", 3)], false), "a code of its own");
        assert!(!conclude(&[outcome("0 passed, 0 failed\n", 0)], false), "no test");
        assert!(
            conclude(&[outcome("0 passed, 0 failed\n", 0)], true),
            "no test that the filter lets through"
        );
        assert!(!conclude(&[Outcome::broken("suite", &anyhow::anyhow!("no machine"))], true));
    }
}
