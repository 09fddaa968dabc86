//! A child process that is born where it shall be counted, with the pid that it shall have.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::{LIMIT, is_off_its_cpu, threads, until};
use crate::cgroup::Cgroup;

/// The constant of this name in libc 0.2 does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a copy of this process, as fork does, that has the same parent, and is born in a cgroup and with a free pid
/// of one's choice. Returns its pid, and in the copy `None`.
///
/// # Safety
///
/// As with fork, where there are several threads the copy may do no more than what a signal handler may.
pub unsafe fn sibling(into: Option<&Cgroup>, pid: Option<Pid>) -> io::Result<Option<Pid>> {
    let cgroup = into.map(|cgroup| std::fs::File::open(cgroup.path())).transpose()?;
    let wanted = [pid.map_or(0, Pid::as_raw)];
    // SAFETY: all-zero is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    arguments.flags = libc::CLONE_PARENT as u64;
    if let Some(cgroup) = &cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    if pid.is_some() {
        arguments.set_tid = wanted.as_ptr() as u64;
        arguments.set_tid_size = 1;
    }
    // SAFETY: as fork: without a stack of its own the child goes on with a copy of this one.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) } {
        0 => Ok(None),
        pid @ 1.. => Ok(Some(Pid::from_raw(pid as i32))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    reaped: bool,
}

impl Process {
    /// Runs `main` in a new process, which is born in the cgroup (or in the caller's), and exits with its result.
    pub fn spawn(into: Option<&Cgroup>, main: impl FnOnce() -> i32) -> io::Result<Self> {
        Self::born(into, None, main)
    }

    /// As [`Self::spawn`], with a pid that is free.
    pub fn spawn_as(pid: Pid, into: Option<&Cgroup>, main: impl FnOnce() -> i32) -> io::Result<Self> {
        Self::born(into, Some(pid), main)
    }

    /// By way of an ordinary fork, after which there is one thread and libc knows it, and of its sibling.
    pub(super) fn born(
        into: Option<&Cgroup>,
        pid: Option<Pid>,
        main: impl FnOnce() -> i32,
    ) -> io::Result<Self> {
        let (mut told, mut tells) = io::pipe()?;
        // SAFETY: the child, of one thread, makes another and exits.
        match unsafe { fork() }? {
            ForkResult::Child => {
                // SAFETY: there is one thread.
                let said = match unsafe { sibling(into, pid) } {
                    Ok(None) => {
                        drop((told, tells));
                        let code =
                            std::panic::catch_unwind(std::panic::AssertUnwindSafe(main)).unwrap_or(101);
                        // Nothing of the parent's that is registered for exit may run here too.
                        // SAFETY: ends the process.
                        unsafe { libc::_exit(code) }
                    }
                    Ok(Some(pid)) => pid.as_raw(),
                    Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
                };
                let sent = io::Write::write_all(&mut tells, &said.to_ne_bytes());
                // SAFETY: ends the process.
                unsafe { libc::_exit(i32::from(sent.is_err())) }
            }
            ForkResult::Parent { child } => {
                drop(tells);
                let mut said = [0; 4];
                let read = io::Read::read_exact(&mut told, &mut said);
                waitpid(child, None)?;
                read?;
                match i32::from_ne_bytes(said) {
                    pid @ 1.. => Ok(Self::adopt(Pid::from_raw(pid))),
                    error => Err(io::Error::from_raw_os_error(-error)),
                }
            }
        }
    }

    /// A child that was made in another way.
    pub fn adopt(pid: Pid) -> Self {
        Self { pid, reaped: false }
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(self.pid, signal)?)
    }

    /// Stops it, and returns when none of its threads is running or queued.
    pub fn stop(&self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        until("stopped", LIMIT, || {
            Ok(threads(self.pid)?
                .into_iter()
                .all(|thread| is_off_its_cpu(self.pid, thread, 'T').unwrap_or(false)))
        })
    }

    /// Lets it go on after a stop.
    pub fn go_on(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits until it has ended and left its CPU for good, and leaves it a zombie whose schedstat can still be read and
    /// stands still. A zombie is one before its last step, in which it may be preempted, and then is switched in once more.
    pub fn ended(&self) -> io::Result<()> {
        self.zombie()?;
        until("the last step of a zombie", LIMIT, || is_off_its_cpu(self.pid, self.pid, 'Z'))
    }

    fn zombie(&self) -> io::Result<()> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        until("the end of a process", LIMIT, || {
            Ok(nix::sys::wait::waitid(nix::sys::wait::Id::Pid(self.pid), flags)? != WaitStatus::StillAlive)
        })
    }

    /// Waits until it has ended, and reaps it.
    pub fn wait(mut self) -> io::Result<WaitStatus> {
        self.reap()
    }

    fn reap(&mut self) -> io::Result<WaitStatus> {
        self.zombie()?;
        self.reaped = true;
        Ok(waitpid(self.pid, None)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let killed = self.signal(Signal::SIGKILL).and_then(|()| self.reap());
        if let Err(error) = killed
            && !std::thread::panicking()
        {
            eprintln!("process {} is left behind: {error}", self.pid);
        }
    }
}
