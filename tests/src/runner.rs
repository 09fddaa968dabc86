//! Runs tests one after the other, each in a process of its own with a limit of time: a crash or a hang is one
//! test's failure. Each has a directory of its own for temporary files, which goes with it however it ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::iter;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

use crate::cgroup;

/// A test.
pub struct Test {
    /// `module::what_is_right`
    pub name: &'static str,
    /// In seconds, under emulation on a loaded host, of what is to be tried in this run.
    pub limit_s: fn() -> u64,
    /// It passes if this returns.
    pub run: fn(),
}

/// A list of tests with the module that they are in. Most take a few seconds; for others the limit is said.
#[macro_export]
macro_rules! tests {
    ($($name:ident $(within $limit:tt s)?),* $(,)?) => {
        /// The tests of this module.
        pub const TESTS: &[$crate::runner::Test] = &[$(
            $crate::runner::Test {
                name: $crate::runner::without_program(concat!(module_path!(), "::", stringify!($name))),
                // The first of what is said and what most take.
                limit_s: { const LIMITS: &[fn() -> u64] = &[$(|| $limit,)? || 60]; LIMITS[0] },
                run: $name,
            }
        ),*];
    };
}

/// A path without its first part: the program that a test is in.
pub const fn without_program(path: &'static str) -> &'static str {
    let mut at = 0;
    while path.as_bytes()[at] != b':' {
        at += 1;
    }
    path.split_at(at + "::".len()).1
}

/// Runs each as often as its name contains one of `filters` (or is it, where the filter begins with `=`), or all once where there
/// is none, and returns the exit code. Cgroups that a test leaves behind right below the root are removed: for a machine that is ours alone.
pub fn run<'a>(tests: impl Iterator<Item = &'a Test>, filters: &[&str]) -> i32 {
    run_each(tests, filters, |test| {
        let before = cgroups();
        let result = in_child(test);
        sweep(&before);
        result
    })
}

/// As [`run`], each by `one`.
pub fn run_each<'a>(
    tests: impl Iterator<Item = &'a Test>,
    filters: &[&str],
    one: impl Fn(&Test) -> Result<(), String>,
) -> i32 {
    let (mut passed, mut failed) = (0, 0);
    let fits = |name: &str, filter: &str| match filter.strip_prefix('=') {
        Some(whole) => name == whole,
        None => name.contains(filter),
    };
    let times = |test: &Test| match filters {
        [] => 1,
        _ => filters.iter().filter(|filter| fits(test.name, filter)).count(),
    };
    for test in tests.flat_map(|test| iter::repeat_n(test, times(test))) {
        let begun = Instant::now();
        let result = one(test);
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", test.name);
            }
            Err(why) => {
                failed += 1;
                println!("test {} ... FAILED ({seconds:.1} s): {why}", test.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    i32::from(failed != 0)
}

/// Runs one, and says why it failed. This process must have one thread.
pub fn in_child(test: &Test) -> Result<(), String> {
    let (mut said, says) = std::io::pipe().map_err(|error| error.to_string())?;
    let files = tempfile::Builder::new().prefix("loadline-test-").tempdir();
    let files = files.map_err(|error| format!("no directory for temporary files: {error}"))?;
    let _ = std::io::stdout().flush();
    // SAFETY: there is one thread, so the child may do everything.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            drop(said);
            // The parent removes it.
            // SAFETY: there is one thread.
            unsafe { std::env::set_var("TMPDIR", files.keep()) };
            let own = Pid::from_raw(0);
            let _ = setpgid(own, own);
            let test_process = std::process::id();
            std::panic::set_hook(Box::new(move |panic| {
                // A load's own panic ends that load; here only the test's counts.
                if std::process::id() == test_process {
                    let _ = nix::unistd::write(
                        says.as_fd(),
                        format!("{panic}").replace('\n', "\n     ").as_bytes(),
                    );
                } else {
                    eprintln!("in a process of the test: {panic}");
                }
            }));
            (test.run)();
            std::process::exit(0)
        }
        Err(error) => return Err(error.to_string()),
    };
    drop(says);
    let limit_s = (test.limit_s)();
    let until = Instant::now() + Duration::from_secs(limit_s);
    let status = loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() > until => {
                let _ = killpg(child, Signal::SIGKILL);
                let _ = waitpid(child, None);
                return Err(format!("no end after {limit_s} s"));
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Ok(status) => break status,
            Err(error) => return Err(error.to_string()),
        }
    };
    // What the test left running goes with it.
    let _ = killpg(child, Signal::SIGKILL);
    let mut why = String::new();
    let _ = said.read_to_string(&mut why);
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ if why.is_empty() => Err(format!("ended with {status:?}")),
        _ => Err(why),
    }
}

/// Cgroups right below the root.
fn cgroups() -> Vec<std::path::PathBuf> {
    let Ok(entries) = cgroup::root().and_then(fs::read_dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Removes those that a test has left behind because it was killed or crashed.
fn sweep(before: &[std::path::PathBuf]) {
    for path in cgroups().into_iter().filter(|path| !before.contains(path)) {
        println!("     {} was left behind", path.display());
        drop(cgroup::Cgroup::existing(path));
    }
}
