//! What runs containers here, told by the names of cgroups alone: for a person who reads the log at start.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use sampler_common::identity::{Container, Owner, Runtime};

use super::path::classify;

/// Units of daemons that run containers.
const DAEMONS: [(&str, Runtime); 7] = [
    ("containerd.service", Runtime::Containerd),
    ("k3s.service", Runtime::Containerd),
    ("k3s-agent.service", Runtime::Containerd),
    ("rke2-server.service", Runtime::Containerd),
    ("rke2-agent.service", Runtime::Containerd),
    ("crio.service", Runtime::CriO),
    ("cri-docker.service", Runtime::Docker),
];

/// Who makes the cgroups of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// The runtime itself.
    Cgroupfs,
    /// systemd, for the runtime: scopes and slices.
    Systemd,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        })
    }
}

/// What runs containers on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// A kubelet has cgroups here.
    pub kubernetes: bool,
    /// Runtimes that containers name, or else whose daemons are there.
    pub runtimes: BTreeSet<Runtime>,
    /// Who makes the cgroups of containers: both, where they differ.
    pub drivers: BTreeSet<Driver>,
    /// Containers, sandboxes of pods included.
    pub containers: usize,
}

impl Surroundings {
    /// Tells it by the paths of all cgroups.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut surroundings = Self::default();
        let mut containers = BTreeSet::<PathBuf>::new();
        let mut daemons = BTreeSet::new();
        for path in paths {
            let class = classify(path);
            surroundings.kubernetes |= path.iter().any(|step| step.to_str().is_some_and(is_kubepods));
            if let Owner::Container(container) = &class.owner {
                surroundings.add(container, class.root().unwrap_or(path));
                containers.extend(class.root);
            } else if let Owner::Unit { name } = &class.owner {
                daemons.extend(DAEMONS.iter().filter(|(unit, _)| unit == name).map(|(_, runtime)| *runtime));
            }
        }
        surroundings.containers = containers.len();
        if surroundings.runtimes.is_empty() {
            surroundings.runtimes = daemons;
        }
        surroundings
    }

    fn add(&mut self, container: &Container, root: &Path) {
        self.kubernetes |= container.pod.is_some();
        self.runtimes.extend(container.runtime);
        let scope = root.extension().is_some_and(|extension| extension == "scope");
        self.drivers.insert(if scope { Driver::Systemd } else { Driver::Cgroupfs });
    }
}

/// The kubelet's cgroup of all pods: itself, or below another (`--cgroup-root`), whose name a slice repeats.
fn is_kubepods(step: &str) -> bool {
    matches!(step, "kubepods" | "kubepods.slice") || step.ends_with("-kubepods.slice")
}

impl fmt::Display for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.kubernetes { "Kubernetes node" } else { "host" })?;
        if !self.runtimes.is_empty() {
            let names: Vec<_> = self.runtimes.iter().map(|runtime| runtime.label()).collect();
            write!(f, " with {}", names.join(" and "))?;
        }
        if !self.drivers.is_empty() {
            let names: Vec<_> = self.drivers.iter().map(Driver::to_string).collect();
            write!(f, " ({} driver)", names.join(" and "))?;
        }
        match self.containers {
            0 => f.write_str(", no containers"),
            1 => f.write_str(", 1 container"),
            containers => write!(f, ", {containers} containers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f3c5b8e9a7d6c4b2a1f0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b";
    const OTHER: &str = "9b0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f6a7b8c9d0e1f2a4b6c7d9a8e5b3c0f";
    const UID: &str = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60";

    fn said(paths: &[&str]) -> String {
        let spelled =
            |path: &&str| PathBuf::from(path.replace("UID", UID).replace("OTHER", OTHER).replace("ID", ID));
        let paths: Vec<_> = paths.iter().map(spelled).collect();
        Surroundings::of(paths.iter().map(PathBuf::as_path)).to_string()
    }

    #[test]
    fn what_runs_containers_is_said_in_a_line() {
        assert_eq!(said(&["", "system.slice/ssh.service"]), "host, no containers");
        assert_eq!(said(&["kubepods", "kubepods/burstable"]), "Kubernetes node, no containers");
        assert_eq!(
            said(&["kubepods/podUID/ID", "kubepods/podUID/OTHER", "kubepods/podUID/OTHER/child"]),
            "Kubernetes node (cgroupfs driver), 2 containers"
        );
        assert_eq!(
            said(&["kubepods.slice/kubepods-pod3c1a5f0e_8d2b_4c7a_9e6f_1b2d3c4e5f60.slice/crio-ID.scope"]),
            "Kubernetes node with cri-o (systemd driver), 1 container"
        );
        assert_eq!(said(&["podUID/ID"]), "Kubernetes node (cgroupfs driver), 1 container");
        assert_eq!(
            said(&["docker/ID", "machine.slice/libpod-OTHER.scope"]),
            "host with docker and podman (cgroupfs and systemd driver), 2 containers"
        );
    }

    #[test]
    fn a_daemon_s_unit_tells_the_runtime_where_the_containers_do_not() {
        assert_eq!(
            said(&["kubepods/podUID/ID", "system.slice/containerd.service", "system.slice/docker.service"]),
            "Kubernetes node with containerd (cgroupfs driver), 1 container"
        );
        assert_eq!(
            said(&["docker/ID", "system.slice/containerd.service"]),
            "host with docker (cgroupfs driver), 1 container"
        );
    }
}
