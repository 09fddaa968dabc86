//! Containers that come, are throttled, and go.

use std::time::Duration;

use loadline_tests::cgroup;
use loadline_tests::containers::{Spec, load_command};
use loadline_tests::load::{Work, until};
use sampler::read::{Reader, Start};
use sampler_common::snapshot::{Cause, Presence};
use sampler_common::window::Windows;

use crate::identity::{cgroup_id, container_at, id};
use crate::{clear, containerd};

crate::tests![a_container_is_there_from_its_first_window_to_its_last within 120 s, a_limit_is_the_cause_of_its_wait within 120 s];

const LIMIT: Duration = Duration::from_secs(30);

/// Catches a new container that is seen late, one that is gone and stays, and last counts that are lost.
fn a_container_is_there_from_its_first_window_to_its_last() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let spec = Spec { id: id(16), command: load_command(&[Work::Spin.anywhere()], false), ..Spec::default() };
    let container = containerd().run(&spec).unwrap();
    let cgroup = cgroup_id(&container.cgroup().unwrap());
    let first = reader.snapshot();
    assert_eq!(first.cgroups[&cgroup].presence, Presence::Live);
    assert_eq!(container_at(&reader, cgroup).id.as_str(), id(16));

    std::thread::sleep(Duration::from_millis(500));
    container.remove().unwrap();
    let last = reader.snapshot();
    assert_eq!(last.cgroups[&cgroup].presence, Presence::Removed);
    let window = &Windows::between(&first, &last).unwrap().cgroups[&cgroup];
    let waited = (window.latency.count(), window.causes.total());
    assert!(waited.0 > 0 && waited.1 == window.latency.sum_ns(), "{:?}", window.causes);
    until("its row's end", LIMIT, || Ok(!reader.snapshot().cgroups.contains_key(&cgroup))).unwrap();
    // A thread that comes late is still counted under it.
    until("its name's end", LIMIT, || {
        reader.snapshot();
        Ok(reader.path(cgroup).is_none())
    })
    .unwrap();
    clear();
}

/// A limit that a runtime has set. Catches throttling that is attributed to something else under a real container.
fn a_limit_is_the_cause_of_its_wait() {
    let mut reader = Reader::start(Start::default()).unwrap();
    let period = Duration::from_millis(100);
    let spec = Spec {
        id: id(17),
        cgroup: Some(format!("kubepods/burstable/pod{}/{}", "0123456789abcdef".repeat(2), id(17)).into()),
        cpu_limit: Some((period / 5, period)),
        command: load_command(&[Work::Spin.on(0)], true),
        ..Spec::default()
    };
    let container = containerd().run(&spec).unwrap();
    let path = container.cgroup().unwrap();
    let cgroup = cgroup_id(&path);
    container.tell().unwrap();
    let earlier = reader.snapshot();
    std::thread::sleep(Duration::from_secs(3));
    let later = reader.snapshot();
    let window = &Windows::between(&earlier, &later).unwrap().cgroups[&cgroup];
    let quota = window.share(Cause::Quota).unwrap();
    println!("     {:.2} % of {:.3} s is quota", quota * 100.0, window.wait_ns() as f64 / 1e9);
    assert!(quota > 0.95, "{:?}", window.causes);
    assert!(window.wait_ns() > 1_000_000_000, "it waits most of the time: {:?}", window.causes);
    let share = window.throttled_share().unwrap();
    assert!(share > 0.8, "{share} of its periods are throttled");
    let limit = std::fs::read_to_string(cgroup::root().unwrap().join(&path).join("cpu.max")).unwrap();
    assert_eq!(limit.trim(), "20000 100000", "the limit is the runtime's");
    drop(container);
    clear();
}
