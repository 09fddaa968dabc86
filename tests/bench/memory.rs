//! Memory: what the maps take for each container and CPU, and what the daemon takes.

use anyhow::Result;
use sampler::kernel::load::{BYTES_PER_CPU_AND_SLOT, default_slots};
use sampler_common::abi::{Baseline, CGROUP_EVENTS_BYTES, Cpu, CssEntry, CycleSums, Row, SlotRecord, TABLE};
use sampler_common::cycles::Rhythm;
use sampler_common::throttle::Throttle;

use crate::containers::{Containers, Life};
use crate::machine;
use crate::report::Report;
use crate::resident::{Full, SCRAPE_EVERY, WINDOW};

const CONTAINERS: usize = 500;
const WINDOWS: u32 = 2 * SCRAPE_EVERY + 3;
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

/// Resident memory of the daemon while it is scraped: the most that is seen, since that is what a limit has to hold.
fn resident(report: &mut Report) -> Result<()> {
    let containers = Containers::make(CONTAINERS, Life::Naps)?;
    let full = Full::start(&containers)?;
    let mut most = [0.0; 3];
    let mut bytes = [0; 2];
    for window in 0..WINDOWS {
        std::thread::sleep(WINDOW);
        if window % SCRAPE_EVERY == 0 {
            bytes = full.scrape()?;
        }
        let now = full.resident()?;
        if now[0] > most[0] {
            most = now;
        }
    }
    let [all, anonymous, mapped] = most;
    let note = format!(
        "VmRSS of `sampler serve` with everything on: {CONTAINERS} containers that run, with memory, PSI, limits and names, \
         windows of 1 s, scraped in both formats ({} and {} bytes); the most in {WINDOWS} windows, {} CPUs \
         ({anonymous:.1} anonymous, {mapped:.1} of the program and of the kernel's maps); aim: at most 32",
        bytes[0],
        bytes[1],
        machine::allowed_cpus()?.len()
    );
    report.exact("memory.resident", "MiB", all, format!("{note}; Linux {}", machine::kernel()));
    Ok(())
}
