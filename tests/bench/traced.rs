//! How many system calls something makes: a child of ours does it, and stops itself before and after.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// System calls of what the hidden subcommand of this name does [`here`] for so many containers.
pub fn count(subcommand: &str, containers: usize) -> Result<u64> {
    let mut command = Command::new("/proc/self/exe");
    command.args([subcommand.to_owned(), containers.to_string()]);
    let child = command.spawn().context("cannot start a child to trace")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid that is none")?);
    let result = trace(pid);
    if result.is_err() {
        let mut child = child;
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

/// In the child: does what is to be counted.
pub fn here(work: impl FnOnce()) -> Result<()> {
    // Asked for before, because it is a system call.
    let own = std::process::id() as i32;
    ptrace::traceme().context("cannot be traced")?;
    stop(own)?;
    work();
    stop(own)
}

fn trace(pid: Pid) -> Result<u64> {
    // It has asked to be traced, and stops when it is ready.
    match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).context("waiting for the traced child")? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        other => bail!("the child did not get ready: {other:?}"),
    }
    ptrace::setoptions(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).context("cannot trace")?;
    let mut stops = 0;
    loop {
        ptrace::syscall(pid, None).context("cannot trace")?;
        match waitpid(pid, None).context("waiting for the traced child")? {
            WaitStatus::PtraceSyscall(_) => stops += 1,
            WaitStatus::Stopped(_, Signal::SIGSTOP) => break,
            other => bail!("the traced child did not finish: {other:?}"),
        }
    }
    ptrace::detach(pid, None).context("cannot stop tracing")?;
    while !matches!(waitpid(pid, None).context("waiting for the traced child")?, WaitStatus::Exited(..)) {}
    // Each call stops twice. The last one was that to stop.
    Ok((stops / 2u64).saturating_sub(1))
}

/// Stops this process, whose id it is, with a single system call.
fn stop(own: i32) -> Result<()> {
    // SAFETY: takes integers only.
    let failed = unsafe { libc::kill(own, libc::SIGSTOP) };
    if failed != 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}
