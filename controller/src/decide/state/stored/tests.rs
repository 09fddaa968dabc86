//! What was stored by this version once is kept in a file: a layout that reads or writes it otherwise needs a version of its own.

use std::path::PathBuf;
use std::{env, fs};

use sampler_common::buckets;
use sampler_common::snapshot::{Cause, Durations};
use sampler_common::throttle;
use sampler_common::window::Window;

use super::*;
use crate::decide::disruption::tests::all_of_a_recreation;
use crate::decide::duration::Seconds;
use crate::decide::guards::refused::{Refusal, Refused};
use crate::decide::history::checkpoint::VERSION;
use crate::decide::observation::Workload;
use crate::decide::policy::Policy;
use crate::decide::scope::WorkloadKind;
use crate::decide::size::{Found, Reasons};
use crate::decide::sizes::Sizes;
use crate::decide::state::ContainerState;
use crate::decide::target::{Signal, Verdict, cpu, memory};
use crate::decide::units::{Bytes, MilliCpu, Timestamp};

const START: Timestamp = Timestamp(1_700_006_400);

/// A container of which all is remembered that can be.
fn container() -> ContainerState {
    let policy = Policy::default();
    let sizes = Sizes {
        cpu_request: Some(MilliCpu(500)),
        cpu_limit: Some(MilliCpu(1000)),
        memory_request: Some(Bytes(256 << 20)),
        memory_limit: Some(Bytes(512 << 20)),
    };
    let mut state = ContainerState::new(sizes, &policy, START);
    let mut now = START;
    // Long enough for the day's profile to begin.
    for minute in 0..240 {
        now = START.plus_seconds(60 * minute);
        state.history.observe(now, 0.25 + (minute % 7) as f64 / 16.0);
        state.memory.observe(now, Bytes((200 + minute) << 20));
    }
    state.memory.killed(now, Bytes(512 << 20), &policy.history);
    state.changes.add(now);
    state.changed = vec![now];
    let refusal = |allocatable| Refusal {
        asked: (Some(900), Some(1800)),
        instead: (Some(500), Some(1000)),
        allocatable,
        others: Some(1500),
        at: now,
        times: 2,
    };
    state.refused = Some(Box::new(Refused { cpu: Some(refusal(8000)), memory: Some(refusal(1 << 34)) }));
    let reasons = Reasons { cpu: cpu::Reason::UsesMore, memory: Some(memory::Reason::PeaksHigher) };
    let policy_then = policy.fingerprint();
    state.found = Some(Found { sizes, reasons, policy: policy_then, at: now, seasonal_skill: Some(120) });
    (state.last_change, state.read_until, state.known_since) = (Some(now), Some(now), Some(START));
    (state.planned, state.boosted_from) = (Some(sizes), Some(Box::new(sizes)));
    state.signal = Signal::of(&window(), 8, &policy.objectives).map(|mut signal| {
        state.calm.tell(&mut signal, &policy.objectives, now);
        state.calm.after(Verdict::Room, now);
        signal.unpressed = Some(Seconds(60));
        signal
    });
    state
}

/// In which it waited and was throttled.
fn window() -> Window {
    let mut window = Window { length_ns: 15_000_000_000, usage_ns: 6_000_000_000, ..Window::default() };
    let wait_ns = 20_000_000;
    (0..100).for_each(|_| window.latency.record(wait_ns));
    window.coarse[Cause::Neighbor as usize].counts[buckets::octave(buckets::bucket(wait_ns)) as usize] = 100;
    window.causes.neighbor_ns = 100 * wait_ns;
    (window.throttling.periods, window.throttling.throttled_periods) = (150, 15);
    let mut durations = [0; throttle::DURATIONS];
    durations[throttle::duration_bucket(60_000_000) as usize] = 15;
    (window.throttling.throttled_ns, window.throttling.durations) =
        (900_000_000, Durations::Counted(durations));
    window
}

/// All that is remembered, at least once each.
fn populated() -> State {
    let owner = |name: &str| Owner {
        namespace: "shop".into(),
        workload: Workload { kind: WorkloadKind::Deployment, name: name.into() },
    };
    let role = |name: &str| Role { owner: owner(name), container: "app".into() };
    let container = container();
    let mut state = State::default();
    state.gone.retire(role("gone"), &container.history, &container.memory, START);
    state.apart.insert(role("web"));
    state.recreated.insert(owner("web"), all_of_a_recreation(START));
    let mut pod = PodState::from_iter([("app".to_owned(), container)]);
    pod.owner = Some(owner("web"));
    state.pods.insert(PodUid("uid-web-1".into()), pod);
    state
}

/// `UPDATE_EXPECT=1` writes it where there is none yet: with a new version, and never over another one.
fn of_this_version() -> String {
    let name = format!("src/decide/state/stored/checkpoint-{VERSION}.txt");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(&name);
    if !path.exists() && env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, populated().stored().unwrap()).unwrap();
    }
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}; UPDATE_EXPECT=1 writes it"))
}

#[test]
fn what_this_version_has_stored_it_reads_and_stores_as_it_was() {
    let stored = of_this_version();
    let (state, lost) = State::restored(stored.as_bytes()).unwrap();
    assert!(
        lost.is_empty(),
        "the layout has changed: raise VERSION, and delete what the old one stored: {lost:?}"
    );
    let again = state.stored().unwrap();
    assert!(
        again == stored,
        "the layout has changed: raise VERSION, and delete what the old one stored\n{again}"
    );
}

#[test]
fn nothing_is_missing_of_what_can_be_stored() {
    let stored = of_this_version();
    assert!(!stored.contains("null"), "{stored}");
    for entry in ["Pod", "Gone", "Apart", "Recreated"] {
        assert!(stored.contains(&format!("{{\"{entry}\":")), "{entry}");
    }
}
