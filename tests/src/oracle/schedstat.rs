//! The kernel's own sums per thread: run time, run delay and turns, from `/proc/PID/task/TID/schedstat`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::trace::Tid;

/// Why the sums of a thread could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SchedStatError {
    /// The file could not be read; threads that ended have none.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The text is not three numbers.
    #[error("{text:?} is not a schedstat line: run time, run delay and turns were expected")]
    Malformed {
        /// What was there.
        text: String,
    },
}

/// What the scheduler has counted for one thread since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// Nanoseconds on a CPU.
    pub run_ns: u64,
    /// Nanoseconds runnable and waiting (`run_delay`); a wait that is not over yet is not in it.
    pub wait_ns: u64,
    /// How often it was given a CPU (`pcount`).
    pub turns: u64,
}

impl FromStr for SchedStat {
    type Err = SchedStatError;

    fn from_str(text: &str) -> Result<Self, SchedStatError> {
        let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[run_ns, wait_ns, turns]) => Ok(Self { run_ns, wait_ns, turns }),
            _ => Err(SchedStatError::Malformed { text: text.to_owned() }),
        }
    }
}

/// The calling thread's own sums. It is running as it asks, so no wait of its own is unfinished.
///
/// # Errors
/// When `/proc` is not there or the kernel has no scheduler statistics.
pub fn of_this_thread() -> Result<SchedStat, SchedStatError> {
    read(Path::new("/proc/thread-self/schedstat"))
}

/// The sums of one thread.
///
/// # Errors
/// When the thread has ended.
pub fn of_thread(process: Tid, thread: Tid) -> Result<SchedStat, SchedStatError> {
    read(&PathBuf::from(format!("/proc/{}/task/{}/schedstat", process.0, thread.0)))
}

/// The sums of a process's leading thread alone: `/proc/PID/schedstat` does not add up the others.
///
/// # Errors
/// When the process has ended.
pub fn of_leader(process: Tid) -> Result<SchedStat, SchedStatError> {
    read(&PathBuf::from(format!("/proc/{}/schedstat", process.0)))
}

/// The sums of every thread that a process has now; those that end while this reads are left out.
///
/// # Errors
/// When the process has ended.
pub fn of_process(process: Tid) -> Result<BTreeMap<Tid, SchedStat>, SchedStatError> {
    let path = PathBuf::from(format!("/proc/{}/task", process.0));
    let entries = fs::read_dir(&path).map_err(|source| SchedStatError::Read { path, source })?;
    let threads = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Tid));
    Ok(threads.filter_map(|thread| Some((thread, of_thread(process, thread).ok()?))).collect())
}

fn read(path: &Path) -> Result<SchedStat, SchedStatError> {
    fs::read_to_string(path).map_err(|source| SchedStatError::Read { path: path.to_owned(), source })?.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_are_read_and_nothing_else() {
        let read: SchedStat = "12 34 56\n".parse().unwrap();
        assert_eq!(read, SchedStat { run_ns: 12, wait_ns: 34, turns: 56 });
        for text in ["", "1 2", "1 2 3 4", "a b c", "-1 2 3"] {
            assert!(text.parse::<SchedStat>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn own_threads_are_found() {
        let own = Tid(std::process::id());
        let leader = of_leader(own).unwrap();
        let all = of_process(own).unwrap();
        assert!(all[&own].run_ns >= leader.run_ns);
        assert!(of_this_thread().unwrap().turns > 0);
    }
}
