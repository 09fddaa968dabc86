//! Every metric that the sampler has: its name, what it says, and how it is made. The reference in the README is
//! generated from this list, and so is what is scraped: neither can lack what the other has.
//!
//! Names follow Prometheus' rules: base units, `_total` for what only grows. Labels `namespace`, `pod` and `container`
//! are as the kubelet's own metrics have them, so that both can be joined.

use sampler_common::demand::Bottleneck;
use sampler_common::snapshot::{Cause, Durations};
use sampler_common::throttle::{DURATIONS, LOWEST_DURATION_LOG2_SECONDS};

use super::ledger::Series;
use super::native::Native;
use super::state::Node;

/// A metric.
pub struct Family {
    /// Its name, as it is scraped.
    pub name: &'static str,
    /// What it says, in one sentence without a full stop.
    pub help: &'static str,
    /// How it is made.
    pub of: Of,
}

/// A value for each value of one more label.
pub type ByLabel = Vec<(&'static str, f64)>;

/// What a metric is made of. `None` is no sample: it is not known, or there is none.
pub enum Of {
    /// A counter for each container.
    Counter(fn(&Series) -> Option<f64>),
    /// A counter for each container and value of this label.
    CounterBy(&'static str, fn(&Series) -> ByLabel),
    /// A gauge for each container.
    Gauge(fn(&Series, &Node) -> Option<f64>),
    /// A gauge for each container and value of this label.
    GaugeBy(&'static str, fn(&Series, &Node) -> ByLabel),
    /// A histogram for each container.
    Histogram(fn(&Series) -> Option<Histogram>),
    /// Labels of each container; the value is 1.
    Info(&'static [&'static str], fn(&Series) -> Option<Vec<String>>),
    /// A counter of the sampler.
    NodeCounter(fn(&Node) -> Option<f64>),
    /// A counter of the sampler for each value of this label.
    NodeCounterBy(&'static str, fn(&Node) -> Vec<(String, f64)>),
    /// A gauge of the sampler.
    NodeGauge(fn(&Node) -> Option<f64>),
    /// Labels of the sampler; the value is 1.
    NodeInfo(&'static [&'static str], fn(&Node) -> Vec<String>),
}

/// A histogram's state.
pub struct Histogram {
    /// In the histogram's unit.
    pub sum: f64,
    /// Number of observations.
    pub count: u64,
    /// Upper edges and counts (not cumulative), the last edge infinite.
    pub classic: Vec<(f64, u64)>,
    /// The same as a native one.
    pub native: Option<Native>,
}

impl Of {
    /// The type as people say it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) | Self::CounterBy(..) | Self::NodeCounter(_) | Self::NodeCounterBy(..) => {
                "counter"
            }
            Self::Gauge(_) | Self::GaugeBy(..) | Self::NodeGauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
            Self::Info(..) | Self::NodeInfo(..) => "info",
        }
    }

    /// Whether there is one for each container.
    pub const fn is_of_containers(&self) -> bool {
        matches!(
            self,
            Self::Counter(_)
                | Self::CounterBy(..)
                | Self::Gauge(_)
                | Self::GaugeBy(..)
                | Self::Histogram(_)
                | Self::Info(..)
        )
    }

    /// Its labels besides `namespace`, `pod` and `container`.
    pub const fn labels(&self) -> &[&'static str] {
        match self {
            Self::CounterBy(label, _) | Self::GaugeBy(label, _) | Self::NodeCounterBy(label, _) => {
                std::slice::from_ref(label)
            }
            Self::Info(labels, _) | Self::NodeInfo(labels, _) => labels,
            _ => &[],
        }
    }
}

/// Delays in this octave or a higher one are slow: longer than 2⁻⁷ s.
const SLOW_OCTAVE: usize = 13;

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn by_cause(value: impl Fn(Cause) -> f64) -> ByLabel {
    Cause::ALL.into_iter().map(|cause| (cause.label(), value(cause))).collect()
}

/// Delays of the slow octaves by their largest cause; what no cause has is unknown.
fn slow_delays(series: &Series) -> ByLabel {
    let window = &series.total;
    let all = sampler_common::histogram::CoarseHistogram::from(&window.latency).from_octave(SLOW_OCTAVE);
    let told = window.coarse.each_ref().map(|of_cause| of_cause.from_octave(SLOW_OCTAVE));
    let unknown = told.iter().fold(all, |left, told| left.saturating_sub(*told));
    let delays = told.into_iter().chain([unknown]);
    Cause::ALL.into_iter().zip(delays).map(|(cause, delays)| (cause.label(), delays as f64)).collect()
}

fn latency(series: &Series) -> Option<Histogram> {
    let latency = &series.total.latency;
    Some(Histogram {
        sum: seconds(latency.sum_ns()),
        count: latency.count(),
        classic: super::native::classic(latency).to_vec(),
        native: Some(Native::from(latency)),
    })
}

/// Only of containers that can be throttled: the others would have nothing but zeros.
fn throttles(series: &Series) -> Option<Histogram> {
    let throttling = &series.total.throttling;
    let Durations::Counted(counts) = throttling.durations else { return None };
    let limited = throttling.periods != 0 || counts.iter().any(|count| *count != 0);
    let edge = |bucket: usize| match bucket {
        bucket if bucket + 1 == DURATIONS => f64::INFINITY,
        bucket => f64::from(LOWEST_DURATION_LOG2_SECONDS + bucket as i32).exp2(),
    };
    limited.then(|| Histogram {
        sum: seconds(throttling.throttled_ns),
        count: counts.iter().sum(),
        classic: counts.iter().enumerate().map(|(bucket, count)| (edge(bucket), *count)).collect(),
        native: None,
    })
}

/// A demand of the last window. What has no series of its own has none, nor has the root, whose use is not told apart
/// from the whole machine's, nor one whose use could not be read.
fn demand<T>(series: &Series, node: &Node, of: fn(sampler_common::demand::Demand) -> T) -> Option<T> {
    const ROOT: &str = "/";
    let has_none = |container: &str| container == super::ledger::OTHER || container == ROOT;
    let latest = series.latest.as_ref().filter(|_| !has_none(&series.labels.container))?;
    latest.used_ns()?;
    Some(of(sampler_common::demand::estimate(latest, node.cpus)))
}

fn memory(series: &Series, of: fn(&sampler_common::resources::Memory) -> Option<u64>) -> Option<f64> {
    series.latest.as_ref()?.memory.as_ref().and_then(of).map(|bytes| bytes as f64)
}

fn pressure(series: &Series, of: fn(&sampler_common::resources::Pressure) -> u64) -> Option<f64> {
    series.total.pressure.as_ref().map(|pressure| seconds(of(pressure)))
}

fn info(series: &Series) -> Option<Vec<String>> {
    let container = series.container.as_ref()?;
    let pod = container.pod.as_ref();
    Some(vec![
        pod.map(|pod| pod.uid.as_str()).unwrap_or_default().to_owned(),
        container.id.as_str().to_owned(),
        container.runtime.map(|runtime| runtime.label()).unwrap_or_default().to_owned(),
        pod.and_then(|pod| pod.qos).map(|qos| qos.label()).unwrap_or_default().to_owned(),
    ])
}

/// All metrics, in the order in which they are written.
pub static FAMILIES: &[Family] = &[
    Family {
        name: "loadline_container_runq_latency_seconds",
        help: "Delays of the container's threads from runnable to running, whatever they waited for",
        of: Of::Histogram(latency),
    },
    Family {
        name: "loadline_container_runq_wait_seconds_total",
        help: "The same time by what held the CPU meanwhile: quota, self, neighbor, system, idle, unknown",
        of: Of::CounterBy("cause", |series| by_cause(|cause| seconds(series.total.causes.of(cause)))),
    },
    Family {
        name: "loadline_container_runq_slow_delays_total",
        help: "Delays longer than 7.8 ms (2^-7 s), each with its largest cause",
        of: Of::CounterBy("cause", slow_delays),
    },
    Family {
        name: "loadline_container_cpu_usage_seconds_total",
        help: "CPU time used, up to the last look before it was gone; absent where nobody could look; of container=\"_other\" without the cgroups that found no slot, whose use is not known",
        of: Of::Counter(|series| series.total.used_ns().map(seconds)),
    },
    Family {
        name: "loadline_container_cpu_periods_total",
        help: "Periods of the container's own CPU limit in which it ran",
        of: Of::Counter(|series| Some(series.total.throttling.periods as f64)),
    },
    Family {
        name: "loadline_container_cpu_throttled_periods_total",
        help: "Those of them in which it was throttled",
        of: Of::Counter(|series| Some(series.total.throttling.throttled_periods as f64)),
    },
    Family {
        name: "loadline_container_cpu_throttled_seconds_total",
        help: "Time for which its run queues were throttled by its own limit, all CPUs added up",
        of: Of::Counter(|series| Some(seconds(series.total.throttling.throttled_ns))),
    },
    Family {
        name: "loadline_container_cpu_ancestor_throttled_periods_total",
        help: "Periods in which a limit above it, such as the pod's, throttled",
        of: Of::Counter(|series| Some(series.total.throttling.ancestors_throttled_periods as f64)),
    },
    Family {
        name: "loadline_container_cpu_throttle_seconds",
        help: "How long single throttles by its own limit lasted; absent without a limit, or without throttle hooks",
        of: Of::Histogram(throttles),
    },
    Family {
        name: "loadline_container_cpu_demand_cores",
        help: "CPU that it would have used in the last window had the CPU been there",
        of: Of::Gauge(|series, node| demand(series, node, |demand| demand.point)),
    },
    Family {
        name: "loadline_container_cpu_demand_lower_cores",
        help: "Lower bound of the demand",
        of: Of::Gauge(|series, node| demand(series, node, |demand| demand.lower)),
    },
    Family {
        name: "loadline_container_cpu_demand_upper_cores",
        help: "Upper bound of the demand",
        of: Of::Gauge(|series, node| demand(series, node, |demand| demand.upper)),
    },
    Family {
        name: "loadline_container_cpu_demand_confidence_ratio",
        help: "How sure the demand is, from 0 to 1",
        of: Of::Gauge(|series, node| demand(series, node, |demand| demand.confidence)),
    },
    Family {
        name: "loadline_container_cpu_bottleneck",
        help: "What held it back most in the last window (none, quota, ancestor_quota, self, neighbor, system, unknown): 1 for that one, no sample for the others",
        of: Of::GaugeBy("bottleneck", |series, node| {
            demand(series, node, |demand| (bottleneck(demand.bottleneck), 1.0)).into_iter().collect()
        }),
    },
    Family {
        name: "loadline_container_cpu_limit_cores",
        help: "CPU limit in force, its own or one above it, whichever is tighter, up to 15 s old; absent without",
        of: Of::Gauge(|series, _| Some(series.latest.as_ref()?.limits.cpu?.cores())),
    },
    Family {
        name: "loadline_container_cpu_weight",
        help: "Its share among its siblings (cpu.weight), up to 15 s old",
        of: Of::Gauge(|series, _| series.latest.as_ref()?.limits.cpu_weight.map(|weight| weight as f64)),
    },
    Family {
        name: "loadline_container_memory_limit_bytes",
        help: "Memory limit in force, its own or one above it, up to 15 s old; absent without",
        of: Of::Gauge(|series, _| series.latest.as_ref()?.limits.memory_max_bytes.map(|bytes| bytes as f64)),
    },
    Family {
        name: "loadline_container_memory_high_bytes",
        help: "Memory beyond which the kernel slows it down (memory.high), up to 15 s old; absent without",
        of: Of::Gauge(|series, _| series.latest.as_ref()?.limits.memory_high_bytes.map(|bytes| bytes as f64)),
    },
    Family {
        name: "loadline_container_memory_usage_bytes",
        help: "Memory charged to it, page cache included, up to 15 s old",
        of: Of::Gauge(|series, _| memory(series, |memory| Some(memory.current_bytes))),
    },
    Family {
        name: "loadline_container_memory_working_set_bytes",
        help: "Working set as the kubelet defines it, up to 15 s old: evictions go by it",
        of: Of::Gauge(|series, _| memory(series, |memory| Some(memory.working_set_bytes))),
    },
    Family {
        name: "loadline_container_memory_peak_bytes",
        help: "Highest memory usage since the container was made, up to 15 s old; absent before Linux 5.19",
        of: Of::Gauge(|series, _| memory(series, |memory| memory.peak_bytes)),
    },
    Family {
        name: "loadline_container_memory_events_total",
        help: "How often memory limits were met (memory.events), up to 15 s old: low, high, max, oom; and, at once, oom_kill",
        of: Of::CounterBy("event", |series| {
            let Some(events) = &series.total.memory_events else { return Vec::new() };
            vec![
                ("low", events.low as f64),
                ("high", events.high as f64),
                ("max", events.max as f64),
                ("oom", events.oom as f64),
                ("oom_kill", events.oom_kill as f64),
            ]
        }),
    },
    Family {
        name: "loadline_container_pressure_cpu_waiting_seconds_total",
        help: "Time in which at least one thread waited for a CPU (PSI some), up to 15 s old",
        of: Of::Counter(|series| pressure(series, |pressure| pressure.cpu_some_ns)),
    },
    Family {
        name: "loadline_container_pressure_cpu_stalled_seconds_total",
        help: "Time in which no thread ran and some waited for a CPU (PSI full), up to 15 s old",
        of: Of::Counter(|series| pressure(series, |pressure| pressure.cpu_full_ns)),
    },
    Family {
        name: "loadline_container_pressure_memory_waiting_seconds_total",
        help: "Time in which at least one thread waited for memory (PSI some), up to 15 s old",
        of: Of::Counter(|series| pressure(series, |pressure| pressure.memory_some_ns)),
    },
    Family {
        name: "loadline_container_pressure_memory_stalled_seconds_total",
        help: "Time in which all threads waited for memory (PSI full), up to 15 s old",
        of: Of::Counter(|series| pressure(series, |pressure| pressure.memory_full_ns)),
    },
    Family {
        name: "loadline_container_info",
        help: "Whose the series of a container are",
        of: Of::Info(&["uid", "container_id", "runtime", "qos"], info),
    },
    Family {
        name: "loadline_sampler_build_info",
        help: "Version of the sampler",
        of: Of::NodeInfo(&["version"], |_| vec![env!("CARGO_PKG_VERSION").to_owned()]),
    },
    Family {
        name: "loadline_sampler_start_time_seconds",
        help: "When counting began, in seconds since 1970: later than before after a restart",
        of: Of::NodeGauge(|node| node.epoch_seconds),
    },
    Family {
        name: "loadline_sampler_restarts_total",
        help: "Restarts of the sampler that a recording goes over",
        of: Of::NodeCounter(|node| Some(node.restarts as f64)),
    },
    Family {
        name: "loadline_sampler_windows_total",
        help: "Windows that were added up",
        of: Of::NodeCounter(|node| Some(node.windows as f64)),
    },
    Family {
        name: "loadline_sampler_window_seconds",
        help: "Length of the last window",
        of: Of::NodeGauge(|node| Some(seconds(node.window_ns))),
    },
    Family {
        name: "loadline_sampler_snapshot_timestamp_seconds",
        help: "When the last window ended, in seconds since 1970",
        of: Of::NodeGauge(|node| node.observed_seconds),
    },
    Family {
        name: "loadline_sampler_scrapes_total",
        help: "Scrapes that were answered up to the last window",
        of: Of::NodeCounter(|node| Some(node.scrapes as f64)),
    },
    Family {
        name: "loadline_sampler_throttle_hooks_attached",
        help: "1 where the kernel's throttle functions are hooked; 0: waits of throttled containers are unknown",
        of: Of::NodeGauge(|node| Some(f64::from(u8::from(node.throttle_hooks)))),
    },
    Family {
        name: "loadline_sampler_losses_total",
        help: "What was lost, could not be attributed or was clamped, by its name",
        of: Of::NodeCounterBy("loss", |node| {
            node.losses.iter().map(|(name, lost)| ((*name).to_owned(), *lost as f64)).collect()
        }),
    },
    Family {
        name: "loadline_sampler_cgroups_missed_total",
        help: "Cgroups that were gone without their last counts",
        of: Of::NodeCounter(|node| Some(node.missed as f64)),
    },
    Family {
        name: "loadline_sampler_latency_overflow_total",
        help: "Delays longer than 8 s, of which the histograms know no more",
        of: Of::NodeCounter(|node| Some(node.overflow as f64)),
    },
    Family {
        name: "loadline_sampler_series",
        help: "Containers and units with series of their own, those included that are gone and wait to be scraped",
        of: Of::NodeGauge(|node| Some(node.series as f64)),
    },
    Family {
        name: "loadline_sampler_series_limit",
        help: "Most of them (--max-containers)",
        of: Of::NodeGauge(|node| Some(node.limit as f64)),
    },
    Family {
        name: "loadline_sampler_left_out",
        help: "Containers and units of the last window beyond that: they are added up in container=\"_other\"",
        of: Of::NodeGauge(|node| Some(node.left_out as f64)),
    },
    Family {
        name: "loadline_sampler_names_awaited",
        help: "Containers whose series are held back until the API server has told their name, for 30 s at most",
        of: Of::NodeGauge(|node| Some(node.awaited as f64)),
    },
    Family {
        name: "loadline_sampler_series_unscraped_total",
        help: "Series that ended before their last counts were scraped, which are lost",
        of: Of::NodeCounter(|node| Some(node.unscraped as f64)),
    },
    Family {
        name: "loadline_sampler_slots",
        help: "Cgroups that the kernel side can count apart at one time (--slots)",
        of: Of::NodeGauge(|node| Some(node.health.slots?.all as f64)),
    },
    Family {
        name: "loadline_sampler_slots_used",
        help: "Those in use",
        of: Of::NodeGauge(|node| Some(node.health.slots?.used as f64)),
    },
    Family {
        name: "loadline_sampler_switches_total",
        help: "Context switches seen: so often the main program ran",
        of: Of::NodeCounter(|node| Some(node.switches as f64)),
    },
    Family {
        name: "loadline_sampler_switch_cost_seconds",
        help: "CPU time that the programs add to a context switch, measured at start, to some tens of ns",
        of: Of::NodeGauge(|node| node.health.switch_cost.map(|cost| cost.as_secs_f64())),
    },
    Family {
        name: "loadline_sampler_bpf_estimated_seconds_total",
        help: "CPU time of the programs in the kernel: switches times that cost",
        of: Of::NodeCounter(|node| {
            node.health.switch_cost.map(|cost| cost.as_secs_f64() * node.switches as f64)
        }),
    },
    Family {
        name: "loadline_sampler_bpf_runs_total",
        help: "How often each program ran, as the kernel counts it; only with --bpf-stats",
        of: Of::NodeCounterBy("program", |node| {
            node.health.runs.iter().map(|run| (run.program.clone(), run.count as f64)).collect()
        }),
    },
    Family {
        name: "loadline_sampler_bpf_run_seconds_total",
        help: "For how long each program ran, as the kernel times it; only with --bpf-stats",
        of: Of::NodeCounterBy("program", |node| {
            node.health.runs.iter().map(|run| (run.program.clone(), run.time.as_secs_f64())).collect()
        }),
    },
    Family {
        name: "loadline_sampler_api_server_watched",
        help: "1 while names of pods are current, 0 while they are not; absent without --node-name",
        of: Of::NodeGauge(|node| {
            let status = node.health.pods.as_ref()?;
            Some(f64::from(u8::from(status.state == crate::pods::State::Watching)))
        }),
    },
    Family {
        name: "loadline_sampler_api_server_troubles_total",
        help: "How often the API server could not be asked",
        of: Of::NodeCounter(|node| Some(node.health.pods.as_ref()?.troubles as f64)),
    },
    Family {
        name: "loadline_sampler_pods_known",
        help: "Pods of this node whose names are known",
        of: Of::NodeGauge(|node| Some(node.health.pods.as_ref()?.pods as f64)),
    },
    Family {
        name: "process_cpu_seconds_total",
        help: "CPU time of the sampler's own process",
        of: Of::NodeCounter(|node| node.process.map(|process| process.cpu.as_secs_f64())),
    },
    Family {
        name: "process_resident_memory_bytes",
        help: "Memory of the sampler's own process, without the kernel's maps",
        of: Of::NodeGauge(|node| node.process.map(|process| process.resident_bytes as f64)),
    },
    Family {
        name: "process_start_time_seconds",
        help: "When the sampler's process was started, in seconds since 1970",
        of: Of::NodeGauge(|node| Some(node.started_seconds)),
    },
];

/// As a label: named as the cause that it goes with.
const fn bottleneck(bottleneck: Bottleneck) -> &'static str {
    match bottleneck {
        Bottleneck::None => "none",
        Bottleneck::Quota => "quota",
        Bottleneck::AncestorQuota => "ancestor_quota",
        Bottleneck::Own => "self",
        Bottleneck::Neighbors => "neighbor",
        Bottleneck::System => "system",
        Bottleneck::Unknown => "unknown",
    }
}
