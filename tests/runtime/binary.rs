//! The program `sampler` as somebody runs it beside real containers, of two runtimes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use loadline_tests::cgroup;
use loadline_tests::containers::{Spec, cgroup_of, load_command};
use loadline_tests::daemon;
use loadline_tests::load::{Work, until};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::identity::{cgroup_id, id};
use crate::{IMAGE, clear, containerd};

crate::tests![
    top_says_whose_containers_of_containerd_are within 180 s,
    top_says_whose_a_container_of_podman_is within 300 s,
];

const PERIOD: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(30);

/// The rows of one window of `sampler top`.
fn top() -> Vec<Value> {
    let mut command = Command::new(daemon::program());
    command.args(["top", "--once", "-o", "json", "--interval", "3s"]).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut window: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(window["throttle_hooks"].as_bool().unwrap());
    window["rows"].as_array_mut().map(std::mem::take).unwrap()
}

/// The row of this container; no other is of its id.
fn row<'a>(rows: &'a [Value], container: &str) -> &'a Value {
    let mut found = rows.iter().filter(|row| row["container_id"] == container);
    let row = found.next().unwrap_or_else(|| panic!("no {container} in {rows:#?}"));
    assert!(found.next().is_none(), "{container} twice");
    row
}

/// What the kernel says of a cgroup, and `top` too.
fn is_at(row: &Value, cgroup: &Path) {
    assert_eq!(row["cgroup_path"], cgroup.to_str().unwrap());
    assert_eq!(row["cgroup_id"], cgroup_id(&cgroup.to_owned()).0);
}

/// One that its limit holds up and one that has none, in pods as the kubelet makes them. Catches a program that does
/// not do what its parts do.
fn top_says_whose_containers_of_containerd_are() {
    let pods = ["0123456789abcdef", "fedcba9876543210"].map(|uid| uid.repeat(2));
    let run = |digit: u8, pod: &str, cpu_limit, command| {
        let cgroup = Some(PathBuf::from(format!("kubepods/burstable/pod{pod}/{}", id(digit))));
        let spec = Spec { id: id(digit), cgroup, cpu_limit, command, ..Spec::default() };
        containerd().run(&spec).unwrap()
    };
    let held = run(48, &pods[0], Some((PERIOD / 5, PERIOD)), load_command(&[Work::Spin.on(0)], true));
    held.tell().unwrap();
    let duty = Work::Duty { run: Duration::from_millis(20), period: Duration::from_millis(200) };
    let free = run(49, &pods[1], None, load_command(&[duty.on(1)], false));
    let rows = top();
    for (container, pod) in [(&held, &pods[0]), (&free, &pods[1])] {
        let row = row(&rows, container.id());
        is_at(row, &container.cgroup().unwrap());
        assert_eq!((&row["pod_uid"], &row["qos_class"]), (&pod.as_str().into(), &"Burstable".into()));
        assert!(row["memory"]["working_set_bytes"].as_u64() > Some(0), "{row:#}");
        assert!(row["namespace"].is_null(), "nobody was asked for names");
    }
    let row_of_held = row(&rows, held.id());
    println!("     {}", row_of_held["verdict"]["why"]);
    assert_eq!(row_of_held["verdict"]["cause"], "quota");
    assert_eq!(
        (row_of_held["cpu_limit_cores"].as_f64(), &row_of_held["cpu_limit_of"]),
        (Some(0.2), &"own".into())
    );
    let used = row_of_held["cpu_used_cores"].as_f64().unwrap();
    assert!((used / 0.2 - 1.0).abs() < 0.2, "it uses its limit: {used}");
    let waited = row_of_held["wait_by_cause_seconds"]["quota"].as_f64().unwrap();
    assert!(waited > 0.9 * row_of_held["wait_seconds"].as_f64().unwrap(), "{row_of_held:#}");
    assert!(row(&rows, free.id())["cpu_limit_cores"].is_null());
    drop((held, free));
    clear();
}

/// podman, with storage that goes with the machine and no network.
fn podman(arguments: &[&str]) -> io::Result<String> {
    const HOME: &str = "/tmp/podman";
    // It has its locks in shared memory, and copies images by way of the other.
    for place in ["/dev/shm", "/var/tmp"] {
        if !Path::new(place).exists() {
            std::fs::create_dir_all(place)?;
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        }
    }
    let log = Path::new("/tmp/podman.log");
    let mut command = Command::new("podman");
    command.args([
        "--root",
        "/tmp/podman/root",
        "--runroot",
        "/tmp/podman/run",
        "--tmpdir",
        "/tmp/podman/tmp",
    ]);
    command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
    command.args(["--runtime", "crun"]).args(arguments).env("HOME", HOME);
    // Into a file: what it leaves running has the same output, and would keep a pipe open.
    let said = Path::new("/tmp/podman.out");
    let mut child =
        command.stdin(Stdio::null()).stdout(File::create(said)?).stderr(File::create(log)?).spawn()?;
    let mut ended = None;
    until("podman", Duration::from_secs(120), || {
        ended = child.try_wait()?;
        Ok(ended.is_some())
    })?;
    if ended.is_some_and(|status| status.success()) {
        return Ok(std::fs::read_to_string(said)?.trim().to_owned());
    }
    let why = std::fs::read_to_string(log)?;
    Err(io::Error::other(format!("podman {}: {}", arguments.join(" "), why.trim())))
}

/// A container with a limit, under podman's cgroupfs driver. Catches a path that podman makes and nobody has thought of,
/// and one whose container is podman's own watcher beside it.
fn top_says_whose_a_container_of_podman_is() {
    let image = format!("oci-archive:{IMAGE}");
    let mut arguments: Vec<_> = ["run", "--detach", "--network", "none", "--log-driver", "none"].into();
    arguments.extend(["--cgroups", "enabled", "--cpus", "0.2", &image]);
    let thread = Work::Spin.on(0).argument().unwrap();
    arguments.push(&thread);
    let container = podman(&arguments).unwrap();
    assert_eq!(container.len(), 64, "an id: {container}");
    let pid = podman(&["inspect", "--format", "{{.State.Pid}}", &container]).unwrap();
    let pid = Pid::from_raw(pid.parse().unwrap());
    let cgroup = cgroup_of(pid).unwrap();
    println!("     {}", cgroup.display());
    let rows = top();
    let row = row(&rows, &container);
    is_at(row, &cgroup);
    assert_eq!((&row["runtime"], &row["pod_uid"]), (&"podman".into(), &Value::Null));
    assert_eq!((row["cpu_limit_cores"].as_f64(), &row["verdict"]["cause"]), (Some(0.2), &"quota".into()));
    let conmon = rows.iter().filter(|row| {
        row["container_id"].is_string()
            && row["cgroup_path"].as_str().is_some_and(|path| path.contains("conmon"))
    });
    assert_eq!(conmon.count(), 0, "its watcher is no container");
    // The first of its processes takes all others with it; the watcher ends by itself.
    kill(pid, Signal::SIGKILL).unwrap();
    until("its end", LIMIT, || {
        Ok(!cgroup::root()?.join(&cgroup).join("cgroup.procs").exists()
            || std::fs::read_to_string(cgroup::root()?.join(&cgroup).join("cgroup.procs"))?.is_empty())
    })
    .unwrap();
    podman(&["rm", "--force", &container]).unwrap();
    clear();
}
