//! Holds the oracle itself against the kernel's own sums: replayed wait per thread ↔ run delay in its schedstat, and
//! stretches of throttling ↔ `cpu.stat`.
//!
//! The two agree where waits are long: the load here keeps every CPU taken. They do not for wakeups that are served at
//! once. There the kernel leaves the run queue's clock as the wakeup found it (`rq_clock_skip_update`, because a switch
//! follows), so its run delay has nothing of the time between: of 600 wakeups on idle CPUs of 6.1, 6.12 and 7.2, each 30
//! to 50 µs long by the trace, 555 counted as zero. The replay has them in full.

use std::fs;
use std::hint::black_box;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::assignment::Assignment;
use super::replay::{Replay, SetAside, replay};
use super::schedstat::{self, SchedStat, SchedStatError};
use super::timeline::arrange;
use super::trace::{Tid, Trace, Window};
use super::tracefs::{Recording, TracefsError, Tracing};

/// Why the oracle could not be held against the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ExactnessError {
    /// No trace.
    #[error("the run could not be traced")]
    Tracefs(#[from] TracefsError),
    /// No sums.
    #[error("the kernel's own sums could not be read")]
    SchedStat(#[from] SchedStatError),
    /// A thread of the load could not be started or ended badly.
    #[error("a thread of the load failed")]
    Load(#[source] io::Error),
}

/// One thread, seen by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The thread.
    pub thread: Tid,
    /// Nanoseconds of wait by the replay, over as many waits as the kernel has counted turns.
    pub replayed_ns: u64,
    /// Nanoseconds of run delay by the kernel.
    pub kernel_ns: u64,
    /// Waits that the replay has less than the kernel has turns, of which each begins with one.
    pub missing: u64,
}

impl Comparison {
    /// By which share of the kernel's sum the replay is off.
    #[must_use]
    pub fn error(&self) -> f64 {
        share(self.replayed_ns.abs_diff(self.kernel_ns), self.kernel_ns)
    }
}

/// What a run of [`measure`] showed.
#[derive(Clone, Debug)]
pub struct Exactness {
    /// Each thread of the load.
    pub threads: Vec<Comparison>,
    /// What the replay set aside, over the whole machine.
    pub set_aside: SetAside,
}

impl Exactness {
    /// The share by which the worst thread is off.
    ///
    /// Under emulation a virtual CPU may stand still for some milliseconds between the kernel's stamp and the event,
    /// which one thread shows and the sum of all hardly does.
    #[must_use]
    pub fn worst_error(&self) -> f64 {
        self.threads.iter().map(Comparison::error).fold(0.0, f64::max)
    }

    /// The share by which all threads together are off.
    #[must_use]
    pub fn total_error(&self) -> f64 {
        let sum = |of: fn(&Comparison) -> u64| self.threads.iter().map(of).sum::<u64>();
        let (replayed, kernel) = (sum(|one| one.replayed_ns), sum(|one| one.kernel_ns));
        share(replayed.abs_diff(kernel), kernel)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Puts the kernel's sums of threads beside those of a replay.
///
/// They are comparable for threads that were made inside the trace, with sums that each has read of itself. What a
/// thread waits for after that is in the trace too, so only as many waits count as the kernel had counted turns.
pub fn compare(replay: &Replay, kernel: impl IntoIterator<Item = (Tid, SchedStat)>) -> Vec<Comparison> {
    let beside = |(thread, kernel): (Tid, SchedStat)| {
        let turns = usize::try_from(kernel.turns).unwrap_or(usize::MAX);
        let waits = replay.threads.get(&thread).map_or(&[][..], Vec::as_slice);
        let counted = &waits[..turns.min(waits.len())];
        Comparison {
            thread,
            replayed_ns: counted.iter().sum(),
            kernel_ns: kernel.wait_ns,
            missing: kernel.turns - counted.len() as u64,
        }
    };
    kernel.into_iter().map(beside).collect()
}

/// Nanoseconds for which the cgroup of this path was throttled, by its own limit or an ancestor's, over all CPUs.
#[must_use]
pub fn throttled_ns(trace: &Trace, path: &str) -> u64 {
    let is_meant = |id| trace.cgroups.get(&id).is_some_and(|its| its == path);
    let throttled = arrange(trace).throttled;
    let stretches = throttled.iter().filter(|((id, _), _)| is_meant(*id)).flat_map(|(_, all)| all);
    stretches.map(|stretch| stretch.to_ns - stretch.from_ns).sum()
}

/// Runs threads that spin, sleep and wake one another for some time, traces them, and compares.
///
/// # Errors
/// When the run cannot be traced or its threads cannot be read.
pub fn measure(recording: Recording, threads: usize, time: Duration) -> Result<Exactness, ExactnessError> {
    let tracing = Tracing::start(recording)?;
    let until = Instant::now() + time;
    let started: Result<Vec<_>, _> =
        (0..threads).map(|index| thread::Builder::new().spawn(move || work(index, until))).collect();
    let mut sums = Vec::new();
    for handle in started.map_err(ExactnessError::Load)? {
        let ended = handle.join().map_err(|_| ExactnessError::Load(io::Error::other("it panicked")))?;
        sums.push(ended?);
    }
    let replay = replay(&tracing.stop()?, &Assignment::default(), Window::WHOLE);
    Ok(Exactness { threads: compare(&replay, sums), set_aside: replay.set_aside })
}

/// Spins, and (all but each third thread) sleeps between, at a pace of its own so that the threads drift past one another.
fn work(index: usize, until: Instant) -> Result<(Tid, SchedStat), ExactnessError> {
    let sleep = Duration::from_micros(200 + 370 * index as u64);
    while Instant::now() < until {
        let turn = Instant::now() + Duration::from_micros(300 + 170 * index as u64);
        while Instant::now() < turn {
            black_box(index);
        }
        if !index.is_multiple_of(3) {
            thread::sleep(sleep);
        }
    }
    let own = own_tid().map_err(ExactnessError::Load)?;
    Ok((own, schedstat::of_this_thread()?))
}

fn own_tid() -> io::Result<Tid> {
    let link = fs::read_link("/proc/thread-self")?;
    let number = link.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    number.map(Tid).ok_or_else(|| io::Error::other("/proc/thread-self does not end in a thread id"))
}
