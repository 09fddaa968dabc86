//! A window for programs: one JSON object, on one line. What is not known is `null`; units are in the names.
//!
//! | key | what it is |
//! |---|---|
//! | `at_seconds` | when the window ended, in seconds since 1970; of a recording, when that was made |
//! | `window_seconds`, `cpus` | its length; CPUs of the machine |
//! | `throttle_hooks` | `false`: waits of containers that were throttled are `unknown` |
//! | `losses` | by name, what was lost, unattributed or clamped; `missed`: cgroups whose last counts are in no window |
//! | `rows` | containers, units and what else ran, the one that hurts most first |
//!
//! A row:
//!
//! | key | what it is |
//! |---|---|
//! | `name` | as `top` shows it; not unique |
//! | `namespace`, `pod`, `container` | as the API server calls it |
//! | `container_id`, `pod_uid`, `runtime`, `qos_class`, `unit` | what its path tells |
//! | `cgroup_id`, `cgroup_path` | the cgroup; `null` for all that found no slot of its own |
//! | `case` | `new`, `continued`, `reset`, `vanished`: how the counts came about |
//! | `delays`, `wait_seconds` | how often and how long its threads waited for a CPU |
//! | `p50_seconds`, `p99_seconds` | delays; 4.4 % off at most |
//! | `longest_at_most_seconds` | no delay was longer; `null` also where one was longer than 8 s |
//! | `wait_by_cause_seconds` | `quota`, `self`, `neighbor`, `system`, `idle`, `unknown`; they add up to the wait |
//! | `neighbors` | who held the CPU meanwhile: `name`, `cgroup_id` (`null`: those that could not be named), `held_seconds` |
//! | `cpu_used_cores`, `cpu_limit_cores`, `cpu_limit_of`, `cpu_weight` | limit in force: its `own` or an `ancestor`'s |
//! | `cpu_demand` | CPU that it would use if nothing held it back: `point_cores`, `lower_cores`, `upper_cores`, `bottleneck` (`none`, `quota`, `ancestor_quota`, `own`, `neighbors`, `system`, `unknown`), `confidence` in 0 to 1 |
//! | `periods`, `throttled_periods`, `throttled_seconds` | of its own CPU limit |
//! | `memory` | `working_set_bytes`, `current_bytes`, `peak_bytes`, `max_bytes`, `high_bytes` |
//! | `oom_kills` | in the window |
//! | `pressure` | PSI, as far as the kernel's figures were read in the window: `cpu_some_seconds`, `cpu_full_seconds`, `memory_some_seconds`, `memory_full_seconds` |
//! | `verdict` | `cause`, and in words `waited`, `why`, `help` |

use std::collections::BTreeMap;

use sampler_common::demand::{Bottleneck, Demand};
use sampler_common::identity::Owner;
use sampler_common::resources::LimitOf;
use sampler_common::snapshot::{Cause, CgroupId};
use sampler_common::window::Case;
use serde::Serialize;

use super::model::{Key, Neighbor, Row, View};
use super::name::Name;

/// A window.
#[derive(Debug, Serialize)]
pub struct JsonWindow<'a> {
    at_seconds: f64,
    window_seconds: f64,
    cpus: u32,
    throttle_hooks: bool,
    losses: BTreeMap<&'static str, u64>,
    rows: Vec<JsonRow<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonRow<'a> {
    name: String,
    namespace: Option<&'a str>,
    pod: Option<&'a str>,
    container: Option<&'a str>,
    container_id: Option<&'a str>,
    pod_uid: Option<&'a str>,
    runtime: Option<&'static str>,
    qos_class: Option<&'static str>,
    unit: Option<&'a str>,
    cgroup_id: Option<CgroupId>,
    cgroup_path: Option<&'a str>,
    case: &'static str,
    delays: u64,
    wait_seconds: f64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    longest_at_most_seconds: Option<f64>,
    wait_by_cause_seconds: BTreeMap<&'static str, f64>,
    neighbors: Vec<JsonNeighbor<'a>>,
    cpu_used_cores: Option<f64>,
    cpu_limit_cores: Option<f64>,
    cpu_limit_of: Option<LimitOf>,
    cpu_weight: Option<u64>,
    cpu_demand: Option<JsonDemand>,
    periods: u64,
    throttled_periods: u64,
    throttled_seconds: f64,
    memory: Option<JsonMemory>,
    oom_kills: Option<u64>,
    pressure: Option<JsonPressure>,
    verdict: JsonVerdict<'a>,
}

#[derive(Debug, Serialize)]
struct JsonNeighbor<'a> {
    name: &'a str,
    cgroup_id: Option<CgroupId>,
    held_seconds: f64,
}

#[derive(Debug, Serialize)]
struct JsonDemand {
    point_cores: f64,
    lower_cores: f64,
    upper_cores: f64,
    bottleneck: Bottleneck,
    confidence: f64,
}

#[derive(Debug, Serialize)]
struct JsonMemory {
    working_set_bytes: u64,
    current_bytes: u64,
    peak_bytes: Option<u64>,
    max_bytes: Option<u64>,
    high_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct JsonPressure {
    cpu_some_seconds: f64,
    cpu_full_seconds: f64,
    memory_some_seconds: f64,
    memory_full_seconds: f64,
}

#[derive(Debug, Serialize)]
struct JsonVerdict<'a> {
    cause: Option<Cause>,
    waited: &'a str,
    why: &'a str,
    help: &'a str,
}

impl<'a> From<&'a View> for JsonWindow<'a> {
    fn from(view: &'a View) -> Self {
        let losses = view.losses.named().into_iter().chain([("missed", view.missed as u64)]);
        Self {
            at_seconds: seconds(view.ended_unix_ns),
            window_seconds: seconds(view.length_ns),
            cpus: view.cpus,
            throttle_hooks: view.throttle_hooks,
            losses: losses.collect(),
            rows: view.rows.iter().map(JsonRow::from).collect(),
        }
    }
}

impl<'a> From<&'a Row> for JsonRow<'a> {
    fn from(row: &'a Row) -> Self {
        let Row { key, name, identity, window, used_cores, demand, verdict, neighbors, .. } = row;
        let names = match name {
            Name::Pod { namespace, pod, container } => Some((namespace, pod, container)),
            Name::Unit(_) | Name::Plain(_) => None,
        };
        let of_container = identity.container();
        let cgroup_id = match key {
            Key::Cgroup(id) => Some(*id),
            Key::Other => None,
        };
        let in_seconds = |ns: Option<u64>| ns.map(seconds);
        let by_cause = |cause: Cause| (cause.label(), seconds(window.causes.of(cause)));
        Self {
            name: name.whole(),
            namespace: names.map(|(namespace, _, _)| namespace.as_str()),
            pod: names.map(|(_, pod, _)| pod.as_str()),
            container: of_container.and_then(|container| container.names.as_ref()?.container.as_deref()),
            container_id: of_container.map(|container| container.id.as_str()),
            pod_uid: of_container.and_then(|container| Some(container.pod.as_ref()?.uid.as_str())),
            runtime: of_container.and_then(|container| Some(container.runtime?.label())),
            qos_class: of_container.and_then(|container| Some(container.pod.as_ref()?.qos?.label())),
            unit: match &identity.owner {
                Owner::Unit { name } => Some(name),
                Owner::Container(_) | Owner::Outside => None,
            },
            cgroup_id,
            cgroup_path: cgroup_id.map(|_| identity.path.as_str()),
            case: case(window.case),
            delays: window.latency.count(),
            wait_seconds: seconds(window.wait_ns()),
            p50_seconds: in_seconds(window.p50()),
            p99_seconds: in_seconds(window.p99()),
            longest_at_most_seconds: window.highest_edge_seconds().filter(|edge| edge.is_finite()),
            wait_by_cause_seconds: Cause::ALL.into_iter().map(by_cause).collect(),
            neighbors: neighbors.iter().map(JsonNeighbor::from).collect(),
            cpu_used_cores: *used_cores,
            cpu_limit_cores: window.limits.cpu.map(|limit| limit.cores()),
            cpu_limit_of: window.limits.cpu.map(|limit| limit.of),
            cpu_weight: window.limits.cpu_weight,
            cpu_demand: demand.as_ref().map(JsonDemand::from),
            periods: window.throttling.periods,
            throttled_periods: window.throttling.throttled_periods,
            throttled_seconds: seconds(window.throttling.throttled_ns),
            memory: window.memory.map(|memory| JsonMemory {
                working_set_bytes: memory.working_set_bytes,
                current_bytes: memory.current_bytes,
                peak_bytes: memory.peak_bytes,
                max_bytes: window.limits.memory_max_bytes,
                high_bytes: window.limits.memory_high_bytes,
            }),
            oom_kills: window.memory_events.map(|events| events.oom_kill),
            pressure: window.pressure.map(|pressure| JsonPressure {
                cpu_some_seconds: seconds(pressure.cpu_some_ns),
                cpu_full_seconds: seconds(pressure.cpu_full_ns),
                memory_some_seconds: seconds(pressure.memory_some_ns),
                memory_full_seconds: seconds(pressure.memory_full_ns),
            }),
            verdict: JsonVerdict {
                cause: verdict.cause,
                waited: &verdict.waited,
                why: &verdict.why,
                help: &verdict.help,
            },
        }
    }
}

impl<'a> From<&'a Neighbor> for JsonNeighbor<'a> {
    fn from(neighbor: &'a Neighbor) -> Self {
        Self { name: &neighbor.name, cgroup_id: neighbor.id, held_seconds: seconds(neighbor.held_ns) }
    }
}

impl From<&Demand> for JsonDemand {
    fn from(demand: &Demand) -> Self {
        let Demand { point, lower, upper, bottleneck, confidence } = *demand;
        Self { point_cores: point, lower_cores: lower, upper_cores: upper, bottleneck, confidence }
    }
}

const fn case(case: Case) -> &'static str {
    match case {
        Case::New => "new",
        Case::Continued => "continued",
        Case::Reset => "reset",
        Case::Vanished => "vanished",
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use serde_json::{Value, json};

    fn window() -> Value {
        let view = fixture::state().view.unwrap();
        let text = serde_json::to_string(&JsonWindow::from(&view)).unwrap();
        assert!(!text.contains('\n'), "one line");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_row_has_everything_by_name_and_unit() {
        let window = window();
        assert_eq!((&window["window_seconds"], &window["cpus"]), (&json!(1.0), &json!(4)));
        expect_test::expect_file!["expected/row.json"]
            .assert_eq(&(serde_json::to_string_pretty(&window["rows"][2]).unwrap() + "\n"));
    }

    #[test]
    fn every_key_is_documented() {
        fn keys(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(object) => object.iter().for_each(|(key, value)| {
                    found.push(key.clone());
                    // Names of losses and causes are those of the metrics.
                    if key != "losses" {
                        keys(value, found);
                    }
                }),
                Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
                _ => {}
            }
        }
        let docs: String =
            include_str!("json.rs").lines().take_while(|line| line.starts_with("//!")).collect();
        let mut found = Vec::new();
        keys(&window(), &mut found);
        for key in found {
            assert!(docs.contains(&format!("`{key}`")), "{key} is not in the table");
        }
    }

    #[test]
    fn what_is_not_known_is_null() {
        let window = window();
        let rows = window["rows"].as_array().unwrap();
        let root = rows.iter().find(|row| row["name"] == "(root)").unwrap();
        for key in ["namespace", "container_id", "cpu_used_cores", "cpu_demand", "cpu_limit_cores"] {
            assert!(root[key].is_null(), "{key}");
        }
        let idle = rows.iter().find(|row| row["unit"] == "systemd-journald.service").unwrap();
        assert!(idle["p99_seconds"].is_null() && idle["longest_at_most_seconds"].is_null());
    }

    #[test]
    fn causes_add_up_to_the_wait() {
        for row in window()["rows"].as_array().unwrap() {
            let causes = row["wait_by_cause_seconds"].as_object().unwrap();
            let sum: f64 = causes.values().filter_map(Value::as_f64).sum();
            assert!((sum - row["wait_seconds"].as_f64().unwrap()).abs() < 1e-9);
        }
    }
}
