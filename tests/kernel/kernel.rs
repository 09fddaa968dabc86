//! What the programs must know of the kernel: right, wrong, and not to be had.

use std::fs;
use std::time::Duration;

use nix::libc;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use sampler::kernel::btf::Btf;
use sampler::kernel::layout::{self, Key};
use sampler::kernel::load::{LoadError, Options, Programs};
use sampler::kernel::self_check;
use sampler::read::{Reader, Start};
use sampler_common::abi::Kernel;

crate::tests![
    right_offsets_pass_the_self_check,
    wrong_offsets_of_numbers_fail_the_self_check within 240 s,
    wrong_offsets_of_pointers_are_refused,
    without_btf,
    without_privileges,
    with_one_capability,
    with_two_capabilities,
    without_tracefs,
    cgroup_v1_only,
    cgroup_hybrid,
    sizes_that_cannot_be,
];

fn layout() -> (Btf, Kernel) {
    let btf = Btf::of_running_kernel().unwrap();
    let kernel = layout::of(&btf, Key::Cpu, 0, 64).unwrap();
    (btf, kernel)
}

fn checked(kernel: Kernel) -> Result<(), String> {
    let mut programs = Programs::load_with(kernel).map_err(|error| text_of(&error))?;
    programs.start().map_err(|error| text_of(&error))?;
    let baselines = programs.baselines().map_err(|error| text_of(&error))?;
    self_check::run(&programs, &baselines).map_err(|error| text_of(&error))
}

/// An error with all that is behind it, as the sampler says it.
fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// Else the next test would prove nothing.
fn right_offsets_pass_the_self_check() {
    checked(layout().1).unwrap();
}

/// The verifier cannot know which number it is that the programs read. Catches a sampler that publishes what it has
/// read from somewhere else.
fn wrong_offsets_of_numbers_fail_the_self_check() {
    let (btf, right) = layout();
    let field = |structure, path| btf.offset(structure, path, "").unwrap();
    let wrong = [
        ("the clock", Kernel { rq_clock: field("rq", "nr_switches"), ..right }),
        ("the stamp", Kernel { task_last_queued: field("task_struct", "sched_info.last_arrival"), ..right }),
        ("the delay", Kernel { task_run_delay: field("task_struct", "sched_info.pcount"), ..right }),
        ("the delay", Kernel { task_run_delay: field("task_struct", "sched_info.last_arrival"), ..right }),
        ("the run time", Kernel { task_run: field("task_struct", "se.vruntime"), ..right }),
        ("the run time", Kernel { task_run: field("task_struct", "se.exec_start"), ..right }),
    ];
    for (what, kernel) in wrong {
        let text = checked(kernel).expect_err(what);
        println!("     {what}: {text}");
        assert!(text.contains("self-check"), "{what}: {text}");
    }
}

/// Pointers are the verifier's. Catches offsets that are not constants for it, so that it could not check them.
fn wrong_offsets_of_pointers_are_refused() {
    let (_, right) = layout();
    for (what, kernel) in [
        ("task_struct.cgroups", Kernel { task_cgroups: right.task_cgroups + 4, ..right }),
        ("cfs_rq.rq", Kernel { cfs_rq_rq: right.cfs_rq_rq - 8, ..right }),
        ("css.cgroup", Kernel { css_cgroup: right.css_cgroup + 8, ..right }),
    ] {
        let text = checked(kernel).expect_err(what);
        let shown: String = text.chars().take(90).collect();
        println!("     {what}: {shown}");
        assert!(text.starts_with("the kernel refused program"), "{what}: {shown}");
    }
}

fn refusal() -> String {
    match Reader::start(Start::default()) {
        Ok(_) => panic!("it started all the same"),
        Err(error) => text_of(&error),
    }
}

/// Mounts that this test's process alone sees.
fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

fn hide(place: &str) {
    mount(Some("nothing"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

/// A kernel without CONFIG_DEBUG_INFO_BTF. Catches a crash, and a message that does not name the option.
fn without_btf() {
    own_mounts();
    hide("/sys/kernel/btf");
    let text = refusal();
    println!("     {text}");
    assert!(text.contains("/sys/kernel/btf/vmlinux") && text.contains("CONFIG_DEBUG_INFO_BTF"), "{text}");
}

/// An ordinary user. Catches a message that does not say which capabilities are needed.
fn without_privileges() {
    nix::unistd::setresuid(65534.into(), 65534.into(), 65534.into()).unwrap();
    let text = refusal();
    println!("     {text}");
    assert!(text.contains("CAP_BPF") && text.contains("CAP_PERFMON"), "{text}");
}

const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Becomes an ordinary user with these capabilities.
fn keep_only(capabilities: &[u32]) {
    // Version 3 of the interface, this process; effective, permitted and inheritable, the low and the high half.
    let header = [0x2008_0522u32, 0];
    let high = capabilities.iter().fold(0u32, |bits, capability| bits | 1 << (capability - 32));
    let sets = [0, 0, 0, high, high, 0];
    // SAFETY: numbers, and pointers to arrays of the sizes that version 3 has.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
        nix::unistd::setresuid(65534.into(), 65534.into(), 65534.into()).unwrap();
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

/// Maps can be made then, programs cannot be loaded. Catches a message that blames something else.
fn with_one_capability() {
    keep_only(&[CAP_BPF]);
    let text = refusal();
    println!("     {text}");
    assert!(text.starts_with("not permitted") && text.contains("CAP_PERFMON"), "{text}");
}

/// Nothing else is needed to measure. Catches a need for more that creeps in.
fn with_two_capabilities() {
    keep_only(&[CAP_BPF, CAP_PERFMON]);
    let mut reader = Reader::start(Start::default()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let snapshot = reader.snapshot();
    assert!(snapshot.switches > 0 && snapshot.throttle_hooks);
}

/// tracefs is not needed. Catches a dependency on it: a node's /sys/kernel/tracing is not a container's.
fn without_tracefs() {
    own_mounts();
    hide("/sys/kernel/tracing");
    let mut reader = Reader::start(Start::default()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(reader.snapshot().switches > 0);
}

/// A host with cgroup v1 only. Catches empty output where a sentence is due.
fn cgroup_v1_only() {
    own_mounts();
    hide("/sys/fs/cgroup");
    v1();
    let text = refusal();
    println!("     {text}");
    assert!(text.contains("v1") && text.contains("v2"), "{text}");
}

fn v1() {
    fs::create_dir("/sys/fs/cgroup/systemd").unwrap();
    mount(
        Some("cgroup"),
        "/sys/fs/cgroup/systemd",
        Some("cgroup"),
        MsFlags::empty(),
        Some("none,name=systemd"),
    )
    .unwrap();
}

/// systemd's hybrid mode: its own names on v1, v2 beside it without the controllers. Those that are on v2 here are
/// counted; catches a root that is looked for in one place only.
fn cgroup_hybrid() {
    own_mounts();
    hide("/sys/fs/cgroup");
    v1();
    fs::create_dir("/sys/fs/cgroup/unified").unwrap();
    mount(Some("cgroup2"), "/sys/fs/cgroup/unified", Some("cgroup2"), MsFlags::empty(), None::<&str>)
        .unwrap();
    let mut reader = Reader::start(Start::default()).unwrap();
    assert!(reader.snapshot().switches > 0);
    drop(reader);
    umount("/sys/fs/cgroup/unified").unwrap();
}

/// Catches a map that the kernel cannot make being asked for, and masks that need a power of two.
fn sizes_that_cannot_be() {
    for slots in [0, 3, 1000, 1 << 17] {
        let loaded = Programs::load(Options { key: Key::Cpu, hierarchy_id: 0, slots: Some(slots) });
        assert!(matches!(loaded, Err(LoadError::TooLarge { .. })), "{slots} slots");
    }
}
