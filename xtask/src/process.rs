//! Child processes: started so that none outlives us, and ended when we are told to stop.
//!
//! A child that we watch (its output is piped) gets a process group of its own, so that a time limit or Ctrl-C ends
//! it together with what it started. A child that talks to the terminal itself stays in our group: only the
//! terminal's foreground group may read from it.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, ExitStatus},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use signal_hook::{consts, iterator::Signals};

/// What to do with a child when we are asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// End its whole process group, then exit ourselves.
    KillGroup,
    /// It is in our process group and ends by itself on Ctrl-C; on other signals it gets them from us. We wait for
    /// it and pass its exit code on.
    Forward,
}

static RUNNING: Mutex<Vec<(Pid, Stop)>> = Mutex::new(Vec::new());
static STOPPING: AtomicBool = AtomicBool::new(false);
static GUEST: Mutex<Option<ChildStdin>> = Mutex::new(None);
static LIVE_VIEW: AtomicBool = AtomicBool::new(false);

/// How long a guest that was told of Ctrl-C gets to clean up: to remove containers has taken more than 10 s under emulation.
const GUEST_LIMIT: Duration = Duration::from_secs(60);

/// From now on the first Ctrl-C is typed on a guest's console, which ends by itself then; a second one ends us.
pub fn pass_interrupt_to(console: Option<ChildStdin>) {
    *GUEST.lock().unwrap_or_else(PoisonError::into_inner) = console;
}

/// Says that the terminal shows a live view: if we are stopped, the cursor and the colours are given back.
pub fn terminal_is_live(live: bool) {
    LIVE_VIEW.store(live, Ordering::Relaxed);
}

/// Does not return once we have been asked to stop: that our children end then is no failure to tell of. The thread
/// that handles the signal ends the process.
pub fn pause_if_stopping() {
    while STOPPING.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_secs(1));
    }
}

/// A running child. Dropping it ends it.
pub struct Running {
    child: Child,
    stop: Stop,
}

impl Running {
    /// Starts `command`.
    pub fn start(command: &mut Command, stop: Stop) -> Result<Self> {
        if stop == Stop::KillGroup {
            command.process_group(0);
        }
        // SAFETY: between fork and exec the closure makes one prctl system call and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                // For the case that we are killed without a chance to clean up.
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into)
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("{} could not be started", command.get_program().display()))?;
        running().push((pid(&child), stop));
        Ok(Self { child, stop })
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until the child ends.
    pub fn wait(mut self) -> Result<ExitStatus> {
        let status = self.child.wait().context("waiting for a child process")?;
        self.forget();
        Ok(status)
    }

    /// Waits until the child ends, but not longer than `limit`; then it is ended and this fails.
    pub fn wait_at_most(mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.finished()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("no end after {} s", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The exit status if the child has ended.
    pub fn finished(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().context("waiting for a child process")?;
        if status.is_some() {
            self.forget();
        }
        Ok(status)
    }

    fn forget(&mut self) {
        let pid = pid(&self.child);
        running().retain(|(other, _)| *other != pid);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            self.forget();
            return;
        }
        let pid = pid(&self.child);
        // An error means that it has ended meanwhile.
        let _ = match self.stop {
            Stop::KillGroup => killpg(pid, Signal::SIGKILL),
            Stop::Forward => kill(pid, Signal::SIGTERM),
        };
        let _ = self.child.wait();
        self.forget();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn running() -> std::sync::MutexGuard<'static, Vec<(Pid, Stop)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on Ctrl-C, SIGTERM and SIGHUP end our children, then us. What is half-made in the cache stays where
/// nobody looks for it; the next run sweeps it.
pub fn handle_signals() -> Result<()> {
    let mut signals = Signals::new([consts::SIGINT, consts::SIGTERM, consts::SIGHUP])
        .context("installing the signal handler")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            on_signal(signal);
        }
    });
    Ok(())
}

fn on_signal(signal: i32) {
    let children = running().clone();
    let forwarded = children.iter().filter(|(_, stop)| *stop == Stop::Forward);
    let mut waits = false;
    for (pid, _) in forwarded {
        waits = true;
        // On Ctrl-C the terminal has told the child already.
        if signal != consts::SIGINT || !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            let _ = kill(*pid, Signal::try_from(signal).unwrap_or(Signal::SIGTERM));
        }
    }
    if waits {
        return;
    }
    let guest = GUEST.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut console) = guest
        && signal == consts::SIGINT
        && console.write_all(b"\x03").is_ok()
    {
        eprintln!("Stopping what runs in the machine (Ctrl-C again ends it at once) …");
        thread::spawn(move || {
            thread::sleep(GUEST_LIMIT);
            end(signal, &running().clone());
        });
        return;
    }
    end(signal, &children);
}

fn end(signal: i32, children: &[(Pid, Stop)]) -> ! {
    STOPPING.store(true, Ordering::Relaxed);
    for round in [Signal::SIGTERM, Signal::SIGKILL] {
        for (pid, _) in children {
            let _ = killpg(*pid, round);
        }
        if !children.is_empty() {
            thread::sleep(Duration::from_millis(200));
        }
    }
    if LIVE_VIEW.load(Ordering::Relaxed) {
        // Leave the alternate screen, show the cursor, plain colours.
        print!("\x1b[?1049l\x1b[?25h\x1b[0m");
        let _ = std::io::stdout().flush();
    }
    eprintln!("\nstopped; what was half done is cleaned up by the next run");
    std::process::exit(128 + signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_outlives_its_limit_is_ended() {
        let start = Instant::now();
        let child = Running::start(Command::new("sleep").arg("60"), Stop::KillGroup).unwrap();
        assert!(child.wait_at_most(Duration::from_millis(100)).is_err());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_exit_status_comes_through() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        let child = Running::start(&mut command, Stop::KillGroup).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}
