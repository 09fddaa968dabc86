//! What the sampler says of itself, added up over all windows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use sampler_common::snapshot::{LOSSES, Losses, Snapshot};
use sampler_common::window::Windows;

use crate::source::Health;

/// Everything that is no container's.
#[derive(Clone, Debug)]
pub struct Node {
    /// CPUs of the machine that is measured.
    pub cpus: u32,
    /// When this process was started, in seconds since 1970.
    pub started_seconds: f64,
    /// When counting began, in seconds since 1970; `None` before the first snapshot.
    pub epoch_seconds: Option<f64>,
    /// Lives of the reader after the first.
    pub restarts: u64,
    /// Windows that were added up.
    pub windows: u64,
    /// Length of the last one.
    pub window_ns: u64,
    /// When the last snapshot came, in seconds since 1970.
    pub observed_seconds: Option<f64>,
    /// Scrapes that were answered.
    pub scrapes: u64,
    /// Whether the kernel's throttle functions are hooked.
    pub throttle_hooks: bool,
    /// What was lost.
    pub losses: [(&'static str, u64); LOSSES],
    /// Cgroups that were gone without their last counts.
    pub missed: u64,
    /// Delays longer than 8 s.
    pub overflow: u64,
    /// Context switches.
    pub switches: u64,
    /// Series of containers.
    pub series: usize,
    /// Most of them.
    pub limit: usize,
    /// Cgroups of the last window that have none.
    pub left_out: usize,
    /// Containers that are held back until they have a name.
    pub awaited: usize,
    /// Series that ended before they were scraped.
    pub unscraped: u64,
    /// How the measuring is doing.
    pub health: Health,
    /// What this process has used.
    pub process: Option<Process>,
}

impl Node {
    /// At the start of a process that measures a machine of so many CPUs.
    pub fn new(cpus: u32, limit: usize, now: SystemTime) -> Self {
        Self {
            cpus,
            started_seconds: unix_seconds(now),
            epoch_seconds: None,
            restarts: 0,
            windows: 0,
            window_ns: 0,
            observed_seconds: None,
            scrapes: 0,
            throttle_hooks: false,
            losses: Losses::default().named(),
            missed: 0,
            overflow: 0,
            switches: 0,
            series: 0,
            limit,
            left_out: 0,
            awaited: 0,
            unscraped: 0,
            health: Health::default(),
            process: None,
        }
    }

    /// Adds a window that ends with this snapshot.
    pub fn add(&mut self, snapshot: &Snapshot, windows: &Windows, now: SystemTime) {
        self.windows += 1;
        self.window_ns = windows.length_ns;
        self.throttle_hooks = windows.throttle_hooks;
        for ((_, sum), (_, lost)) in self.losses.iter_mut().zip(windows.losses.named()) {
            *sum = sum.saturating_add(lost);
        }
        self.missed += windows.missed.len() as u64;
        let all = windows.cgroups.values().chain([&windows.other]);
        self.overflow += all.map(|window| window.latency.overflow()).sum::<u64>();
        self.switches = self.switches.saturating_add(windows.switches);
        self.epoch_seconds = Some(snapshot.epoch as f64 / 1e9);
        self.observed_seconds = Some(unix_seconds(now));
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What this process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// CPU time, of all threads, in user space and in the kernel.
    pub cpu: Duration,
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
}

impl Process {
    /// Of this process, now; `None` where it cannot be told.
    pub fn own() -> Option<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let time = |value: nix::sys::time::TimeVal| {
            let micros = u64::try_from(value.tv_usec()).unwrap_or(0);
            Duration::from_secs(u64::try_from(value.tv_sec()).unwrap_or(0)) + Duration::from_micros(micros)
        };
        let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
        let resident: u64 = pages.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        Some(Self {
            cpu: time(usage.user_time()) + time(usage.system_time()),
            resident_bytes: resident.saturating_mul(u64::try_from(page).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let own = Process::own().unwrap();
        assert!(own.cpu > Duration::ZERO);
        assert!((1 << 20..1 << 36).contains(&own.resident_bytes), "{own:?}");
    }
}
