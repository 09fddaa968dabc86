use std::collections::BTreeMap;

use proptest::prelude::*;
use sampler_common::identity::Names;
use sampler_common::snapshot::{Counters, Durations, Presence};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn unit(name: &str) -> Identity {
    Identity { path: name.to_owned(), owner: Owner::Unit { name: name.to_owned() } }
}

/// A cgroup with so many delays of 1 ms, and as much CPU time used.
fn cgroup(name: &str, delays: u64) -> CgroupCounters {
    let mut counters = Counters { usage_ns: delays * 1_000_000, ..Counters::default() };
    for _ in 0..delays {
        counters.latency.record(1_000_000);
    }
    CgroupCounters { counters, identity: unit(name), ..CgroupCounters::default() }
}

fn removed(cgroup: CgroupCounters) -> CgroupCounters {
    CgroupCounters { presence: Presence::Removed, ..cgroup }
}

/// A ledger that is fed snapshots of some cgroups at some second.
struct Fed {
    ledger: Ledger,
    earlier: Snapshot,
    names_come: bool,
}

impl Fed {
    fn new(limit: usize) -> Self {
        let ledger = Ledger::new(limit, SystemTime::UNIX_EPOCH);
        Self { ledger, earlier: Snapshot::default(), names_come: false }
    }

    fn feed(&mut self, second: u64, cgroups: impl IntoIterator<Item = (u64, CgroupCounters)>) {
        let cgroups = cgroups.into_iter().map(|(id, cgroup)| (CgroupId(id), cgroup)).collect();
        self.feed_whole(Snapshot { at_ns: second * SECOND, cgroups, ..Snapshot::default() });
    }

    fn feed_whole(&mut self, later: Snapshot) {
        let windows = Windows::between(&self.earlier, &later).unwrap();
        self.ledger.add(&later, &windows, self.names_come, SystemTime::UNIX_EPOCH);
        self.earlier = later;
    }

    fn scrape(&mut self) -> BTreeMap<String, u64> {
        let (series, turn) = self.ledger.series();
        self.ledger.scraped(turn);
        series.iter().map(|series| (series.labels.container.clone(), series.total.latency.count())).collect()
    }

    /// Delays by label, without the rest.
    fn shown(&self) -> BTreeMap<String, u64> {
        let (mut series, _) = self.ledger.series();
        series.pop();
        series.iter().map(|series| (series.labels.container.clone(), series.total.latency.count())).collect()
    }
}

fn of<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn a_series_counts_what_its_cgroup_counts() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, cgroup("a", 3))]);
    fed.feed(2, [(1, cgroup("a", 5)), (2, cgroup("b", 1))]);
    assert_eq!(fed.shown(), of([("a", 5), ("b", 1)]));
}

#[test]
fn a_container_that_starts_again_goes_on_counting() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, cgroup("a", 3))]);
    fed.feed(2, [(1, removed(cgroup("a", 4))), (2, cgroup("a", 1))]);
    assert_eq!(fed.shown(), of([("a", 5)]));
    fed.feed(3, [(2, cgroup("a", 2))]);
    assert_eq!(fed.shown(), of([("a", 6)]));
    let (series, _) = fed.ledger.series();
    assert_eq!(series[0].latest.as_ref().unwrap().latency.count(), 1, "gauges are of the living one");
}

#[test]
fn a_restart_of_the_reader_takes_nothing_back() {
    let mut fed = Fed::new(10);
    fed.feed(5, [(1, cgroup("a", 9))]);
    let cgroups = BTreeMap::from([(CgroupId(1), cgroup("a", 2))]);
    fed.feed_whole(Snapshot {
        epoch: 1,
        since_ns: SECOND,
        at_ns: 2 * SECOND,
        cgroups,
        ..Snapshot::default()
    });
    assert_eq!(fed.shown(), of([("a", 11)]));
}

#[test]
fn the_last_counts_of_one_that_is_gone_stay_until_they_are_scraped() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, cgroup("a", 3))]);
    fed.scrape();
    fed.feed(2, [(1, removed(cgroup("a", 4)))]);
    fed.feed(200, []);
    assert_eq!(fed.shown(), of([("a", 4)]), "not scraped");
    fed.scrape();
    fed.feed(201, []);
    assert_eq!((fed.shown(), fed.ledger.unscraped()), (of([]), 0));
}

#[test]
fn a_second_prometheus_has_its_time() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, cgroup("a", 3))]);
    fed.feed(2, [(1, removed(cgroup("a", 4)))]);
    fed.scrape();
    fed.feed(2 + LINGER_NS / SECOND - 1, []);
    assert_eq!(fed.shown(), of([("a", 4)]));
    fed.feed(2 + LINGER_NS / SECOND, []);
    assert_eq!(fed.shown(), of([]));
}

#[test]
fn what_nobody_scrapes_goes_after_a_while_and_is_counted() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, cgroup("a", 3))]);
    fed.scrape();
    fed.feed(2, [(1, removed(cgroup("a", 4)))]);
    fed.feed(1 + AT_MOST_NS / SECOND, []);
    assert_eq!(fed.shown(), of([("a", 4)]));
    fed.feed(2 + AT_MOST_NS / SECOND, []);
    assert_eq!((fed.scrape(), fed.ledger.unscraped()), (of([(OTHER, 0)]), 1));
}

#[test]
fn what_nobody_has_ever_scraped_is_in_the_rest() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, cgroup("a", 3))]);
    fed.feed(2, [(1, removed(cgroup("a", 4)))]);
    fed.feed(2 + AT_MOST_NS / SECOND, []);
    assert_eq!((fed.scrape(), fed.ledger.unscraped()), (of([(OTHER, 4)]), 0));
}

#[test]
fn threads_that_exit_after_their_cgroup_was_removed_are_counted_and_scraped() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, removed(cgroup("a", 4)))]);
    fed.scrape();
    fed.feed(70, [(1, removed(cgroup("a", 5)))]);
    fed.feed(100, []);
    assert_eq!(fed.shown(), of([("a", 5)]));
}

#[test]
fn a_kill_and_a_throttle_that_are_told_after_the_removal_are_published_once() {
    let mut late = cgroup("a", 4);
    late.counters.memory_events.get_or_insert_default().oom_kill = 1;
    let mut later = late.clone();
    let mut durations = [0; sampler_common::throttle::DURATIONS];
    durations[5] = 1;
    later.counters.throttling.durations = Durations::Counted(durations);
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, removed(cgroup("a", 4)))]);
    fed.scrape();
    for (second, cgroup) in [(60, late), (65, later.clone()), (70, later)] {
        fed.feed(second, [(1, removed(cgroup))]);
    }
    fed.feed(100, []);
    let (series, _) = fed.ledger.series();
    let total = &series[0].total;
    assert_eq!(series[0].labels.container, "a", "what came is not scraped");
    assert_eq!(total.memory_events.map(|events| events.oom_kill), Some(1));
    assert_eq!(total.throttling.durations, Durations::Counted(durations));
}

#[test]
fn one_that_comes_back_is_no_longer_gone() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, removed(cgroup("a", 4)))]);
    fed.scrape();
    fed.feed(50, [(2, cgroup("a", 1))]);
    fed.feed(80, [(2, cgroup("a", 2))]);
    assert_eq!(fed.shown(), of([("a", 6)]));
}

#[test]
fn beyond_the_limit_containers_are_one_and_nothing_is_lost() {
    let mut fed = Fed::new(2);
    fed.feed(1, [(1, cgroup("a", 1)), (2, cgroup("b", 2)), (3, cgroup("c", 4)), (4, cgroup("d", 8))]);
    assert_eq!((fed.ledger.left_out(), fed.scrape()), (2, of([("a", 1), ("b", 2), (OTHER, 12)])));
    fed.feed(2, [(1, cgroup("a", 1)), (2, cgroup("b", 2)), (3, cgroup("c", 5)), (4, cgroup("d", 8))]);
    assert_eq!(fed.scrape(), of([("a", 1), ("b", 2), (OTHER, 13)]));
}

#[test]
fn the_gone_make_room_those_first_that_have_been_scraped() {
    let mut fed = Fed::new(2);
    fed.feed(1, [(1, removed(cgroup("a", 1))), (2, cgroup("b", 2))]);
    fed.scrape();
    fed.feed(2, [(2, removed(cgroup("b", 3)))]);
    fed.feed(3, [(3, cgroup("c", 1))]);
    assert_eq!((fed.shown(), fed.ledger.unscraped()), (of([("b", 3), ("c", 1)]), 0));
    fed.feed(4, [(3, cgroup("c", 1)), (4, cgroup("d", 1))]);
    assert_eq!((fed.shown(), fed.ledger.unscraped()), (of([("c", 1), ("d", 1)]), 1));
}

#[test]
fn the_gone_that_can_be_added_to_the_rest_make_room_before_those_that_would_lose_something() {
    let mut fed = Fed::new(2);
    fed.feed(1, [(1, cgroup("a", 1))]);
    fed.scrape();
    // The last counts of the one were not scraped, and of the other nothing; it is the younger.
    fed.feed(2, [(1, removed(cgroup("a", 3)))]);
    fed.feed(3, [(2, removed(cgroup("b", 4)))]);
    fed.feed(4, [(3, cgroup("c", 1))]);
    assert_eq!((fed.scrape(), fed.ledger.unscraped()), (of([("a", 3), ("c", 1), (OTHER, 4)]), 0));
}

#[test]
fn one_that_did_nothing_more_until_it_was_removed_was_scraped_whole() {
    let mut fed = Fed::new(1);
    fed.feed(1, [(1, cgroup("a", 3))]);
    fed.scrape();
    fed.feed(2, [(1, removed(cgroup("a", 3)))]);
    fed.feed(3, [(2, cgroup("b", 1))]);
    assert_eq!((fed.scrape(), fed.ledger.unscraped()), (of([("b", 1), (OTHER, 0)]), 0));
}

#[test]
fn what_has_no_slot_is_in_the_rest() {
    let mut fed = Fed::new(2);
    let mut snapshot = Snapshot { at_ns: SECOND, ..Snapshot::default() };
    snapshot.other = cgroup("", 7).counters;
    fed.feed_whole(snapshot);
    assert_eq!(fed.scrape(), of([(OTHER, 7)]));
}

#[test]
fn what_nobody_knows_the_name_of_is_in_the_rest_and_not_the_root() {
    let mut fed = Fed::new(2);
    let nameless = CgroupCounters { identity: Identity::default(), ..cgroup("", 3) };
    fed.feed(1, [(CgroupId::ROOT.0, nameless.clone()), (7, nameless)]);
    assert_eq!(fed.scrape(), of([("/", 3), (OTHER, 3)]));
    assert_eq!(fed.ledger.left_out(), 1);
}

#[test]
fn labels_are_the_best_that_are_known() {
    let digits = "0f3c5b8e9a7d6c4b".repeat(4);
    let mut container = Container { id: digits.try_into().unwrap(), runtime: None, pod: None, names: None };
    let of_container = |container: &Container| {
        let owner = Owner::Container(Box::new(container.clone()));
        let Labels { namespace, pod, container } = Labels::from(&Identity { path: "x".to_owned(), owner });
        [namespace, pod, container]
    };
    assert_eq!(of_container(&container), ["", "", "0f3c5b8e9a7d"]);
    let uid = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60".to_owned();
    container.pod = Some(sampler_common::identity::Pod { uid: uid.clone().try_into().unwrap(), qos: None });
    assert_eq!(of_container(&container), ["", &uid, "0f3c5b8e9a7d"]);
    let names = |container| Some(Names { namespace: "shop".into(), pod: "web-0".into(), container });
    container.names = names(None);
    assert_eq!(of_container(&container), ["shop", "web-0", "0f3c5b8e9a7d"]);
    container.names = names(Some("nginx".into()));
    assert_eq!(of_container(&container), ["shop", "web-0", "nginx"]);
    assert_eq!(Labels::from(&unit("ssh.service")).container, "ssh.service");
    assert_eq!(Labels::from(&Identity::default()).container, "/");
}

/// A pod's container with so many delays.
fn container(name: Option<&str>, delays: u64) -> CgroupCounters {
    let uid = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60".to_owned();
    let container = Container {
        id: "0f3c5b8e9a7d6c4b".repeat(4).try_into().unwrap(),
        runtime: None,
        pod: Some(sampler_common::identity::Pod { uid: uid.try_into().unwrap(), qos: None }),
        names: name.map(|name| Names {
            namespace: "shop".into(),
            pod: "web-0".into(),
            container: Some(name).filter(|name| !name.is_empty()).map(str::to_owned),
        }),
    };
    let owner = Owner::Container(Box::new(container));
    CgroupCounters { identity: Identity { path: "x".to_owned(), owner }, ..cgroup("", delays) }
}

const ID: &str = "0f3c5b8e9a7d";

#[test]
fn a_container_is_held_back_until_it_has_its_name_and_loses_nothing() {
    let mut fed = Fed { names_come: true, ..Fed::new(10) };
    fed.feed(1, [(1, container(None, 3)), (2, cgroup("a", 1))]);
    fed.feed(2, [(1, container(Some(""), 5)), (2, cgroup("a", 1))]);
    assert_eq!((fed.shown(), fed.ledger.awaited()), (of([("a", 1)]), 1), "the pod's name is not its own");
    fed.feed(3, [(1, container(Some("nginx"), 6)), (2, cgroup("a", 1))]);
    assert_eq!((fed.shown(), fed.ledger.awaited()), (of([("a", 1), ("nginx", 6)]), 0));
    let (series, _) = fed.ledger.series();
    let latest = series.iter().find(|series| series.labels.container == "nginx").unwrap().latest.as_ref();
    assert_eq!(latest.unwrap().latency.count(), 1, "gauges are of the last window");
}

#[test]
fn a_name_that_does_not_come_is_not_waited_for_for_ever() {
    let mut fed = Fed { names_come: true, ..Fed::new(10) };
    fed.feed(1, [(1, container(None, 3))]);
    fed.feed(HELD_NS / SECOND, [(1, container(None, 4))]);
    assert_eq!(fed.shown(), of([]));
    fed.feed(1 + HELD_NS / SECOND, [(1, container(None, 5))]);
    assert_eq!((fed.shown(), fed.ledger.awaited()), (of([(ID, 5)]), 0));
    fed.feed(2 + HELD_NS / SECOND, [(1, container(None, 6))]);
    assert_eq!((fed.shown(), fed.ledger.awaited()), (of([(ID, 6)]), 0), "and not once more");
}

#[test]
fn one_that_is_gone_before_its_name_comes_is_counted_by_its_id() {
    let mut fed = Fed { names_come: true, ..Fed::new(10) };
    fed.feed(1, [(1, container(None, 3))]);
    fed.feed(2, [(1, removed(container(None, 4)))]);
    assert_eq!((fed.shown(), fed.ledger.awaited()), (of([(ID, 4)]), 0));
}

#[test]
fn one_that_is_missed_while_it_is_held_back_is_counted_as_far_as_it_was_seen() {
    let mut fed = Fed { names_come: true, ..Fed::new(10) };
    fed.feed(1, [(1, container(None, 3))]);
    fed.feed(2, []);
    assert_eq!((fed.shown(), fed.ledger.awaited()), (of([(ID, 3)]), 0));
}

#[test]
fn nothing_is_held_back_where_no_name_comes_or_for_whom_there_is_none() {
    let mut fed = Fed::new(10);
    fed.feed(1, [(1, container(None, 3))]);
    assert_eq!(fed.shown(), of([(ID, 3)]));
    fed.names_come = true;
    fed.feed(2, [(1, container(None, 4)), (2, cgroup("a", 1))]);
    assert_eq!(fed.shown(), of([(ID, 4), ("a", 1)]), "nor is what has a series");
}

#[test]
fn no_more_are_held_back_than_there_may_be_series_and_the_rest_is_the_rest() {
    let mut fed = Fed { names_come: true, ..Fed::new(1) };
    fed.feed(1, [(1, container(None, 3)), (2, cgroup("a", 1)), (3, container(None, 4))]);
    assert_eq!((fed.shown(), fed.ledger.awaited(), fed.ledger.left_out()), (of([("a", 1)]), 1, 1));
    fed.feed(2, [(1, container(Some("nginx"), 5)), (2, cgroup("a", 1))]);
    assert_eq!((fed.scrape(), fed.ledger.awaited()), (of([("a", 1), (OTHER, 9)]), 0));
}

/// What may happen to a cgroup between two looks.
#[derive(Clone, Copy, Debug)]
enum Event {
    Count(u64),
    Remove,
    Restart,
    Scrape,
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let event = prop_oneof![
        4 => (0u64..5).prop_map(Event::Count),
        1 => Just(Event::Remove),
        1 => Just(Event::Restart),
        1 => Just(Event::Scrape),
    ];
    (0usize..6, event)
}

proptest! {
    /// The invariant that Prometheus relies on, and its complement.
    #[test]
    fn no_counter_goes_back_while_it_is_there_and_no_count_is_lost_or_counted_twice(
        events in prop::collection::vec(event(), 1..60), limit in 1usize..5,
    ) {
        let mut fed = Fed::new(limit);
        // Six names; a removed cgroup is followed by another of the same name.
        let mut live: [Option<(u64, u64)>; 6] = [None; 6];
        let (mut next_id, mut epoch, mut second, mut counted) = (1, 0, 0, 0);
        let mut before = BTreeMap::new();
        let mut gone = std::collections::BTreeSet::new();
        for (name, event) in events {
            let mut ended = None;
            match event {
                Event::Count(more) => {
                    let (_, delays) = live[name].get_or_insert_with(|| { next_id += 1; (next_id, 0) });
                    *delays += more;
                    counted += more;
                }
                Event::Remove => ended = live[name].take(),
                Event::Restart => {
                    epoch += 1;
                    live.iter_mut().flatten().for_each(|(_, delays)| *delays = 0);
                }
                Event::Scrape => { fed.scrape(); }
            }
            second += 1;
            let names = ["a", "b", "c", "d", "e", "f"];
            let alive = names.iter().zip(&live).filter_map(|(name, live)| {
                let (id, delays) = (*live)?;
                Some((CgroupId(id), cgroup(name, delays)))
            });
            let ended = ended.map(|(id, delays)| (CgroupId(id), removed(cgroup(names[name], delays))));
            let snapshot = Snapshot {
                epoch, since_ns: 0, at_ns: second * SECOND,
                cgroups: alive.chain(ended).collect(), ..Snapshot::default()
            };
            fed.feed_whole(snapshot);
            let shown: BTreeMap<_, _> = fed.ledger.series().0.iter()
                .map(|series| (series.labels.clone(), series.total.latency.count())).collect();
            for (labels, count) in &before {
                match shown.get(labels) {
                    Some(now) if now >= count => {}
                    // One that had to make room and is there again begins anew, which Prometheus takes for a restart.
                    again => {
                        prop_assert!(again.is_none_or(|now| *now <= 5), "{labels:?} went back to {again:?}");
                        gone.insert(labels.clone());
                    }
                }
            }
            prop_assert!(shown.len() <= limit + 1);
            let sum: u64 = shown.values().sum();
            prop_assert!(sum <= counted, "{sum} shown of {counted}");
            prop_assert!(sum == counted || !gone.is_empty(), "{sum} shown of {counted}");
            before = shown;
        }
    }
}
