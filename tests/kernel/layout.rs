//! Hosts whose cgroups are not all v2's: rows are keyed by the hierarchy that has the CPU.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loadline_tests::cgroup::Cgroup;
use loadline_tests::load::{Load, Schedstat, Work, until};
use nix::mount::{MsFlags, mount, umount};
use sampler::cgroup::Format;
use sampler::cgroup::layout::Version;
use sampler::read::{Reader, Start};
use sampler_common::resources::{CpuLimit, LimitOf};
use sampler_common::snapshot::Cause;
use sampler_common::window::Windows;

crate::tests![a_host_with_the_cpu_in_v1 within 120 s];

const LIMIT: Duration = Duration::from_secs(40);
const ENABLED: &str = "/sys/fs/cgroup/cgroup.subtree_control";
const CONTROLLERS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// v1's `cpu,cpuacct`, taken from v2 for as long as this lives.
struct CpuInV1 {
    root: PathBuf,
}

impl CpuInV1 {
    fn mounted() -> Self {
        let root = PathBuf::from("/run/cpu,cpuacct");
        fs::create_dir_all(&root).unwrap();
        fs::write(ENABLED, "-cpu").unwrap();
        let taken = Self { root };
        // Cgroups of earlier tests are removed only after a while.
        until("the CPU out of v2", LIMIT, || {
            let (nothing, options) = (None::<&str>, Some("cpu,cpuacct"));
            match mount(nothing, &taken.root, Some("cgroup"), MsFlags::empty(), options) {
                Err(nix::Error::EBUSY) => Ok(false),
                result => result.map(|()| true).map_err(io::Error::from),
            }
        })
        .unwrap();
        taken
    }
}

impl Drop for CpuInV1 {
    fn drop(&mut self) {
        let back = umount(&self.root).map_err(io::Error::from).and_then(|()| {
            until("the CPU back in v2", LIMIT, || {
                let has_cpu = fs::read_to_string(CONTROLLERS)?.split_whitespace().any(|name| name == "cpu");
                Ok(has_cpu && fs::write(ENABLED, "+cpu").is_ok())
            })
        });
        if let Err(error) = back {
            eprintln!("{} is left behind: {error}", self.root.display());
        }
    }
}

fn write(cgroup: &Path, file: &str, text: &str) {
    fs::write(cgroup.join(file), text).unwrap();
}

/// Delays, use and throttling of a cgroup of v1 are what the kernel says they are, and a limit above it is in force.
/// Catches rows that are nobody's because another hierarchy has their inode numbers, and files by names of v2.
fn a_host_with_the_cpu_in_v1() {
    let v1 = CpuInV1::mounted();
    let mut reader = Reader::start(Start::default()).unwrap();
    let layout = reader.layout();
    assert_eq!(
        (layout.version, layout.cpu.format, layout.rows_root()),
        (Version::Hybrid, Format::V1, &*v1.root)
    );
    let pod = Cgroup::at(v1.root.join("pod")).unwrap();
    write(pod.path(), "cpu.cfs_period_us", "50000");
    write(pod.path(), "cpu.cfs_quota_us", "10000");
    let container = Cgroup::at(pod.path().join("container")).unwrap();
    write(container.path(), "cpu.shares", "2000");
    // Nobody can be started in a cgroup of v1: what was counted before it got there is in the first window.
    let load = Load::start(None, &[Work::Spin.anywhere()]).unwrap();
    container.take(load.pid()).unwrap();
    // It was moved while it ran, and is met when it is switched in.
    until("its row", LIMIT, || Ok(reader.snapshot().cgroups.contains_key(&container.id()))).unwrap();
    let used = || container.read("cpuacct.usage").unwrap().trim().parse::<u64>().unwrap();
    let mut look = || {
        load.process().stop().unwrap();
        let (kernel, before) = (Schedstat::of_threads(load.pid()).unwrap(), used());
        let snapshot = reader.snapshot();
        // A thread that counts as stopped may still be on its way off the CPU.
        let used = (before, used());
        load.process().go_on().unwrap();
        (kernel, used, snapshot)
    };
    let earlier = look();
    std::thread::sleep(Duration::from_millis(1500));
    let later = look();
    let counters = &Windows::between(&earlier.2, &later.2).unwrap().cgroups[&container.id()];
    let counted = &later.2.cgroups[&container.id()];
    let kernel = later.0 - earlier.0;
    let (least, most) = (later.1.0 - earlier.1.1, later.1.1 - earlier.1.0);
    println!("     {kernel:?}, used {least} to {most} ns; {:?}", counted.limits);
    assert_eq!((counters.latency.count(), counters.causes.total()), (kernel.switch_ins, kernel.wait_ns));
    assert!((least..=most).contains(&counters.usage_ns), "{} of {least} to {most}", counters.usage_ns);
    assert_eq!(counted.identity.path, "pod/container");
    let limit = CpuLimit { quota_us: 10_000, period_us: 50_000, of: LimitOf::Ancestor };
    assert_eq!((counted.limits.cpu, counted.limits.cpu_weight), (Some(limit), Some(170)));
    assert!(counters.throttling.ancestors_throttled_periods > 0, "{:?}", counters.throttling);
    let quota = counters.causes.share(Cause::Quota).unwrap();
    assert!(quota > 0.5, "{quota} of its wait is for the limit, which it meets in every period");
    assert_eq!(counters.pressure, None);
}
