//! Real containers: containerd makes them, and `ctr` asks it to.
//!
//! Where a containerd runs, that one is asked, in a namespace of our own; in a guest, which has nothing else, it is
//! started, in a cgroup as systemd would give it.
//!
//! # Invariants
//!
//! * A container's processes end with it; containerd's records of it, the image and the namespace when the
//!   [`Containerd`] is dropped, all at once: each call of `ctr` takes its time.
//! * Nothing waits without a bound.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sampler_common::snapshot::CgroupId;

use crate::cgroup::{self, Cgroup};
use crate::load::{Thread, until};

/// Where containerd listens by default.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long containerd, or one call of `ctr`, may take: under emulation a container is made in 3 s, on a loaded host
/// in three times that.
const LIMIT: Duration = Duration::from_secs(60);
/// Copies an image's files for each container: slow for large images, and asks nothing of the kernel.
const SNAPSHOTTER: &str = "native";
/// The kubelet's part of containerd, which we do not need, is most of what it does at start.
const CONFIG: &str = r#"
version = 3
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
"#;

/// A containerd that can be asked.
#[derive(Debug)]
pub struct Containerd {
    namespace: String,
    image: String,
    /// It and its cgroup, where it is ours.
    daemon: Option<(Child, Cgroup)>,
}

/// How a container is to be.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Its id.
    pub id: String,
    /// Its cgroup below the root of the hierarchy; `None`: where `ctr` puts it.
    pub cgroup: Option<PathBuf>,
    /// The CPU time that it may use in each period.
    pub cpu_limit: Option<(Duration, Duration)>,
    /// Whether it may make cgroups below its own. It sees the whole hierarchy, at the usual place.
    pub own_cgroups: bool,
    /// The command in it.
    pub command: Vec<String>,
}

impl Containerd {
    /// Reaches the one that runs, or starts one, and gives it an image from an archive. In `namespace` there must be
    /// nothing of anybody else's.
    pub fn start(namespace: &str, archive: &Path) -> io::Result<Arc<Self>> {
        let listens = || fs::symlink_metadata(SOCKET).is_ok_and(|socket| socket.file_type().is_socket());
        let daemon = if listens() { None } else { Some(daemon()?) };
        let mut containerd = Self { namespace: namespace.to_owned(), image: String::new(), daemon };
        until("containerd's socket", LIMIT, || Ok(listens()))?;
        // What a run that was killed has left.
        containerd.remove_all();
        let archive = archive.to_string_lossy();
        containerd.ctr(&["images", "import", "--local", "--snapshotter", SNAPSHOTTER, &archive])?;
        let images = containerd.ctr(&["images", "list", "--quiet"])?;
        let image = images.lines().next().ok_or_else(|| io::Error::other("containerd took no image"))?;
        containerd.image = image.to_owned();
        Ok(Arc::new(containerd))
    }

    /// Makes and starts a container, and returns when its command runs. One of that id whose processes have been killed
    /// makes room for it.
    pub fn run(self: &Arc<Self>, spec: &Spec) -> io::Result<Container> {
        let mut arguments: Vec<String> =
            ["run", "--detach", "--null-io", "--snapshotter", SNAPSHOTTER].map(str::to_owned).into();
        if let Some(cgroup) = &spec.cgroup {
            arguments.extend(["--cgroup".into(), format!("/{}", cgroup.display())]);
        }
        if let Some((quota, period)) = spec.cpu_limit {
            arguments.extend(["--cpu-quota".into(), quota.as_micros().to_string()]);
            arguments.extend(["--cpu-period".into(), period.as_micros().to_string()]);
        }
        if spec.own_cgroups {
            let mount = "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=rw";
            arguments.extend(["--privileged", "--mount", mount].map(str::to_owned));
        }
        arguments.extend([self.image.clone(), spec.id.clone()]);
        arguments.extend(spec.command.iter().cloned());
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        if let Err(error) = self.ctr(&arguments) {
            if !error.to_string().contains("already exists") {
                return Err(error);
            }
            self.ctr(&["tasks", "remove", "--force", &spec.id])?;
            self.ctr(&["containers", "remove", &spec.id])?;
            self.ctr(&arguments)?;
        }
        Ok(Container { containerd: Arc::clone(self), id: spec.id.clone(), pid: self.pid_of(&spec.id)? })
    }

    /// The tasks of all containers as containerd says them: id and pid.
    pub fn tasks(&self) -> io::Result<Vec<(String, Pid)>> {
        let listed = self.ctr(&["tasks", "list"])?;
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), Pid::from_raw(words.next()?.parse().ok()?)))
        };
        Ok(listed.lines().skip(1).filter_map(line).collect())
    }

    fn pid_of(&self, id: &str) -> io::Result<Pid> {
        let task = self.tasks()?.into_iter().find(|(task, _)| task == id);
        task.map(|(_, pid)| pid).ok_or_else(|| io::Error::other(format!("container {id} has no task")))
    }

    /// Ends and removes every container of the namespace, the image, and the namespace. What is not there is no error.
    fn remove_all(&self) {
        let listed = |what: &str| self.ctr(&[what, "list", "--quiet"]).unwrap_or_default();
        for (what, how) in [
            ("tasks", &["remove", "--force"][..]),
            ("containers", &["remove"]),
            ("images", &["remove", "--sync"]),
        ] {
            let found = listed(what);
            let names: Vec<_> = found.lines().collect();
            if !names.is_empty()
                && let Err(error) = self.ctr(&[&[what], how, &names[..]].concat())
            {
                eprintln!("{error}");
            }
        }
        // There may be none.
        let _ = self.ctr(&["namespaces", "remove", &self.namespace]);
    }

    /// Runs `ctr` and returns what it said.
    fn ctr(&self, arguments: &[&str]) -> io::Result<String> {
        let mut command = Command::new("ctr");
        command.args(["--namespace", &self.namespace, "--connect-timeout", "10s"]);
        command.args(["--timeout", &format!("{}s", LIMIT.as_secs())]).args(arguments);
        let output = command.stdin(Stdio::null()).output().map_err(|error| say("ctr", &error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let what = format!("ctr {} ({})", arguments.join(" "), output.status);
            return Err(io::Error::other(format!("{what}: {}", said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.remove_all();
        if let Some((mut daemon, service)) = self.daemon.take() {
            // It may be gone already; and then its cgroup goes, with the slice unless somebody else is in that.
            let _ = daemon.kill().and_then(|()| daemon.wait());
            let slice = service.path().parent().map(Path::to_owned);
            drop(service);
            let _ = slice.map(fs::remove_dir);
        }
    }
}

/// A container that runs. Dropping it kills all its processes.
#[derive(Debug)]
pub struct Container {
    containerd: Arc<Containerd>,
    id: String,
    pid: Pid,
}

impl Container {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process, as seen from outside.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The cgroup that its first process is in, below the root of the hierarchy, as the kernel says it.
    pub fn cgroup(&self) -> io::Result<PathBuf> {
        cgroup_of(self.pid)
    }

    /// The id of that cgroup.
    pub fn cgroup_id(&self) -> io::Result<CgroupId> {
        let path = cgroup::root()?.join(self.cgroup()?);
        Ok(CgroupId(fs::metadata(path)?.ino()))
    }

    /// Runs a command in it and returns when it runs.
    pub fn exec(&self, name: &str, command: &[&str]) -> io::Result<()> {
        let head = ["tasks", "exec", "--detach", "--exec-id", name, &self.id];
        self.containerd.ctr(&[&head, command].concat()).map(drop)
    }

    /// Stops its first process, with all its threads.
    pub fn stop(&self) -> io::Result<()> {
        Ok(kill(self.pid, Signal::SIGSTOP)?)
    }

    /// Ends it, and has containerd remove what it has made for it, its cgroup too.
    pub fn remove(self) -> io::Result<()> {
        self.containerd.ctr(&["tasks", "remove", "--force", &self.id])?;
        self.containerd.ctr(&["containers", "remove", &self.id]).map(drop)
    }

    /// Tells a load that was started with `--when-told` to begin.
    pub fn tell(&self) -> io::Result<()> {
        // Before it waits for the signal it would not hear it: a container's first process is only sent what it
        // waits for.
        until("a load that waits to be told", LIMIT, || blocks(self.pid, Signal::SIGUSR1))?;
        Ok(kill(self.pid, Signal::SIGUSR1)?)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The first of a container's processes takes all others with it. It may be gone already.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// Starts containerd in a cgroup as systemd would give it.
fn daemon() -> io::Result<(Child, Cgroup)> {
    let config = Path::new("/run/containerd/loadline.toml");
    fs::create_dir_all("/run/containerd")?;
    fs::write(config, CONFIG)?;
    let slice = cgroup::root()?.join("system.slice");
    if !slice.exists() {
        fs::create_dir(&slice)?;
    }
    let service = Cgroup::at(slice.join("containerd.service"))?;
    let log = fs::File::create("/run/containerd/log")?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().map_err(|error| say("containerd", &error))?;
    service.take(Pid::from_raw(child.id().cast_signed()))?;
    Ok((child, service))
}

/// The cgroup of a process, below the root of the hierarchy.
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#processes>
pub fn cgroup_of(pid: Pid) -> io::Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    path.map(PathBuf::from).ok_or_else(|| io::Error::other(format!("process {pid} is in no v2 cgroup")))
}

/// Whether a process blocks a signal, as one does that waits for it.
fn blocks(pid: Pid, signal: Signal) -> io::Result<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let blocked = text.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    Ok(blocked >> (signal as i32 - 1) & 1 == 1)
}

/// The command of a container that makes load; `when_told`: only from [`Container::tell`] on.
pub fn load_command(threads: &[Thread], when_told: bool) -> Vec<String> {
    let when_told = when_told.then(|| "--when-told".to_owned());
    let threads = threads.iter().filter_map(Thread::argument);
    ["/bin/load".to_owned()].into_iter().chain(when_told).chain(threads).collect()
}

fn say(program: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{program} cannot be started: {error}"))
}
