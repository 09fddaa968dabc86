//! The binary with its privileges: those that it claims to need, each one less, and what is left of them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use loadline_tests::cgroup::Cgroup;
use loadline_tests::daemon::{self, Daemon};
use loadline_tests::kubeconfig;
use loadline_tests::load::{Load, Work};
use loadline_tests::tests;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

tests![
    exactly_those_that_are_claimed within 240 s,
    one_less_is_named_by_its_name within 120 s,
    exact_times_need_one_more within 240 s,
    in_a_container within 240 s,
    slots_are_given_back_without_any within 300 s,
    slots_are_given_back_where_bpf_is_for_the_privileged_only within 300 s,
    a_kubeconfig_is_read_before_privileges_are_given_up within 240 s,
];

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const LAST_CAP: u32 = 40;
const NOBODY: libc::uid_t = 65534;

fn check(result: i64) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn capset(permitted: u64, inheritable: u64) -> io::Result<()> {
    // Version 3 of the interface, this process; effective, permitted and inheritable, the low and the high half.
    let header = [0x2008_0522u32, 0];
    let halves = |bits: u64| (bits as u32, (bits >> 32) as u32);
    let ((low, high), (inheritable_low, inheritable_high)) = (halves(permitted), halves(inheritable));
    let sets = [low, low, inheritable_low, high, high, inheritable_high];
    // SAFETY: pointers to arrays of the sizes that version 3 has.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })
}

/// An ordinary user who has these through the next exec, as systemd's AmbientCapabilities gives them.
fn ordinary_user_with(
    capabilities: &'static [u32],
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    move || {
        let bits = capabilities.iter().fold(0u64, |bits, capability| bits | 1 << capability);
        // SAFETY: numbers.
        unsafe {
            check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
            check(libc::setresuid(NOBODY, NOBODY, NOBODY).into())?;
        }
        capset(bits, bits)?;
        for capability in capabilities {
            // SAFETY: numbers.
            let raised =
                unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, *capability, 0, 0) };
            check(raised.into())?;
        }
        Ok(())
    }
}

/// Root as a container has it: uid 0, and these capabilities in every set that is bounded.
fn container_root_with(
    capabilities: &'static [u32],
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    move || {
        for capability in (0..=LAST_CAP).filter(|capability| !capabilities.contains(capability)) {
            // SAFETY: numbers. One that this kernel does not know cannot be dropped and need not be.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        Ok(())
    }
}

/// The lines of /proc/PID/status about capabilities, with no_new_privs.
fn privileges_of(daemon: &Daemon) -> Vec<String> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let lines = status.lines().filter(|line| line.starts_with("Cap") || line.starts_with("NoNewPrivs"));
        all.push(lines.map(|line| line.replace('\t', " ")).collect::<Vec<_>>().join(", "));
    }
    all.sort();
    all.dedup();
    all
}

fn serve(prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static, more: &[&str]) -> Daemon {
    let arguments: Vec<_> = ["--interval", "500ms"].iter().chain(more).copied().collect();
    Daemon::start(&arguments, prepare).unwrap().unwrap_or_else(|ended| panic!("{ended:?}"))
}

/// It counts a load that begins after it has given everything up.
fn counts_what_is_new(daemon: &Daemon) {
    let cgroup = Cgroup::new("new").unwrap();
    let _load = Load::start(Some(&cgroup), &[Work::Spin.anywhere(); 2]).unwrap();
    counts(daemon, &cgroup);
}

fn counts(daemon: &Daemon, cgroup: &Cgroup) {
    let label = format!("/{}", cgroup.path().file_name().unwrap().to_str().unwrap());
    daemon
        .scrape_until("delays of a cgroup", Duration::from_secs(60), |scrape| {
            scrape.sum("loadline_container_runq_latency_seconds_count", &[("container", &label)]) > Some(0.0)
        })
        .unwrap();
}

/// Catches a need for more that creeps in, and a privilege that is kept.
fn exactly_those_that_are_claimed() {
    let daemon = serve(ordinary_user_with(&[CAP_BPF, CAP_PERFMON]), &[]);
    counts_what_is_new(&daemon);
    let left = privileges_of(&daemon);
    println!("     {left:?}");
    assert_eq!(left.len(), 1, "threads differ: {left:?}");
    for none in [
        "CapInh: 0000000000000000",
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 1",
    ] {
        assert!(left[0].contains(none), "{none}: {left:?}");
    }
    let scrape = daemon.scrape().unwrap();
    assert_eq!(scrape.sum("loadline_sampler_throttle_hooks_attached", &[]), Some(1.0));
    let ended = daemon.end(Signal::SIGTERM, Duration::from_secs(20)).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// Catches a message that blames something else, and a claim to need what is not needed.
fn one_less_is_named_by_its_name() {
    const WHY: &str = "run as root, or give the process CAP_BPF and CAP_PERFMON (in a pod: \
                       securityContext.capabilities.add; under systemd: AmbientCapabilities=)\n";
    for (have, missing) in
        [(&[CAP_BPF][..], "CAP_PERFMON"), (&[CAP_PERFMON], "CAP_BPF"), (&[], "CAP_BPF and CAP_PERFMON")]
    {
        let ended = daemon::run(&["serve"], ordinary_user_with(have)).unwrap();
        println!("     {}", ended.said.trim());
        assert_eq!(ended.said, format!("error: missing {missing}: {WHY}"));
        assert_eq!(ended.status.code(), Some(3));
    }
}

/// Catches times that are asked for and silently missing.
fn exact_times_need_one_more() {
    let ended = daemon::run(&["serve", "--bpf-stats"], ordinary_user_with(&[CAP_BPF, CAP_PERFMON])).unwrap();
    assert!(ended.said.starts_with("error: missing CAP_SYS_ADMIN: "), "{}", ended.said);
    assert_eq!(ended.status.code(), Some(3));
    let daemon = serve(ordinary_user_with(&[CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN]), &["--bpf-stats"]);
    let program = [("program", "sched_switch")];
    let scrape = daemon
        .scrape_until("runs of the program", Duration::from_secs(60), |scrape| {
            scrape.sum("loadline_sampler_bpf_runs_total", &program) > Some(0.0)
        })
        .unwrap();
    assert!(scrape.sum("loadline_sampler_bpf_run_seconds_total", &program) > Some(0.0));
    assert!(privileges_of(&daemon)[0].contains("CapEff: 0000000000000000"));
}

/// Root without all else, pids of its own, and nothing to write to: what a pod without hostPID and with a read-only root
/// gives. Catches a need for /proc of the host, and for a place to write.
fn in_a_container() {
    // Before: from then on our children have pids that mean nothing to us.
    let cgroup = Cgroup::new("contained").unwrap();
    let _load = Load::start(Some(&cgroup), &[Work::Spin.anywhere(); 2]).unwrap();
    unshare(CloneFlags::CLONE_NEWPID).unwrap();
    let mut bound = container_root_with(&[CAP_BPF, CAP_PERFMON]);
    let daemon = serve(
        move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            // The first process of the new pids: its /proc shows them alone.
            mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
            let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            for place in ["/sys/fs/cgroup", "/sys", "/"] {
                mount(None::<&str>, place, None::<&str>, read_only, None::<&str>)?;
            }
            // What it logs to is open, and below here.
            mount(Some("nothing"), "/tmp", Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)?;
            bound()
        },
        &[],
    );
    counts(&daemon, &cgroup);
    let left = privileges_of(&daemon);
    assert!(left.len() == 1 && left[0].contains("CapEff: 0000000000000000"), "{left:?}");
}

/// The only thing that needs bpf(2) after start. Catches slots that run out because they cannot be given back.
fn slots_are_given_back_without_any() {
    let daemon = serve(ordinary_user_with(&[CAP_BPF, CAP_PERFMON]), &["--slots", "64"]);
    let free = |needed: f64| {
        let what = format!("{needed} free slots");
        daemon
            .scrape_until(&what, Duration::from_secs(60), |scrape| {
                let used = scrape.sum("loadline_sampler_slots_used", &[]).unwrap();
                scrape.sum("loadline_sampler_slots", &[]).unwrap() - used >= needed
            })
            .unwrap()
    };
    free(40.0);
    // More than there are slots, in all. Light ones: the sampler has to get a word in.
    let naps = Work::Duty { run: Duration::from_micros(200), period: Duration::from_millis(100) }.anywhere();
    for round in 0..3 {
        let some: Vec<_> = (0..32).map(|_| Cgroup::new("passing").unwrap()).collect();
        let loads: Vec<_> = some.iter().map(|cgroup| Load::start(Some(cgroup), &[naps]).unwrap()).collect();
        let what = format!("round {round} counted");
        daemon
            .scrape_until(&what, Duration::from_secs(60), |scrape| {
                scrape.sum("loadline_sampler_slots_used", &[]) >= Some(32.0)
            })
            .unwrap();
        drop(loads);
        drop(some);
        free(40.0);
    }
    let scrape = daemon.scrape().unwrap();
    assert_eq!(scrape.sum("loadline_sampler_losses_total", &[("loss", "slots_exhausted")]), Some(0.0));
}

/// How distributions set their kernels up. It does not forbid what is open already (since Linux 5.19). Catches a sampler
/// that stops giving slots back there.
fn slots_are_given_back_where_bpf_is_for_the_privileged_only() {
    // 2, since 1 cannot be taken back for what runs after this.
    fs::write("/proc/sys/kernel/unprivileged_bpf_disabled", "2").unwrap();
    slots_are_given_back_without_any();
    fs::write("/proc/sys/kernel/unprivileged_bpf_disabled", "0").unwrap();
}

/// One that is another user's alone, for an API server that does not answer. Catches a start that fails for what it could
/// have read, one that goes on without what somebody has named, and one that ends because nobody answers.
fn a_kubeconfig_is_read_before_privileges_are_given_up() {
    let path = kubeconfig::write(&std::env::temp_dir(), "https://127.0.0.1:1").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    // SAFETY: every test is a process of its own, with one thread.
    unsafe { std::env::set_var("KUBECONFIG", &path) };
    let arguments = ["--node-name", "node-1"];

    let line = ["serve", "--node-name", "node-1"];
    let ended = daemon::run(&line, container_root_with(&[CAP_BPF, CAP_PERFMON])).unwrap();
    println!("     {}", ended.said.trim());
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains(&format!("kubeconfig {}", path.display())), "{}", ended.said);
    assert!(ended.said.contains("Permission denied"), "{}", ended.said);

    let daemon = serve(container_root_with(&[CAP_BPF, CAP_PERFMON, CAP_DAC_OVERRIDE]), &arguments);
    counts_what_is_new(&daemon);
    let left = privileges_of(&daemon);
    assert!(left.len() == 1 && left[0].contains("CapEff: 0000000000000000"), "{left:?}");
    let scrape = daemon.scrape().unwrap();
    assert_eq!(scrape.sum("loadline_sampler_api_server_watched", &[]), Some(0.0));
    assert!(scrape.sum("loadline_sampler_api_server_troubles_total", &[]) > Some(0.0));
    let ready = daemon.get("/readyz").unwrap();
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("the API server cannot be reached"), "{}", ready.text());
}
