//! Throttles: as long as the kernel says, and told from every other cause of a wait.

use std::time::Duration;

use loadline_tests::cgroup::Cgroup;
use loadline_tests::load::{self, Load, Schedstat, Work, until};
use nix::unistd::Pid;
use sampler::kernel::layout::Key;
use sampler::kernel::load::ThrottleHooks;
use sampler::read::{Reader, Start};
use sampler_common::abi::Cause;
use sampler_common::snapshot::Cause as SnapshotCause;
use sampler_common::window::Windows;

use crate::counting::Counting;
use crate::fentry;

crate::tests![
    durations_against_cpu_stat,
    quota_where_throttled_and_only_there,
    quota_by_an_ancestors_limit,
    attached_while_throttled,
    two_groups_with_one_entry,
    no_room_for_a_hook_where_throttles_begin within 120 s,
    no_room_for_a_hook_where_throttles_end within 120 s,
];

const LIMIT: Duration = Duration::from_secs(40);
const PERIOD: Duration = Duration::from_millis(100);

/// A limited cgroup with two threads on each CPU is throttled on both, and again and again. Catches durations
/// from a clock that has not been updated (12 to 99 % of the truth, by kernel), and on 7.2 from calls that only
/// ask for run time (148 %).
fn durations_against_cpu_stat() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("throttled").unwrap();
    cgroup.limit_cpu(PERIOD * 6 / 10, PERIOD).unwrap();
    let load =
        Load::start(Some(&cgroup), &[Work::Spin.on(0), Work::Spin.on(1), Work::Spin.on(0), Work::Spin.on(1)])
            .unwrap();
    until("thirty throttled periods", LIMIT, || Ok(cgroup.cpu_stat()?.throttled_periods >= 30)).unwrap();
    load.park().unwrap();
    // What has been throttled to the end is let go by the next period.
    let stat = cgroup.settled(PERIOD, LIMIT).unwrap();
    let entries = &counting.programs().throttles;
    let ours =
        (0..entries.len()).map(|index| entries.read(index)).filter(|entry| entry.cgroup_id == cgroup.id().0);
    let (ns, count) = ours.fold((0, 0), |(ns, count), entry| {
        (ns + entry.throttled_ns, count + entry.durations.iter().map(|count| u64::from(*count)).sum::<u64>())
    });
    let kernel = stat.throttled.as_nanos() as f64;
    let off = (ns as f64 - kernel).abs() / kernel;
    println!(
        "     {count} throttles of {:.3} s in {} of {} periods; off by {:.4} % of cpu.stat",
        kernel / 1e9,
        stat.throttled_periods,
        stat.periods,
        off * 100.0
    );
    assert!(off <= 0.01, "counted {ns} ns, cpu.stat has {kernel}");
    // In a period each of the two run queues can be throttled; a few are more than once (slack given back).
    assert!(count >= stat.throttled_periods, "{count} throttles in {} periods", stat.throttled_periods);
    assert!(count <= 4 * stat.throttled_periods, "{count} throttles in {} periods", stat.throttled_periods);
    assert_eq!(counting.losses().throttle_collisions, 0);
}

/// Two containers with one thread each on a CPU of their own, one limited. Catches throttled time under another
/// cause, and other waits under `quota`.
fn quota_where_throttled_and_only_there() {
    let counting = Counting::start();
    // The test, which looks often, shall not be in the way.
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let [limited, free] = ["limited", "free"].map(|name| Cgroup::new(name).unwrap());
    limited.limit_cpu(PERIOD * 3 / 10, PERIOD).unwrap();
    let load = Load::start(Some(&limited), &[Work::Spin.on(0)]).unwrap();
    let duty = Work::Duty { run: Duration::from_millis(5), period: Duration::from_millis(10) };
    let other = Load::start(Some(&free), &[duty.on(1)]).unwrap();
    until("fifteen throttled periods", LIMIT, || Ok(limited.cpu_stat()?.throttled_periods >= 15)).unwrap();
    let (kernel, kernel_free) = (load.park().unwrap(), other.park().unwrap());
    counting.of(limited.id()).must_be(kernel);
    counting.of(free.id()).must_be(kernel_free);
    must_be_throttled_time(&counting, &limited, &limited);
    assert_eq!(counting.of(free.id()).of(Cause::Quota), 0, "never limited");
}

/// A thread alone on its CPU waits for the quota for as long as its group is throttled there. How long it waits for
/// others besides depends on what else the machine does. The last throttle may find it parked, and from 6.18 on one
/// that begins while the thread is on its way out of the kernel may have no time in `cpu.stat`.
#[track_caller]
fn must_be_throttled_time(counting: &Counting, cgroup: &Cgroup, limited: &Cgroup) {
    let throttled = limited.settled(PERIOD, LIMIT).unwrap().throttled;
    let quota = Duration::from_nanos(counting.of(cgroup.id()).of(Cause::Quota));
    println!("     waited {quota:?} for the quota; cpu.stat says throttled {throttled:?}");
    assert!(throttled > 10 * PERIOD * 6 / 10, "it was throttled: {throttled:?}");
    assert!(quota + PERIOD > throttled, "{quota:?} of {throttled:?}");
    assert!(quota < throttled + PERIOD, "{quota:?} of {throttled:?}");
    let counted = counting.of(cgroup.id());
    let (long, its) = (counted.as_long_as(LONG_NS), counted.as_long_as_by(Cause::Quota, LONG_NS));
    println!("     {its} of {long} long delays are for the quota");
    assert!(its >= 10, "{its} of {long} long delays are for the quota");
}

/// A throttle of these tests lasts up to 70 ms.
const LONG_NS: u64 = 32_000_000;

/// A pod's limit stops its container, which has none of its own. Catches a `quota` that looks at the thread's own
/// group only.
fn quota_by_an_ancestors_limit() {
    let counting = Counting::start();
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let pod = Cgroup::new("pod").unwrap();
    let container = pod.child("container").unwrap();
    let inner = container.child("inner").unwrap();
    pod.limit_cpu(PERIOD * 3 / 10, PERIOD).unwrap();
    let load = Load::start(Some(&inner), &[Work::Spin.on(0)]).unwrap();
    until("fifteen throttled periods", LIMIT, || Ok(pod.cpu_stat()?.throttled_periods >= 15)).unwrap();
    let kernel = load.park().unwrap();
    counting.of(inner.id()).must_be(kernel);
    must_be_throttled_time(&counting, &inner, &pod);
}

/// Counting begins while a thread is held up. Catches a wait that began before and that is therefore not for the quota. (A throttle
/// that began before its hooks came is for the unit test of [`Throttle::release`](sampler_common::throttle::Throttle::release): up
/// to 6.12 attaching them can wait for the threads that are held up.)
fn attached_while_throttled() {
    let cgroup = Cgroup::new("early").unwrap();
    cgroup.limit_cpu(Duration::from_millis(20), Duration::from_secs(1)).unwrap();
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let load = Load::start(Some(&cgroup), &[Work::Spin.on(0)]).unwrap();
    // A throttle is over after a second at most, and a busy host may be slower than that to attach: then once more.
    for _ in 0..8 {
        // Loading takes longer than a throttle, attaching does not: the hooks of throttling come with the former.
        let mut counting = Counting::loaded(Key::Cpu, 1024);
        crate::hold::queued(load.pid(), Duration::from_millis(100));
        let before = Schedstat::of(load.pid()).unwrap();
        counting.begin();
        if Schedstat::of(load.pid()).unwrap() != before {
            println!("     attaching took longer than a throttle");
            continue;
        }
        until("the end of that", LIMIT, || Ok(Schedstat::of(load.pid())?.switch_ins > before.switch_ins))
            .unwrap();
        let counted = counting.of(cgroup.id());
        assert!(
            counted.total_ns() > 100_000_000 && counted.share(Cause::Quota) > 0.9,
            "{:?}",
            counted.wait_ns
        );
        return;
    }
    panic!("attaching always took longer than a throttle");
}

/// Two groups whose css ids fall on one entry are throttled all the time on one CPU, so that one finds no room. Catches its
/// waits under the cause of whoever held the CPU meanwhile: nobody, mostly.
fn two_groups_with_one_entry() {
    const SLOTS: usize = 64;
    let counting = Counting::by(Key::Cpu, SLOTS as u32);
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    // A new group gets the lowest css id that is free: these fill the gaps, and what is between the two.
    let _gaps: Vec<_> = (0..SLOTS).map(|_| Cgroup::new("gap").unwrap()).collect();
    let groups: Vec<_> = (0..=SLOTS).map(|_| Cgroup::new("limited").unwrap()).collect();
    let both = [&groups[0], &groups[SLOTS]];
    let loads = both.map(|cgroup| {
        cgroup.limit_cpu(PERIOD / 5, PERIOD).unwrap();
        Load::start(Some(cgroup), &[Work::Spin.on(0)]).unwrap()
    });
    for cgroup in both {
        until("fifteen throttled periods", LIMIT, || Ok(cgroup.cpu_stat()?.throttled_periods >= 15)).unwrap();
    }
    let kernel = loads.each_ref().map(|load| load.park().unwrap());
    let css_id = |cgroup: &Cgroup| counting.programs().slots.read(counting.slots_of(cgroup.id())[0]).css_id;
    let ids = both.map(css_id);
    assert_eq!((ids[1] - ids[0]) as usize % SLOTS, 0, "they have one entry: css ids {ids:?}");
    println!("     css ids {ids:?}, {} collisions", counting.losses().throttle_collisions);
    assert!(counting.losses().throttle_collisions > 10);
    let [quota, perhaps] =
        [Cause::Quota, Cause::Beyond].map(|cause| both.map(|cgroup| counting.of(cgroup.id()).share(cause)));
    println!("     for the quota {quota:.3?}, perhaps {perhaps:.3?} of all wait");
    for (cgroup, kernel) in both.into_iter().zip(kernel) {
        let counted = counting.of(cgroup.id());
        counted.must_be(kernel);
        assert!(
            counted.share(Cause::Idle) < 0.05,
            "while it was throttled nobody had the CPU: {:?}",
            counted.wait_ns
        );
    }
    assert!(
        perhaps.iter().any(|share| *share > 0.5),
        "one has no entry, and what it waited for is not known"
    );
}

fn no_room_for_a_hook_where_throttles_begin() {
    without_room_at("tg_throttle_down");
}

fn no_room_for_a_hook_where_throttles_end() {
    without_room_at("unthrottle_cfs_rq");
}

/// Somebody else has taken all the places at a function of ours, while a group is being throttled. Catches throttled waits
/// that then go under some other cause, half of the hooks, a group that stays held up because only half of its throttle was
/// seen, and a sampler that does not say why.
fn without_room_at(function: &str) {
    let caught = Cgroup::new("caught").unwrap();
    caught.limit_cpu(PERIOD / 10, PERIOD).unwrap();
    let caught_load = Load::start(Some(&caught), &[Work::Spin.on(1), Work::Spin.on(1)]).unwrap();
    until("a throttled period", LIMIT, || Ok(caught.cpu_stat()?.throttled_periods >= 2)).unwrap();

    let _others = fentry::occupy(function);
    let mut reader = Reader::start(Start::default()).unwrap();
    let ThrottleHooks::Unavailable(error) = &reader.programs().throttle_hooks else {
        panic!("all places at {function} are taken, and ours was attached all the same")
    };
    let text = format!("{error}");
    println!("     {text}");
    assert!(text.contains(function), "it says which: {text}");
    let loaded: Vec<_> = reader.programs().runs().into_iter().map(|run| run.program).collect();
    assert!(loaded.iter().any(|name| name == "sched_switch"), "{loaded:?}");
    assert!(!loaded.iter().any(|name| name.contains("throttle")), "none of the others is left: {loaded:?}");

    caught.unlimit_cpu().unwrap();
    caught.settled(PERIOD, LIMIT).unwrap();
    let earlier = reader.snapshot();
    std::thread::sleep(Duration::from_secs(1));
    let causes = Windows::between(&earlier, &reader.snapshot()).unwrap().cgroups[&caught.id()].causes;
    assert!(causes.of(SnapshotCause::Own) > 100_000_000, "two on one CPU wait for each other: {causes:?}");
    assert_eq!(causes.of(SnapshotCause::Quota), 0, "it has no limit any more: {causes:?}");
    drop((caught_load, caught));

    let [limited, free] = ["limited", "free"].map(|name| Cgroup::new(name).unwrap());
    limited.limit_cpu(PERIOD * 3 / 10, PERIOD).unwrap();
    let load = Load::start(Some(&limited), &[Work::Spin.on(0)]).unwrap();
    let other = Load::start(Some(&free), &[Work::Spin.on(1), Work::Spin.on(1)]).unwrap();
    until("a throttled period", LIMIT, || Ok(limited.cpu_stat()?.throttled_periods >= 2)).unwrap();
    let earlier = reader.snapshot();
    until("ten throttled periods", LIMIT, || Ok(limited.cpu_stat()?.throttled_periods >= 12)).unwrap();
    let windows = Windows::between(&earlier, &reader.snapshot()).unwrap();
    assert!(!windows.throttle_hooks);
    let causes = windows.cgroups[&limited.id()].causes;
    assert!(causes.total() > 300_000_000, "it had to wait: {causes:?}");
    assert_eq!(
        causes.of(SnapshotCause::Unknown),
        causes.total(),
        "a throttled window is unknown and nothing else: {causes:?}"
    );
    let causes = windows.cgroups[&free.id()].causes;
    assert!(
        causes.share(SnapshotCause::Own).unwrap_or(0.0) > 0.5,
        "one that is not throttled is told: {causes:?}"
    );
    drop((load, other));
}
