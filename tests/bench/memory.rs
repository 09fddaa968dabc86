//! Memory: what the maps take for each container and CPU, and what a process takes that reads them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sampler::kernel::load::{BYTES_PER_CPU_AND_SLOT, default_slots};
use sampler::publish::{Format, Publisher};
use sampler::read::{Reader, Start};
use sampler::source::Health;
use sampler_common::abi::{Baseline, CGROUP_EVENTS_BYTES, Cpu, CssEntry, CycleSums, Row, SlotRecord, TABLE};
use sampler_common::cycles::Rhythm;
use sampler_common::throttle::Throttle;

use crate::groups::Groups;
use crate::machine;
use crate::report::Report;

/// The hidden subcommand that holds a reader.
pub const RESIDENT: &str = "resident";
const CONTAINERS: usize = 500;
const MIB: f64 = (1 << 20) as f64;

/// Reports all of it.
pub fn run(report: &mut Report) -> Result<()> {
    let note = format!(
        "per container and CPU: {} for delays and causes, {} for throttles; aim: at most 1536",
        size_of::<Row>(),
        size_of::<Throttle>()
    );
    report.exact("memory.row", "bytes", BYTES_PER_CPU_AND_SLOT as f64, note);
    for cpus in [2, 16, 64, 128] {
        let slots = default_slots(cpus);
        let rows = f64::from(cpus) * f64::from(slots) * BYTES_PER_CPU_AND_SLOT as f64;
        let fixed = fixed_bytes(cpus, slots);
        let note = format!("all maps, computed: {slots} slots; {:.1} MiB of it are not rows", fixed / MIB);
        report.exact(format!("memory.total.{cpus}"), "MiB", (rows + fixed) / MIB, note);
    }
    if machine::has_cgroup_v2() {
        resident(report)
    } else {
        eprintln!("memory.resident: needs cgroup v2 at /sys/fs/cgroup; measured in a virtual machine");
        Ok(())
    }
}

/// The maps that are not by container and CPU.
fn fixed_bytes(cpus: u32, slots: u32) -> f64 {
    let tables = TABLE as usize * (size_of::<Baseline>() + size_of::<Rhythm>() + size_of::<CssEntry>());
    let by_cpu = cpus as usize * size_of::<Cpu>();
    let by_slot = slots as usize * (size_of::<SlotRecord>() + size_of::<CycleSums>() + size_of::<u32>());
    (tables + CGROUP_EVENTS_BYTES as usize + by_cpu + by_slot) as f64
}

/// Resident memory of a process that holds a reader while so many cgroups live and have run.
fn resident(report: &mut Report) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    let mut child = command
        .arg(RESIDENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a reader")?;
    let mut orders = child.stdin.take().context("no pipe")?;
    let mut answers = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut ready = String::new();
    answers.read_line(&mut ready).context("waiting for the reader")?;
    if ready != "ready\n" {
        bail!("the reader did not start");
    }
    let groups = Groups::make(CONTAINERS)?;
    let allowed = machine::allowed_cpus()?;
    for group in 0..groups.len() {
        groups.enter(group)?;
        for &cpu in &allowed {
            machine::pin(&[cpu])?;
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    groups.leave()?;
    machine::pin(&allowed)?;
    writeln!(orders, "read").context("the reader has ended")?;
    drop(orders);
    let mut text = String::new();
    answers.read_to_string(&mut text).context("the reader's answer")?;
    child.wait().context("waiting for the reader")?;
    let field = |name: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let cgroups = field("cgroups:").context("the reader said nothing")?;
    if cgroups < CONTAINERS as f64 {
        bail!("the reader knows only {cgroups} of {CONTAINERS} cgroups");
    }
    let kib = field("VmRSS:").context("no VmRSS")?;
    let parts = ["RssAnon:", "RssFile:", "RssShmem:"].map(|name| field(name).unwrap_or(0.0) / 1024.0);
    let note = format!(
        "VmRSS of this binary after five windows and scrapes in both formats, {cgroups} cgroups without the memory \
         controller, {} CPUs ({:.1} anonymous, \
         {:.1} file and maps, {:.1} shared); aim: at most 32",
        allowed.len(),
        parts[0],
        parts[1],
        parts[2]
    );
    report.exact("memory.resident", "MiB", kib / 1024.0, format!("{note}; Linux {}", machine::kernel()));
    Ok(())
}

/// The child: starts a reader, and when asked reads and tells its memory.
pub fn hold() -> Result<()> {
    let mut reader = Reader::start(Start::default()).context("the reader does not start")?;
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new()).context("waiting for an order")?;
    let publisher = Publisher::new(2, 2 * CONTAINERS, Duration::from_secs(5));
    let mut cgroups = 0;
    for _ in 0..5 {
        let snapshot = reader.snapshot();
        cgroups = snapshot.cgroups.len();
        publisher.observe(snapshot, Health::default()).context("a window")?;
        for format in [Format::OpenMetrics, Format::Protobuf] {
            publisher.scrape(format).context("a scrape")?;
        }
    }
    println!("cgroups: {cgroups}");
    print!("{}", std::fs::read_to_string("/proc/self/status").context("no /proc/self/status")?);
    Ok(())
}
