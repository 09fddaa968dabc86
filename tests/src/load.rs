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
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::cgroup::Cgroup;

mod arguments;

/// The constant of this name in libc 0.2 does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// How long threads may take to do what they were told, on a loaded host under emulation.
const LIMIT: Duration = Duration::from_secs(30);

/// What the kernel says of a thread in `/proc/PID/task/TID/schedstat`.
/// <https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedstat {
    /// Time on a CPU, in ns.
    pub run_ns: u64,
    /// Time on run queues, in ns.
    pub wait_ns: u64,
    /// How often it was switched in.
    pub switch_ins: u64,
}

impl Schedstat {
    /// Of the main thread of a process, which may be a zombie.
    pub fn of(pid: Pid) -> io::Result<Self> {
        Self::read(&format!("/proc/{pid}/schedstat"))
    }

    /// Of all threads of a process, added up.
    pub fn of_threads(pid: Pid) -> io::Result<Self> {
        let mut sum = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            sum += Self::read(&format!("{}/schedstat", entry?.path().display()))?;
        }
        Ok(sum)
    }

    /// Of the calling thread.
    pub fn own() -> io::Result<Self> {
        Self::read("/proc/thread-self/schedstat")
    }

    /// Of all threads on all CPUs since the machine was booted: `/proc/schedstat`, which has no run time that
    /// could be used here. The idle tasks do not wait and are not in it.
    pub fn of_machine() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/schedstat")?;
        let mut sum = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            if words[0].starts_with("cpu") && words.len() > 9 {
                let number =
                    |at: usize| words[at].parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
                sum += Self { run_ns: 0, wait_ns: number(8)?, switch_ins: number(9)? };
            }
        }
        Ok(sum)
    }

    fn read(path: &str) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(run_ns)), Some(Ok(wait_ns)), Some(Ok(switch_ins))) => {
                Ok(Self { run_ns, wait_ns, switch_ins })
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl std::ops::AddAssign for Schedstat {
    fn add_assign(&mut self, other: Self) {
        self.run_ns += other.run_ns;
        self.wait_ns += other.wait_ns;
        self.switch_ins += other.switch_ins;
    }
}

impl std::ops::Sub for Schedstat {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            run_ns: self.run_ns - earlier.run_ns,
            wait_ns: self.wait_ns - earlier.wait_ns,
            switch_ins: self.switch_ins - earlier.switch_ins,
        }
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

/// The threads of a process.
pub fn threads(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = entry?.file_name().to_string_lossy().parse();
        threads.push(Pid::from_raw(thread.map_err(|_| io::ErrorKind::InvalidData)?));
    }
    Ok(threads)
}

/// Makes a copy of this process, as fork does, that has the same parent, and is born in a cgroup and with a free pid
/// of one's choice. Returns its pid, and in the copy `None`.
///
/// # Safety
///
/// As with fork, where there are several threads the copy may do no more than what a signal handler may.
pub unsafe fn sibling(into: Option<&Cgroup>, pid: Option<Pid>) -> io::Result<Option<Pid>> {
    let cgroup = into.map(|cgroup| fs::File::open(cgroup.path())).transpose()?;
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
    fn born(into: Option<&Cgroup>, pid: Option<Pid>, main: impl FnOnce() -> i32) -> io::Result<Self> {
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
                .all(|thread| state(self.pid, thread).is_ok_and(|state| state == 'T')))
        })
    }

    /// Lets it go on after a stop.
    pub fn go_on(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits until it has ended, and leaves it a zombie whose schedstat can still be read.
    pub fn ended(&self) -> io::Result<()> {
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
        self.ended()?;
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
                .all(|thread| state(self.pid(), thread).is_ok_and(|state| state == 'S')))
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

/// Does the work of these threads in this process, for as long as it lives: for a program of its own, in a container.
pub fn work(threads: &[Thread]) -> io::Result<()> {
    let (released, _never) = io::pipe()?;
    run_threads(&Control::new()?, released.as_raw_fd(), threads);
    Err(io::Error::other("a thread of the load failed"))
}

fn run_threads(control: &Control, released: RawFd, threads: &[Thread]) {
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
struct Shared {
    stop: AtomicU32,
    begun: AtomicU32,
    parked: AtomicU32,
    failed: AtomicU32,
}

#[derive(Debug)]
struct Control(*const Shared);

// SAFETY: it points to atomics.
unsafe impl Sync for Control {}
// SAFETY: as above.
unsafe impl Send for Control {}

impl Control {
    fn new() -> io::Result<Self> {
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

    fn shared(&self) -> &Shared {
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
