//! Messages into reports: nothing is believed that is not checked.

use std::collections::BTreeMap;

use prost::Message as _;

use super::{
    CONTAINERS, Heading, LOSS_BYTES, LOSSES, MESSAGE_BYTES, Measured, NEIGHBORS, Part, Report, ReportError,
    VERSION, is_name, wire,
};
use crate::abi::TOLD;
use crate::buckets::{BUCKETS, OCTAVES};
use crate::demand::{Bottleneck, Demand};
use crate::histogram::{CoarseHistogram, LatencyHistogram};
use crate::identity::{Container, Names, Pod, QosClass, Runtime};
use crate::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use crate::snapshot::{Causes, CgroupId, Cycles, Durations, Throttling, Unmet};
use crate::sparse;
use crate::throttle::DURATIONS;
use crate::window::{Case, Window};

type Result<T> = std::result::Result<T, ReportError>;

impl Report {
    /// One part of a report, from the bytes of a message.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        at_most("bytes", bytes.len(), MESSAGE_BYTES)?;
        wire::Report::decode(bytes)?.try_into()
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = ReportError;

    fn try_from(report: wire::Report) -> Result<Self> {
        if report.version != VERSION {
            return Err(ReportError::Version { version: report.version });
        }
        at_most("containers", report.containers.len(), CONTAINERS)?;
        at_most("kinds of losses", report.losses.len(), LOSSES)?;
        ensure(report.part < report.parts, "part", "is not one of its parts")?;
        ensure(report.sequence != 0, "sequence", "is missing")?;
        ensure(report.end_unix_ns != 0, "end_unix_ns", "is missing")?;
        ensure(report.cpus != 0, "cpus", "is missing")?;
        let mut losses = BTreeMap::new();
        for wire::Loss { name, count } in report.losses {
            let fits = (1..=LOSS_BYTES).contains(&name.len());
            ensure(fits, "losses.name", "is empty or too long")?;
            ensure(losses.insert(name, count).is_none(), "losses.name", "is there twice")?;
        }
        let containers: Vec<_> = report.containers.into_iter().map(measured).collect::<Result<_>>()?;
        let ascending = containers.is_sorted_by(|one, next| one.cgroup < next.cgroup);
        ensure(ascending, "containers.cgroup", "does not ascend")?;
        Ok(Self {
            heading: Heading {
                node: name("node", report.node)?,
                sequence: report.sequence,
                end_unix_ns: report.end_unix_ns,
                cpus: report.cpus,
            },
            epoch: report.epoch,
            part: Part { number: report.part, of: report.parts },
            end_ns: report.end_ns,
            length_ns: report.length_ns,
            throttle_hooks: report.throttle_hooks,
            switches: report.switches,
            missed: report.missed,
            losses,
            containers,
        })
    }
}

fn measured(container: wire::Container) -> Result<Measured> {
    let wire::Container { cgroup, id, runtime, pod, names, window, demand } = container;
    let container = Container {
        id: id.try_into().map_err(|_| wrong("containers.id", "is no container id"))?,
        runtime: match wire::Runtime::try_from(runtime) {
            Ok(wire::Runtime::Containerd) => Some(Runtime::Containerd),
            Ok(wire::Runtime::CriO) => Some(Runtime::CriO),
            Ok(wire::Runtime::Docker) => Some(Runtime::Docker),
            Ok(wire::Runtime::Podman) => Some(Runtime::Podman),
            Ok(wire::Runtime::Unknown) | Err(_) => None,
        },
        pod: pod.map(self::pod).transpose()?,
        names: names.map(self::names).transpose()?,
    };
    Ok(Measured {
        cgroup: CgroupId(cgroup),
        container,
        window: self::window(*window.ok_or(wrong("containers.window", "is missing"))?)?,
        demand: self::demand(&demand.ok_or(wrong("containers.demand", "is missing"))?)?,
    })
}

fn pod(pod: wire::Pod) -> Result<Pod> {
    Ok(Pod {
        uid: pod.uid.try_into().map_err(|_| wrong("pod.uid", "is no pod UID"))?,
        qos: match wire::QosClass::try_from(pod.qos) {
            Ok(wire::QosClass::Guaranteed) => Some(QosClass::Guaranteed),
            Ok(wire::QosClass::Burstable) => Some(QosClass::Burstable),
            Ok(wire::QosClass::BestEffort) => Some(QosClass::BestEffort),
            Ok(wire::QosClass::Unknown) | Err(_) => None,
        },
    })
}

fn names(names: wire::Names) -> Result<Names> {
    Ok(Names {
        namespace: name("names.namespace", names.namespace)?,
        pod: name("names.pod", names.pod)?,
        container: names.container.map(|container| name("names.container", container)).transpose()?,
    })
}

fn window(window: wire::Window) -> Result<Window> {
    at_most("neighbors of a container", window.neighbors.len(), NEIGHBORS)?;
    let case = match wire::Case::try_from(window.case) {
        Ok(wire::Case::New) => Case::New,
        Ok(wire::Case::Continued) => Case::Continued,
        Ok(wire::Case::Reset) => Case::Reset,
        Ok(wire::Case::Vanished) => Case::Vanished,
        Ok(wire::Case::Unspecified) | Err(_) => return Err(wrong("window.case", "is missing or not known")),
    };
    let mut coarse = [[0; OCTAVES]; TOLD];
    fill(coarse.as_flattened_mut(), &window.delays_by_cause, "window.delays_by_cause")?;
    let held = window.neighbors.iter().map(|neighbor| neighbor.held_ns);
    ensure(held.rev().is_sorted(), "window.neighbors", "are not the largest first")?;
    let causes = window.causes.unwrap_or_default();
    let throttling = window.throttling.unwrap_or_default();
    let neighbors = window.neighbors.iter().map(|neighbor| (CgroupId(neighbor.cgroup), neighbor.held_ns));
    Ok(Window {
        case,
        length_ns: window.length_ns,
        latency: LatencyHistogram::new(counts::<BUCKETS>(&window.delays, "window.delays")?, window.wait_ns),
        causes: Causes {
            quota_ns: causes.quota_ns,
            self_ns: causes.self_ns,
            neighbor_ns: causes.neighbor_ns,
            system_ns: causes.system_ns,
            idle_ns: causes.idle_ns,
            away_ns: causes.away_ns,
            beyond_ns: causes.beyond_ns,
            untold_ns: causes.untold_ns,
        },
        unmet: window.unmet.map(|wire::Unmet { paced_ns, busy_ns }| Unmet { paced_ns, busy_ns }),
        cycles: window.cycles.map(|wire::Cycles { count, waits, sleeps, sums }| Cycles {
            count,
            waits,
            sleeps,
            sums,
        }),
        coarse: coarse.map(|counts| CoarseHistogram { counts }),
        neighbors: neighbors.collect(),
        unnamed_neighbor_ns: window.unnamed_neighbor_ns,
        usage_ns: window.usage_ns,
        throttling: Throttling {
            periods: throttling.periods,
            throttled_periods: throttling.throttled_periods,
            throttled_ns: throttling.throttled_ns,
            ancestors_throttled_periods: throttling.ancestors_throttled_periods,
            durations: match throttling.durations {
                Some(wire::Durations { counts: sparse }) => {
                    Durations::Counted(counts::<DURATIONS>(&sparse, "throttling.durations")?)
                }
                None => Durations::HooksUnavailable,
            },
        },
        memory_events: window.memory_events.map(|events| {
            let wire::MemoryEvents { low, high, max, oom, oom_kill } = events;
            MemoryEvents { low, high, max, oom, oom_kill }
        }),
        pressure: window.pressure.map(|pressure| {
            let wire::Pressure { cpu_some_ns, cpu_full_ns, memory_some_ns, memory_full_ns } = pressure;
            Pressure { cpu_some_ns, cpu_full_ns, memory_some_ns, memory_full_ns }
        }),
        limits: limits(&window.limits.unwrap_or_default())?,
        memory: window.memory.map(|memory| {
            let wire::Memory { current_bytes, working_set_bytes, peak_bytes, read_ns } = memory;
            Memory { current_bytes, working_set_bytes, peak_bytes, read_ns }
        }),
    })
}

fn limits(limits: &wire::Limits) -> Result<Limits> {
    let wire::Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes } = *limits;
    ensure(cpu.is_none_or(|cpu| cpu.period_us != 0), "cpu.period_us", "is missing")?;
    let cpu = cpu.map(|wire::CpuLimit { quota_us, period_us, of_ancestor }| CpuLimit {
        quota_us,
        period_us,
        of: if of_ancestor { LimitOf::Ancestor } else { LimitOf::Own },
    });
    Ok(Limits { cpu, cpu_weight, memory_max_bytes, memory_high_bytes })
}

fn demand(demand: &wire::Demand) -> Result<Demand> {
    let wire::Demand { point, lower, upper, bottleneck, confidence } = *demand;
    // What is no number is in no range.
    let bounded = 0.0 <= lower && lower <= point && point <= upper && upper.is_finite();
    ensure(bounded, "demand", "is not 0 <= lower <= point <= upper")?;
    ensure((0.0..=1.0).contains(&confidence), "demand.confidence", "is not in 0 to 1")?;
    let bottleneck = match wire::Bottleneck::try_from(bottleneck) {
        Ok(wire::Bottleneck::None) => Bottleneck::None,
        Ok(wire::Bottleneck::Quota) => Bottleneck::Quota,
        Ok(wire::Bottleneck::AncestorQuota) => Bottleneck::AncestorQuota,
        Ok(wire::Bottleneck::Own) => Bottleneck::Own,
        Ok(wire::Bottleneck::Neighbors) => Bottleneck::Neighbors,
        Ok(wire::Bottleneck::System) => Bottleneck::System,
        Ok(wire::Bottleneck::Unknown) | Err(_) => Bottleneck::Unknown,
    };
    Ok(Demand { point, lower, upper, bottleneck, confidence })
}

fn counts<const N: usize>(pairs: &[u64], field: &'static str) -> Result<[u64; N]> {
    let mut counts = [0; N];
    fill(&mut counts, pairs, field)?;
    Ok(counts)
}

fn fill(counts: &mut [u64], pairs: &[u64], field: &'static str) -> Result<()> {
    sparse::grow(counts, pairs).map_err(|_| wrong(field, "has counts beyond the last"))
}

fn name(field: &'static str, name: String) -> Result<String> {
    ensure(is_name(&name), field, "is empty, too long or has control characters")?;
    Ok(name)
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<()> {
    if count <= most { Ok(()) } else { Err(ReportError::TooMany { what, count, most }) }
}

fn ensure(good: bool, field: &'static str, what: &'static str) -> Result<()> {
    if good { Ok(()) } else { Err(wrong(field, what)) }
}

fn wrong(field: &'static str, what: &'static str) -> ReportError {
    ReportError::Field { field, what }
}
