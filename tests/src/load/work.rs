//! What a thread of a load does, told by its parent through memory that both have when to begin and to end.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::Pid;

use super::pin;

/// What a thread does until it is told to end.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Runs.
    Spin,
    /// At each multiple of `period` runs until it has used `run` of CPU time, then sleeps.
    Duty {
        /// CPU time of each piece of work.
        run: Duration,
        /// From the beginning of one piece to that of the next.
        period: Duration,
    },
    /// Runs until it has used `run` of CPU time, then sleeps for `sleep`: a closed loop, which goes at its own pace.
    Cycle {
        /// CPU time of each piece of work.
        run: Duration,
        /// From the end of one piece to the beginning of the next.
        sleep: Duration,
    },
    /// At each multiple of `every` work of `run` of CPU time arrives and waits its turn: an open loop.
    Serve {
        /// CPU time of each piece of work.
        run: Duration,
        /// From one arrival to the next.
        every: Duration,
        /// So many pieces may wait; what arrives when they do is turned away.
        backlog: u64,
    },
    /// Waits for a byte from `read`, then writes one to `write`. See [`ring`].
    Pass {
        /// A pipe's reading end.
        read: RawFd,
        /// A pipe's writing end.
        write: RawFd,
    },
    /// Runs, and every `every` moves itself on to the next of the first `cpus` CPUs.
    Roam {
        /// Between two moves.
        every: Duration,
        /// How many CPUs it goes around.
        cpus: usize,
    },
    /// Runs, and offers the CPU to others all the time.
    Yield,
    /// Sleeps.
    Sleep,
}

/// A thread of a [`Load`].
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// The one CPU that it runs on; `None`: any.
    pub cpu: Option<usize>,
    /// What it does.
    pub work: Work,
}

impl Work {
    /// A thread that does this on any CPU.
    pub fn anywhere(self) -> Thread {
        Thread { cpu: None, work: self }
    }

    /// A thread that does this on one CPU.
    pub fn on(self, cpu: usize) -> Thread {
        Thread { cpu: Some(cpu), work: self }
    }
}

/// Pipes through which `members` threads can pass one byte around, the byte already in the first: the work of
/// each, and the pipes, which must live as long as they.
pub fn ring(members: usize) -> io::Result<(Vec<Work>, Vec<OwnedFd>)> {
    let mut ends = Vec::new();
    let mut works = Vec::new();
    for _ in 0..members {
        let (read, write) = io::pipe()?;
        ends.push((OwnedFd::from(read), OwnedFd::from(write)));
    }
    for (member, (read, _)) in ends.iter().enumerate() {
        let (_, next) = &ends[(member + 1) % members];
        works.push(Work::Pass { read: read.as_raw_fd(), write: next.as_raw_fd() });
    }
    if let Some((_, first)) = ends.first() {
        nix::unistd::write(first, &[1])?;
    }
    Ok((works, ends.into_iter().flat_map(|(read, write)| [read, write]).collect()))
}

/// Does the work of these threads in this process, for as long as it lives: for a program of its own, in a container.
pub fn work(threads: &[Thread]) -> io::Result<()> {
    let (released, _never) = io::pipe()?;
    run_threads(&Control::new()?, released.as_raw_fd(), threads);
    Err(io::Error::other("a thread of the load failed"))
}

pub(super) fn run_threads(control: &Control, released: RawFd, threads: &[Thread]) {
    std::thread::scope(|scope| {
        let (first, others) = threads.split_first().unwrap_or((&SLEEPER, &[]));
        for thread in others {
            // The smallest stack: there may be very many.
            let builder = std::thread::Builder::new().stack_size(16 * 1024);
            if builder.spawn_scoped(scope, || control.run(*thread, released)).is_err() {
                // SAFETY: ends the process.
                unsafe { libc::_exit(1) };
            }
        }
        control.run(*first, released);
    });
}

const SLEEPER: Thread = Thread { cpu: None, work: Work::Sleep };

/// What a load and its parent tell each other, in memory that both have.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stop: AtomicU32,
    pub(super) begun: AtomicU32,
    pub(super) parked: AtomicU32,
    pub(super) failed: AtomicU32,
}

#[derive(Debug)]
pub(super) struct Control(*const Shared);

// SAFETY: it points to atomics.
unsafe impl Sync for Control {}
// SAFETY: as above.
unsafe impl Send for Control {}

impl Control {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice, filled with zeros.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(memory.cast())) }
    }

    pub(super) fn shared(&self) -> &Shared {
        // SAFETY: the mapping lives as long as this.
        unsafe { &*self.0 }
    }

    fn stopped(&self) -> bool {
        self.shared().stop.load(Ordering::Relaxed) != 0
    }

    /// A thread's life.
    fn run(&self, thread: Thread, released: RawFd) {
        if thread.cpu.is_some_and(|cpu| pin(Pid::from_raw(0), &[cpu]).is_err()) {
            self.shared().failed.fetch_add(1, Ordering::Relaxed);
        }
        self.shared().begun.fetch_add(1, Ordering::Relaxed);
        if self.work(thread.work).is_err() {
            self.shared().failed.fetch_add(1, Ordering::Relaxed);
        }
        self.shared().parked.fetch_add(1, Ordering::Relaxed);
        let mut byte = 0u8;
        // Returns when the other end is closed.
        // SAFETY: reads one byte into a byte.
        unsafe { libc::read(released, (&raw mut byte).cast(), 1) };
    }

    fn work(&self, work: Work) -> io::Result<()> {
        match work {
            Work::Spin => {
                while !self.stopped() {
                    std::hint::spin_loop();
                }
            }
            Work::Duty { run, period } => {
                let begun = Instant::now();
                let mut next = Duration::ZERO;
                while !self.stopped() {
                    self.work_for(run)?;
                    // What is late by whole periods is left out.
                    let now = begun.elapsed();
                    while next <= now {
                        next += period;
                    }
                    std::thread::sleep(next - now);
                }
            }
            Work::Cycle { run, sleep } => {
                let mut ahead = Duration::ZERO;
                while !self.stopped() {
                    ahead = self.work_on(run, ahead)?;
                    std::thread::sleep(sleep);
                }
            }
            Work::Serve { run, every, backlog } => {
                let begun = Instant::now();
                let mut ahead = Duration::ZERO;
                let mut served = 0;
                while !self.stopped() {
                    let arrived = (begun.elapsed().as_nanos() / every.as_nanos()) as u64;
                    served = arrived.saturating_sub(backlog).max(served);
                    if served < arrived {
                        ahead = self.work_on(run, ahead)?;
                        served += 1;
                    } else {
                        let next = every * u32::try_from(arrived + 1).map_err(io::Error::other)?;
                        std::thread::sleep(next.saturating_sub(begun.elapsed()));
                    }
                }
            }
            Work::Pass { read, write } => {
                while !self.stopped() {
                    let mut poll = libc::pollfd { fd: read, events: libc::POLLIN, revents: 0 };
                    // SAFETY: one pollfd.
                    if unsafe { libc::poll(&raw mut poll, 1, 20) } == 1 {
                        let mut byte = 1u8;
                        // SAFETY: one byte to and from a byte. The ends of the pipes are open as long as the
                        // parent lives.
                        unsafe {
                            libc::read(read, (&raw mut byte).cast(), 1);
                            libc::write(write, (&raw const byte).cast(), 1);
                        }
                    }
                }
            }
            Work::Roam { every, cpus } => {
                let mut cpu = 0;
                while !self.stopped() {
                    cpu = (cpu + 1) % cpus;
                    pin(Pid::from_raw(0), &[cpu])?;
                    let from = Instant::now();
                    while from.elapsed() < every && !self.stopped() {}
                }
            }
            Work::Yield => {
                while !self.stopped() {
                    std::thread::yield_now();
                }
            }
            Work::Sleep => {
                while !self.stopped() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Ok(())
    }

    /// Uses so much CPU time, and returns how much it was.
    fn work_for(&self, run: Duration) -> io::Result<Duration> {
        let from = cpu_time()?;
        loop {
            let used = cpu_time()? - from;
            if used >= run || self.stopped() {
                return Ok(used);
            }
        }
    }

    /// Does a piece of work of so much CPU time, of which so much was done before, and returns how much too much was
    /// done: under emulation a look at the clock can be late by as much as a piece.
    fn work_on(&self, run: Duration, ahead: Duration) -> io::Result<Duration> {
        Ok((ahead + self.work_for(run.saturating_sub(ahead))?).saturating_sub(run))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`. Children have their own.
        unsafe { libc::munmap(self.0.cast_mut().cast(), size_of::<Shared>()) };
    }
}

/// CPU time that the calling thread has used.
pub fn cpu_time() -> io::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
