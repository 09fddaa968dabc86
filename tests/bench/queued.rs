//! Long queues: many threads, each in a cgroup of its own, are woken at once on one CPU. The last of them waits
//! while all the others run, so the average wait spans half as many segments of the CPU's timeline as
//! there are threads.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::time::ClockId;
use nix::unistd::pipe;

use crate::groups::Groups;
use crate::switch::{Workload, in_parts};

/// Threads that are woken at once.
pub const THREADS: usize = 32;

/// The threads, which wait to be woken.
pub struct Queued {
    wake: Vec<File>,
    done: File,
    left: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<()>>>,
    batches: u32,
}

impl Queued {
    /// Starts the threads, each in a cgroup of its own.
    pub fn start(groups: &Arc<Groups>, batches: u32) -> Result<Self> {
        let (done, done_end) = ends()?;
        let left = Arc::new(AtomicUsize::new(0));
        let mut wake = Vec::new();
        let mut threads = Vec::new();
        for number in 0..THREADS.min(groups.len()) {
            let (mut woken, end) = ends()?;
            let (groups, left) = (Arc::clone(groups), Arc::clone(&left));
            let mut done = done_end.try_clone().context("cannot clone a pipe's end")?;
            wake.push(end);
            threads.push(std::thread::spawn(move || {
                groups.enter(number)?;
                do_not_preempt();
                while let Ok(1) = woken.read(&mut [0]) {
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        done.write_all(&[0]).context("nobody waits for the end of the batch")?;
                    }
                }
                groups.leave()
            }));
        }
        let mut queued = Self { wake, done, left, threads, batches };
        queued.batch()?;
        Ok(queued)
    }

    fn batch(&mut self) -> Result<()> {
        self.left.store(self.wake.len(), Ordering::Relaxed);
        for thread in &mut self.wake {
            thread.write_all(&[0]).context("a thread has ended")?;
        }
        self.done.read_exact(&mut [0]).context("the threads have ended")
    }
}

impl Workload for Queued {
    fn ns_per_switch(&mut self) -> Result<f64> {
        // Each thread is switched in once, and so are we.
        let switches = (self.wake.len() + 1) as f64;
        in_parts(&[ClockId::CLOCK_PROCESS_CPUTIME_ID], self.batches, switches, || self.batch())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.wake.clear();
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                eprintln!("a thread of the long queue did not end well");
            }
        }
    }
}

/// A pipe: its end to read and its end to write.
fn ends() -> Result<(File, File)> {
    let (read, write): (OwnedFd, OwnedFd) = pipe().context("cannot make a pipe")?;
    Ok((read.into(), write.into()))
}

/// Lets whoever wakes this thread go on until it blocks: so the queue grows to its full length.
fn do_not_preempt() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live value; the thread is the calling one.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}
