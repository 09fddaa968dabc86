//! Every delay is counted once, as long as it was, whatever happens to the thread while it is queued.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use loadline_tests::cgroup::Cgroup;
use loadline_tests::load::{self, Load, Process, Schedstat, Work, until};
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sampler::kernel::btf::Btf;
use sampler::kernel::layout;
use sampler::kernel::layout::Key;
use sampler_common::abi::Cause;
use sampler_common::buckets::{BUCKETS, bucket};

use crate::counting::{Counting, filled, sums_ns};
use crate::hold::{Hold, queued, real_time};

crate::tests![
    preemption_requeue,
    migration_while_queued,
    killed_while_queued,
    moved_to_another_cgroup_while_queued,
    queued_before_the_programs_were_attached,
    pid_reuse within 120 s,
    two_pids_on_one_baseline_entry,
    fork,
    idle_task,
    clocks_of_two_cpus_do_not_mix,
    a_clock_that_is_behind_counts_as_no_wait,
    sum_against_schedstat,
    each_delay_in_its_bucket,
    threads_100_000 within 600 s,
    histogram_against_runqlat within 120 s,
];

const LIMIT: Duration = Duration::from_secs(30);
/// How long the tests keep a thread queued: it must be seen in the sums, whatever else is there.
const QUEUED: Duration = Duration::from_millis(40);
const QUEUED_NS: u64 = QUEUED.as_nanos() as u64;

/// Two threads that never sleep share a CPU, so each wait begins with a preemption. Catches a stamp that is
/// set at wakeups only: it would see no wait at all, or one since the last wakeup.
fn preemption_requeue() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("preempted").unwrap();
    let other = Cgroup::new("other").unwrap();
    let other = Load::start(Some(&other), &[Work::Spin.on(0)]).map(|load| (load, other)).unwrap();
    let load = Load::start(Some(&cgroup), &[Work::Spin.on(0)]).unwrap();
    until("twenty preemptions", LIMIT, || Ok(Schedstat::of(load.pid())?.switch_ins > 20)).unwrap();
    let kernel = load.park().unwrap();
    counting.of(cgroup.id()).must_be(kernel);
    drop(other);
}

/// The kernel moves what was waited so far into `run_delay` and stamps anew. Catches a delay that begins at the
/// migration, in the sum, in the bucket or in its largest cause: it would be short by [`QUEUED`].
fn migration_while_queued() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("migrated").unwrap();
    let load = Load::start(Some(&cgroup), &[Work::Spin.on(0)]).unwrap();
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    for _ in 0..5 {
        let hold = Hold::cpu(0);
        queued(load.pid(), QUEUED);
        let before = counting.of(cgroup.id());
        load::pin(load.pid(), &[1]).unwrap();
        until(
            "a switch-in on the other CPU",
            LIMIT,
            || Ok(counting.of(cgroup.id()).count() > before.count()),
        )
        .unwrap();
        hold.release();
        let waited = counting.of(cgroup.id()) - before;
        let held = waited.of(Cause::Neighbor);
        assert!(held >= QUEUED_NS, "who held the CPU that it left is known: {:?}", waited.wait_ns);
        assert_eq!(waited.of(Cause::Away), 0);
        assert!(
            waited.as_long_as(QUEUED_NS) >= 1,
            "a delay as long as both parts of the wait together: {:?}",
            filled(&waited.latency)
        );
        assert!(
            waited.as_long_as_by(Cause::Neighbor, QUEUED_NS) >= 1,
            "whose largest cause is that of the first part: {:?}",
            waited.coarse
        );
        load::pin(load.pid(), &[0]).unwrap();
    }
    let kernel = load.park().unwrap();
    counting.of(cgroup.id()).must_be(kernel);
}

/// A killed thread is switched in once more, to die. Catches a wait that is dropped with the thread.
fn killed_while_queued() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("killed").unwrap();
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let mut kernel = Schedstat::default();
    for _ in 0..5 {
        let load = Load::start(Some(&cgroup), &[Work::Spin.on(0)]).unwrap();
        let hold = Hold::cpu(0);
        queued(load.pid(), QUEUED);
        let before = Schedstat::of(load.pid()).unwrap();
        load.process().signal(Signal::SIGKILL).unwrap();
        hold.release();
        load.process().ended().unwrap();
        let after = Schedstat::of(load.pid()).unwrap();
        assert!(after.wait_ns - before.wait_ns >= QUEUED_NS, "it was queued when it was killed");
        kernel += after;
    }
    let counted = counting.of(cgroup.id());
    counted.must_be(kernel);
    assert!(counted.as_long_as(QUEUED_NS) >= 5, "each has a delay as long: {:?}", filled(&counted.latency));
}

/// A cgroup whose children have no cpuset: up to Linux 6.1 a thread that comes into another cpuset may run on all of its
/// CPUs from then on, wherever it was pinned.
fn without_cpuset() -> Cgroup {
    let parent = Cgroup::new("without-cpuset").unwrap();
    parent.enable(&["cpu", "memory", "pids"]).unwrap();
    parent
}

/// The whole wait goes to the cgroup in which the thread is when it is switched in. Catches a wait that is lost
/// in the move, counted twice, or counted for the cgroup at the wakeup.
fn moved_to_another_cgroup_while_queued() {
    let counting = Counting::start();
    let parent = without_cpuset();
    let [from, to] = ["from", "to"].map(|name| Cgroup::at(parent.path().join(name)).unwrap());
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let load = Load::start(Some(&from), &[Work::Spin.on(0)]).unwrap();
    let (left, came) = in_one_hold("moving it", || {
        from.take(load.pid()).unwrap();
        let hold = Hold::cpu(0);
        queued(load.pid(), QUEUED);
        let counted = [&from, &to].map(|cgroup| counting.of(cgroup.id()));
        let before = Schedstat::of(load.pid()).unwrap();
        to.take(load.pid()).unwrap();
        let is_queued = Schedstat::of(load.pid()).unwrap() == before;
        hold.release();
        is_queued.then_some(counted.into())
    });
    let kernel = load.park().unwrap();
    assert_eq!(counting.of(from.id()), left, "nothing more for the cgroup that it left");
    let moved = counting.of(to.id()) - came;
    assert!(moved.total_ns() >= QUEUED_NS, "the wait went along: {:?}", moved.wait_ns);
    assert!(moved.as_long_as(QUEUED_NS) >= 1, "as one delay: {:?}", filled(&moved.latency));
    left.add(&counting.of(to.id())).must_be(kernel);
}

/// What came of a deed that has to be done while a thread is queued. The kernel lets nobody starve for more than about half a
/// second, and a busy host may be slower than that: then once more.
fn in_one_hold<T>(what: &str, mut deed: impl FnMut() -> Option<T>) -> T {
    for _ in 0..8 {
        if let Some(result) = deed() {
            return result;
        }
        println!("     {what} took longer than a CPU can be held");
    }
    panic!("{what} always took longer than a CPU can be held");
}

/// A wait that began before the programs were there is counted whole. Catches stamps of our own.
fn queued_before_the_programs_were_attached() {
    let cgroup = Cgroup::new("early").unwrap();
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let load = Load::start(Some(&cgroup), &[Work::Spin.on(0)]).unwrap();
    let (counting, before) = in_one_hold("attaching", || {
        let mut counting = Counting::loaded(Key::Cpu, 1024);
        let hold = Hold::cpu(0);
        queued(load.pid(), QUEUED);
        let before = Schedstat::of(load.pid()).unwrap();
        counting.begin();
        let is_queued = Schedstat::of(load.pid()).unwrap() == before;
        hold.release();
        is_queued.then_some((counting, before))
    });
    let kernel = load.park().unwrap() - before;
    assert!(kernel.wait_ns >= QUEUED_NS);
    counting.of(cgroup.id()).must_be(kernel);
}

/// Pids above those that the kernel gives out by itself here, so that they are free.
fn many_pids() {
    std::fs::write("/proc/sys/kernel/pid_max", "4194304").unwrap();
}

/// A process that gives birth on CPU 0, on order, and keeps the CPU from then on, so that the child's first wait begins
/// before it has ever run.
struct Mother {
    _process: Process,
    orders: std::io::PipeWriter,
    births: std::io::PipeReader,
}

impl Mother {
    /// In a cgroup `home`, whose cpuset must be the children's.
    fn new(home: &Cgroup, pid: Pid, into: &Cgroup) -> Self {
        let (mut ordered, orders) = std::io::pipe().unwrap();
        let (births, mut born) = std::io::pipe().unwrap();
        let process = Process::spawn(Some(home), || {
            load::pin(Pid::from_raw(0), &[0]).unwrap();
            real_time(1);
            // One byte orders a birth, the next one ends the hold of the CPU.
            while ordered.read_exact(&mut [0]).is_ok() {
                // SAFETY: this process has one thread.
                if unsafe { load::sibling(Some(into), Some(pid)) }.unwrap().is_none() {
                    // Long enough for the test to move it, asleep, to where it shall end.
                    std::thread::sleep(Duration::from_millis(100));
                    return 0;
                }
                born.write_all(&[1]).unwrap();
                let mut poll = libc::pollfd { fd: ordered.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one pollfd.
                while unsafe { libc::poll(&raw mut poll, 1, 0) } == 0 {}
                ordered.read_exact(&mut [0]).unwrap();
            }
            0
        })
        .unwrap();
        Self { _process: process, orders, births }
    }

    fn order(&mut self) {
        self.orders.write_all(&[1]).unwrap();
    }
}

/// Processes with the same pid, one after the other, some of them at the same address: each waits longer than the one
/// before and is migrated before its first switch-in. Catches a baseline that is taken for another thread's: what the
/// one before waited would be missing.
fn pid_reuse() {
    many_pids();
    let counting = Counting::start();
    let parent = without_cpuset();
    let [home, cgroup] = ["home", "reused"].map(|name| Cgroup::at(parent.path().join(name)).unwrap());
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let pid = Pid::from_raw(100_000);
    let baselines = counting.programs().baselines().unwrap();
    let baseline = || baselines.read(pid.as_raw() as usize % (1 << 16)).task;
    let mut mother = Mother::new(&home, pid, &cgroup);
    let mut kernel = Schedstat::default();
    let (mut same, mut rounds) = (0, 0);
    let begun = Instant::now();
    while rounds < 6 || (same == 0 && begun.elapsed() < Duration::from_secs(60)) {
        rounds += 1;
        let address = baseline();
        mother.order();
        mother.births.read_exact(&mut [0]).unwrap();
        let child = Process::adopt(pid);
        let queued = QUEUED / 2 + Duration::from_millis(10) * rounds;
        std::thread::sleep(queued);
        load::pin(pid, &[1]).unwrap();
        until("its first switch-in", LIMIT, || Ok(Schedstat::of(pid)?.switch_ins > 0)).unwrap();
        mother.order();
        // It ends, and is reaped, where it was born: that CPU's next birth is then likely to get its memory.
        load::pin(pid, &[0]).unwrap();
        load::pin(Pid::from_raw(0), &[0]).unwrap();
        child.ended().unwrap();
        let its = Schedstat::of(pid).unwrap();
        assert!(its.wait_ns >= queued.as_nanos() as u64, "it was queued from its birth: {its:?}");
        kernel += its;
        child.wait().unwrap();
        same += u32::from(baseline() == address);
        // The kernel frees it after a grace period.
        std::thread::sleep(Duration::from_millis(60));
        load::pin(Pid::from_raw(0), &[1]).unwrap();
    }
    println!("     {same} of {rounds} had the address of the one before");
    let counted = counting.of(cgroup.id());
    counted.must_be(kernel);
    let each = u64::from(rounds);
    assert!(
        counted.as_long_as(QUEUED_NS / 2) >= each,
        "each has a long delay: {:?}",
        filled(&counted.latency)
    );
    assert!(
        same > 0,
        "in {rounds} rounds the kernel never reused pid and address together: nothing was tested"
    );
}

/// Two threads whose pids differ by 65536 take the one entry from each other at each switch. Catches waits that
/// are counted from the other's baseline. As long as nobody is migrated nothing is lost.
fn two_pids_on_one_baseline_entry() {
    many_pids();
    let counting = Counting::start();
    let parent = without_cpuset();
    let cgroup = Cgroup::at(parent.path().join("collide")).unwrap();
    load::pin(Pid::from_raw(0), &[1]).unwrap();
    let loads = [100_001, 100_001 + 65_536]
        .map(|pid| Load::start_as(Pid::from_raw(pid), Some(&cgroup), &[Work::Spin.on(0)]).unwrap());
    let sum = |of: &dyn Fn(&Load) -> Schedstat| {
        loads.iter().fold(Schedstat::default(), |mut sum, load| {
            sum += of(load);
            sum
        })
    };
    // From here on: each was moved to its CPU when it began, perhaps while it was queued and the entry was the other's.
    loads.iter().for_each(|load| load.process().stop().unwrap());
    let before = (counting.of(cgroup.id()), sum(&|load| Schedstat::of(load.pid()).unwrap()));
    let collisions = counting.losses().no_baseline;
    loads.iter().for_each(|load| load.process().go_on().unwrap());
    until("twenty switches between the two", LIMIT, || Ok(counting.losses().no_baseline > collisions + 20))
        .unwrap();
    let kernel = sum(&|load| load.park().unwrap()) - before.1;
    assert!(kernel.switch_ins > 20 && kernel.wait_ns > 0, "they waited for each other: {kernel:?}");
    (counting.of(cgroup.id()) - before.0).must_be(kernel);
    assert_eq!(counting.losses().stale_baseline, 0);
}

/// New processes that have to wait for their first turn. Catches a first wait that is not counted because there
/// was no wakeup before it, and one that is counted from the parent's stamp.
fn fork() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("forked").unwrap();
    let hogs = Load::start(None, &[Work::Spin.on(0), Work::Spin.on(1)]).unwrap();
    let children: Vec<_> = (0..40)
        .map(|_| {
            Process::spawn(Some(&cgroup), || {
                let from = load::cpu_time().unwrap();
                while load::cpu_time().unwrap() - from < Duration::from_millis(1) {}
                0
            })
            .unwrap()
        })
        .collect();
    let kernel = sum_of_ended(&children);
    assert!(kernel.switch_ins >= 40 && kernel.wait_ns > 0);
    counting.of(cgroup.id()).must_be(kernel);
    drop(hogs);
}

/// What the kernel says of processes that have ended and are not reaped.
pub fn sum_of_ended(processes: &[Process]) -> Schedstat {
    processes.iter().for_each(|process| process.ended().unwrap());
    processes.iter().fold(Schedstat::default(), |mut sum, process| {
        sum += Schedstat::of(process.pid()).unwrap();
        sum
    })
}

/// A machine that mostly sleeps. Catches rows for idle tasks: switch-ins that the kernel does not count as such,
/// with delays since boot.
fn idle_task() {
    let counting = Counting::start();
    let (counted, kernel) = counting.beside_the_machine(|| std::thread::sleep(Duration::from_secs(1)));
    kernel.must_hold(&counted);
    assert_eq!(counted.latency[BUCKETS - 1], 0, "no delay of more than 8 s");
    let switches: u64 = (0..2).map(|cpu| counting.programs().cpus.read(cpu).switches).sum();
    assert!(
        switches > counting.all().count(),
        "the programs see switches to idle ({switches} in all) and count none"
    );
}

/// Threads that are moved between the CPUs all the time, most of them while queued. Catches a stamp of one CPU's
/// clock that is subtracted from another's: delays below zero, or longer than the test.
fn clocks_of_two_cpus_do_not_mix() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("roaming").unwrap();
    let begun = Instant::now();
    let roam = Work::Roam { every: Duration::from_millis(2), cpus: 2 };
    let duty = Work::Duty { run: Duration::from_millis(1), period: Duration::from_millis(5) };
    let mut works = vec![roam.anywhere(); 4];
    works.extend([duty.on(0), duty.on(1)]);
    let load = Load::start(Some(&cgroup), &works).unwrap();
    until("many delays", LIMIT, || {
        Ok(counting.of(cgroup.id()).count() > 500 && begun.elapsed() > Duration::from_secs(2))
    })
    .unwrap();
    let kernel = load.park().unwrap();
    let longest = begun.elapsed().as_nanos() as u64;
    let counted = counting.of(cgroup.id());
    counted.must_be(kernel);
    assert_eq!(counting.losses().clock_backwards, 0);
    let above = (bucket(longest) as usize + 1).min(BUCKETS);
    assert_eq!(
        counted.latency[above..].iter().sum::<u64>(),
        0,
        "no delay is longer than the test, {longest} ns"
    );
}

/// The guard behind that: with a clock that is behind the stamp (here a counter in its place), a delay is 0 and
/// counted as such. Catches a difference that wraps to half an eternity.
fn a_clock_that_is_behind_counts_as_no_wait() {
    let btf = Btf::of_running_kernel().unwrap();
    let mut kernel = layout::of(&btf, Key::Cpu, 0, 1024).unwrap();
    kernel.rq_clock = btf.offset("rq", "nr_switches", "").unwrap();
    let mut counting = Counting::loaded_with(kernel);
    counting.begin();
    let cgroup = Cgroup::new("behind").unwrap();
    let load = Load::start(Some(&cgroup), &[Work::Spin.on(0), Work::Spin.on(0)]).unwrap();
    until("twenty switches", LIMIT, || Ok(counting.losses().clock_backwards > 20)).unwrap();
    let kernel = load.park().unwrap();
    let counted = counting.of(cgroup.id());
    assert_eq!(counted.count(), kernel.switch_ins, "counted all the same");
    assert!(
        counted.total_ns() <= kernel.wait_ns,
        "as no wait, but for what was waited before a migration: {:?}",
        counted.wait_ns
    );
}

/// Threads of all kinds on both CPUs. Catches whatever is not exact and not thought of above.
fn sum_against_schedstat() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("mixed").unwrap();
    let millis = Duration::from_millis;
    let (ring, _pipes) = load::ring(3).unwrap();
    let mut works: Vec<_> = ring.into_iter().map(Work::anywhere).collect();
    works.extend([Work::Spin.anywhere(), Work::Yield.anywhere(), Work::Sleep.anywhere()]);
    works.push(Work::Duty { run: millis(3), period: millis(10) }.anywhere());
    works.push(Work::Duty { run: millis(7), period: millis(13) }.on(1));
    works.push(Work::Roam { every: millis(5), cpus: 2 }.anywhere());
    let load = Load::start(Some(&cgroup), &works).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let kernel = load.park().unwrap();
    let counted = counting.of(cgroup.id());
    let off = counted.total_ns().abs_diff(kernel.wait_ns) as f64 / kernel.wait_ns as f64;
    println!(
        "     {} delays of {:.3} s in all; off by {:.4} % of schedstat's run delay",
        counted.count(),
        kernel.wait_ns as f64 / 1e9,
        off * 100.0
    );
    assert!(kernel.wait_ns > 1_000_000_000, "they had to wait");
    assert_eq!(counted.count(), kernel.switch_ins);
    assert!(off <= 0.001, "off by {} %", off * 100.0);
    counted.must_hold_together();
}

/// Threads that ask for their own schedstat all the time: between two answers that are one switch-in apart the run
/// delay has grown by exactly that delay. Catches whatever puts a delay of a known length into another bucket than the
/// one whose edges, here computed from their definition, are around it.
fn each_delay_in_its_bucket() {
    let counting = Counting::start();
    let [cgroup, rivals] = ["asking", "rivals"].map(|name| Cgroup::new(name).unwrap());
    let micros = Duration::from_micros;
    let duty = |run, period| Work::Duty { run: micros(run), period: micros(period) };
    let others = [
        Work::Spin.on(0),
        duty(3_000, 11_000).on(0),
        duty(200, 1_700).on(1),
        duty(900, 5_300).on(1),
        duty(5_000, 41_000).on(1),
    ];
    let rivals = Load::start(Some(&rivals), &others).map(|load| (load, rivals)).unwrap();
    let askers = [
        Asker::start(&cgroup, &[0], None),
        Asker::start(&cgroup, &[1], Some(micros(300))),
        Asker::start(&cgroup, &[0, 1], None),
    ];
    let mut kernel = Schedstat::default();
    let mut delays = Vec::new();
    for asker in askers {
        let (its, sum) = asker.finish();
        delays.extend(its);
        kernel += sum;
    }
    drop(rivals);
    let counted = counting.of(cgroup.id());
    counted.must_be(kernel);

    let mut left = counted.latency;
    let (mut exact, mut together) = (0, Schedstat::default());
    for delay in delays {
        if delay.switch_ins != 1 {
            together += delay;
            continue;
        }
        exact += 1;
        let bucket = bucket_by_definition(delay.wait_ns);
        left[bucket] = left[bucket].checked_sub(1).unwrap_or_else(|| {
            let near = filled(&counted.latency).into_iter().filter(|(at, _)| at.abs_diff(bucket) < 5);
            panic!(
                "a delay of {} ns is not in bucket {bucket}: {:?}",
                delay.wait_ns,
                near.collect::<Vec<_>>()
            )
        });
    }
    let buckets = filled(&counted.latency).len();
    println!("     {exact} delays of known length in {buckets} buckets, {} of unknown", together.switch_ins);
    assert_eq!(left.iter().sum::<u64>(), together.switch_ins, "what is left are those of unknown length");
    let (least, most) = sums_ns(&left);
    assert!((least..=most).contains(&together.wait_ns), "and may be as long as those: {:?}", filled(&left));
    // On a machine that gets little CPU time itself, many turns are too short to ask in.
    assert!(exact >= 200, "enough are known");
    assert!(buckets >= 40, "of all lengths: {:?}", filled(&counted.latency));
}

/// The bucket whose edges 2^(-20 + i ÷ 8) s are around a delay.
fn bucket_by_definition(ns: u64) -> usize {
    let is_within = |bucket: &usize| ns as f64 / 1e9 <= (*bucket as f64 / 8.0 - 20.0).exp2();
    (0..BUCKETS - 1).find(is_within).unwrap_or(BUCKETS - 1)
}

/// A process that asks for its schedstat, from its first turn on.
struct Asker {
    process: Process,
    said: std::io::PipeReader,
}

impl Asker {
    const TIME: Duration = Duration::from_secs(4);

    /// It sleeps between two questions, or does not.
    fn start(into: &Cgroup, cpus: &[usize], sleep: Option<Duration>) -> Self {
        let (said, mut says) = std::io::pipe().unwrap();
        let process = Process::spawn(Some(into), || {
            load::pin(Pid::from_raw(0), cpus).unwrap();
            let until = Instant::now() + Self::TIME;
            // Opened once: the less time a question takes, the fewer turns end in it.
            let schedstat = File::open("/proc/thread-self/schedstat").unwrap();
            let mut answers: Vec<[u64; 2]> = Vec::with_capacity(1 << 16);
            while Instant::now() < until {
                let mut text = [0; 80];
                let length = schedstat.read_at(&mut text, 0).unwrap();
                let text = std::str::from_utf8(&text[..length]).unwrap();
                let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().unwrap());
                let (Some(_run_ns), Some(wait_ns), Some(switch_ins)) =
                    (numbers.next(), numbers.next(), numbers.next())
                else {
                    panic!("{text:?} is not a schedstat")
                };
                if answers.last() != Some(&[switch_ins, wait_ns]) {
                    answers.push([switch_ins, wait_ns]);
                }
                sleep.into_iter().for_each(std::thread::sleep);
            }
            // At once: its delays while it writes are of unknown length.
            let bytes: Vec<_> = answers.into_iter().flatten().flat_map(u64::to_ne_bytes).collect();
            says.write_all(&bytes).unwrap();
            0
        })
        .unwrap();
        Self { process, said }
    }

    /// Its delays, one each where it could ask in time, and their sum.
    fn finish(mut self) -> (Vec<Schedstat>, Schedstat) {
        let mut bytes = Vec::new();
        self.said.read_to_end(&mut bytes).unwrap();
        self.process.ended().unwrap();
        let sum = Schedstat { run_ns: 0, ..Schedstat::of(self.process.pid()).unwrap() };
        let numbers = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        let numbers: Vec<_> = numbers.collect();
        let answers = numbers.as_chunks::<2>().0.iter();
        let answers = answers.map(|&[switch_ins, wait_ns]| Schedstat { run_ns: 0, wait_ns, switch_ins });
        let mut last = Schedstat::default();
        let delays = answers.chain([sum]).map(|now| now - std::mem::replace(&mut last, now)).collect();
        (delays, sum)
    }
}

/// 100,000 threads, each with a pid of its own, some hundred at a time. Catches tables that fill up with what is
/// gone, and samples that are lost with threads that live shortly.
fn threads_100_000() {
    const THREADS: usize = 100_000;
    const AT_ONCE: usize = 500;
    const STACK: usize = 4096;
    extern "C" fn end(_: *mut libc::c_void) -> libc::c_int {
        // SAFETY: ends this thread, and nothing else of it is ever run.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        0
    }
    many_pids();
    let counting = Counting::start();
    let cgroup = Cgroup::new("many").unwrap();
    let (mut told, mut tells) = std::io::pipe().unwrap();
    let ((kernel, pids), counted, machine) = {
        let mut run = || {
            let parent = Process::spawn(Some(&cgroup), || {
                let mut stacks = vec![0u8; AT_ONCE * STACK];
                let (mut sum, mut lowest, mut highest) = (Schedstat::default(), i32::MAX, 0);
                for _ in 0..THREADS / AT_ONCE {
                    let batch: Vec<_> = stacks
                        .chunks_exact_mut(STACK)
                        .map(|stack| {
                            // Like threads they share all memory; unlike those they can be asked after their end.
                            let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::SIGCHLD;
                            // SAFETY: the function uses no memory but its stack, which lives until it is reaped.
                            let pid = unsafe {
                                let top = stack.as_mut_ptr().add(STACK).cast();
                                libc::clone(end, top, flags, std::ptr::null_mut())
                            };
                            assert!(pid > 0, "{}", std::io::Error::last_os_error());
                            (lowest, highest) = (lowest.min(pid), highest.max(pid));
                            Process::adopt(Pid::from_raw(pid))
                        })
                        .collect();
                    sum += sum_of_ended(&batch);
                    batch.into_iter().for_each(|child| assert!(child.wait().is_ok()));
                }
                let span = (highest - lowest) as u64;
                for number in [sum.wait_ns, sum.switch_ins, span] {
                    tells.write_all(&number.to_ne_bytes()).unwrap();
                }
                0
            })
            .unwrap();
            let mut number = || {
                let mut bytes = [0; 8];
                told.read_exact(&mut bytes).unwrap();
                u64::from_ne_bytes(bytes)
            };
            let mut kernel = Schedstat { run_ns: 0, wait_ns: number(), switch_ins: number() };
            let span = number();
            parent.ended().unwrap();
            kernel += Schedstat::of(parent.pid()).unwrap();
            (kernel, span)
        };
        let mut result = None;
        let (counted, machine) = counting.beside_the_machine(|| result = Some(run()));
        (result.unwrap(), counted, machine)
    };
    println!(
        "     {} delays of {:.3} s in all, pids over a span of {pids}; of the whole machine {} delays",
        kernel.switch_ins,
        kernel.wait_ns as f64 / 1e9,
        counted.count()
    );
    assert!(
        kernel.switch_ins >= THREADS as u64 && pids >= THREADS as u64 - 1,
        "each had its own pid and ran"
    );
    counting.of(cgroup.id()).must_be(kernel);
    machine.must_hold(&counted);
}

/// bcc's `runqlat`, which hooks wakeups and keeps stamps, beside ours on one process. Its buckets are octaves of
/// microseconds, so an edge of its lies within a bucket of ours. Catches buckets that are off, and delays counted from
/// something else than what everybody counts them from.
fn histogram_against_runqlat() {
    let counting = Counting::start();
    let cgroup = Cgroup::new("compared").unwrap();
    let millis = Duration::from_millis;
    let (ring, _pipes) = load::ring(2).unwrap();
    let mut works: Vec<_> = ring.into_iter().map(Work::anywhere).collect();
    works.push(Work::Duty { run: millis(2), period: millis(5) }.anywhere());
    works.push(Work::Duty { run: millis(9), period: millis(17) }.anywhere());
    works.push(Work::Spin.anywhere());
    let load = Load::start(Some(&cgroup), &works).unwrap();
    load.process().stop().unwrap();
    let before = counting.of(cgroup.id());

    let runqlat = crate::runqlat::Runqlat::start(load.pid());
    load.process().go_on().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    load.process().stop().unwrap();
    let theirs = runqlat.finish();
    let ours = counting.of(cgroup.id()) - before;

    let (our_count, their_count) = (ours.count() as f64, theirs.iter().sum::<u64>() as f64);
    println!("     {our_count} delays, runqlat {their_count}");
    assert!((our_count / their_count - 1.0).abs() < 0.01, "{our_count} delays, runqlat has {their_count}");
    let share_below = |bucket: usize| ours.latency[..bucket].iter().sum::<u64>() as f64 / our_count;
    let mut cumulated = 0.0;
    let mut off = Vec::new();
    for (octave, count) in theirs.iter().enumerate() {
        cumulated += *count as f64 / their_count;
        // Its bucket `octave` ends at 2^(octave + 1) µs.
        let edge_ns = 1000 << (octave + 1);
        let low = share_below(bucket(u64::saturating_sub(edge_ns, CLOCKS_APART_NS)) as usize);
        let high = share_below(bucket(edge_ns + CLOCKS_APART_NS) as usize + 1);
        let their_percent = cumulated * 100.0;
        let our_percent = [low, high].map(|share| share * 100.0);
        println!("     ≤ {:>8} µs: runqlat {their_percent:5.1} %, ours {our_percent:5.1?} %", edge_ns / 1000);
        if cumulated < low - POINTS || cumulated > high + POINTS {
            off.push(format!(
                "up to {edge_ns} ns: {their_percent} % of runqlat's delays, {our_percent:?} % of ours"
            ));
        }
    }
    assert!(off.is_empty(), "{}", off.join("\n"));
}

/// So many of all delays may be on another side of an edge: 1 %. Seen were 0.3 %.
const POINTS: f64 = 0.01;
/// The kernel's run-queue clock, and ours, stands still from the moment at which a switch begins, and across a wakeup that
/// leads to one at once. runqlat's goes on, through the scheduler and through other programs: for so long under emulation.
const CLOCKS_APART_NS: u64 = 30_000;
