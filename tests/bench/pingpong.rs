//! Short queues: two processes on one CPU pass a byte back and forth. A round trip is two wake-ups and two
//! switches, and nobody waits for longer than the other needs to block.

use std::fs::File;
use std::io::{Read as _, Write as _, stdin, stdout};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use crate::switch::{Workload, in_parts};

/// The hidden subcommand that is the other end.
pub const PEER: &str = "peer";

/// The two processes: this one, and a child.
pub struct PingPong {
    peer: Child,
    there: ChildStdin,
    back: ChildStdout,
    /// CPU time of both.
    clocks: [ClockId; 2],
    round_trips: u32,
}

impl PingPong {
    /// Starts the other process, which stays on this thread's CPU.
    pub fn start(round_trips: u32) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(PEER).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut peer = command.spawn().context("cannot start the other process")?;
        let there = peer.stdin.take().context("no pipe")?;
        let back = peer.stdout.take().context("no pipe")?;
        let pid = Pid::from_raw(i32::try_from(peer.id()).context("a pid that is none")?);
        let theirs = clock_getcpuclockid(pid).context("the other process has no clock")?;
        Ok(Self { peer, there, back, clocks: [ClockId::CLOCK_PROCESS_CPUTIME_ID, theirs], round_trips })
    }
}

impl Workload for PingPong {
    fn ns_per_switch(&mut self) -> Result<f64> {
        let Self { there, back, clocks, round_trips, .. } = self;
        in_parts(clocks, *round_trips, 2.0, || {
            there.write_all(&[0]).context("the other process is gone")?;
            back.read_exact(&mut [0]).context("the other process is gone")
        })
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        // Without a reason to live it would end by itself, but not before this returns.
        let _ = self.peer.kill();
        let _ = self.peer.wait();
    }
}

/// The other end: returns each byte until there are no more.
pub fn peer() -> i32 {
    // Not through the standard library's buffers.
    let ends = (stdin().as_fd().try_clone_to_owned(), stdout().as_fd().try_clone_to_owned());
    let (Ok(from), Ok(to)) = ends else { return 1 };
    let (mut from, mut to) = (File::from(from), File::from(to));
    while let Ok(1) = from.read(&mut [0]) {
        if to.write_all(&[0]).is_err() {
            break;
        }
    }
    0
}
