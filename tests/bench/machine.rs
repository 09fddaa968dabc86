//! The machine that is measured on: which kernel, which CPU, how busy.

use std::fs;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Release of the kernel, major and minor: `6.12`.
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}

/// How many threads wanted to run during the last minute.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_owned()
}

/// The CPUs that we may run on.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot tell the allowed CPUs")?;
    Ok((0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect())
}

/// Keeps this thread, and those that it starts from now on, on these CPUs.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu).context("no such CPU")?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot pin to CPUs {cpus:?}"))
}

/// Runs `work` on the last allowed CPU (the first serves most interrupts) and ahead of the machine's other
/// work: who preempts us would be measured as well.
pub fn undisturbed<T>(work: impl FnOnce(usize) -> Result<T>) -> Result<T> {
    let allowed = allowed_cpus()?;
    let cpu = *allowed.last().context("no CPU is allowed")?;
    pin(&[cpu])?;
    set_nice(-20);
    let result = work(cpu);
    set_nice(0);
    pin(&allowed)?;
    result
}

/// Where that is not permitted, the measurement is only noisier.
fn set_nice(nice: i32) {
    // SAFETY: takes integers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Whether this machine has cgroup v2, and so files as most hosts have them.
pub fn has_cgroup_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
