//! The kernel's own account of threads: what each number of ours is compared with.

use std::fs;
use std::io;

use nix::unistd::Pid;

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
