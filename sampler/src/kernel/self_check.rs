//! Before anything is published: do the programs say of our own threads what the kernel says?
//!
//! The verifier checks every pointer that is followed at an offset from BTF, but not the scalars: a wrong
//! offset of the clock, of `sched_info` or of the run time would give numbers that look like delays and paces. So two threads
//! are made to contend for one CPU, and what the programs keep of one of them must equal its run delay in
//! `/proc/thread-self/schedstat` to the nanosecond, and lie between its run times around a sleep. If not, the sampler does
//! not start.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use sampler_common::abi::Baseline;
use thiserror::Error;

use super::load::Programs;
use super::mapped::Mapped;

const SCHEDSTAT: &str = "/proc/thread-self/schedstat";
/// The check has something to compare when a thread has waited for so long.
const ENOUGH_NS: u64 = 2_000_000;
/// On a machine too busy to run two threads for this long, nothing can be checked.
const TIMEOUT: Duration = Duration::from_secs(20);
/// So many times in a row no coincidence makes our figure differ from the kernel's.
const MISSES: u32 = 5;
/// Longer than what the programs take for an interrupt.
const SHORTEST_NAP: Duration = Duration::from_millis(1);

/// Why the numbers cannot be trusted.
#[derive(Debug, Error)]
pub enum SelfCheckError {
    /// The kernel's own figure cannot be read.
    #[error("cannot read {SCHEDSTAT}: the self-check needs /proc and a kernel with CONFIG_SCHED_INFO=y")]
    Schedstat(#[source] io::Error),
    /// No CPU could be had to contend for.
    #[error("cannot pin a thread to a CPU for the self-check")]
    Pin(#[source] nix::Error),
    /// The threads got no chance to wait.
    #[error(
        "the self-check's threads waited only {waited_ns} ns for a CPU in {seconds} s, too little to compare"
    )]
    NothingToCompare {
        /// Run delay of the checked thread.
        waited_ns: u64,
        /// How long it was tried.
        seconds: u64,
    },
    /// They differ.
    #[error(
        "self-check failed: the kernel says that a thread of ours waited {kernel_ns} ns for a CPU, and no count \
         of ours does; the programs misread this kernel's scheduler, so nothing is measured. \
         Please report this with the output of `uname -a`"
    )]
    Differs {
        /// What schedstat says.
        kernel_ns: u64,
    },
    /// The run time by which demand is told is not the kernel's.
    #[error(
        "self-check failed: the kernel says that a thread of ours has run for {least_ns} to {most_ns} ns, and the \
         programs that it has for {ours_ns} ns; they misread this kernel's scheduler, so nothing is measured. \
         Please report this with the output of `uname -a`"
    )]
    RunTime {
        /// What schedstat said before a sleep.
        least_ns: u64,
        /// What it said after it.
        most_ns: u64,
        /// What the programs keep of the sleep.
        ours_ns: u64,
    },
    /// The programs keep the right figure and count too little.
    #[error(
        "self-check failed: a thread of ours waited {kernel_ns} ns for a CPU, but all rows together have \
         counted only {counted_ns} ns since; please report this with the output of `uname -a`"
    )]
    NotCounted {
        /// What schedstat says.
        kernel_ns: u64,
        /// What the rows gained.
        counted_ns: u64,
    },
    /// What is taken for the run queues' clock is none: waits then come out one switch-in late, and all of them as
    /// spent on another CPU.
    #[error(
        "self-check failed: {times} threads were queued later than the clock of their run queue says that it is; the \
         programs misread this kernel's scheduler, so nothing is measured. Please report this with the output of \
         `uname -a`"
    )]
    Clock {
        /// How often since the programs were attached.
        times: u64,
    },
}

/// Compares the programs, and what they know of threads, with the kernel's own accounting of two threads made for it.
pub fn run(programs: &Programs, baselines: &Mapped<Baseline>) -> Result<(), SelfCheckError> {
    let cpu = an_allowed_cpu().map_err(SelfCheckError::Pin)?;
    let counted_before = counted_ns(programs);
    let stop = AtomicBool::new(false);
    let kernel_ns = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Where pinning fails here, it fails below too, and there it is reported.
            if pin(cpu).is_ok() {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        let checked = scope.spawn(|| checked_thread(baselines, cpu)).join();
        stop.store(true, Ordering::Relaxed);
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let counted_ns = counted_ns(programs) - counted_before;
    if counted_ns < kernel_ns {
        return Err(SelfCheckError::NotCounted { kernel_ns, counted_ns });
    }
    match clock_backwards(programs) {
        0 => Ok(()),
        times => Err(SelfCheckError::Clock { times }),
    }
}

/// Waits for a CPU that another thread holds, then looks for its own run delay among the baselines. By value,
/// because in a pid namespace of its own a thread does not know its pid.
fn checked_thread(baselines: &Mapped<Baseline>, cpu: usize) -> Result<u64, SelfCheckError> {
    pin(cpu).map_err(SelfCheckError::Pin)?;
    compare(&mut Own { begun: Instant::now(), baselines })
}

/// A thread that contends for a CPU, as the check sees it.
trait Checked {
    /// For how long it has been checked.
    fn elapsed(&self) -> Duration;
    /// What the kernel says of it.
    fn schedstat(&mut self) -> Result<Schedstat, SelfCheckError>;
    /// Gives the CPU away for so long.
    fn sleep(&mut self, nap: Duration);
    /// What the programs say that a thread with this run delay (ns) had run before its last sleep, in ns; `None` where
    /// they know of no such thread.
    fn ran_ns(&mut self, run_delay_ns: u64) -> Option<u64>;
}

/// The calling thread.
struct Own<'a> {
    begun: Instant,
    baselines: &'a Mapped<Baseline>,
}

impl Checked for Own<'_> {
    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn schedstat(&mut self) -> Result<Schedstat, SelfCheckError> {
        Schedstat::read()
    }

    fn sleep(&mut self, nap: Duration) {
        std::thread::sleep(nap);
    }

    fn ran_ns(&mut self, run_delay_ns: u64) -> Option<u64> {
        let mut entries = (0..self.baselines.len()).map(|pid| self.baselines.read(pid));
        Some(entries.find(|entry| entry.run_delay_ns == run_delay_ns)?.pace.ran_ns())
    }
}

/// Compares until the thread has waited long enough and both agree, or differ [`MISSES`] times while nothing that was
/// compared has changed.
fn compare(thread: &mut impl Checked) -> Result<u64, SelfCheckError> {
    let mut waited_ns = 0;
    let mut misses = 0;
    let mut woken_run_ns = thread.schedstat()?.run_ns;
    while thread.elapsed() < TIMEOUT {
        let asleep = thread.schedstat()?;
        thread.sleep(nap(asleep.run_ns.saturating_sub(woken_run_ns)));
        let awake = thread.schedstat()?;
        woken_run_ns = awake.run_ns;
        waited_ns = awake.run_delay_ns;
        if waited_ns < ENOUGH_NS {
            continue;
        }
        let miss = match thread.ran_ns(waited_ns) {
            None => SelfCheckError::Differs { kernel_ns: waited_ns },
            Some(ours_ns) => {
                let (least_ns, most_ns) = (asleep.run_ns, awake.run_ns);
                if (least_ns..=most_ns).contains(&ours_ns) {
                    return Ok(waited_ns);
                }
                SelfCheckError::RunTime { least_ns, most_ns, ours_ns }
            }
        };
        // Where the thread was switched out meanwhile, what was looked for had changed. And once in a while another
        // thread with the same entry may have come in between.
        misses += u32::from(thread.schedstat()?.run_delay_ns == waited_ns);
        if misses == MISSES {
            return Err(miss);
        }
    }
    Err(SelfCheckError::NothingToCompare { waited_ns, seconds: TIMEOUT.as_secs() })
}

/// How long to sleep after having run for so long (ns). The programs take what is shorter than a 32nd of the run before
/// for an interrupt and no sleep, and looking through the baselines is a long run on a busy host.
fn nap(ran_ns: u64) -> Duration {
    SHORTEST_NAP.max(Duration::from_nanos(ran_ns / 8))
}

/// Everything that the rows have counted.
fn counted_ns(programs: &Programs) -> u64 {
    (0..programs.rows.len()).map(|row| programs.rows.read(row).wait_ns.iter().sum::<u64>()).sum()
}

/// How often a stamp lay after the clock.
fn clock_backwards(programs: &Programs) -> u64 {
    (0..programs.cpus.len()).map(|cpu| programs.cpus.read(cpu).clock_backwards).sum()
}

/// A thread's own, by the kernel:
/// <https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat>
struct Schedstat {
    /// Time spent on a CPU, as of the last tick or switch.
    run_ns: u64,
    /// Time spent waiting on a run queue.
    run_delay_ns: u64,
}

impl Schedstat {
    fn read() -> Result<Self, SelfCheckError> {
        let text = std::fs::read_to_string(SCHEDSTAT).map_err(SelfCheckError::Schedstat)?;
        let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
        match [fields.next().flatten(), fields.next().flatten()] {
            [Some(run_ns), Some(run_delay_ns)] => Ok(Self { run_ns, run_delay_ns }),
            _ => Err(SelfCheckError::Schedstat(io::ErrorKind::InvalidData.into())),
        }
    }
}

/// A CPU that this thread may run on.
pub fn an_allowed_cpu() -> Result<usize, nix::Error> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu) == Ok(true)).ok_or(nix::Error::EINVAL)
}

/// Lets the calling thread run on this CPU only.
pub fn pin(cpu: usize) -> Result<(), nix::Error> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

#[cfg(test)]
mod tests {
    use sampler_common::pace::Pace;

    use super::*;

    const MS: u64 = 1_000_000;

    /// A thread beside a busy one, and what the programs keep of it: by the code that they run.
    struct Modelled {
        now_ns: u64,
        run_ns: u64,
        run_delay_ns: u64,
        pace: Pace,
        /// How long looking through the baselines takes.
        scan_ns: u64,
        /// Looks in which it is switched out, from now on.
        disturbed: u32,
        /// By how much (ns) the programs misread the run delay and the run time.
        off_ns: [u64; 2],
    }

    impl Modelled {
        fn new(scan_ns: u64) -> Self {
            let pace = Pace::unknown(0, 0);
            let (now_ns, run_ns, run_delay_ns) = (0, 0, 0);
            Self { now_ns, run_ns, run_delay_ns, pace, scan_ns, disturbed: 0, off_ns: [0; 2] }
        }

        fn run(&mut self, ns: u64) {
            self.now_ns += ns;
            self.run_ns += ns;
        }

        fn wait(&mut self, ns: u64) {
            self.now_ns += ns;
            self.run_delay_ns += ns;
            self.pace.waited(self.now_ns, self.run_ns, ns);
        }
    }

    impl Checked for Modelled {
        fn elapsed(&self) -> Duration {
            Duration::from_nanos(self.now_ns)
        }

        fn schedstat(&mut self) -> Result<Schedstat, SelfCheckError> {
            self.run(MS / 100);
            Ok(Schedstat { run_ns: self.run_ns, run_delay_ns: self.run_delay_ns })
        }

        fn sleep(&mut self, nap: Duration) {
            self.now_ns += nap.as_nanos() as u64;
            self.wait(MS);
        }

        fn ran_ns(&mut self, run_delay_ns: u64) -> Option<u64> {
            self.run(self.scan_ns / 2);
            if let Some(fewer) = self.disturbed.checked_sub(1) {
                self.disturbed = fewer;
                self.wait(3 * MS);
            }
            let [delay_off_ns, run_off_ns] = self.off_ns;
            let found = self.run_delay_ns + delay_off_ns == run_delay_ns;
            let ran_ns = self.pace.ran_ns() + run_off_ns;
            self.run(self.scan_ns / 2);
            found.then_some(ran_ns)
        }
    }

    #[test]
    fn what_is_right_passes_however_long_looking_takes() {
        for scan_ms in [0, 1, 20, 33, 40, 100, 1_000] {
            let passed = compare(&mut Modelled::new(scan_ms * MS));
            assert!(passed.is_ok(), "{scan_ms} ms: {passed:?}");
        }
    }

    #[test]
    fn looks_in_which_it_is_switched_out_count_neither_way() {
        let passed = compare(&mut Modelled { disturbed: 10 * MISSES, ..Modelled::new(40 * MS) });
        assert!(passed.is_ok(), "{passed:?}");
    }

    #[test]
    fn what_is_misread_is_told() {
        for scan_ms in [1, 40] {
            let delay = compare(&mut Modelled { off_ns: [1, 0], ..Modelled::new(scan_ms * MS) });
            assert!(matches!(delay, Err(SelfCheckError::Differs { .. })), "{delay:?}");
            let run = compare(&mut Modelled { off_ns: [0, 50 * MS], ..Modelled::new(scan_ms * MS) });
            assert!(matches!(run, Err(SelfCheckError::RunTime { .. })), "{run:?}");
        }
    }

    #[test]
    fn a_thread_that_never_waits_says_nothing() {
        struct Idle(u64);
        impl Checked for Idle {
            fn elapsed(&self) -> Duration {
                Duration::from_nanos(self.0)
            }
            fn schedstat(&mut self) -> Result<Schedstat, SelfCheckError> {
                Ok(Schedstat { run_ns: 0, run_delay_ns: 0 })
            }
            fn sleep(&mut self, nap: Duration) {
                self.0 += nap.as_nanos() as u64;
            }
            fn ran_ns(&mut self, _: u64) -> Option<u64> {
                Some(0)
            }
        }
        assert!(matches!(compare(&mut Idle(0)), Err(SelfCheckError::NothingToCompare { waited_ns: 0, .. })));
    }
}
