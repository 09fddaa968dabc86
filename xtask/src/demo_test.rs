//! The demo as a user runs it, judged by what the user gets: with its output piped, and stopped half-way by Ctrl-C.
//!
//! It runs in the virtual machine, whatever this host could. What it leaves is looked for on both sides: the guest's init
//! says at the end what is still there, and here all that the demo starts can be told by a variable in its environment.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read},
    iter,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cache::Cache,
    demo,
    process::{self, Running, Stop},
    suite::{Listener, Outcome},
    workspace::Workspace,
};

/// What the suite is called.
pub const NAME: &str = "demo";
/// The test whose verdict depends on what else the host does: the others' work makes the demo's workloads wait.
pub const TIMED: &str = "demo::each_waits_for_what_it_was_made_to_wait_for";

/// All of it, from the first step to the last: under emulation with nothing beside it, a minute and a half.
const LIMIT: Duration = Duration::from_secs(480);
/// What everything that a demo starts inherits.
const MARK: &str = "LOADLINE_DEMO_TEST";
/// The workloads and what each was made to wait for.
const WORKLOADS: [(&str, &str); 7] = [
    ("throttled", "quota"),
    ("quiet", "idle"),
    ("neighbor-1", "neighbor"),
    ("neighbor-2", "neighbor"),
    ("crowded", "self"),
    ("beside-host", "system"),
    ("short-lived", "self"),
];

type Test = fn(&Workspace) -> Result<()>;
const TESTS: [(&str, Test); 2] = [
    (TIMED, each_waits_for_what_it_was_made_to_wait_for),
    ("demo::leaves_nothing_when_interrupted", leaves_nothing_when_interrupted),
];

/// Runs each test as often as its name contains one of the filters, or all once.
pub fn run(cache: &Cache, workspace: &Workspace, filters: &[&str]) -> Result<Outcome> {
    // What the demo would fetch and build before it begins is no part of the time that it may take.
    demo::prepare(cache, workspace)?;
    let mut listener = Listener::new(NAME);
    let (mut passed, mut failed) = (0, 0);
    let times = |name: &str| match filters {
        [] => 1,
        _ => filters.iter().filter(|filter| name.contains(*filter)).count(),
    };
    for (name, test) in TESTS.into_iter().flat_map(|test| iter::repeat_n(test, times(test.0))) {
        let start = Instant::now();
        let result = test(workspace);
        process::pause_if_stopping();
        let seconds = start.elapsed().as_secs();
        let verdict = match result {
            Ok(()) => {
                passed += 1;
                format!("ok ({seconds} s)")
            }
            Err(why) => {
                failed += 1;
                format!("FAILED ({seconds} s): {}", format!("{why:#}").replace('\n', "\n     "))
            }
        };
        listener.hear(format!("test {name} ... {verdict}\n").as_bytes());
    }
    listener.hear(format!("{passed} passed, {failed} failed\n").as_bytes());
    Ok(listener.end(i32::from(failed > 0)))
}

fn each_waits_for_what_it_was_made_to_wait_for(workspace: &Workspace) -> Result<()> {
    let ended = Demo::start(workspace)?.wait()?;
    ended.must(ended.status.code() == Some(0), "it ends with 0")?;
    let judged = final_tables(&ended.stdout).and_then(|tables| tables.judge());
    judged.with_context(|| format!("it printed:\n{}\nand said:\n{}", ended.stdout, ended.stderr))?;
    ended.must_have_left_nothing(workspace)
}

fn leaves_nothing_when_interrupted(workspace: &Workspace) -> Result<()> {
    let mut demo = Demo::start(workspace)?;
    // From here on there are containers, and workloads in them.
    demo.until_it_says("Made ")?;
    demo.interrupt()?;
    let ended = demo.wait()?;
    ended
        .must(ended.status.code() == Some(128 + Signal::SIGINT as i32), "it ends as Ctrl-C ends a program")?;
    ended.must(ended.stdout.is_empty(), "nothing is printed")?;
    ended.must(ended.stderr.contains("its workloads and cgroups are gone"), "it says that it was stopped")?;
    ended.must_have_left_nothing(workspace)
}

/// A demo that runs.
struct Demo {
    running: Running,
    stdout: JoinHandle<String>,
    stderr: Receiver<String>,
    said: String,
    mark: String,
    /// Where it is to put temporary files.
    temporary: PathBuf,
    begun: Instant,
}

impl Demo {
    fn start(workspace: &Workspace) -> Result<Self> {
        let temporary = workspace.target.join("demo-test");
        if temporary.exists() {
            fs::remove_dir_all(&temporary).context("removing what an earlier run has left")?;
        }
        fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
        // A log of an earlier run must not be taken for this one's.
        let log = log(workspace);
        if log.exists() {
            fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
        }
        let mark = std::process::id().to_string();
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.args(["demo", "--vm"]).env(MARK, &mark).env("TMPDIR", &temporary);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command, Stop::KillGroup)?;
        let mut stdout = running.child().stdout.take().context("a program without an output")?;
        let stderr = running.child().stderr.take().context("a program without an output")?;
        let stdout = thread::spawn(move || text(&mut stdout));
        let (lines, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                // Nobody listens any more to a demo that was given up.
                let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let begun = Instant::now();
        Ok(Self { running, stdout, stderr: said, said: String::new(), mark, temporary, begun })
    }

    /// Waits until it says a line on its standard error that begins so.
    fn until_it_says(&mut self, beginning: &str) -> Result<()> {
        loop {
            let left = LIMIT.saturating_sub(self.begun.elapsed());
            let Ok(line) = self.stderr.recv_timeout(left) else {
                bail!("it never said {beginning:?}, but:\n{}", self.said);
            };
            self.said += &format!("{line}\n");
            if line.starts_with(beginning) {
                return Ok(());
            }
        }
    }

    /// Ctrl-C.
    fn interrupt(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.running.child().id().cast_signed());
        kill(pid, Signal::SIGINT).context("interrupting the demo")
    }

    fn wait(self) -> Result<Ended> {
        let Self { running, stdout, stderr, mut said, mark, temporary, begun } = self;
        let status = running.wait_at_most(LIMIT.saturating_sub(begun.elapsed()))?;
        let stdout = stdout.join().unwrap_or_default();
        said.extend(stderr.iter().map(|line| line + "\n"));
        Ok(Ended { status, stdout, stderr: said, mark, temporary })
    }
}

fn text(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is judged.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The console of the demo's machine.
fn log(workspace: &Workspace) -> PathBuf {
    workspace.target.join("vm/demo.log")
}

/// A demo that has ended.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
    mark: String,
    temporary: PathBuf,
}

impl Ended {
    fn must(&self, holds: bool, what: &str) -> Result<()> {
        ensure!(
            holds,
            "{what}: not so: {}; it printed:\n{}\nand said:\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(())
    }

    /// No cgroup and no process in the machine, no process here, and no file.
    fn must_have_left_nothing(&self, workspace: &Workspace) -> Result<()> {
        let log = log(workspace);
        let console = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let left = left_in_guest(&String::from_utf8_lossy(&console)).map(str::to_owned);
        ensure!(left.as_deref() == Some("nothing"), "the machine's init says what is left: {left:?}");
        let processes = processes_with(&format!("{MARK}={}", self.mark))?;
        ensure!(processes.is_empty(), "still running: {}", processes.join(", "));
        let initramfs = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "cpio");
        let mut files = entries(&self.temporary)?;
        files.extend(entries(&workspace.target.join("vm"))?.into_iter().filter(initramfs));
        ensure!(files.is_empty(), "files are left: {files:?}");
        Ok(())
    }
}

/// What the guest's init says at the end.
fn left_in_guest(console: &str) -> Option<&str> {
    console.lines().find_map(|line| line.strip_prefix("loadline-guest: left ")).map(str::trim)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    listed.map(|entry| Ok(entry?.path())).collect()
}

/// The processes with this variable in their environment, by their command lines.
fn processes_with(variable: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for process in entries(Path::new("/proc"))? {
        // Not a process, another user's, or gone meanwhile.
        let Ok(environment) = fs::read(process.join("environ")) else { continue };
        if environment.split(|&byte| byte == 0).any(|one| one == variable.as_bytes()) {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    Ok(found)
}

/// What a demo prints: for each workload what it waited for, and what is said of it.
#[derive(Debug)]
struct Tables {
    causes: BTreeMap<String, String>,
    words: BTreeMap<String, String>,
}

/// Reads the two final tables. Fails where anything else is printed beside them, or a workload has two rows.
fn final_tables(printed: &str) -> Result<Tables> {
    let lines: Vec<_> = printed.lines().collect();
    let parts: Vec<_> = lines.split(|line| line.is_empty()).collect();
    let [[title], [head, rows @ ..], [legend, ..], [words_head, words @ ..], end @ ..] = &parts[..] else {
        bail!("a title, a table, a legend and another table do not follow each other");
    };
    let heads = [
        (title, "Who waited for a CPU"),
        (head, "container "),
        (legend, "Waited for: "),
        (words_head, "who "),
    ];
    for (line, beginning) in heads {
        ensure!(line.starts_with(beginning), "{line:?} stands where there should be {beginning:?}");
    }
    const WELL: &str = "Each waited for what it was made to wait for.";
    ensure!(end.iter().all(|part| matches!(part, [] | [WELL])), "something stands below the tables");
    let mut tables = Tables { causes: BTreeMap::new(), words: BTreeMap::new() };
    for row in rows.iter() {
        let cells: Vec<_> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let [name, _p50, _p99, _longest, cause, ..] = cells[..] else { bail!("no row of a table: {row}") };
        let cause = cause.split(' ').next().unwrap_or_default();
        ensure!(tables.causes.insert(name.into(), cause.into()).is_none(), "two rows of {name}");
    }
    let mut of: Option<&mut String> = None;
    for line in words.iter() {
        if !line.starts_with(' ') {
            let name = line.split(' ').next().unwrap_or_default();
            ensure!(!tables.words.contains_key(name), "two rows of {name}");
            of = Some(tables.words.entry(name.to_owned()).or_default());
        }
        let of = of.as_mut().with_context(|| format!("nobody's words: {line}"))?;
        of.push_str(line);
        of.push('\n');
    }
    Ok(tables)
}

impl Tables {
    /// Holds them against what the workloads were made to wait for.
    fn judge(&self) -> Result<()> {
        let names: Vec<_> = WORKLOADS.iter().map(|(name, _)| *name).collect();
        for table in [self.causes.keys().collect::<Vec<_>>(), self.words.keys().collect()] {
            ensure!(
                table.len() == names.len(),
                "there are {} rows of {} workloads",
                table.len(),
                names.len()
            );
        }
        for (name, expected) in WORKLOADS {
            let cause = self.causes.get(name).with_context(|| format!("no row of {name}"))?;
            let words = self.words.get(name).with_context(|| format!("nothing is said of {name}"))?;
            // One millisecond of a kernel thread in seconds is more than all that waking up takes.
            let hardly = expected == "idle" && words.contains("Hardly");
            ensure!(cause == expected || hardly, "{name} waited for {cause}, not {expected}");
        }
        for (one, other) in [("neighbor-1", "neighbor-2"), ("neighbor-2", "neighbor-1")] {
            ensure!(self.words[one].contains(other), "{one} is not said to have waited for {other}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a demo printed on Linux 6.12.
    const PRINTED: &str = include_str!("demo_test.txt");

    #[track_caller]
    fn refused(printed: &str) -> String {
        final_tables(printed).and_then(|tables| tables.judge()).unwrap_err().to_string()
    }

    #[test]
    fn the_tables_of_a_good_run_are_accepted() {
        final_tables(PRINTED).unwrap().judge().unwrap();
    }

    #[test]
    fn anything_beside_the_tables_is_refused() {
        refused(&format!("Making 6 containers …\n{PRINTED}"));
        refused(&format!("{PRINTED}\nerror: crowded was not seen at all.\n"));
        refused(&PRINTED.replacen("\n\n", "\na note\n\n", 1));
        refused("");
    }

    #[test]
    fn another_cause_a_missing_row_and_one_too_many_are_refused() {
        let crowded = PRINTED.lines().find(|line| line.starts_with("crowded ")).unwrap();
        let said = refused(&PRINTED.replace(crowded, &crowded.replace("self", "system")));
        assert_eq!(said, "crowded waited for system, not self");
        refused(&PRINTED.replace(&format!("{crowded}\n"), ""));
        refused(&PRINTED.replace(crowded, &format!("{crowded}\n{crowded}")));
        refused(&PRINTED.replace(crowded, &format!("{crowded}\n{}", crowded.replace("crowded", "another"))));
        refused(&PRINTED.replace("neighbor-2.", "another."));
    }

    #[test]
    fn what_the_guest_says_is_left_is_found() {
        assert_eq!(
            left_in_guest("x\nloadline-guest: left nothing\r\nloadline-guest: exit 0\r\n"),
            Some("nothing")
        );
        assert_eq!(left_in_guest("loadline-guest: exit 0\n"), None);
    }

    #[test]
    fn a_process_is_found_by_its_environment() {
        let mut command = Command::new("sleep");
        // Of this run: another may be under way.
        let value = format!("a test of this, {}", std::process::id());
        command.arg("60").env(MARK, &value);
        let child = Running::start(&mut command, Stop::KillGroup).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let found = loop {
            let found = processes_with(&format!("{MARK}={value}")).unwrap();
            // A process has no environment for a moment while it is executed.
            if !found.is_empty() || Instant::now() > until {
                break found;
            }
            thread::sleep(Duration::from_millis(1));
        };
        drop(child);
        assert_eq!(found, ["sleep 60 "]);
    }
}
