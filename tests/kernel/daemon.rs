//! The binary as a daemon: several at once, killed, stopped, and asked while everything around it comes and goes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loadline_tests::cgroup::Cgroup;
use loadline_tests::daemon::{Daemon, Scrape, get};
use loadline_tests::load::{Load, Process, Schedstat, Work, state, until};
use loadline_tests::tests;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;

tests![
    two_at_once_do_no_harm within 240 s,
    killed_and_started_again within 240 s,
    asked_to_stop within 180 s,
    five_hundred_and_a_hundred_a_second within 400 s,
];

const LATENCY: &str = "loadline_container_runq_latency_seconds_count";
const LATENCY_SUM: &str = "loadline_container_runq_latency_seconds_sum";
const LIMIT: Duration = Duration::from_secs(90);

fn serve(more: &[&str]) -> Daemon {
    let arguments: Vec<_> = ["--interval", "500ms"].iter().chain(more).copied().collect();
    Daemon::start(&arguments, || Ok(())).unwrap().unwrap_or_else(|ended| panic!("{ended:?}"))
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

/// One process that makes cgroups, moves itself from each to the next and removes the one behind it: as much coming and
/// going as the machine allows, since nothing is forked. All that it ever waits is in one of them, or in the one that it
/// was born in.
struct Mover {
    process: Process,
    /// Closed, it tells it to end.
    go: Option<PipeWriter>,
    /// It says how many it has made.
    said: PipeReader,
    _base: Cgroup,
}

impl Mover {
    /// The names of all its cgroups begin so.
    const NAME: &str = "passing";

    fn start() -> Self {
        let base = Cgroup::new(Self::NAME).unwrap();
        let ((stop, go), (said, say)) = (pipe().unwrap(), pipe().unwrap());
        let process = Process::spawn(Some(&base), || {
            // Its own copy, which would keep it going for ever.
            // SAFETY: closes the end that nothing in this process uses.
            unsafe { libc::close(go.as_raw_fd()) };
            i32::from(Self::pass(base.path(), &stop, &say).is_err())
        });
        Self { process: process.unwrap(), go: Some(go), said, _base: base }
    }

    /// What it does: goes on until nobody holds the other end of `stop`, and then sleeps in the first cgroup.
    fn pass(base: &Path, stop: &PipeReader, mut say: &PipeWriter) -> std::io::Result<()> {
        let begun = Instant::now();
        let mut behind: Option<PathBuf> = None;
        let mut made = 0;
        loop {
            let ahead = base.with_file_name(format!("{}-{made}", Self::NAME));
            fs::create_dir(&ahead)?;
            fs::write(ahead.join("cgroup.procs"), "0")?;
            if let Some(behind) = behind.replace(ahead) {
                fs::remove_dir(behind)?;
            }
            made += 1;
            // In each it goes to sleep and is switched in at least once. A time that is over is no sleep.
            let due = begun + Duration::from_secs(1) * made / A_SECOND;
            let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(50));
            let wait = TimeSpec::from_duration(wait);
            if ppoll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], Some(wait), None)? != 0 {
                break;
            }
        }
        fs::write(base.join("cgroup.procs"), "0")?;
        behind.map_or(Ok(()), fs::remove_dir)?;
        say.write_all(&made.to_ne_bytes())?;
        loop {
            nix::unistd::pause();
        }
    }

    /// Ends the coming and going. How many came, and what the kernel says of the one thread that used them.
    fn end(&mut self) -> (u32, Schedstat) {
        self.go = None;
        let mut made = [0; 4];
        self.said.read_exact(&mut made).unwrap();
        let pid = self.process.pid();
        until("the mover's sleep", LIMIT, || Ok(state(pid, pid)? == 'S')).unwrap();
        (u32::from_ne_bytes(made), Schedstat::of(pid).unwrap())
    }
}

/// What is known of the mover's cgroups from all scrapes together: the last that each series said, and the rest.
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
            if labels.contains(&format!("container=\"/{}-", Mover::NAME)) {
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

/// A crowded node with much coming and going. Catches a scrape that grows with what is gone, stands still, shows a
/// series twice or half of one, or loses what those counted that are gone.
fn five_hundred_and_a_hundred_a_second() {
    const STANDING: usize = 500;
    const SCRAPE_EVERY: Duration = Duration::from_secs(4);
    let daemon = serve(&["--max-containers", "600"]);
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
    let (mut earlier, mut scrapes, mut slowest, mut largest) = (first, 0, Duration::ZERO, 0);
    let begun = Instant::now();
    let mut mover = Mover::start();
    // Under emulation on a loaded host a scrape may take seconds: so many at least, however long it takes.
    while begun.elapsed() < Duration::from_secs(20) || scrapes < 5 {
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
        passed.take_in(&scrape);
        earlier = scrape;
        scrapes += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (made, kernel) = mover.end();
    println!(
        "     {scrapes} scrapes in {seconds:.0} s while {:.0} cgroups a second came and went; slowest {slowest:?}, \
         largest {largest} bytes",
        f64::from(made) / seconds
    );
    // Every delay of the one thread that was in all of them, by the kernel's own account: in a series that was scraped
    // at some time, or in the rest.
    let end = daemon.scrape_until("the last counts of what is gone", LIMIT, |scrape| {
        passed.take_in(scrape);
        passed.sum().0 >= kernel.switch_ins as f64
    });
    let (delays, wait_ns) = passed.sum();
    println!(
        "     {delays} delays in {made} cgroups, {} of which had a series of their own",
        passed.delays.len()
    );
    let end = end.unwrap();
    assert_eq!(end.sum("loadline_sampler_series_unscraped_total", &[]), Some(0.0));
    assert_eq!(end.sum("loadline_sampler_cgroups_missed_total", &[]), Some(0.0));
    assert_eq!(delays, kernel.switch_ins as f64);
    let off_ns = (wait_ns - kernel.wait_ns as f64).abs();
    assert!(off_ns < 1000.0, "{off_ns} ns from the kernel's own sum");
    assert!(kernel.switch_ins >= u64::from(made), "it slept in each");
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
}
