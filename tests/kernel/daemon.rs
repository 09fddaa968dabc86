//! The binary as a daemon: several at once, killed, stopped, and asked while everything around it comes and goes.

use std::time::{Duration, Instant};

use loadline_tests::cgroup::{self, Cgroup};
use loadline_tests::daemon::{Daemon, Scrape, get};
use loadline_tests::load::{Load, Process, Work};
use loadline_tests::tests;
use nix::sys::signal::Signal;

tests![
    two_at_once_do_no_harm within 240 s,
    killed_and_started_again within 240 s,
    asked_to_stop within 180 s,
    five_hundred_and_a_hundred_a_second within 400 s,
];

const LATENCY: &str = "loadline_container_runq_latency_seconds_count";
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

/// Makes, uses and removes a cgroup.
fn pass(number: usize) {
    let cgroup = Cgroup::new(&format!("passing-{number}")).unwrap();
    Process::spawn(Some(&cgroup), || 0).unwrap().wait().unwrap();
}

/// A crowded node with much coming and going. Catches a scrape that grows with what is gone, stands still, shows a
/// series twice or half of one, or loses what those counted that are gone.
fn five_hundred_and_a_hundred_a_second() {
    const STANDING: usize = 500;
    const A_SECOND: usize = 100;
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
    let (mut earlier, mut scrapes, mut passed, mut slowest, mut largest) = (first, 0, 0, Duration::ZERO, 0);
    let begun = Instant::now();
    // Under emulation on a loaded host a scrape may take seconds: so many at least, however long it takes.
    while begun.elapsed() < Duration::from_secs(20) || scrapes < 5 {
        // As many as are due by now: under emulation there may be fewer.
        let due = (begun.elapsed().as_secs_f64() * A_SECOND as f64) as usize;
        let now = passed..due.min(passed + A_SECOND / 2);
        passed = passed.max(now.end);
        now.for_each(pass);
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
        earlier = scrape;
        scrapes += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "     {scrapes} scrapes in {seconds:.0} s while {:.0} cgroups a second came and went; slowest {slowest:?}, \
         largest {largest} bytes",
        passed as f64 / seconds
    );
    println!("     {} below the root", std::fs::read_dir(cgroup::root().unwrap()).unwrap().count());
    assert!(passed > 0);
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
}
