//! Identity and limits, which change seldom: written whole, and read into types that cannot be wrong.

use super::{Invalid, wire};
use crate::identity::{Container, Identity, Names, Owner, Pod, QosClass, Runtime};
use crate::resources::{CpuLimit, LimitOf, Limits};

/// In the order of their numbers on the wire, from 1.
const RUNTIMES: [Runtime; 4] = [Runtime::Containerd, Runtime::CriO, Runtime::Docker, Runtime::Podman];
/// In the order of their numbers on the wire, from 1.
const CLASSES: [QosClass; 3] = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];

/// The number of one of these on the wire: 0 is unknown.
fn number<T: PartialEq>(of: &[T], one: Option<T>) -> u32 {
    one.and_then(|one| of.iter().position(|other| *other == one)).map_or(0, |at| at as u32 + 1)
}

fn by_number<T: Copy>(of: &[T], number: u32, what: &'static str) -> Result<Option<T>, Invalid> {
    match number.checked_sub(1) {
        None => Ok(None),
        Some(at) => of.get(at as usize).copied().map(Some).ok_or(Invalid(what)),
    }
}

pub(super) fn identity(identity: &Identity) -> wire::Identity {
    let Identity { path, owner } = identity;
    let owner = match owner {
        Owner::Container(container) => Some(wire::Owner::Container(self::container(container))),
        Owner::Unit { name } => Some(wire::Owner::Unit(name.clone())),
        Owner::Outside => None,
    };
    wire::Identity { path: path.clone(), owner }
}

fn container(container: &Container) -> wire::Container {
    let Container { id, runtime, pod, names } = container;
    wire::Container {
        id: id.as_str().to_owned(),
        runtime: number(&RUNTIMES, *runtime),
        pod_uid: pod.as_ref().map(|Pod { uid, .. }| uid.as_str().to_owned()),
        qos: number(&CLASSES, pod.as_ref().and_then(|Pod { qos, .. }| *qos)),
        names: names.clone().map(|Names { namespace, pod, container }| wire::Names {
            namespace,
            pod,
            container,
        }),
    }
}

pub(super) fn read_identity(identity: wire::Identity) -> Result<Identity, Invalid> {
    let owner = match identity.owner {
        Some(wire::Owner::Container(container)) => Owner::Container(Box::new(read_container(container)?)),
        Some(wire::Owner::Unit(name)) => Owner::Unit { name },
        None => Owner::Outside,
    };
    Ok(Identity { path: identity.path, owner })
}

fn read_container(container: wire::Container) -> Result<Container, Invalid> {
    let wire::Container { id, runtime, pod_uid, qos, names } = container;
    let qos = by_number(&CLASSES, qos, "a QoS class that is not known")?;
    let pod = match pod_uid {
        Some(uid) => Some(Pod { uid: uid.try_into().map_err(|_| Invalid("a pod UID that is none"))?, qos }),
        None => None,
    };
    Ok(Container {
        id: id.try_into().map_err(|_| Invalid("a container id that is none"))?,
        runtime: by_number(&RUNTIMES, runtime, "a runtime that is not known")?,
        pod,
        names: names.map(|wire::Names { namespace, pod, container }| Names { namespace, pod, container }),
    })
}

pub(super) fn limits(limits: &Limits) -> wire::Limits {
    let Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes } = *limits;
    let cpu = cpu.map(|CpuLimit { quota_us, period_us, of }| wire::CpuLimit {
        quota_us,
        period_us,
        of_ancestor: of == LimitOf::Ancestor,
    });
    wire::Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes }
}

pub(super) fn read_limits(limits: &wire::Limits) -> Result<Limits, Invalid> {
    let wire::Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes } = *limits;
    if cpu.is_some_and(|cpu| cpu.period_us == 0) {
        return Err(Invalid("a CPU limit with a period of 0"));
    }
    let cpu = cpu.map(|wire::CpuLimit { quota_us, period_us, of_ancestor }| CpuLimit {
        quota_us,
        period_us,
        of: if of_ancestor { LimitOf::Ancestor } else { LimitOf::Own },
    });
    Ok(Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes })
}
