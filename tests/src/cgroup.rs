//! Cgroups (v2) for tests: made under a parent, given limits, filled with processes, and gone at the end.
//!
//! # Invariants
//!
//! * What a [`Cgroup`] made is removed when it is dropped, also by a panic: its processes are killed first.
//! * Nothing waits without a bound.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use sampler_common::snapshot::CgroupId;

use crate::load::until;

/// How long a cgroup may take to become empty after its processes were killed: under emulation, with a
/// throttled thread among them, that has been a second.
const EMPTY_LIMIT: Duration = Duration::from_secs(30);

/// Where the v2 hierarchy is mounted: by itself, or beside v1 ones.
pub fn root() -> io::Result<PathBuf> {
    for place in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let place = Path::new(place);
        if place.join("cgroup.controllers").exists() {
            return Ok(place.to_owned());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 hierarchy below /sys/fs/cgroup"))
}

/// A cgroup that lives as long as this.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    id: CgroupId,
}

impl Cgroup {
    /// A new cgroup with a name of its own right below the root.
    pub fn new(name: &str) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::at(root()?.join(format!("{name}-{}-{number}", std::process::id())))
    }

    /// A new cgroup below this one, which hands it all the controllers that it has.
    ///
    /// The kernel refuses that to a cgroup that has processes of its own.
    pub fn child(&self, name: &str) -> io::Result<Self> {
        let controllers = self.read("cgroup.controllers")?;
        self.enable(&controllers.split_whitespace().collect::<Vec<_>>())?;
        Self::at(self.path.join(name))
    }

    /// A new cgroup at a path, whose parent exists and decides which controllers it has.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path).map_err(|error| say(&path, error))?;
        let id = CgroupId(fs::metadata(&path)?.ino());
        Ok(Self { path, id })
    }

    /// One that somebody else has made, and that is removed with this.
    pub fn existing(path: PathBuf) -> io::Result<Self> {
        let id = CgroupId(fs::metadata(&path)?.ino());
        Ok(Self { path, id })
    }

    /// Hands these controllers to the cgroups below.
    pub fn enable(&self, controllers: &[&str]) -> io::Result<()> {
        controllers
            .iter()
            .try_for_each(|controller| self.write("cgroup.subtree_control", &format!("+{controller}")))
    }

    /// Its id: the inode number of its directory.
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Text of one of its files.
    pub fn read(&self, file: &str) -> io::Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).map_err(|error| say(&path, error))
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.path.join(file);
        fs::write(&path, text).map_err(|error| say(&path, error))
    }

    /// Limits its CPU time to `quota` in each `period`.
    pub fn limit_cpu(&self, quota: Duration, period: Duration) -> io::Result<()> {
        self.write("cpu.max", &format!("{} {}", quota.as_micros(), period.as_micros()))
    }

    /// Lets it use all CPUs.
    pub fn unlimit_cpu(&self) -> io::Result<()> {
        self.write("cpu.max", "max")
    }

    /// Its share where CPUs are contended for; 100 by default.
    pub fn weigh_cpu(&self, weight: u32) -> io::Result<()> {
        self.write("cpu.weight", &weight.to_string())
    }

    /// Lets it run on these CPUs only.
    pub fn confine(&self, cpus: &str) -> io::Result<()> {
        self.write("cpuset.cpus", cpus)
    }

    /// Moves a process, with all its threads, into it.
    pub fn take(&self, process: Pid) -> io::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// Its accounting of CPU time and throttling.
    pub fn cpu_stat(&self) -> io::Result<CpuStat> {
        let text = self.read("cpu.stat")?;
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(field, _)| *field == name)
                .and_then(|(_, value)| value.trim().parse().ok())
        };
        Ok(CpuStat {
            usage: Duration::from_micros(field("usage_usec").unwrap_or(0)),
            periods: field("nr_periods").unwrap_or(0),
            throttled_periods: field("nr_throttled").unwrap_or(0),
            throttled: Duration::from_micros(field("throttled_usec").unwrap_or(0)),
        })
    }

    /// The same once its throttling has stood still for three of its limit's periods: what has been throttled to the end is let
    /// go by the next one. An error where that takes longer than `limit`.
    pub fn settled(&self, period: Duration, limit: Duration) -> io::Result<CpuStat> {
        let throttling = |stat: &CpuStat| (stat.throttled, stat.throttled_periods);
        let mut stat = self.cpu_stat()?;
        let mut since = Instant::now();
        until("no more throttles", limit, || {
            let now = self.cpu_stat()?;
            if throttling(&now) != throttling(&stat) {
                since = Instant::now();
            }
            stat = now;
            Ok(since.elapsed() > 3 * period)
        })?;
        Ok(stat)
    }

    /// Whether a process is in it or below.
    pub fn populated(&self) -> io::Result<bool> {
        Ok(self.read("cgroup.events")?.lines().any(|line| line == "populated 1"))
    }

    /// Kills all processes in it and below.
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Removes it, as a part of the test; what is left is removed by the drop.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir(&self.path).map_err(|error| say(&self.path, error))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.path.exists() {
            return;
        }
        let until = Instant::now() + EMPTY_LIMIT;
        // Cgroups that the processes made themselves are removed too, the innermost first.
        while let Err(error) = remove_all(&self.path) {
            if Instant::now() > until {
                eprintln!("cgroup {} is left behind: {error}", self.path.display());
                return;
            }
            // No cgroup.kill before Linux 5.14, and none needed in an empty one.
            let _ = self.kill();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn remove_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn say(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The part of `cpu.stat` that tests compare with. What a cgroup without the cpu controller does not have is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// CPU time used.
    pub usage: Duration,
    /// Periods in which its limit was looked at.
    pub periods: u64,
    /// Those of them in which it was used up.
    pub throttled_periods: u64,
    /// For how long its run queues were throttled by its own limit, all CPUs added up.
    pub throttled: Duration,
}
