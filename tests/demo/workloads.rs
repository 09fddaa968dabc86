//! The workloads: what they do, why each has to wait, and their cgroups, named as a container runtime
//! names them.
//!
//! Where there is a container runtime, those that live through a phase are real containers, made before the first phase
//! told to begin in theirs and stopped at its end: to make one, and to clear it away, is work that the others would wait
//! for. So the short-lived ones, of which there is a new one every second, are processes in such cgroups everywhere.
//!
//! They take two CPUs, the same on every machine, and turns (phases), so that nothing but the cause in its
//! label makes a workload wait.
//!
//! | phase | first CPU | second CPU |
//! |---|---|---|
//! | 1 | `throttled` | `quiet` |
//! | 2 | `neighbor-1`, `neighbor-2` | `crowded` |
//! | 3 | `beside-host` and a process outside any container | `short-lived` |

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadline_tests::cgroup::Cgroup;
use loadline_tests::containers::{Container, Containerd, Spec, load_command};
use loadline_tests::load::{Load, Thread, Work};
use sampler_common::snapshot::{Cause, CgroupId};

/// The cgroup that everything is below.
const SLICE: &str = "loadline-demo.slice";
/// Number of phases.
pub const PHASES: usize = 3;

/// Where a workload runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a container of a pod of its own.
    Container,
    /// Outside any container.
    Host,
}

/// One of the two CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    First,
    Second,
}

/// How long a workload lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As long as its phase.
    Phase,
    /// Less than a second, and every second there is a new one.
    Second,
}

/// One workload.
#[derive(Debug)]
pub struct Workload {
    /// What it is called in the tables.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What it has to wait for; `None` for one that only makes others wait.
    pub cause: Option<Cause>,
    /// Which workload holds the CPU that it waits for.
    pub held_by: Option<&'static str>,
    /// When it runs: one of [`PHASES`].
    pub phase: usize,
    pub life: Life,
    place: Place,
    side: Side,
    threads: usize,
    work: Work,
    /// CPU time that it may use in each 100 ms.
    limit: Option<Duration>,
}

impl Workload {
    /// Whether it can be a container that is made before it is needed.
    pub fn may_wait(&self) -> bool {
        self.place == Place::Container && self.life == Life::Phase
    }
}

const PERIOD: Duration = Duration::from_millis(100);

/// A workload of one thread that never sleeps; the others say where they differ.
const BUSY: Workload = Workload {
    name: "",
    about: "",
    cause: None,
    held_by: None,
    phase: 0,
    life: Life::Phase,
    place: Place::Container,
    side: Side::First,
    threads: 1,
    work: Work::Spin,
    limit: None,
};

/// All of them.
pub const WORKLOADS: [Workload; 8] = [
    Workload {
        name: "throttled",
        about: "busy, limited to 0.2 CPU",
        cause: Some(Cause::Quota),
        limit: Some(Duration::from_millis(20)),
        ..BUSY
    },
    Workload {
        name: "quiet",
        about: "works for a moment, sleeps, alone on its CPU",
        cause: Some(Cause::Idle),
        side: Side::Second,
        work: Work::Duty { run: Duration::from_micros(100), period: Duration::from_millis(2) },
        ..BUSY
    },
    Workload {
        name: "neighbor-1",
        about: "busy, on one CPU with neighbor-2",
        cause: Some(Cause::Neighbor),
        held_by: Some("neighbor-2"),
        phase: 1,
        ..BUSY
    },
    Workload {
        name: "neighbor-2",
        about: "works half of the time, on one CPU with neighbor-1",
        cause: Some(Cause::Neighbor),
        held_by: Some("neighbor-1"),
        phase: 1,
        work: Work::Duty { run: Duration::from_millis(10), period: Duration::from_millis(20) },
        ..BUSY
    },
    Workload {
        name: "crowded",
        about: "four busy threads, alone on one CPU",
        cause: Some(Cause::Own),
        phase: 1,
        side: Side::Second,
        threads: 4,
        ..BUSY
    },
    Workload {
        name: "beside-host",
        about: "busy, on one CPU with a process outside any container",
        cause: Some(Cause::System),
        phase: 2,
        ..BUSY
    },
    Workload { name: "demo-host.service", about: "that process", phase: 2, place: Place::Host, ..BUSY },
    Workload {
        name: "short-lived",
        about: "a new one every second, three busy threads, alone on one CPU",
        cause: Some(Cause::Own),
        phase: 2,
        life: Life::Second,
        side: Side::Second,
        threads: 3,
        ..BUSY
    },
];

/// The slice with all that runs in it. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct Slice {
    // Dropped in this order.
    /// By workload.
    containers: BTreeMap<&'static str, Rc<Container>>,
    cgroup: Cgroup,
    _cpu: CpuController,
    cpus: [usize; 2],
    made: u64,
}

impl Slice {
    /// Makes the slice below the root of the hierarchy, for workloads on these CPUs. What a demo that crashed
    /// has left is removed.
    pub fn new(root: &Path, cpus: [usize; 2]) -> io::Result<Self> {
        let cpu = CpuController::enable(root.join("cgroup.subtree_control"))?;
        let path = root.join(SLICE);
        remove_leftover(&path)?;
        let cgroup = Cgroup::at(path)?;
        // For these seconds it goes before what else the host does on the two CPUs, or the host would be the
        // cause of most of the wait.
        cgroup.weigh_cpu(1_000)?;
        Ok(Self { cgroup, _cpu: cpu, cpus, made: 0, containers: BTreeMap::new() })
    }

    /// Makes a container for the workload, which waits until it is started.
    pub fn make_container(&mut self, containerd: &Arc<Containerd>, workload: &Workload) -> io::Result<()> {
        let (pod, id) = self.names();
        let cgroup = [SLICE, &pod, &format!("cri-containerd-{id}.scope")].iter().collect::<PathBuf>();
        let command = load_command(&self.threads(workload), true);
        let cpu_limit = workload.limit.map(|quota| (quota, PERIOD));
        let spec = Spec { id, cgroup: Some(cgroup), cpu_limit, command, ..Spec::default() };
        self.containers.insert(workload.name, Rc::new(containerd.run(&spec)?));
        Ok(())
    }

    /// What the slice of a new pod is called, and the id of its container.
    fn names(&mut self) -> (String, String) {
        self.made += 1;
        let mut digits = Digits(u64::from(std::process::id()) << 32 | self.made);
        (format!("loadline-demo-pod{}.slice", digits.uid()), digits.take(64))
    }

    fn threads(&self, workload: &Workload) -> Vec<Thread> {
        let cpu = match workload.side {
            Side::First => self.cpus[0],
            Side::Second => self.cpus[1],
        };
        vec![workload.work.on(cpu); workload.threads]
    }

    /// Starts a workload in a cgroup of its own.
    pub fn start(&mut self, workload: &Workload) -> io::Result<Running> {
        if let Some(container) = self.containers.get(workload.name) {
            container.tell()?;
            return Ok(Running {
                id: container.cgroup_id()?,
                program: Program::Container(Rc::clone(container)),
            });
        }
        let (pod, cgroup) = match workload.place {
            Place::Host => (None, self.cgroup.child(workload.name)?),
            Place::Container => {
                let (pod, id) = self.names();
                let pod = self.cgroup.child(&pod)?;
                let container = pod.child(&format!("cri-containerd-{id}.scope"))?;
                (Some(pod), container)
            }
        };
        if let Some(quota) = workload.limit {
            cgroup.limit_cpu(quota, PERIOD)?;
        }
        let load = Load::start(Some(&cgroup), &self.threads(workload))?;
        Ok(Running { id: cgroup.id(), program: Program::Process { _load: load, _cgroup: cgroup, _pod: pod } })
    }
}

/// The cpu controller, enabled below the root. Dropping it disables it again, unless it was enabled before.
#[derive(Debug)]
struct CpuController {
    /// The root's `cgroup.subtree_control`, where we have written to it.
    enabled_in: Option<PathBuf>,
}

impl CpuController {
    fn enable(control: PathBuf) -> io::Result<Self> {
        if fs::read_to_string(&control)?.split_whitespace().any(|controller| controller == "cpu") {
            return Ok(Self { enabled_in: None });
        }
        fs::write(&control, "+cpu")?;
        Ok(Self { enabled_in: Some(control) })
    }
}

impl Drop for CpuController {
    fn drop(&mut self) {
        if let Some(control) = &self.enabled_in {
            // The kernel refuses where somebody else has begun to use it meanwhile, and then it is theirs.
            let _ = fs::write(control, "-cpu");
        }
    }
}

/// A workload that runs. Dropping it ends it: a process is gone with its cgroups, a container is stopped.
#[derive(Debug)]
pub struct Running {
    id: CgroupId,
    program: Program,
}

#[derive(Debug)]
enum Program {
    Process {
        // Dropped in this order.
        _load: Load,
        _cgroup: Cgroup,
        _pod: Option<Cgroup>,
    },
    Container(Rc<Container>),
}

impl Running {
    /// The cgroup that it runs in.
    pub fn id(&self) -> CgroupId {
        self.id
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Program::Container(container) = &self.program
            && let Err(error) = container.stop()
        {
            eprintln!("a container goes on running until the end: {error}");
        }
    }
}

/// Hex digits that look like those of container ids and differ from run to run.
struct Digits(u64);

impl Digits {
    fn take(&mut self, count: usize) -> String {
        let mut digits = String::new();
        while digits.len() < count {
            digits += &format!("{:016x}", self.next());
        }
        digits.truncate(count);
        digits
    }

    /// A pod's UID as the kubelet writes it in the name of a slice.
    fn uid(&mut self) -> String {
        [8, 4, 4, 4, 12].map(|length| self.take(length)).join("_")
    }

    /// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Ends and removes what an earlier demo could not.
fn remove_leftover(path: &Path) -> io::Result<()> {
    const LIMIT: Duration = Duration::from_secs(30);
    let deadline = Instant::now() + LIMIT;
    while path.exists() {
        fs::write(path.join("cgroup.kill"), "1")?;
        match remove_all(path) {
            Ok(()) => break,
            // The processes have not ended yet.
            Err(error) if Instant::now() > deadline => {
                let what = format!("{} is left of an earlier demo and stays: {error}", path.display());
                return Err(io::Error::new(error.kind(), what));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Ok(())
}

fn remove_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampler::cgroup::path::classify;

    #[test]
    fn workloads_are_named_as_a_container_runtime_names_them() {
        let mut digits = Digits(1);
        let pod = format!("loadline-demo-pod{}.slice", digits.uid());
        let path = format!("{SLICE}/{pod}/cri-containerd-{}.scope", digits.take(64));
        assert!(classify(Path::new(&path)).is_container(), "{path}");
    }

    #[test]
    fn the_cpu_controller_is_given_back_only_where_it_was_taken() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("cgroup.subtree_control");
        for (before, within, after) in
            [("memory pids\n", "+cpu", "-cpu"), ("cpu pids\n", "cpu pids\n", "cpu pids\n")]
        {
            fs::write(&control, before).unwrap();
            let enabled = CpuController::enable(control.clone()).unwrap();
            assert_eq!(fs::read_to_string(&control).unwrap(), within);
            drop(enabled);
            assert_eq!(fs::read_to_string(&control).unwrap(), after);
        }
    }

    #[test]
    fn there_are_seven_with_a_label_and_every_phase_has_some() {
        assert_eq!(WORKLOADS.iter().filter(|workload| workload.cause.is_some()).count(), 7);
        for phase in 0..PHASES {
            assert!(WORKLOADS.iter().any(|workload| workload.phase == phase));
        }
    }
}
