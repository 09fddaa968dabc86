//! What the throttle programs cost, as a ratio to a program that does nothing: the kernel's own run time
//! statistics of each, while a cgroup uses up its limit again and again.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};
use aya::sys::{Stats, enable_stats};
use loadline_tests::cgroup::Cgroup;
use nix::unistd::Pid;
use sampler::kernel::load::ThrottleHooks;

use crate::designs::{Design, Designs};
use crate::report::Report;

/// The hidden subcommand that uses up its limit.
pub const SPIN: &str = "spin";
/// In the order in which they are loaded. The kernel keeps 15 characters of a name.
const PROGRAMS: [&str; 4] =
    ["tg_throttle_down", "tg_unthrottle_up", "unthrottle_cfs_rq", "unthrottle_cfs_rq_exit"];
const NAME_BYTES: usize = 15;
const SPINNERS: usize = 4;

/// Reports ns per run of each program, as a multiple of the no-op's.
pub fn run(designs: &mut Designs, report: &mut Report) -> Result<()> {
    if let ThrottleHooks::Unavailable(_) = designs.loadline.throttle_hooks {
        eprintln!("throttle: this kernel refuses the programs; measured in a virtual machine");
        return Ok(());
    }
    let group = Cgroup::new("loadline-bench-throttle").context("cannot make a cgroup")?;
    group.limit_cpu(Duration::from_millis(5), Duration::from_millis(10)).context("cannot limit it")?;
    let mut spinners = Vec::new();
    for _ in 0..SPINNERS {
        let mut command = Command::new("/proc/self/exe");
        let child =
            command.arg(SPIN).stdin(Stdio::null()).spawn().context("cannot start a thread to throttle")?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid that is none")?);
        spinners.push(Spinner(child));
        group.take(pid).context("cannot move it into its cgroup")?;
    }
    let noop = designs.noop_info().context("the kernel does not describe the no-op")?;
    let statistics = enable_stats(Stats::RunTime).context("the kernel keeps no run time statistics")?;
    let before = run_times()?;
    designs.with(Design::Loadline, || {
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    })?;
    // Not at the same time: in one trampoline the second finds the caches as the first left them.
    designs.with(Design::Noop, || {
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    })?;
    let after = run_times()?;
    drop(statistics);
    drop(spinners);
    let ns_per_run = |id: u32| {
        let (_, ns, runs) = after.get(&id)?;
        let (ns_before, runs_before) = before.get(&id).map_or((0, 0), |(_, ns, runs)| (*ns, *runs));
        let runs = runs - runs_before;
        (runs > 0).then(|| ((ns - ns_before) as f64 / runs as f64, runs))
    };
    let (floor, _) = ns_per_run(noop.id()).context("the no-op has not run")?;
    let mut programs = PROGRAMS.iter().peekable();
    for (&id, (name, ..)) in &after {
        let Some(program) = programs.next_if(|program| program[..program.len().min(NAME_BYTES)] == *name)
        else {
            continue;
        };
        let (ns, runs) = ns_per_run(id).with_context(|| format!("{program} has not run"))?;
        let note = format!(
            "time in the program by the kernel's statistics, their own cost included; {runs} runs in 10 s, \
             quota 5 ms of 10 ms"
        );
        report.exact(format!("throttle.{program}/noop"), "×", ns / floor, note);
    }
    Ok(())
}

/// Name, ns and runs of each loaded program, by id.
fn run_times() -> Result<BTreeMap<u32, (String, u64, u64)>> {
    let mut times = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.context("the kernel does not list its programs")?;
        if let Some((ns, runs)) = run_time(&program) {
            times.insert(program.id(), (program.name_as_str().unwrap_or("?").to_owned(), ns, runs));
        }
    }
    Ok(times)
}

fn run_time(program: &ProgramInfo) -> Option<(u64, u64)> {
    let fd = program.fd().ok()?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((field("run_time_ns:")?, field("run_cnt:")?))
}

struct Spinner(Child);

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Uses all the CPU time that it gets.
pub fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
