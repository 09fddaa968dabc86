//! What is parsed is what was measured, within the bounds, and what cannot be is refused by name.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::abi::TOLD;
use crate::buckets::{BUCKETS, OCTAVES};
use crate::demand::Bottleneck;
use crate::histogram::{CoarseHistogram, LatencyHistogram};
use crate::identity::{Identity, Names, Owner, Pod, QosClass, Runtime};
use crate::recording::tests as arbitrary;
use crate::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use crate::snapshot::{Causes, CgroupCounters, Cycles, Durations, Throttling, Unmet};
use crate::throttle::DURATIONS;
use crate::window::Case;

const SECOND: u64 = 1_000_000_000;

fn heading() -> Heading {
    Heading { node: "node-1".to_owned(), sequence: 7, end_unix_ns: 1_790_000_000 * SECOND, cpus: 4 }
}

/// A report of a node on which these came to be since its sampler looked first.
fn report_of(cgroups: impl IntoIterator<Item = (u64, CgroupCounters)>) -> Report {
    let earlier = Snapshot { epoch: 1, at_ns: SECOND, throttle_hooks: true, ..Snapshot::default() };
    let cgroups = cgroups.into_iter().map(|(id, cgroup)| (CgroupId(id), cgroup));
    let mut later = Snapshot { at_ns: 16 * SECOND, cgroups: cgroups.collect(), ..earlier.clone() };
    later.losses.names_lost = 3;
    later.switches = 12;
    Report::from_windows(heading(), &Windows::between(&earlier, &later).unwrap(), &later)
}

fn of_container(container: Container) -> CgroupCounters {
    let owner = Owner::Container(Box::new(container));
    CgroupCounters { identity: Identity { path: "x".to_owned(), owner }, ..CgroupCounters::default() }
}

fn plain() -> Container {
    Container { id: "0f3c5b8e9a7d6c4b".repeat(4).try_into().unwrap(), runtime: None, pod: None, names: None }
}

/// The parts, as a reader gets them.
fn sent(report: &Report) -> Vec<Result<Report, ReportError>> {
    report.messages().iter().map(|message| Report::decode(&message.encode_to_vec())).collect()
}

fn cgroup() -> impl Strategy<Value = CgroupCounters> {
    let measured = (arbitrary::counters(), arbitrary::limits(), prop::option::of(arbitrary::memory()));
    (arbitrary::container(), measured).prop_map(|(mut container, (counters, limits, memory))| {
        // Others are left out, which has a test of its own.
        container.names = container.names.filter(|Names { namespace, pod, container }| {
            let names = [Some(namespace), Some(pod), container.as_ref()];
            names.into_iter().flatten().all(|name| is_name(name))
        });
        CgroupCounters { counters, limits, memory, ..of_container(container) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_parsed_is_what_was_measured(cgroups in prop::collection::btree_map(any::<u64>(), cgroup(), 0..6)) {
        let report = report_of(cgroups);
        prop_assert_eq!(sent(&report), vec![Ok(report)]);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
    ) {
        drop(Report::decode(&bytes));
        let mut good = stored().messages()[0].encode_to_vec();
        let at = at.index(good.len());
        let end = (at + bytes.len()).min(good.len());
        good.splice(at..end, bytes);
        drop(Report::decode(&good));
    }
}

#[test]
fn only_containers_are_reported() {
    let unit = Owner::Unit { name: "cron.service".to_owned() };
    let unit = CgroupCounters {
        identity: Identity { path: "cron.service".to_owned(), owner: unit },
        ..CgroupCounters::default()
    };
    let report = report_of([(1, CgroupCounters::default()), (2, unit), (3, of_container(plain()))]);
    let cgroups: Vec<_> = report.containers.iter().map(|container| container.cgroup).collect();
    assert_eq!(cgroups, [CgroupId(3)]);
    assert_eq!(report.losses, [("names_lost".to_owned(), 3)].into());
    assert_eq!((report.length_ns, report.end_ns, report.switches), (15 * SECOND, 16 * SECOND, 12));
}

#[test]
fn more_containers_than_a_message_holds_are_more_parts() {
    let report = report_of((0..2 * CONTAINERS as u64 + 1).map(|id| (id, of_container(plain()))));
    let parts: Vec<_> = sent(&report).into_iter().map(Result::unwrap).collect();
    let sizes: Vec<_> = parts.iter().map(|part| part.containers.len()).collect();
    assert_eq!(sizes, [CONTAINERS, CONTAINERS, 1]);
    for (number, part) in (0..).zip(&parts) {
        assert_eq!(part.part, Part { number, of: 3 });
    }
    let all: Vec<_> = parts.into_iter().flat_map(|part| part.containers).collect();
    assert_eq!(all, report.containers);
    assert_eq!(report_of([]).messages().len(), 1, "a node without containers says so");
}

#[test]
fn neighbours_beyond_the_bound_are_counted_without_a_name() {
    let mut cgroup = of_container(plain());
    cgroup.counters.causes.neighbor_ns = 1_000;
    cgroup.counters.neighbors = (1..=10).map(|id| (CgroupId(id), id)).collect();
    let parts = sent(&report_of([(1, cgroup)]));
    let window = &parts[0].as_ref().unwrap().containers[0].window;
    let named: Vec<_> = (3..=10).rev().map(|id| (CgroupId(id), id)).collect();
    assert_eq!(window.neighbors, named);
    assert_eq!(window.unnamed_neighbor_ns, 1_000 - named.iter().map(|(_, ns)| ns).sum::<u64>());
}

#[test]
fn names_that_a_reader_would_refuse_are_left_out() {
    for wrong in [String::new(), "x".repeat(NAME_BYTES + 1), "a\nb".to_owned()] {
        let names = Names { namespace: "shop".to_owned(), pod: "web-0".to_owned(), container: Some(wrong) };
        let report = report_of([(1, of_container(Container { names: Some(names), ..plain() }))]);
        assert_eq!(sent(&report)[0].as_ref().unwrap().containers[0].container.names, None);
    }
}

#[test]
fn the_largest_message_within_the_bounds_is_within_the_bound_of_bytes() {
    let longest = || "n".repeat(NAME_BYTES);
    let mut largest = stored();
    largest.heading.node = longest();
    largest.losses =
        (0..LOSSES).map(|number| (format!("{number:0>width$}", width = LOSS_BYTES), u64::MAX)).collect();
    let mut container = largest.containers.remove(0);
    container.container.names =
        Some(Names { namespace: longest(), pod: longest(), container: Some(longest()) });
    let window = &mut container.window;
    window.latency = LatencyHistogram::new([u64::MAX; BUCKETS], u64::MAX);
    window.causes = Causes::from_parts([u64::MAX; 8]);
    window.unmet = Some(Unmet { paced_ns: u64::MAX, busy_ns: u64::MAX });
    window.cycles = Some(Cycles::from_parts([u64::MAX; 4]));
    window.coarse = [CoarseHistogram { counts: [u64::MAX; OCTAVES] }; TOLD];
    window.neighbors = vec![(CgroupId(u64::MAX), u64::MAX); NEIGHBORS];
    window.throttling = Throttling::from_parts([u64::MAX; 4], Durations::Counted([u64::MAX; DURATIONS]));
    window.memory_events = Some(MemoryEvents::from_parts([u64::MAX; 5]));
    window.pressure = Some(Pressure::from_parts([u64::MAX; 4]));
    let numbered = |number: u64| Measured { cgroup: CgroupId(u64::MAX - number), ..container.clone() };
    largest.containers = (0..CONTAINERS as u64).rev().map(numbered).collect();
    let messages = largest.messages();
    assert_eq!(messages.len(), 1);
    let bytes = messages[0].encode_to_vec();
    assert!((MESSAGE_BYTES / 2..MESSAGE_BYTES).contains(&bytes.len()), "{}", bytes.len());
    assert_eq!(Report::decode(&bytes), Ok(largest));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    type Harm = fn(&mut wire::Report);
    fn window(report: &mut wire::Report) -> &mut wire::Window {
        report.containers[0].window.as_mut().unwrap()
    }
    fn demand(report: &mut wire::Report) -> &mut wire::Demand {
        report.containers[0].demand.as_mut().unwrap()
    }
    let harms: [(Harm, &str); 25] = [
        (|report| report.node.clear(), "node"),
        (|report| report.part = report.parts, "part"),
        (|report| report.sequence = 0, "sequence"),
        (|report| report.end_unix_ns = 0, "end_unix_ns"),
        (|report| report.cpus = 0, "cpus"),
        (|report| report.losses[0].name.clear(), "losses.name"),
        (|report| report.losses.push(report.losses[0].clone()), "losses.name"),
        (|report| report.containers.swap(0, 1), "containers.cgroup"),
        (|report| report.containers[1].cgroup = report.containers[0].cgroup, "containers.cgroup"),
        (|report| report.containers[0].id.push('0'), "containers.id"),
        (|report| report.containers[0].window = None, "containers.window"),
        (|report| report.containers[0].demand = None, "containers.demand"),
        (|report| report.containers[0].pod.as_mut().unwrap().uid.clear(), "pod.uid"),
        (|report| report.containers[0].names.as_mut().unwrap().pod.clear(), "names.pod"),
        (|report| window(report).case = 0, "window.case"),
        (|report| window(report).case = 5, "window.case"),
        (|report| window(report).delays = vec![BUCKETS as u64, 1], "window.delays"),
        (|report| window(report).delays_by_cause = vec![115, 1], "window.delays_by_cause"),
        (|report| window(report).neighbors.reverse(), "window.neighbors"),
        (
            |report| window(report).limits.as_mut().unwrap().cpu.as_mut().unwrap().period_us = 0,
            "cpu.period_us",
        ),
        (|report| demand(report).point = f64::NAN, "demand"),
        (|report| demand(report).upper = f64::INFINITY, "demand"),
        (|report| demand(report).lower = -1.0, "demand"),
        (|report| demand(report).point = 4.5, "demand"),
        (|report| demand(report).confidence = 1.5, "demand.confidence"),
    ];
    for (number, (harm, expected)) in harms.into_iter().enumerate() {
        let mut report = stored().messages().remove(0);
        harm(&mut report);
        match Report::try_from(report) {
            Err(ReportError::Field { field, .. }) => assert_eq!(field, expected, "{number}"),
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[test]
fn more_than_is_allowed_is_refused() {
    type Harm = fn(&mut wire::Report);
    let harms: [(Harm, &str, usize); 3] = [
        (
            |report| report.containers.resize(CONTAINERS + 1, wire::Container::default()),
            "containers",
            CONTAINERS,
        ),
        (|report| report.losses.resize(LOSSES + 1, wire::Loss::default()), "kinds of losses", LOSSES),
        (
            |report| {
                let window = report.containers[0].window.as_mut().unwrap();
                window.neighbors.resize(NEIGHBORS + 1, wire::Neighbor::default());
            },
            "neighbors of a container",
            NEIGHBORS,
        ),
    ];
    for (harm, what, most) in harms {
        let mut report = stored().messages().remove(0);
        harm(&mut report);
        assert_eq!(Report::try_from(report), Err(ReportError::TooMany { what, count: most + 1, most }));
    }
    let bytes = vec![0; MESSAGE_BYTES + 1];
    let error = ReportError::TooMany { what: "bytes", count: MESSAGE_BYTES + 1, most: MESSAGE_BYTES };
    assert_eq!(Report::decode(&bytes), Err(error));
}

#[test]
fn another_version_is_refused_in_a_sentence() {
    let mut report = stored().messages().remove(0);
    report.version = 2;
    let error = Report::try_from(report).unwrap_err();
    assert_eq!(error, ReportError::Version { version: 2 });
    assert_eq!(
        error.to_string(),
        "the report has version 2; this program reads 1: bring sampler and controller to one release"
    );
    assert_eq!(Report::decode(&[]), Err(ReportError::Version { version: 0 }));
}

/// What is stored in `report-v1-cycles`. Every field has a value of its own.
fn stored() -> Report {
    let container = Container {
        runtime: Some(Runtime::CriO),
        pod: Some(Pod {
            uid: "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60".to_owned().try_into().unwrap(),
            qos: Some(QosClass::BestEffort),
        }),
        names: Some(Names {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            container: Some("nginx".to_owned()),
        }),
        ..plain()
    };
    let window = Window {
        case: Case::New,
        length_ns: 14 * SECOND,
        latency: LatencyHistogram::new(std::array::from_fn(|at| at as u64 % 7), 12_345_678),
        causes: Causes::from_parts(std::array::from_fn(|at| 100 + at as u64)),
        unmet: Some(Unmet { paced_ns: 71, busy_ns: 72 }),
        cycles: Some(Cycles::from_parts(std::array::from_fn(|at| 81 + at as u64))),
        coarse: std::array::from_fn(|cause| CoarseHistogram {
            counts: std::array::from_fn(|octave| (cause * octave) as u64),
        }),
        neighbors: vec![(CgroupId(9), 60), (CgroupId(8), 50)],
        unnamed_neighbor_ns: 4,
        usage_ns: 5,
        throttling: Throttling::from_parts(
            [11, 12, 13, 14],
            Durations::Counted(std::array::from_fn(|at| at as u64)),
        ),
        memory_events: Some(MemoryEvents::from_parts([21, 22, 23, 24, 25])),
        pressure: Some(Pressure::from_parts([31, 32, 33, 34])),
        limits: Limits {
            cpu: Some(CpuLimit { quota_us: 41, period_us: 42, of: LimitOf::Ancestor }),
            cpu_weight: Some(43),
            memory_max_bytes: Some(44),
            memory_high_bytes: Some(45),
        },
        memory: Some(Memory { current_bytes: 51, working_set_bytes: 52, peak_bytes: Some(53), read_ns: 54 }),
    };
    let demand =
        Demand { point: 2.5, lower: 1.5, upper: 3.5, bottleneck: Bottleneck::Neighbors, confidence: 0.75 };
    let nothing =
        Demand { point: 0.0, lower: 0.0, upper: 0.0, bottleneck: Bottleneck::None, confidence: 0.0 };
    let uncounted = Throttling { durations: Durations::HooksUnavailable, ..Throttling::default() };
    let quiet = Window { throttling: uncounted, ..Window::default() };
    Report {
        heading: heading(),
        epoch: 0xF00D_F00D_F00D_F00D,
        part: Part::WHOLE,
        end_ns: 61,
        length_ns: 62,
        throttle_hooks: true,
        switches: 63,
        missed: 64,
        losses: [("names_cut".to_owned(), 65), ("stats_unread".to_owned(), 66)].into(),
        containers: vec![
            Measured { cgroup: CgroupId(77), container, window, demand },
            Measured { cgroup: CgroupId(1 << 40), container: plain(), window: quiet, demand: nothing },
        ],
    }
}

fn stored_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn a_report_of_version_1_is_read_as_it_was_written() {
    let path = stored_path("report-v1-cycles");
    let written = stored().messages()[0].encode_to_vec();
    let Ok(bytes) = std::fs::read(&path) else {
        std::fs::write(&path, written).unwrap();
        panic!("{} was missing and has been written: commit it", path.display());
    };
    assert_eq!(Report::decode(&bytes), Ok(stored()));
    assert_eq!(written, bytes, "and today's sampler writes the same");
    // A field of a later release: number 100, and in a container number 99.
    let unknown = [0xA2, 0x06, 0x03, 1, 2, 3];
    assert_eq!(Report::decode(&[&bytes[..], &unknown].concat()), Ok(stored()));
}

/// `report-v1-unmet` is of before `Window.cycles`, `report-v1` of before `Window.unmet` too.
#[test]
fn a_report_of_version_1_from_before_a_field_is_read_without_it() {
    let mut earlier = stored();
    earlier.containers[0].window.cycles = None;
    let bytes = std::fs::read(stored_path("report-v1-unmet")).unwrap();
    assert_eq!(Report::decode(&bytes), Ok(earlier.clone()));
    earlier.containers[0].window.unmet = None;
    let bytes = std::fs::read(stored_path("report-v1")).unwrap();
    assert_eq!(Report::decode(&bytes), Ok(earlier));
}

#[test]
fn what_is_missing_means_what_the_contract_says() {
    let container = wire::Container {
        cgroup: 1,
        id: plain().id.into(),
        window: Some(Box::new(wire::Window { case: wire::Case::Continued.into(), ..Default::default() })),
        demand: Some(wire::Demand::default()),
        ..wire::Container::default()
    };
    let report = wire::Report {
        version: 1,
        node: "node-1".to_owned(),
        sequence: 1,
        parts: 1,
        end_unix_ns: 1,
        cpus: 1,
        containers: vec![container],
        ..wire::Report::default()
    };
    let report = Report::try_from(report).unwrap();
    assert!(!report.throttle_hooks);
    assert!(report.losses.is_empty());
    let Measured { container, window, demand, .. } = &report.containers[0];
    assert_eq!(container, &plain());
    let throttling = Throttling { durations: Durations::HooksUnavailable, ..Throttling::default() };
    assert_eq!(window, &Window { throttling, ..Window::default() });
    assert_eq!(demand.bottleneck, Bottleneck::Unknown);
}

#[test]
fn kinds_that_a_later_release_adds_are_unknown() {
    let mut report = stored().messages().remove(0);
    report.containers[0].runtime = 99;
    report.containers[0].pod.as_mut().unwrap().qos = 99;
    report.containers[0].demand.as_mut().unwrap().bottleneck = 99;
    let report = Report::try_from(report).unwrap();
    let Measured { container, demand, .. } = &report.containers[0];
    assert_eq!(container.runtime, None);
    assert_eq!(container.pod.as_ref().unwrap().qos, None);
    assert_eq!(demand.bottleneck, Bottleneck::Unknown);
}
