//! The binary as a daemon: several at once, killed, stopped, and asked while everything around it comes and goes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::time::{Duration, Instant};

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::daemon::{Daemon, Scrape, get};
use loadline_tests::load::{Load, Process, Schedstat, Work, pin, until};
use loadline_tests::tests;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

tests![
    two_at_once_do_no_harm within 240 s,
    killed_and_started_again within 240 s,
    asked_to_stop within 180 s,
    five_hundred_and_a_hundred_a_second within 600 s,
];

const LATENCY: &str = "loadline_container_runq_latency_seconds_count";
const LATENCY_SUM: &str = "loadline_container_runq_latency_seconds_sum";
const LIMIT: Duration = Duration::from_secs(90);

fn serve(more: &[&str]) -> Daemon {
    start(&[&["--interval", "500ms"], more].concat())
}

fn start(arguments: &[&str]) -> Daemon {
    Daemon::start(arguments, || Ok(())).unwrap().unwrap_or_else(|ended| panic!("{ended:?}"))
}

fn name(cgroup: &Cgroup) -> String {
    format!("/{}", cgroup.path().file_name().unwrap().to_str().unwrap())
}

fn delays(scrape: &Scrape, container: &str) -> f64 {
    scrape.sum(LATENCY, &[("container", container)]).unwrap_or(0.0)
}

/// Two programs on one hook. Catches maps or names that they share, and one that takes the other's attachments with it.
fn two_at_once_do_no_harm() {
    let (one, two) = (serve(&[]), serve(&[]));
    let cgroup = Cgroup::new("shared").unwrap();
    let container = name(&cgroup);
    let load = Load::start(Some(&cgroup), &[Work::Yield.anywhere(); 3]).unwrap();
    for daemon in [&one, &two] {
        daemon.scrape_until("delays", LIMIT, |scrape| delays(scrape, &container) > 1000.0).unwrap();
    }
    // At rest both have counted all of it: the same.
    let kernel = load.park().unwrap();
    let all = |scrape: &Scrape| delays(scrape, &container) == kernel.switch_ins as f64;
    for daemon in [&one, &two] {
        let scrape = daemon.scrape_until("every switch-in of the parked load", LIMIT, all).unwrap();
        let wait = scrape.sum("loadline_container_runq_latency_seconds_sum", &[("container", &container)]);
        let off_ns = (wait.unwrap() * 1e9 - kernel.wait_ns as f64).abs();
        assert!(off_ns < 2.0, "{off_ns} ns from the kernel's own sum");
    }
    one.end(Signal::SIGKILL, LIMIT).unwrap();
    let other = Cgroup::new("after").unwrap();
    let _load = Load::start(Some(&other), &[Work::Yield.anywhere(); 3]).unwrap();
    two.scrape_until("delays after the first is gone", LIMIT, |scrape| delays(scrape, &name(&other)) > 0.0)
        .unwrap();
}

/// Catches a counter that falls within a life, what a killed one leaves attached, and a restart that looks like a quiet
/// time.
fn killed_and_started_again() {
    let cgroup = Cgroup::new("steady").unwrap();
    let container = name(&cgroup);
    let _load = Load::start(Some(&cgroup), &[Work::Yield.anywhere(); 3]).unwrap();
    let mut starts = Vec::new();
    for life in 0..2 {
        let daemon = serve(&[]);
        let mut earlier = daemon.scrape().unwrap();
        starts.push(earlier.sum("loadline_sampler_start_time_seconds", &[]).unwrap());
        for _ in 0..6 {
            let before = delays(&earlier, &container);
            let later = daemon
                .scrape_until("more delays", LIMIT, |scrape| delays(scrape, &container) > before)
                .unwrap();
            assert_eq!(later.went_back(&earlier), Vec::<String>::new(), "in life {life}");
            earlier = later;
        }
        let counted = delays(&earlier, &container);
        daemon.end(Signal::SIGKILL, LIMIT).unwrap();
        println!("     life {life} counted {counted}");
    }
    assert!(starts[1] > starts[0], "it says that it was started again: {starts:?}");
}

/// Catches a stop that hangs on a connection, and one that is an error.
fn asked_to_stop() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = serve(&[]);
        // Somebody who has connected and says nothing.
        let silent = std::net::TcpStream::connect(daemon.address()).unwrap();
        let begun = Instant::now();
        let ended = daemon.end(signal, Duration::from_secs(20)).unwrap();
        println!("     {signal}: ended after {:?}", begun.elapsed());
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.said.contains(signal.as_str()), "{}", ended.said);
        drop(silent);
    }
}

/// How many cgroups a second are to come and go.
const A_SECOND: u32 = 100;
/// The machine's CPUs, on each of which somebody makes them.
const MAKERS: usize = 2;

/// One process on each CPU that makes cgroups, bears a child into each, which sleeps a moment and exits, and removes the
/// cgroup behind it: as much coming and going as the machine allows, since nobody is moved, for which the kernel would
/// have to stop everybody.
struct Makers {
    processes: Vec<Process>,
    /// Closed, it tells them to end.
    go: Option<PipeWriter>,
    /// They say what they have made.
    said: PipeReader,
}

/// What came and went: how many cgroups, and the kernel's account of all that ran in them.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    cgroups: u64,
    kernel: Schedstat,
}

impl Made {
    const BYTES: usize = 32;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let Self { cgroups, kernel: Schedstat { run_ns, wait_ns, switch_ins } } = self;
        let words = [cgroups, run_ns, wait_ns, switch_ins].map(u64::to_ne_bytes);
        words.concat().try_into().unwrap()
    }

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let word = |at: usize| u64::from_ne_bytes(bytes[at * 8..][..8].try_into().unwrap());
        let kernel = Schedstat { run_ns: word(1), wait_ns: word(2), switch_ins: word(3) };
        Self { cgroups: word(0), kernel }
    }
}

impl Makers {
    /// The names of all their cgroups begin so.
    const NAME: &str = "passing";
    fn start() -> Self {
        let ((stop, go), (said, say)) = (pipe().unwrap(), pipe().unwrap());
        let maker = |cpu: usize| {
            let process = Process::spawn(None, || {
                // Its own copy, which would keep it going for ever.
                // SAFETY: closes the end that nothing in this process uses.
                unsafe { libc::close(go.as_raw_fd()) };
                let made = pin(Pid::from_raw(0), &[cpu]).and_then(|()| Self::make(cpu, &stop));
                let told = made.and_then(|made| (&say).write_all(&made.to_bytes()));
                told.inspect_err(|error| eprintln!("maker {cpu}: {error}")).is_err().into()
            });
            process.unwrap()
        };
        Self { processes: (0..MAKERS).map(maker).collect(), go: Some(go), said }
    }

    /// What each does, until nobody holds the other end of `stop`.
    fn make(cpu: usize, stop: &PipeReader) -> io::Result<Made> {
        let (begun, root) = (Instant::now(), cgroup::root()?);
        let mut made = Made::default();
        loop {
            let path = root.join(format!("{}-{cpu}-{}", Self::NAME, made.cgroups));
            fs::create_dir(&path)?;
            let child = bear(&path)?;
            child.ended()?;
            until("the removal of a cgroup", LIMIT, || match fs::remove_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
                removed => removed.map(|()| true),
            })?;
            made.cgroups += 1;
            made.kernel += Schedstat::of(child.pid())?;
            child.wait()?;
            let due = begun + Duration::from_secs(1) * made.cgroups as u32 * MAKERS as u32 / A_SECOND;
            let wait = TimeSpec::from_duration(due.saturating_duration_since(Instant::now()));
            if ppoll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], Some(wait), None)? != 0 {
                break;
            }
        }
        Ok(made)
    }

    /// Ends the coming and going.
    fn end(mut self) -> Made {
        self.go = None;
        let mut all = Made::default();
        for process in &self.processes {
            process.ended().unwrap();
            let mut bytes = [0; Made::BYTES];
            self.said.read_exact(&mut bytes).unwrap();
            let made = Made::from_bytes(bytes);
            all.cgroups += made.cgroups;
            all.kernel += made.kernel;
        }
        all
    }
}

/// A child that is born in a cgroup, goes to sleep once, and exits.
fn bear(into: &Path) -> io::Result<Process> {
    /// The constant of this name in libc 0.2 does not fit its type.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let cgroup = fs::File::open(into)?;
    // SAFETY: all-zero is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: as fork, in a process of one thread: the child goes on with a copy of its stack, and makes system calls
    // only.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) } {
        // SAFETY: the child: neither call touches memory of ours.
        0 => unsafe {
            libc::usleep(100);
            libc::_exit(0)
        },
        pid @ 1.. => Ok(Process::adopt(Pid::from_raw(pid as i32))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What is known of the makers' cgroups from all scrapes together: the last that each series said, and the rest.
#[derive(Default)]
struct Passed {
    delays: BTreeMap<String, f64>,
    wait_seconds: BTreeMap<String, f64>,
    /// The rest when nothing had come or gone: delays and seconds.
    rest_before: Option<(f64, f64)>,
    rest: (f64, f64),
}

impl Passed {
    fn take_in(&mut self, scrape: &Scrape) {
        for (sample, value) in scrape.samples().range(LATENCY.to_owned()..) {
            let Some(labels) = sample.strip_prefix(LATENCY) else { break };
            if labels.contains(&format!("container=\"/{}-", Makers::NAME)) {
                self.delays.insert(labels.to_owned(), *value);
                let sum = scrape.samples()[&format!("{LATENCY_SUM}{labels}")];
                self.wait_seconds.insert(labels.to_owned(), sum);
            }
        }
        let rest = [("container", "_other")];
        self.rest = (scrape.sum(LATENCY, &rest).unwrap(), scrape.sum(LATENCY_SUM, &rest).unwrap());
        self.rest_before.get_or_insert(self.rest);
    }

    /// Delays, and the wait in ns.
    fn sum(&self) -> (f64, f64) {
        let before = self.rest_before.unwrap_or_default();
        let seconds = self.wait_seconds.values().sum::<f64>() + self.rest.1 - before.1;
        (self.delays.values().sum::<f64>() + self.rest.0 - before.0, seconds * 1e9)
    }
}

/// A crowded node with much coming and going, at the usual interval. Catches a scrape that grows with what is gone, stands
/// still, shows a series twice or half of one, or loses what those counted that are gone, and slots that the dead keep.
fn five_hundred_and_a_hundred_a_second() {
    const STANDING: usize = 500;
    const SCRAPE_EVERY: Duration = Duration::from_secs(4);
    // An emulated machine may take seconds for a look, and slots are given back after three: more than there are by default.
    let daemon = start(&["--max-containers", "600", "--slots", "2048"]);
    let standing: Vec<_> = (0..STANDING).map(|_| Cgroup::new("standing").unwrap()).collect();
    let naps = Work::Duty { run: Duration::from_micros(50), period: Duration::from_secs(1) }.anywhere();
    let _loads: Vec<_> = standing.iter().map(|cgroup| Load::start(Some(cgroup), &[naps]).unwrap()).collect();
    let last = name(&standing[STANDING - 1]);
    let first = daemon
        .scrape_until("all that stand", LIMIT, |scrape| {
            delays(scrape, &last) > 0.0 && scrape.sum("loadline_sampler_series", &[]) >= Some(STANDING as f64)
        })
        .unwrap();
    let mut passed = Passed::default();
    passed.take_in(&first);
    let (mut earlier, mut scrapes, mut slowest, mut largest, mut most_slots) =
        (first, 0, Duration::ZERO, 0, 0.0_f64);
    let makers = Makers::start();
    let begun = Instant::now();
    // Under emulation on a loaded host a scrape may take seconds: so many at least, however long it takes.
    while begun.elapsed() < Duration::from_secs(30) || scrapes < 6 {
        std::thread::sleep((begun + SCRAPE_EVERY * scrapes).saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        let answer = get(daemon.address(), "/metrics", "*/*").unwrap();
        slowest = slowest.max(asked.elapsed());
        largest = largest.max(answer.body.len());
        assert_eq!(answer.status, 200);
        let text = answer.text();
        assert!(text.ends_with("# EOF\n"), "cut off");
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        let scrape = Scrape::read(&text);
        assert_eq!(scrape.samples().len(), samples, "a series is there twice");
        // In one pass: to look for each would take longer than the scrape.
        let latencies = scrape.samples().iter().filter(|(name, _)| name.starts_with(LATENCY));
        let stand = latencies.filter(|(name, delays)| name.contains("/standing") && **delays > 0.0);
        assert_eq!(stand.count(), STANDING, "those that stand are all there");
        let back: Vec<_> =
            scrape.went_back(&earlier).into_iter().filter(|name| name.contains("/standing")).collect();
        assert_eq!(back, Vec::<String>::new());
        assert!(scrape.sum("loadline_sampler_series", &[]) <= Some(600.0));
        most_slots = most_slots.max(scrape.sum("loadline_sampler_slots_used", &[]).unwrap());
        passed.take_in(&scrape);
        earlier = scrape;
        scrapes += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let Made { cgroups, kernel } = makers.end();
    let a_second = cgroups as f64 / seconds;
    println!(
        "     {scrapes} scrapes in {seconds:.0} s while {a_second:.0} cgroups a second came and went; slowest \
         {slowest:?}, largest {largest} bytes; up to {most_slots} slots in use"
    );
    // Every delay of every one, by the kernel's own account: in a series that was scraped at some time, or in the rest.
    let end = daemon.scrape_until("the last counts of what is gone", LIMIT, |scrape| {
        passed.take_in(scrape);
        passed.sum().0 >= kernel.switch_ins as f64
    });
    let (delays, wait_ns) = passed.sum();
    println!(
        "     {delays} delays in {cgroups} cgroups, {} of which had a series of their own",
        passed.delays.len()
    );
    let end = end.unwrap();
    assert_eq!(end.sum("loadline_sampler_series_unscraped_total", &[]), Some(0.0));
    assert_eq!(end.sum("loadline_sampler_cgroups_missed_total", &[]), Some(0.0));
    assert_eq!(delays, kernel.switch_ins as f64);
    let off_ns = (wait_ns - kernel.wait_ns as f64).abs();
    assert!(off_ns < 1000.0, "{off_ns} ns from the kernel's own sum");
    assert!(kernel.switch_ins >= 2 * cgroups, "somebody was born and slept in each");
    for loss in ["slots_exhausted", "css_beyond_table", "names_lost", "names_cut"] {
        assert_eq!(end.sum("loadline_sampler_losses_total", &[("loss", loss)]), Some(0.0), "{loss}");
    }
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
}
