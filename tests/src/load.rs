//! Load of a known shape, in processes that are born inside the cgroup that they load, and what the kernel
//! itself says of their threads.
//!
//! # Terms
//!
//! * **schedstat**: the kernel's account of one thread ([`Schedstat`]): how long it ran and waited, and how
//!   often it was switched in.
//! * **parked**: blocked until the end, so that its schedstat stands still and can be compared.
//!
//! # Invariants
//!
//! * A [`Process`] that is dropped is killed and reaped, also by a panic.
//! * A process spawned into a cgroup has never been queued outside it: its row and its schedstat begin together.
//! * Nothing waits without a bound.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use self::work::{Control, run_threads};
use crate::cgroup::Cgroup;

pub use self::process::{Process, sibling};
pub use self::schedstat::Schedstat;
pub use self::work::{Thread, Work, cpu_time, ring, work};

mod arguments;
mod process;
mod schedstat;
mod work;

/// How long threads may take to do what they were told, on a loaded host under emulation.
const LIMIT: Duration = Duration::from_secs(30);

/// A process whose threads work until they are parked.
#[derive(Debug)]
pub struct Load {
    process: Process,
    control: Control,
    /// Its closing lets the parked threads end.
    _release: OwnedFd,
    threads: u32,
}

impl Load {
    /// Starts a process with these threads in a cgroup (or the caller's), and returns when all have begun.
    pub fn start(into: Option<&Cgroup>, threads: &[Thread]) -> io::Result<Self> {
        Self::born(into, None, threads)
    }

    /// As [`Self::start`], with a pid that is free.
    pub fn start_as(pid: Pid, into: Option<&Cgroup>, threads: &[Thread]) -> io::Result<Self> {
        Self::born(into, Some(pid), threads)
    }

    fn born(into: Option<&Cgroup>, pid: Option<Pid>, threads: &[Thread]) -> io::Result<Self> {
        let control = Control::new()?;
        let (released, release) = io::pipe()?;
        let (released, release) = (OwnedFd::from(released), OwnedFd::from(release));
        let process = Process::born(into, pid, || {
            // Or it would never be closed.
            // SAFETY: this process's copy of a descriptor that nothing here uses.
            unsafe { libc::close(release.as_raw_fd()) };
            run_threads(&control, released.as_raw_fd(), threads);
            0
        })?;
        let load = Self { process, control, _release: release, threads: threads.len().max(1) as u32 };
        until("threads that begin", LIMIT, || load.has_all(&load.control.shared().begun))?;
        Ok(load)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Parks all threads and returns what the kernel says of them, which will not change any more. The threads
    /// end when this is dropped.
    pub fn park(&self) -> io::Result<Schedstat> {
        self.control.shared().stop.store(1, Ordering::Relaxed);
        until("threads that park", LIMIT, || self.has_all(&self.control.shared().parked))?;
        until("threads that sleep", LIMIT, || {
            Ok(threads(self.pid())?
                .into_iter()
                .all(|thread| is_off_its_cpu(self.pid(), thread, 'S').unwrap_or(false)))
        })?;
        Schedstat::of_threads(self.pid())
    }

    fn has_all(&self, counter: &AtomicU32) -> io::Result<bool> {
        if self.control.shared().failed.load(Ordering::Relaxed) != 0 || state(self.pid(), self.pid())? == 'Z'
        {
            return Err(io::Error::other("a thread of a load failed"));
        }
        Ok(counter.load(Ordering::Relaxed) == self.threads)
    }
}

/// Waits until `condition` holds, looking every millisecond. `what` is said where it does not in time.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() > deadline {
            let text = format!("{what}: not within {} s", limit.as_secs_f64());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Lets a thread (0: the calling one) run on these CPUs only.
pub fn pin(thread: Pid, cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(thread, &set)?)
}

/// A thread's state as `/proc` says it: `R` running or queued, `S` asleep, `T` stopped, `Z` a zombie.
pub fn state(pid: Pid, thread: Pid) -> io::Result<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat"))?;
    // The name before it stands in parentheses and may have some itself.
    text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).ok_or(io::ErrorKind::InvalidData.into())
}

/// Whether a thread is in this state for good, until it is woken. It has the state a moment before it leaves its CPU, and may
/// be preempted in that moment, and then is switched in once more. `syscall` says `running` of a thread that is to run, and
/// waits for any other to leave.
/// <https://github.com/torvalds/linux/blob/v6.12/lib/syscall.c#L69>
fn is_off_its_cpu(pid: Pid, thread: Pid, wanted: char) -> io::Result<bool> {
    let is_running = fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall"))? == "running\n";
    Ok(!is_running && state(pid, thread)? == wanted)
}

/// The threads of a process.
pub fn threads(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = entry?.file_name().to_string_lossy().parse();
        threads.push(Pid::from_raw(thread.map_err(|_| io::ErrorKind::InvalidData)?));
    }
    Ok(threads)
}
