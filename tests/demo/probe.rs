//! What this machine lacks for the demo, and which of its CPUs the demo takes.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use loadline_tests::cgroup;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{Pid, geteuid};
use sampler::read::{Reader, Start};

/// What is missing, a line each; nothing where the demo can run.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        missing.push("a kernel with BTF (/sys/kernel/btf/vmlinux)".into());
    }
    match cgroup::root().and_then(|root| fs::read_to_string(root.join("cgroup.controllers"))) {
        Err(error) => missing.push(format!("cgroup v2 ({error})")),
        Ok(controllers) if !controllers.split_whitespace().any(|one| one == "cpu") => {
            missing.push("the cpu controller in cgroup v2 (a v1 hierarchy has it)".into());
        }
        Ok(_) => {}
    }
    if kubelet_runs() {
        missing.push("a host without a kubelet (its cgroups are left alone)".into());
    }
    match allowed_cpus() {
        Ok(cpus) if cpus.len() >= 2 => {}
        Ok(_) => missing.push("a second CPU".into()),
        Err(error) => missing.push(format!("a list of this process's CPUs ({error})")),
    }
    // What only trying can tell, when there is nothing plainer to say.
    if missing.is_empty()
        && let Err(error) = Reader::start(Start::default())
    {
        missing.push(format!("a kernel that takes the sampler's programs ({})", chain(&error)));
    }
    missing
}

/// An error with its sources, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text += &format!(": {more}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

fn kubelet_runs() -> bool {
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|process| {
        fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.trim() == "kubelet")
    })
}

/// The CPUs that this process may use.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect())
}

/// The two CPUs that have least to do.
pub fn quietest_cpus() -> io::Result<[usize; 2]> {
    const LOOK: Duration = Duration::from_millis(300);
    let mut cpus = allowed_cpus()?;
    if cpus.len() > 2 {
        let before = fs::read_to_string("/proc/stat")?;
        sleep(LOOK);
        let after = fs::read_to_string("/proc/stat")?;
        let busy = |cpu: usize| busy_ticks(&after, cpu).saturating_sub(busy_ticks(&before, cpu));
        cpus.sort_by_cached_key(|cpu| busy(*cpu));
    }
    match cpus.as_slice() {
        [first, second, ..] => Ok([*first, *second]),
        _ => Err(io::Error::other("the demo needs two CPUs")),
    }
}

/// How long a CPU was not idle since boot, by the text of `/proc/stat`, in ticks.
/// <https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat>
fn busy_ticks(stat: &str, cpu: usize) -> u64 {
    const IDLE: [usize; 2] = [3, 4];
    // Guests' time is in user and nice already.
    const STEAL: usize = 7;
    let name = format!("cpu{cpu}");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
    let ticks = line.unwrap_or_default().split_whitespace().take(STEAL + 1);
    let ticks = ticks.enumerate().filter(|(field, _)| !IDLE.contains(field));
    ticks.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_but_idle_and_waiting_for_disks() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 3 400 500 6 7 8 90 10\ncpu10 7 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(busy_ticks(stat, 1), 1 + 2 + 3 + 6 + 7 + 8);
        assert_eq!(busy_ticks(stat, 10), 7);
        assert_eq!(busy_ticks(stat, 2), 0);
    }
}
