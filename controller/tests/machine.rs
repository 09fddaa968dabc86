//! The model of a machine's CPUs beside a real kernel: the demo's workloads (`tests/demo/workloads.rs`) as the sampler
//! recorded them on Linux 6.12 with two emulated CPUs, and the same loads in the model.
//!
//! `cargo test -p controller --test machine -- --nocapture` prints the table.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use controller::simulate::machine::{Group, Machine, Work};
use sampler_common::recording::Reader;
use sampler_common::snapshot::{Cause, Snapshot};
use sampler_common::window::{Case, Window, Windows};

const SECOND_NS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;

/// All windows of each workload of the recording as one. Those of a part of a second, in which phases begin and end, are
/// left out, and those in which it waits for its phase.
fn recorded() -> BTreeMap<String, Window> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/demo.recording");
    let snapshots: Vec<Snapshot> =
        Reader::open(BufReader::new(File::open(path).unwrap())).unwrap().map(Result::unwrap).collect();
    let mut all = BTreeMap::<String, Window>::new();
    for pair in snapshots.windows(2) {
        for (id, window) in Windows::between(&pair[0], &pair[1]).unwrap().cgroups {
            let identity = &pair[1].cgroups[&id].identity;
            let name = identity.display_name();
            let whole = window.case == Case::Continued && window.length_ns > 9 * SECOND_NS / 10;
            if identity.container().is_none() || !whole || window.runnable().unwrap_or(0.0) < 0.02 {
                continue;
            }
            let sum = all.remove(name).unwrap_or_default();
            all.insert(name.to_owned(), if sum.length_ns == 0 { window } else { sum.then(&window) });
        }
    }
    all
}

/// A container with threads on one of two CPUs.
struct Load {
    name: &'static str,
    cpu: usize,
    threads: usize,
    work: Work,
    quota_ms: Option<u64>,
    outside: bool,
}

const BUSY: Load = Load { name: "", cpu: 0, threads: 1, work: Work::Spin, quota_ms: None, outside: false };

/// The phases of the demo.
fn phases() -> [Vec<Load>; 3] {
    let duty =
        |run_us: u64, period_ms: u64| Work::Duty { run_ns: run_us * 1000, period_ns: period_ms * MS_NS };
    [
        vec![
            Load { name: "throttled", quota_ms: Some(20), ..BUSY },
            Load { name: "quiet", cpu: 1, work: duty(100, 2), ..BUSY },
        ],
        vec![
            Load { name: "neighbor-1", ..BUSY },
            Load { name: "neighbor-2", work: duty(10_000, 20), ..BUSY },
            Load { name: "crowded", cpu: 1, threads: 4, ..BUSY },
        ],
        vec![Load { name: "beside-host", ..BUSY }, Load { name: "demo-host.service", outside: true, ..BUSY }],
    ]
}

fn modelled() -> BTreeMap<String, Window> {
    let mut all = BTreeMap::new();
    for loads in phases() {
        let groups = loads.iter().map(|load| Group {
            weight: 100.0,
            outside: load.outside,
            quota_ns: load.quota_ms.map(|ms| ms * MS_NS),
        });
        let mut machine = Machine::new(2, groups.collect());
        for (group, load) in loads.iter().enumerate() {
            (0..load.threads).for_each(|_| machine.start(group, load.work, Some(load.cpu)));
        }
        machine.run_until(SECOND_NS);
        loads.iter().enumerate().for_each(|(group, _)| drop(machine.window(group)));
        machine.run_until(11 * SECOND_NS);
        for (group, load) in loads.iter().enumerate() {
            all.insert(load.name.to_owned(), machine.window(group));
        }
    }
    all
}

/// How far the model may be off. Its waits at the 99th percentile are not held against the kernel's: an emulated machine
/// stands still now and then, and everybody waits for that.
struct Bounds {
    /// Of a core.
    used: f64,
    /// Of the kernel's wait in a second.
    wait: f64,
    /// Of the kernel's median: two buckets of a histogram and one more.
    p50: f64,
    /// Of all wait.
    share: f64,
    /// Of all periods.
    throttled: f64,
}

const BOUNDS: Bounds = Bounds { used: 0.07, wait: 0.15, p50: 0.25, share: 0.1, throttled: 0.02 };

fn print(name: &str, who: &str, window: &Window) {
    let per_second = |count: u64| count as f64 / window.length_ns as f64 * 1e9;
    let ms = |ns: Option<u64>| ns.unwrap_or(0) as f64 / 1e6;
    print!(
        "{name:12} {who:6} {:5.3} CPU, waits {:6.1} ms/s in {:4.0} delays/s, p50 {:5.2} p99 {:5.1} ms;",
        window.used_cores().unwrap_or(0.0),
        per_second(window.wait_ns()) / 1e6,
        per_second(window.latency.count()),
        ms(window.p50()),
        ms(window.p99()),
    );
    for cause in Cause::ALL {
        match 100.0 * window.share(cause).unwrap_or(0.0) {
            ..0.5 => {}
            share => print!(" {} {share:.0} %", cause.label()),
        }
    }
    if let Some(share) = window.throttled_share() {
        let throttled = per_second(window.throttling.throttled_ns) / 1e6;
        print!("; throttled in {:.0} % of periods, {throttled:.0} ms/s", 100.0 * share);
    }
    println!();
}

#[test]
fn waits_throttling_and_use_are_those_of_a_real_kernel() {
    let (recorded, modelled) = (recorded(), modelled());
    let mut compared = 0;
    for (name, model) in &modelled {
        let Some(kernel) = recorded.get(name) else { continue };
        print(name, "kernel", kernel);
        print("", "model", model);
        compared += 1;
        let of = |window: &Window| {
            let share = |cause| window.share(cause).unwrap_or(0.0);
            (
                window.used_cores().unwrap(),
                window.wait_ns() as f64 / window.length_ns as f64,
                window.p50().unwrap() as f64,
                Cause::ALL.map(share),
                window.throttled_share().unwrap_or(0.0),
            )
        };
        let (kernel, model) = (of(kernel), of(model));
        assert!((kernel.0 - model.0).abs() <= BOUNDS.used, "{name} uses {} and {}", kernel.0, model.0);
        for (one, other) in kernel.3.into_iter().zip(model.3) {
            assert!((one - other).abs() <= BOUNDS.share, "{name}: {:?} and {:?}", kernel.3, model.3);
        }
        assert!(
            (kernel.4 - model.4).abs() <= BOUNDS.throttled,
            "{name} throttled {} and {}",
            kernel.4,
            model.4
        );
        // What waits for nobody waits for interrupts and for the emulation, of which the model has none.
        if name != "quiet" {
            assert!(
                (kernel.1 - model.1).abs() <= BOUNDS.wait * kernel.1,
                "{name} waits {} and {}",
                kernel.1,
                model.1
            );
            assert!(
                (kernel.2 - model.2).abs() <= BOUNDS.p50 * kernel.2,
                "{name} median {} and {}",
                kernel.2,
                model.2
            );
        }
    }
    assert_eq!(compared, 6, "of {:?}", modelled.keys());
}
