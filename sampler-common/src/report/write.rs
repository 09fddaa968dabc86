//! Reports into messages.

use super::{CONTAINERS, LOSS_BYTES, LOSSES, Measured, NEIGHBORS, Report, VERSION, is_name, wire};
use crate::demand::{Bottleneck, Demand};
use crate::identity::{Container, Names, Pod, QosClass, Runtime};
use crate::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use crate::snapshot::{Causes, Cycles, Durations, Throttling, Unmet};
use crate::sparse;
use crate::window::{Case, Window};

impl Report {
    /// The messages to send, each within the bounds: one at least.
    pub fn messages(&self) -> Vec<wire::Report> {
        let parts = self.containers.len().div_ceil(CONTAINERS).max(1);
        let message = |part: usize| {
            let containers = self.containers.iter().skip(part * CONTAINERS).take(CONTAINERS);
            self.message(part as u32, parts as u32, containers.map(container).collect())
        };
        (0..parts).map(message).collect()
    }

    fn message(&self, part: u32, parts: u32, containers: Vec<wire::Container>) -> wire::Report {
        let losses = self.losses.iter().filter(|(name, _)| name.len() <= LOSS_BYTES).take(LOSSES);
        wire::Report {
            version: VERSION,
            node: self.heading.node.clone(),
            epoch: self.epoch,
            sequence: self.heading.sequence,
            part,
            parts,
            end_unix_ns: self.heading.end_unix_ns,
            end_ns: self.end_ns,
            length_ns: self.length_ns,
            cpus: self.heading.cpus,
            throttle_hooks: self.throttle_hooks,
            switches: self.switches,
            missed: self.missed,
            losses: losses.map(|(name, count)| wire::Loss { name: name.clone(), count: *count }).collect(),
            containers,
        }
    }
}

fn container(measured: &Measured) -> wire::Container {
    let Measured { cgroup, container, window, demand } = measured;
    let Container { id, runtime, pod, names } = container;
    wire::Container {
        cgroup: cgroup.0,
        id: id.as_str().to_owned(),
        runtime: runtime.map_or(wire::Runtime::Unknown, self::runtime).into(),
        pod: pod.as_ref().map(|Pod { uid, qos }| wire::Pod {
            uid: uid.as_str().to_owned(),
            qos: qos.map_or(wire::QosClass::Unknown, qos_class).into(),
        }),
        names: names.as_ref().filter(|names| fit(names)).map(|names| {
            let Names { namespace, pod, container } = names.clone();
            wire::Names { namespace, pod, container }
        }),
        window: Some(Box::new(self::window(window))),
        demand: Some(self::demand(demand)),
    }
}

/// Whether a reader accepts them.
fn fit(Names { namespace, pod, container }: &Names) -> bool {
    let names = [Some(namespace), Some(pod), container.as_ref()];
    names.into_iter().flatten().all(|name| is_name(name))
}

fn runtime(runtime: Runtime) -> wire::Runtime {
    match runtime {
        Runtime::Containerd => wire::Runtime::Containerd,
        Runtime::CriO => wire::Runtime::CriO,
        Runtime::Docker => wire::Runtime::Docker,
        Runtime::Podman => wire::Runtime::Podman,
    }
}

fn qos_class(class: QosClass) -> wire::QosClass {
    match class {
        QosClass::Guaranteed => wire::QosClass::Guaranteed,
        QosClass::Burstable => wire::QosClass::Burstable,
        QosClass::BestEffort => wire::QosClass::BestEffort,
    }
}

fn window(window: &Window) -> wire::Window {
    let Window {
        case,
        length_ns,
        latency,
        causes,
        unmet,
        cycles,
        coarse,
        neighbors,
        unnamed_neighbor_ns,
        usage_ns,
        throttling,
        memory_events,
        pressure,
        limits,
        memory,
    } = window;
    let (named, rest) = neighbors.split_at(neighbors.len().min(NEIGHBORS));
    let named = named.iter().map(|(cgroup, ns)| wire::Neighbor { cgroup: cgroup.0, held_ns: *ns });
    wire::Window {
        case: self::case(*case).into(),
        length_ns: *length_ns,
        delays: sparse::nonzero(latency.counts()),
        wait_ns: latency.sum_ns(),
        causes: Some(self::causes(causes)),
        delays_by_cause: sparse::nonzero(coarse.map(|of_cause| of_cause.counts).as_flattened()),
        neighbors: named.collect(),
        unnamed_neighbor_ns: rest.iter().fold(*unnamed_neighbor_ns, |sum, (_, ns)| sum.saturating_add(*ns)),
        usage_ns: *usage_ns,
        throttling: Some(self::throttling(throttling)),
        limits: Some(self::limits(limits)),
        memory: memory.map(|Memory { current_bytes, working_set_bytes, peak_bytes, read_ns }| wire::Memory {
            current_bytes,
            working_set_bytes,
            peak_bytes,
            read_ns,
        }),
        memory_events: memory_events.map(|MemoryEvents { low, high, max, oom, oom_kill }| {
            wire::MemoryEvents { low, high, max, oom, oom_kill }
        }),
        pressure: pressure.map(|Pressure { cpu_some_ns, cpu_full_ns, memory_some_ns, memory_full_ns }| {
            wire::Pressure { cpu_some_ns, cpu_full_ns, memory_some_ns, memory_full_ns }
        }),
        unmet: unmet.map(|Unmet { paced_ns, busy_ns }| wire::Unmet { paced_ns, busy_ns }),
        cycles: cycles.map(|Cycles { count, waits, sleeps, sums }| wire::Cycles {
            count,
            waits,
            sleeps,
            sums,
        }),
    }
}

fn case(case: Case) -> wire::Case {
    match case {
        Case::New => wire::Case::New,
        Case::Continued => wire::Case::Continued,
        Case::Reset => wire::Case::Reset,
        Case::Vanished => wire::Case::Vanished,
    }
}

fn causes(causes: &Causes) -> wire::Causes {
    let Causes { quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns, untold_ns } =
        *causes;
    wire::Causes { quota_ns, self_ns, neighbor_ns, system_ns, idle_ns, away_ns, beyond_ns, untold_ns }
}

fn throttling(throttling: &Throttling) -> wire::Throttling {
    let Throttling { periods, throttled_periods, throttled_ns, ancestors_throttled_periods, durations } =
        throttling;
    wire::Throttling {
        periods: *periods,
        throttled_periods: *throttled_periods,
        throttled_ns: *throttled_ns,
        ancestors_throttled_periods: *ancestors_throttled_periods,
        durations: match durations {
            Durations::Counted(counts) => Some(wire::Durations { counts: sparse::nonzero(counts) }),
            Durations::HooksUnavailable => None,
        },
    }
}

fn limits(limits: &Limits) -> wire::Limits {
    let Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes } = *limits;
    let cpu = cpu.map(|CpuLimit { quota_us, period_us, of }| wire::CpuLimit {
        quota_us,
        period_us,
        of_ancestor: of == LimitOf::Ancestor,
    });
    wire::Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes }
}

fn demand(demand: &Demand) -> wire::Demand {
    let Demand { point, lower, upper, bottleneck, confidence } = *demand;
    let bottleneck = match bottleneck {
        Bottleneck::None => wire::Bottleneck::None,
        Bottleneck::Quota => wire::Bottleneck::Quota,
        Bottleneck::AncestorQuota => wire::Bottleneck::AncestorQuota,
        Bottleneck::Own => wire::Bottleneck::Own,
        Bottleneck::Neighbors => wire::Bottleneck::Neighbors,
        Bottleneck::System => wire::Bottleneck::System,
        Bottleneck::Unknown => wire::Bottleneck::Unknown,
    };
    wire::Demand { point, lower, upper, bottleneck: bottleneck.into(), confidence }
}
