//! Whose a cgroup is, told by its path alone: a container, with what the path says of its runtime and pod; a systemd
//! unit or a machine; or nobody.
//!
//! Runtimes and the kubelet name cgroups in few ways, all of them in the table of this module's tests, each with where
//! it was seen. A cgroup within a container is that container's; so is one of a container within a container. But in a
//! pod of a cluster that runs in containers itself (kind), the pod's container is the one that counts: it has the limits.

use std::path::{Path, PathBuf};

use sampler_common::identity::{Container, ContainerId, Identity, Owner, Pod, PodUid, QosClass, Runtime};

/// What runtimes put before a container's id: in a systemd scope (`docker-ID.scope`), in a plain directory (CRI-O and
/// podman with the cgroupfs driver), and where systemd was meant but not asked (`SLICE:cri-containerd:ID`).
const RUNTIMES: [(&str, Runtime); 6] = [
    ("cri-containerd", Runtime::Containerd),
    ("nerdctl", Runtime::Containerd),
    ("crio", Runtime::CriO),
    ("docker", Runtime::Docker),
    ("libpod-payload", Runtime::Podman),
    ("libpod", Runtime::Podman),
];

/// Whose a cgroup is, and where that owner's own cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Whose it is.
    pub owner: Owner,
    /// Path of the owner's own cgroup, below the root of the hierarchy: all within it belongs to the owner. `None` where
    /// nobody owns it.
    pub root: Option<PathBuf>,
}

impl Class {
    /// Path of the owner's own cgroup.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Whether it is a container's.
    pub fn is_container(&self) -> bool {
        matches!(self.owner, Owner::Container(_))
    }

    /// The identity of the cgroup at `path`, whose class this is.
    pub fn identity(&self, path: &Path) -> Identity {
        let path = path.strip_prefix("/").unwrap_or(path);
        Identity { path: path.to_string_lossy().into_owned(), owner: self.owner.clone() }
    }
}

/// Tells whose a cgroup is by its path from or below the root of the hierarchy.
pub fn classify(path: &Path) -> Class {
    let path = path.strip_prefix("/").unwrap_or(path);
    // A name that is no text is none that anybody of the known gives.
    let steps: Vec<&str> = path.iter().map(|step| step.to_str().unwrap_or_default()).collect();
    let found = container(&steps)
        .map(|(depth, container)| (depth, Owner::Container(Box::new(container))))
        .or_else(|| unit(&steps).map(|(depth, name)| (depth, Owner::Unit { name })));
    match found {
        Some((depth, owner)) => Class { owner, root: Some(path.iter().take(depth + 1).collect()) },
        None => Class::default(),
    }
}

/// Whether time on a CPU of such a cgroup is the system's, seen from others that wait: where there are containers, all
/// that is outside them is; where there are none, units are each other's neighbours.
pub fn counts_as_system(owner: &Owner, containers: bool) -> bool {
    match owner {
        Owner::Container(_) => false,
        Owner::Unit { .. } => containers,
        Owner::Outside => true,
    }
}

/// The container that a path lies within, and at which step: the outermost of a pod, or else the outermost.
fn container(steps: &[&str]) -> Option<(usize, Container)> {
    let mut found = (0..steps.len()).filter_map(|depth| Some((depth, container_at(steps, depth)?)));
    let first = found.next()?;
    if first.1.pod.is_some() {
        return Some(first);
    }
    Some(found.find(|(_, container)| container.pod.is_some()).unwrap_or(first))
}

/// The container whose own cgroup is the one at `depth`.
fn container_at(steps: &[&str], depth: usize) -> Option<Container> {
    let (above, step) = (&steps[..depth], steps[depth]);
    let of_slice = || above.iter().rposition(|step| is_pod(step)).and_then(|at| pod(&above[..at], above[at]));
    let (id, runtime, pod) = match step.rsplit_once(':') {
        Some((before, id)) => {
            let (slice, runtime) = before.rsplit_once(':')?;
            (id, Some(named(runtime)?), pod(above, slice).or_else(of_slice))
        }
        None => {
            let (id, runtime) = bare(step, above.last().copied()).or_else(|| prefixed(step))?;
            (id, runtime, of_slice())
        }
    };
    Some(Container { id: ContainerId::try_from(id.to_owned()).ok()?, runtime, pod, names: None })
}

/// An id with its runtime's name before it, with or without a scope's suffix.
fn prefixed(step: &str) -> Option<(&str, Option<Runtime>)> {
    let (runtime, id) = step.strip_suffix(".scope").unwrap_or(step).rsplit_once('-')?;
    Some((id, Some(named(runtime)?)))
}

/// An id by itself, as the cgroupfs driver has it. Only the directory above tells of whom; podman has its pods there.
fn bare<'a>(step: &'a str, parent: Option<&str>) -> Option<(&'a str, Option<Runtime>)> {
    let digits = step.bytes().all(|byte| byte.is_ascii_hexdigit()) && parent != Some("libpod_parent");
    digits.then_some((step, (parent == Some("docker")).then_some(Runtime::Docker)))
}

fn named(prefix: &str) -> Option<Runtime> {
    RUNTIMES.iter().find(|(name, _)| *name == prefix).map(|(_, runtime)| *runtime)
}

fn is_pod(step: &str) -> bool {
    pod(&[], step).is_some()
}

/// The kubelet's cgroup of one pod: `pod` and its UID, below one of its class, or with systemd a slice that repeats the
/// names of those above it, and has `_` for `-` in the UID. A kubelet may have all of them below another
/// (`--cgroup-root`), and may do without those of the classes.
fn pod(above: &[&str], step: &str) -> Option<Pod> {
    let (words, uid) = match step.strip_suffix(".slice") {
        Some(slice) => {
            let (words, uid) =
                slice.rsplit_once("-pod").or_else(|| Some(("", slice.strip_prefix("pod")?)))?;
            (words.split('-').collect::<Vec<_>>(), uid.replace('_', "-"))
        }
        None => (above.to_vec(), step.strip_prefix("pod")?.to_owned()),
    };
    let qos = match words.as_slice() {
        [.., "kubepods", "burstable"] => Some(QosClass::Burstable),
        [.., "kubepods", "besteffort"] => Some(QosClass::BestEffort),
        [.., "kubepods"] => Some(QosClass::Guaranteed),
        _ => None,
    };
    Some(Pod { uid: PodUid::try_from(uid).ok()?, qos })
}

/// The unit that a path lies within, and at which step. Of units within units, as of a user's service manager, the
/// innermost; but of a machine, which has units of its own, the machine.
fn unit(steps: &[&str]) -> Option<(usize, String)> {
    let at = |depth: usize| steps.get(depth).copied().unwrap_or_default();
    let lxc = |depth: usize| match at(depth) {
        // Of LXC before 4.0 and from then on.
        "lxc" | "lxc.payload" if !at(depth + 1).is_empty() => {
            Some((depth + 1, format!("{}/{}", at(depth), at(depth + 1))))
        }
        step => step
            .strip_prefix("lxc.payload.")
            .filter(|name| !name.is_empty())
            .map(|_| (depth, step.to_owned())),
    };
    let in_machine_slice = |depth: usize| steps[..depth].contains(&"machine.slice");
    let units = || (0..steps.len()).filter(|depth| is_unit(at(*depth)));
    (0..steps.len()).find_map(lxc).or_else(|| {
        // What systemd-nspawn runs is in `payload`.
        let machine = units().find(|depth| in_machine_slice(*depth) || at(depth + 1) == "payload");
        machine.or_else(|| units().next_back()).map(|depth| (depth, at(depth).to_owned()))
    })
}

/// Services, and scopes but for those that hold no more than a service manager itself or a container's monitor.
fn is_unit(step: &str) -> bool {
    let scope = |name: &str| name != "init" && !name.contains("conmon-");
    step.strip_suffix(".service").is_some_and(|name| !name.is_empty())
        || step.strip_suffix(".scope").is_some_and(|name| !name.is_empty() && scope(name))
}

#[cfg(test)]
mod tests;
