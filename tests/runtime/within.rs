//! What runs in a container besides its first process belongs to it: what was started in it later, and cgroups that it
//! has made itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use loadline_tests::cgroup;
use loadline_tests::containers::{Spec, load_command};
use loadline_tests::load::{Process, Schedstat, Work, until};
use nix::unistd::Pid;
use sampler::read::{Reader, Start};
use sampler_common::snapshot::{Cause, CgroupId, Snapshot};
use sampler_common::window::Windows;

use crate::identity::{cgroup_id, container_at, id};
use crate::{clear, containerd};

crate::tests![
    a_process_that_was_started_in_it_later within 120 s,
    cgroups_that_it_made_itself within 120 s,
];

const LIMIT: Duration = Duration::from_secs(30);

/// The processes in the cgroups at and below a path.
fn processes(cgroup: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    let mut pids: Vec<_> = listed.lines().map(|line| Pid::from_raw(line.parse().unwrap())).collect();
    for entry in fs::read_dir(cgroup).unwrap().flatten() {
        if entry.path().is_dir() {
            pids.extend(processes(&entry.path()));
        }
    }
    pids
}

/// A moment in which none of the processes runs: what the sampler has counted by then, and what the kernel has.
fn standstill(reader: &mut Reader, pids: &[Pid]) -> (Snapshot, Schedstat) {
    // Adopted only for their signals: they are another's children.
    let processes: Vec<_> =
        pids.iter().map(|pid| std::mem::ManuallyDrop::new(Process::adopt(*pid))).collect();
    processes.iter().for_each(|process| process.stop().unwrap());
    let mut kernel = Schedstat::default();
    pids.iter().for_each(|pid| kernel += Schedstat::of_threads(*pid).unwrap());
    let snapshot = reader.snapshot();
    processes.iter().for_each(|process| process.go_on().unwrap());
    (snapshot, kernel)
}

/// Lets the processes run for a while; all their delays are this cgroup's, to the nanosecond. Returns how much of them
/// is each other's doing.
fn all_are_counted(reader: &mut Reader, cgroup: CgroupId, pids: &[Pid]) -> f64 {
    let (earlier, kernel_earlier) = standstill(reader, pids);
    std::thread::sleep(Duration::from_secs(1));
    let (later, kernel) = standstill(reader, pids);
    let grown = kernel - kernel_earlier;
    let window = &Windows::between(&earlier, &later).unwrap().cgroups[&cgroup];
    println!("     {} delays of {:.3} s: {:?}", grown.switch_ins, grown.wait_ns as f64 / 1e9, window.causes);
    assert_eq!((window.latency.count(), window.causes.total()), (grown.switch_ins, grown.wait_ns));
    window.share(Cause::Own).unwrap()
}

/// As `kubectl exec` or a probe does. Catches a process that is counted with whoever started it.
fn a_process_that_was_started_in_it_later() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let spec = Spec { id: id(32), command: load_command(&[Work::Spin.on(0)], false), ..Spec::default() };
    let container = containerd().run(&spec).unwrap();
    let path = cgroup::root().unwrap().join(container.cgroup().unwrap());
    let command = load_command(&[Work::Spin.on(0)], false);
    container.exec("later", &command.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    until("both", LIMIT, || Ok(processes(&path).len() == 2)).unwrap();
    let own = all_are_counted(&mut reader, cgroup_id(&container.cgroup().unwrap()), &processes(&path));
    assert!(own > 0.8, "they wait for each other: {own}");
    drop(container);
    clear();
}

/// As Docker in Docker does, or systemd: a container with cgroups of its own making, that have the cpu controller, two
/// of which share a CPU. Catches their being each other's neighbours, and counts that are nobody's.
fn cgroups_that_it_made_itself() {
    let inner = |name: &str| {
        let spin = &load_command(&[Work::Spin.on(0)], false).join(" ");
        format!("busybox mkdir $c/docker/{name}; (echo 0 > $c/docker/{name}/cgroup.procs; exec {spin}) & ")
    };
    let script = format!(
        "c=/sys/fs/cgroup$(busybox cut -d: -f3 /proc/self/cgroup); busybox mkdir $c/init $c/docker; \
         echo 0 > $c/init/cgroup.procs; echo +cpu > $c/cgroup.subtree_control; \
         echo +cpu > $c/docker/cgroup.subtree_control; {}{}wait",
        inner(&id(34)),
        inner(&id(35)),
    );
    let command = ["/bin/busybox", "sh", "-c", &script].map(str::to_owned).into();
    let mut reader = Reader::start(Start::default()).unwrap();
    let cgroup = format!("kubepods/burstable/pod{}/{}", "0123456789abcdef".repeat(2), id(33));
    let spec = Spec {
        id: id(33),
        cgroup: Some(cgroup.clone().into()),
        own_cgroups: true,
        command,
        ..Spec::default()
    };
    let container = containerd().run(&spec).unwrap();
    let path = cgroup::root().unwrap().join(&cgroup);
    let loads = || [34, 35].map(|digit| path.join("docker").join(id(digit)));
    until("both within", LIMIT, || {
        Ok(loads().iter().all(|path| path.exists() && processes(path).len() == 1))
    })
    .unwrap();
    assert_eq!(container.cgroup().unwrap(), Path::new(&cgroup).join("init"));
    // Those within are seen and told to be the container's.
    reader.snapshot();
    let own = cgroup_id(&cgroup.into());
    let share = all_are_counted(&mut reader, own, &processes(&path));
    // What is missing waited for the runtime, which has work to do when a container starts.
    assert!(share > 0.8, "they are no neighbours to each other: {share}");
    assert_eq!(container_at(&reader, own).id.as_str(), id(33));
    let snapshot = reader.snapshot();
    for path in loads() {
        assert!(!snapshot.cgroups.contains_key(&cgroup_id(&path)), "it is within, and has no row of its own");
    }
    drop(container);
    clear();
}
