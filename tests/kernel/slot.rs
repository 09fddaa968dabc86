//! Whose each delay is: cgroups that come and go, too many of them, and those without the cpu controller.

use std::time::Duration;

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::load::{Load, Process, Schedstat, Work, until};
use sampler::kernel::layout::Key;

use crate::counting::{Counted, Counting};
use crate::runq::sum_of_ended;

crate::tests![
    exhausted,
    killed_and_removed_under_load,
    an_id_that_is_used_again,
    units_without_the_cpu_controller,
];

const LIMIT: Duration = Duration::from_secs(30);

/// More cgroups than slots. Catches samples that are lost with the slot, or counted for somebody else: those with a
/// slot are exact, and all others together are in the row of the others, which is exact for the whole machine.
fn exhausted() {
    const SLOTS: usize = 16;
    let counting = Counting::by(Key::Cpu, SLOTS as u32);
    let cgroups: Vec<_> = (0..2 * SLOTS).map(|_| Cgroup::new("one-of-many").unwrap()).collect();
    // They go on living, parked, or they would be switched in once more to die.
    let (mut loads, mut kernel) = (Vec::new(), Vec::new());
    let (counted, machine) = counting.beside_the_machine(|| {
        let duty = Work::Duty { run: Duration::from_millis(1), period: Duration::from_millis(20) };
        loads.extend(cgroups.iter().map(|cgroup| Load::start(Some(cgroup), &[duty.anywhere()]).unwrap()));
        until("ten switch-ins of the last", LIMIT, || {
            Ok(Schedstat::of(loads[loads.len() - 1].pid())?.switch_ins > 10)
        })
        .unwrap();
        kernel.extend(loads.iter().map(|load| load.park().unwrap()));
    });
    machine.must_hold(&counted);
    let mut without = Schedstat::default();
    let mut named = 0;
    for (cgroup, kernel) in cgroups.iter().zip(kernel) {
        if counting.slots_of(cgroup.id()).is_empty() {
            without += kernel;
        } else {
            named += 1;
            counting.of(cgroup.id()).must_be(kernel);
        }
    }
    let exhausted = counting.losses().slots_exhausted;
    println!("     {named} of {} with a slot, {exhausted} counted as without", cgroups.len());
    // One slot is the others', and the root's has one.
    assert!((SLOTS - 4..SLOTS).contains(&named), "{named} have a slot");
    assert!(exhausted as usize >= cgroups.len() - named, "{exhausted} counted as without a slot");
    let other = counting.other();
    assert!(other.count() >= without.switch_ins, "{} in the row of the others, {without:?}", other.count());
    assert!(
        other.total_ns() >= without.wait_ns,
        "{} ns in the row of the others, {without:?}",
        other.total_ns()
    );
}

/// Busy processes are killed and their cgroup is removed at the same moment. Catches the last switch-ins of the
/// dying, which come after the removal, being lost or counted elsewhere.
fn killed_and_removed_under_load() {
    let counting = Counting::start();
    for round in 0..5 {
        let cgroup = Cgroup::new("killed").unwrap();
        let processes: Vec<_> = (0..12)
            .map(|number| {
                Process::spawn(Some(&cgroup), || {
                    loop {
                        if number % 2 == 0 {
                            std::hint::spin_loop();
                        } else {
                            std::thread::sleep(Duration::from_micros(300));
                        }
                    }
                })
                .unwrap()
            })
            .collect();
        until("waits", LIMIT, || Ok(counting.of(cgroup.id()).total_ns() > 20_000_000)).unwrap();
        cgroup.kill().unwrap();
        until("removal", LIMIT, || Ok(cgroup.remove().is_ok())).unwrap();
        let kernel = sum_of_ended(&processes);
        assert!(kernel.wait_ns > 20_000_000, "round {round}: {kernel:?}");
        counting.of(cgroup.id()).must_be(kernel);
    }
}

/// A new cgroup gets the css id of one that is gone. Catches counts that it inherits, and counts of its own that go
/// to the one before.
fn an_id_that_is_used_again() {
    let counting = Counting::start();
    let run = |cgroup: &Cgroup| {
        let load =
            Load::start(Some(cgroup), &[Work::Spin.anywhere(), Work::Spin.anywhere(), Work::Spin.anywhere()]);
        let load = load.unwrap();
        until("waits", LIMIT, || Ok(Schedstat::of_threads(load.pid())?.wait_ns > 20_000_000)).unwrap();
        load.park().unwrap()
    };
    let css_id = |cgroup: &Cgroup| counting.programs().slots.read(counting.slots_of(cgroup.id())[0]).css_id;
    let first = Cgroup::new("first").unwrap();
    let kernel = run(&first);
    let (gone, id) = (first.id(), css_id(&first));
    // The load's process has gone, but the kernel may not have noticed yet.
    until("removal", LIMIT, || Ok(first.remove().is_ok())).unwrap();
    // Its last switch-in, to die, is not in what it parked with.
    let counted = counting.of(gone);
    assert!(counted.count() >= kernel.switch_ins && counted.total_ns() >= kernel.wait_ns);

    // The kernel frees ids some time after the removal, and gives out the lowest.
    let mut again = None;
    until("the same css id", LIMIT, || {
        let cgroup = Cgroup::new("second")?;
        let kernel = run(&cgroup);
        let same = css_id(&cgroup) == id;
        if same {
            again = Some((cgroup, kernel));
        }
        Ok(same)
    })
    .unwrap();
    let (second, kernel) = again.unwrap();
    let now: Counted = counting.of(second.id());
    println!("     css id {id} was used for {gone} and then for {}", second.id());
    // The load has been parked, and has ended since: each thread may have been switched in once more.
    assert!(
        now.count() >= kernel.switch_ins && now.count() <= kernel.switch_ins + 3 * 3,
        "{now:?} {kernel:?}"
    );
    assert!(now.total_ns() - kernel.wait_ns < 200_000_000, "{} ns, {kernel:?}", now.total_ns());
    assert_eq!(counting.of(gone), counted, "the one before counts nothing more");
}

/// Two services of a plain systemd host, where slices have memory and pids but no cpu controller. Catches rows by a
/// controller that both share with everything else in their slice.
fn units_without_the_cpu_controller() {
    let root = Cgroup::existing(cgroup::root().unwrap().join("system.slice"));
    assert!(root.is_err(), "this test makes its own system.slice");
    let slice = Cgroup::at(cgroup::root().unwrap().join("system.slice")).unwrap();
    slice.enable(&["memory", "pids"]).unwrap();
    let units = ["web.service", "db.service"].map(|name| Cgroup::at(slice.path().join(name)).unwrap());
    let loads = [0, 1].map(|unit: usize| {
        let works = [Work::Spin.anywhere(), Work::Spin.anywhere()];
        Load::start(Some(&units[unit]), &works[..=unit]).unwrap()
    });

    let mut reader = sampler::read::Reader::start(sampler::read::Start::default()).unwrap();
    println!("     rows by {:?}", reader.key());
    assert_ne!(reader.key(), Key::Cpu, "no unit has it");
    let before: Vec<_> = loads.iter().map(|load| Schedstat::of_threads(load.pid()).unwrap()).collect();
    std::thread::sleep(Duration::from_secs(1));
    let kernel: Vec<_> = loads.iter().map(|load| load.park().unwrap()).collect();
    let snapshot = reader.snapshot();
    for ((unit, kernel), before) in units.iter().zip(kernel).zip(before) {
        let counted = &snapshot.cgroups.get(&unit.id()).expect("each unit has a row of its own").counters;
        let (count, ns) = (counted.latency.count(), counted.causes.total());
        // The programs were attached shortly before the first look at schedstat.
        let since = kernel - before;
        assert!(
            (since.switch_ins..=kernel.switch_ins).contains(&count),
            "{count}, {kernel:?} since {before:?}"
        );
        assert!((since.wait_ns..=kernel.wait_ns).contains(&ns), "{ns} ns, {kernel:?} since {before:?}");
    }
}
