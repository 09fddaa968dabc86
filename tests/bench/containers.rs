//! Containers as a kubelet makes them, with everything that can be known of one: cgroups of pods with the memory controller
//! and limits, a process in each, and an API server that knows their names.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use loadline_tests::kubeconfig;
use loadline_tests::load::{Schedstat, until};
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use serde_json::{Value, json};

use crate::groups;

/// What the node is called.
pub const NODE: &str = "bench";
/// Where the pods are.
pub const NAMESPACE: &str = "a-namespace-of-usual-length";
const ROOT: &str = "/sys/fs/cgroup/kubepods";
const CONTROLLERS: &str = "+cpu +memory +pids";
/// From one wake-up of a container to the next: so that each runs in each window.
const NAP: Duration = Duration::from_millis(400);
/// Two containers make a pod.
const IN_A_POD: usize = 2;

/// When the processes of containers run.
#[derive(Clone, Copy)]
pub enum Life {
    /// Each by itself, in each window of a second.
    Naps,
    /// When they are called, and never else: [`Containers::call`].
    OnCall,
}

/// What calls a process, which is blocked in all of them and waited for.
const CALL: Signal = Signal::SIGUSR1;

/// How long a process may take to answer a call, on a loaded host under emulation.
const LIMIT: Duration = Duration::from_secs(60);

/// Containers that are gone when this is dropped.
pub struct Containers {
    dirs: Vec<PathBuf>,
    containers: Vec<PathBuf>,
    processes: Vec<Pid>,
}

impl Containers {
    /// Makes so many.
    pub fn make(count: usize, life: Life) -> Result<Self> {
        let calls = SigSet::from(CALL);
        calls.thread_block().context("cannot block a signal")?;
        let made = Self::with_calls_blocked(count, life);
        calls.thread_unblock().context("cannot unblock a signal")?;
        made
    }

    /// Makes so many, whose processes are born with calls blocked.
    fn with_calls_blocked(count: usize, life: Life) -> Result<Self> {
        let mut made = Self { dirs: Vec::new(), containers: Vec::new(), processes: Vec::new() };
        write(Path::new("/sys/fs/cgroup/cgroup.subtree_control"), CONTROLLERS)?;
        let burstable = Path::new(ROOT).join("burstable");
        for dir in [Path::new(ROOT), &burstable] {
            made.directory(dir)?;
            write(&dir.join("cgroup.subtree_control"), CONTROLLERS)?;
        }
        for number in 0..count {
            let pod = burstable.join(format!("pod{}", uid(number)));
            if number % IN_A_POD == 0 {
                made.directory(&pod)?;
                write(&pod.join("cgroup.subtree_control"), CONTROLLERS)?;
            }
            let container = pod.join(id(number));
            made.directory(&container)?;
            write(&container.join("cpu.max"), "50000 100000")?;
            write(&container.join("memory.max"), &(64 << 20).to_string())?;
            // SAFETY: the child makes system calls only.
            match unsafe { fork() }.context("cannot fork")? {
                ForkResult::Parent { child } => made.processes.push(child),
                ForkResult::Child => live(life),
            }
            if let Some(process) = made.processes.last() {
                write(&container.join("cgroup.procs"), &process.to_string())?;
            }
            made.containers.push(container);
        }
        Ok(made)
    }

    fn directory(&mut self, dir: &Path) -> Result<()> {
        fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        self.dirs.push(dir.to_owned());
        Ok(())
    }

    /// The cgroup of each container.
    pub fn paths(&self) -> &[PathBuf] {
        &self.containers
    }

    /// How many pods they make.
    pub fn pods(&self) -> usize {
        self.containers.len().div_ceil(IN_A_POD)
    }

    /// Lets all of them run once, and returns when each has been switched in.
    pub fn call(&self) -> Result<()> {
        let switch_ins = |process: &Pid| Ok::<_, io::Error>(Schedstat::of(*process)?.switch_ins);
        let before = self.processes.iter().map(switch_ins).collect::<io::Result<Vec<_>>>()?;
        for process in &self.processes {
            kill(*process, CALL)?;
        }
        for (process, before) in self.processes.iter().zip(before) {
            until("a container that runs", LIMIT, || {
                let has_run = switch_ins(process)? > before;
                if !has_run {
                    // One that was still running has taken the call without a switch.
                    kill(*process, CALL)?;
                }
                Ok(has_run)
            })?;
        }
        Ok(())
    }

    /// An API server that knows all of them, for as long as this process lives. Returns a kubeconfig for it, in that
    /// directory.
    pub fn api_server(&self, dir: &Path) -> Result<PathBuf> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no address for names")?;
        let server = format!("http://{}", listener.local_addr()?);
        let path = kubeconfig::write(dir, &server).context("the kubeconfig")?;
        let pods = pods(self.containers.len()).to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let pods = pods.clone();
                std::thread::spawn(move || answer(stream, &pods));
            }
        });
        Ok(path)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for &process in &self.processes {
            // It may have ended already.
            let _ = kill(process, Signal::SIGKILL);
            let _ = waitpid(process, None);
        }
        for dir in self.dirs.iter().rev() {
            if let Err(error) = groups::remove(dir) {
                eprintln!("cgroup {} is left behind: {error}", dir.display());
            }
        }
    }
}

/// The process of a container: its life, which ends with its maker's.
fn live(life: Life) -> ! {
    let _ = set_pdeathsig(Signal::SIGKILL);
    // The maker's programs must not live on in what its children have open.
    // SAFETY: nothing here uses what is closed.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let calls = SigSet::from(CALL);
    loop {
        match life {
            Life::Naps => std::thread::sleep(NAP),
            Life::OnCall => drop(calls.wait()),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
}

fn uid(number: usize) -> String {
    format!("{:08x}-1111-4222-8333-444455556666", number / IN_A_POD)
}

fn id(number: usize) -> String {
    format!("{number:08x}{}", "0123456789abcdef".repeat(4)).chars().take(64).collect()
}

/// The answer to a list.
fn pods(containers: usize) -> Value {
    let status = |number: usize| {
        json!({
            "name": format!("container-{}", number % IN_A_POD), "image": "registry.example/image:1", "imageID": "",
            "ready": true, "restartCount": 0, "containerID": format!("containerd://{}", id(number)),
            "state": { "running": {} },
        })
    };
    let pod = |first: usize| {
        let statuses: Vec<_> = (first..containers.min(first + IN_A_POD)).map(status).collect();
        json!({
            "metadata": {
                "name": format!("deployment-{}-7d9f8b6c5d-x2x9z", first / IN_A_POD), "namespace": NAMESPACE,
                "uid": uid(first), "resourceVersion": "1",
            },
            "status": { "qosClass": "Burstable", "containerStatuses": statuses },
        })
    };
    let items: Vec<_> = (0..containers).step_by(IN_A_POD).map(pod).collect();
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items })
}

/// Answers each list with these pods, and a watch with nothing, without an end.
fn answer(mut stream: TcpStream, pods: &str) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if requests.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while requests.read_line(&mut line)? > 2 {
            line.clear();
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        if request.contains("watch=") {
            write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
            requests.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        write!(stream, "{head}Content-Length: {}\r\n\r\n{pods}", pods.len())?;
    }
}
