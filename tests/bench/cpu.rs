//! CPU time that looking takes: 500 containers that all run, with everything on, a window a second.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use crate::containers::{Containers, Life};
use crate::machine;
use crate::report::Report;
use crate::resident::{Full, SCRAPE_EVERY, WINDOW};

const CONTAINERS: usize = 500;
const WINDOWS: u32 = 2 * SCRAPE_EVERY;
/// Files of a container that the sampler reads in each window in which it ran. Those of the pods and slices above it, which it
/// also reads, are left out.
const OFTEN: [&str; 1] = ["cpu.stat"];
/// And those that it reads every 15 s; there, too, limits of pods and slices are left out.
const SELDOM: [&str; 10] = [
    "cpu.max",
    "cpu.weight",
    "cpu.pressure",
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.peak",
    "memory.stat",
    "memory.events",
    "memory.pressure",
];

/// Reports the ratios, and at real speed the share of a core.
pub fn run(in_vm: bool, runqlat: Option<&Path>, report: &mut Report) -> Result<()> {
    if !machine::has_cgroup_v2() {
        eprintln!("cpu.500: needs cgroup v2 at /sys/fs/cgroup; measured in a virtual machine");
        return Ok(());
    }
    let containers = Containers::make(CONTAINERS, Life::Naps)?;
    // Each by itself.
    let plain = read(&containers)?;
    let theirs = runqlat.map(measure).transpose()?;
    let ours = daemon(&containers)?;
    let per_window = |cpu: Duration| cpu.as_secs_f64() * 1e3 / f64::from(WINDOWS);
    let note = format!(
        "CPU time of `sampler serve` with everything on, a window a second of {CONTAINERS} containers that all run, memory, \
         PSI, limits and names, and a scrape in both formats every {SCRAPE_EVERY} s, without the start, as a ratio to a \
         program that opens, reads and closes the files of the containers as often (the sampler also reads `cpu.stat` and every \
         15 s the limits of their {} pods, and of the slices): {:.2} and {:.2} ms a window; {}",
        containers.pods(),
        per_window(ours),
        per_window(plain),
        machine::load()
    );
    let to_plain = ours.as_secs_f64() / plain.as_secs_f64();
    if in_vm {
        // Of a core that is emulated no share means anything.
        report.exact("cpu.500", "×", to_plain, "a ratio here: that of cpu.500.files");
    }
    report.exact("cpu.500.files", "×", to_plain, note);
    if let Some(theirs) = theirs {
        let note = format!(
            "the same as a ratio to libbpf-tools' `runqlat 1`, one histogram of the whole machine a second: {:.2} ms a \
             window, its start included. What the programs add to context switches is `switch.*`",
            per_window(theirs)
        );
        report.exact("cpu.500.runqlat", "×", ours.as_secs_f64() / theirs.as_secs_f64(), note);
    }
    if !in_vm {
        let share = ours.as_secs_f64() / (WINDOW * WINDOWS).as_secs_f64() * 100.0;
        let note = "share of one core, without what the programs add to context switches; aim: at most 1";
        report.exact("cpu.500", "%", share, note);
    }
    Ok(())
}

/// What all windows take of the daemon's CPU time.
fn daemon(containers: &Containers) -> Result<Duration> {
    let full = Full::start(containers)?;
    let before = full.cpu_time()?;
    for window in 0..WINDOWS {
        std::thread::sleep(WINDOW);
        if window % SCRAPE_EVERY == 0 {
            full.scrape()?;
        }
    }
    Ok(full.cpu_time()?.saturating_sub(before))
}

/// CPU time of another's program that works through all windows, its start included.
fn measure(runqlat: &Path) -> Result<Duration> {
    let before = used(UsageWho::RUSAGE_CHILDREN)?;
    let arguments = [WINDOW.as_secs().to_string(), WINDOWS.to_string()];
    let status = Command::new(runqlat).args(arguments).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {}", runqlat.display()))?;
    if !status.success() {
        bail!("{} ended with {status}", runqlat.display());
    }
    Ok(used(UsageWho::RUSAGE_CHILDREN)?.saturating_sub(before))
}

/// CPU time of this process, or of all children that have ended.
fn used(whose: UsageWho) -> Result<Duration> {
    let usage = getrusage(whose).context("cannot tell the CPU time")?;
    let both = [usage.user_time(), usage.system_time()];
    let us: i64 = both.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    Ok(Duration::from_micros(u64::try_from(us).context("a negative CPU time")?))
}

/// No more than the containers' own files, as often as the sampler reads them.
fn read(containers: &Containers) -> Result<Duration> {
    let before = used(UsageWho::RUSAGE_SELF)?;
    for window in 0..WINDOWS {
        std::thread::sleep(WINDOW);
        let seldom = if window % SCRAPE_EVERY == 0 { &SELDOM[..] } else { &[] };
        for container in containers.paths() {
            for file in OFTEN.iter().chain(seldom) {
                // Older kernels lack some.
                std::hint::black_box(std::fs::read(container.join(file)).ok());
            }
        }
    }
    Ok(used(UsageWho::RUSAGE_SELF)?.saturating_sub(before))
}
