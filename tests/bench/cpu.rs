//! CPU time that looking takes: 500 containers that all run, a window a second.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use sampler::publish::{Format, Publisher};
use sampler::read::{Reader, Start};
use sampler::source::Health;

use crate::groups::Groups;
use crate::machine;
use crate::report::Report;

/// The hidden subcommands that are measured: our reader with its metrics, and one that only reads the files.
pub const OURS: &str = "look-each-second";
/// See [`OURS`].
pub const PLAIN: &str = "read-each-second";
const CONTAINERS: usize = 500;
const WINDOW: Duration = Duration::from_secs(1);
const WINDOWS: u32 = 20;
/// Prometheus' default is a scrape a minute; this is often.
const SCRAPE_EVERY: u32 = 15;

/// Reports the ratios, and at real speed and with the files of cgroup v2 the share of a core.
pub fn run(in_vm: bool, runqlat: Option<&Path>, report: &mut Report) -> Result<()> {
    let groups = Groups::make(CONTAINERS)?;
    let ours = measure_own(&groups, &mut own(OURS))?;
    let plain = measure_own(&groups, own(PLAIN).arg(groups.path()))?;
    let per_window = |cpu: Duration| cpu.as_secs_f64() * 1e3 / f64::from(WINDOWS);
    let note = format!(
        "CPU time of a window a second of {CONTAINERS} containers that all run, rows, files (but those of memory, \
         which threaded groups do not have) and a scrape every {SCRAPE_EVERY} s, without the start, as a ratio to a program that opens, reads and closes `cpu.stat` of each: {:.2} and {:.2} ms \
         a window; {}",
        per_window(ours),
        per_window(plain),
        machine::load()
    );
    report.exact("cpu.500.files", "×", ours.as_secs_f64() / plain.as_secs_f64(), note);
    if let Some(runqlat) = runqlat {
        let arguments = ["1".to_owned(), WINDOWS.to_string()];
        let theirs = measure(&groups, Command::new(runqlat).args(arguments).stdout(Stdio::null()))?;
        let note = format!(
            "the same as a ratio to libbpf-tools' `runqlat 1`, one histogram of the whole machine a second: {:.2} ms a \
             window, its start included. What the programs add to context switches is `switch.*`",
            per_window(theirs)
        );
        report.exact("cpu.500.runqlat", "×", ours.as_secs_f64() / theirs.as_secs_f64(), note);
    }
    if !in_vm && machine::has_cgroup_v2() {
        let share = ours.as_secs_f64() / (WINDOW * WINDOWS).as_secs_f64() * 100.0;
        let note = "share of one core, without what the programs add to context switches; aim: at most 1";
        report.exact("cpu.500", "%", share, note);
    }
    Ok(())
}

fn own(subcommand: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(subcommand);
    command
}

/// CPU time that one of our children says its windows took.
fn measure_own(groups: &Groups, command: &mut Command) -> Result<Duration> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut said = child.stdout.take().context("no pipe")?;
    wait_for(groups, child, command)?;
    let mut us = String::new();
    said.read_to_string(&mut us).context("the child's answer")?;
    Ok(Duration::from_micros(us.trim().parse().with_context(|| format!("{command:?} said {us:?}"))?))
}

/// CPU time of another's program that works through all windows, its start included.
fn measure(groups: &Groups, command: &mut Command) -> Result<Duration> {
    let before = used(UsageWho::RUSAGE_CHILDREN)?;
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    wait_for(groups, child, command)?;
    Ok(used(UsageWho::RUSAGE_CHILDREN)?.saturating_sub(before))
}

/// Waits for a child's end, while a thread of ours runs in every container in each window.
fn wait_for(groups: &Groups, mut child: Child, command: &Command) -> Result<()> {
    let result = keep_running(groups, &mut child);
    if result.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().context("waiting for the child")?;
    result?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

fn keep_running(groups: &Groups, child: &mut Child) -> Result<()> {
    while child.try_wait().context("waiting for the child")?.is_none() {
        let round = Instant::now();
        for group in 0..groups.len() {
            groups.enter(group)?;
            std::thread::sleep(Duration::from_micros(50));
        }
        groups.leave()?;
        std::thread::sleep((WINDOW / 2).saturating_sub(round.elapsed()));
    }
    Ok(())
}

/// CPU time of this process, or of all children that have ended.
fn used(whose: UsageWho) -> Result<Duration> {
    let usage = getrusage(whose).context("cannot tell the CPU time")?;
    let both = [usage.user_time(), usage.system_time()];
    let us: i64 = both.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    Ok(Duration::from_micros(u64::try_from(us).context("a negative CPU time")?))
}

/// The child: what the daemon does. Says at the end what its windows took: loading the programs, which the verifier
/// walks through once, would be most of it.
pub fn look() -> Result<()> {
    let mut reader = Reader::start(Start::default()).context("the reader does not start")?;
    let publisher = Publisher::new(2, 2 * CONTAINERS, WINDOW);
    let started = used(UsageWho::RUSAGE_SELF)?;
    for window in 0..WINDOWS {
        std::thread::sleep(WINDOW);
        publisher.observe(reader.snapshot(), Health::default()).context("a window")?;
        if window % SCRAPE_EVERY == 0 {
            std::hint::black_box(publisher.scrape(Format::OpenMetrics).context("a scrape")?);
        }
    }
    println!("{}", (used(UsageWho::RUSAGE_SELF)? - started).as_micros());
    Ok(())
}

/// The child: no more than the files of all groups below a directory.
pub fn read(groups: &Path) -> Result<()> {
    for _ in 0..WINDOWS {
        std::thread::sleep(WINDOW);
        for group in std::fs::read_dir(groups).context("the groups")? {
            let group = group.context("a group")?;
            if group.file_type().is_ok_and(|kind| kind.is_dir()) {
                let stat = std::fs::read(group.path().join("cpu.stat")).context("cpu.stat")?;
                std::hint::black_box(stat);
            }
        }
    }
    println!("{}", used(UsageWho::RUSAGE_SELF)?.as_micros());
    Ok(())
}
