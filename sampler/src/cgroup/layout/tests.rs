//! Hosts of every kind, told by what `/proc` says of them, and what the operator may say.

use super::*;
use proptest::prelude::*;

const V2: &str = "24 30 0:22 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n";
const V2_CGROUPS: &str = "0::/\n";
/// systemd's hybrid.
const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
const V1_CGROUPS: &str =
    "8:pids:/\n4:memory:/\n3:cpu,cpuacct:/user.slice\n2:cpuset:/\n1:name=systemd:/\n0::/\n";

fn at(root: &str, format: Format) -> Controller {
    Controller { root: root.into(), format }
}

fn of(mountinfo: &str, own_cgroups: &str) -> Result<Layout, LayoutError> {
    Layout::of(mountinfo, own_cgroups, &Choice::default())
}

fn choose(mountinfo: &str, root: Option<&str>, version: Option<Version>) -> Result<Layout, LayoutError> {
    let own_cgroups = if mountinfo == V2 { V2_CGROUPS } else { V1_CGROUPS };
    Layout::of(mountinfo, own_cgroups, &Choice { root: root.map(Into::into), version })
}

fn v2(root: &str) -> Layout {
    Layout {
        version: Version::V2,
        hierarchy_id: 0,
        cpu: at(root, Format::V2),
        cpuacct: root.into(),
        memory: Some(at(root, Format::V2)),
    }
}

fn v1(version: Version) -> Layout {
    Layout {
        version,
        hierarchy_id: 3,
        cpu: at("/sys/fs/cgroup/cpu,cpuacct", Format::V1),
        cpuacct: "/sys/fs/cgroup/cpu,cpuacct".into(),
        memory: Some(at("/sys/fs/cgroup/memory", Format::V1)),
    }
}

/// Without the lines that have this word.
fn without(mountinfo: &str, word: &str) -> String {
    mountinfo.lines().filter(|line| !line.contains(word)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_host_on_v2_loses_nothing() {
    let layout = of(V2, V2_CGROUPS).unwrap();
    assert_eq!(layout, v2("/sys/fs/cgroup"));
    assert_eq!(layout.lost(), Vec::<&str>::new());
    assert_eq!(layout.rows_root(), Path::new("/sys/fs/cgroup"));
}

#[test]
fn v1_of_what_does_not_matter_is_still_v2() {
    let net = "51 30 0:44 / /opt/vpn/net-cls rw - cgroup net_cls rw,net_cls";
    let named = "52 30 0:45 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,name=systemd";
    assert_eq!(of(&format!("{V2}{net}\n{named}\n"), V2_CGROUPS).unwrap(), v2("/sys/fs/cgroup"));
}

#[test]
fn a_hybrid_host_is_keyed_by_v1_and_says_what_it_lost() {
    let layout = of(HYBRID, V1_CGROUPS).unwrap();
    assert_eq!(layout, v1(Version::Hybrid));
    let lost = layout.lost().join("; ");
    for word in ["pressure", "services", "cpu.weight", "memory.high", "OOM kills", "peak"] {
        assert!(lost.contains(word), "{word}: {lost}");
    }
}

#[test]
fn a_host_on_v1_is_used_alike() {
    assert_eq!(of(&without(HYBRID, "cgroup2"), V1_CGROUPS).unwrap(), v1(Version::V1));
}

#[test]
fn each_controller_is_where_the_kernel_has_it() {
    // cgroup_no_v1=cpu,cpuacct, and the other way round.
    let layout = of(&without(HYBRID, "cpuacct"), V1_CGROUPS).unwrap();
    let memory = Some(at("/sys/fs/cgroup/memory", Format::V1));
    assert_eq!(layout, Layout { version: Version::Hybrid, memory, ..v2("/sys/fs/cgroup/unified") });
    let lost = layout.lost().join("; ");
    assert!(lost.contains("memory.high") && !lost.contains("pressure"), "{lost}");
    let layout = of(&without(HYBRID, "memory"), V1_CGROUPS).unwrap();
    let memory = Some(at("/sys/fs/cgroup/unified", Format::V2));
    assert_eq!(layout, Layout { memory, ..v1(Version::Hybrid) });
    let none = of(&without(&without(HYBRID, "memory"), "cgroup2"), V1_CGROUPS).unwrap();
    assert_eq!(none, Layout { memory: None, ..v1(Version::V1) });
    assert!(none.lost().join("; ").contains("memory: no hierarchy"));
}

#[test]
fn without_the_cpu_there_is_nothing_to_measure() {
    let error = |mountinfo: &str| of(mountinfo, V1_CGROUPS).unwrap_err().to_string();
    let v1 = without(HYBRID, "cgroup2");
    assert!(error(&without(&v1, "cpuacct")).contains("without cpu:"));
    let separate = v1.replace("rw,cpu,cpuacct", "rw,cpu");
    assert!(error(&separate).contains("without cpuacct:"));
    assert!(of(&v1, V2_CGROUPS).unwrap_err().to_string().contains("without cpu:"));
    assert!(error("22 30 0:20 / /proc rw - proc proc rw\n").contains("mount -t cgroup2"));
}

#[test]
fn the_operator_may_name_the_root() {
    let host = "77 30 0:22 / /host/sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    let both = format!("{V2}{host}");
    assert_eq!(choose(&both, Some("/host/sys/fs/cgroup"), None).unwrap(), v2("/host/sys/fs/cgroup"));
    assert_eq!(choose(HYBRID, Some("/sys/fs/cgroup"), None).unwrap(), v1(Version::Hybrid));
    let error = |root| choose(&both, Some(root), None).unwrap_err().to_string();
    assert_eq!(
        error("/sys/fs/cgroup/kubepods.slice"),
        "/sys/fs/cgroup/kubepods.slice is a cgroup within the hierarchy at /sys/fs/cgroup: name where that is \
         mounted"
    );
    assert_eq!(
        error("/sys/fs/cgroups"),
        "no cgroup file system is mounted at or below /sys/fs/cgroups; there are some at /sys/fs/cgroup, \
         /host/sys/fs/cgroup"
    );
}

#[test]
fn the_operator_may_name_the_version_that_is_there() {
    assert_eq!(choose(V2, None, Some(Version::V2)).unwrap(), v2("/sys/fs/cgroup"));
    assert_eq!(choose(HYBRID, None, Some(Version::Hybrid)).unwrap(), v1(Version::Hybrid));
    assert_eq!(choose(HYBRID, None, Some(Version::V1)).unwrap(), v1(Version::V1));
    // Then memory of v2 is not used either.
    let mixed = choose(&without(HYBRID, "memory"), None, Some(Version::V1)).unwrap();
    assert_eq!(mixed, Layout { memory: None, ..v1(Version::V1) });
    let error = |text, version| choose(text, None, Some(version)).unwrap_err().to_string();
    let v2 = error(HYBRID, Version::V2);
    assert!(
        v2.starts_with("cgroup v2 was asked for, but this host has hybrid: ask for that or for none; "),
        "{v2}"
    );
    assert!(v2.contains("systemd.unified_cgroup_hierarchy=1"), "{v2}");
    for version in [Version::V1, Version::Hybrid] {
        let expected =
            format!("cgroup {version} was asked for, but this host has v2: ask for that or for none");
        assert_eq!(error(V2, version), expected);
    }
}

#[test]
fn v2_without_the_cpu_is_no_v2_wherever_the_operator_looks() {
    for version in [None, Some(Version::V2)] {
        let error = choose(HYBRID, Some("/sys/fs/cgroup/unified"), version).unwrap_err().to_string();
        let expected =
            "/sys/fs/cgroup/unified does not show v1's cpu, which is at /sys/fs/cgroup/cpu,cpuacct: ";
        assert!(error.starts_with(expected), "{error}");
    }
    let apart = HYBRID.replace("rw,cpu,cpuacct", "rw,cpu").replace("rw,pids", "rw,cpuacct");
    let error = choose(&apart, Some("/sys/fs/cgroup/cpu,cpuacct"), None).unwrap_err().to_string();
    assert!(error.contains("does not show v1's cpuacct, which is at /sys/fs/cgroup/pids"), "{error}");
}

#[test]
fn a_version_is_read_as_it_is_written() {
    for version in [Version::V1, Version::Hybrid, Version::V2] {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    assert_eq!(
        "v3".parse::<Version>().unwrap_err().to_string(),
        "\"v3\" is no version of cgroups: v1, hybrid or v2"
    );
}

#[test]
fn this_host_has_cgroups_that_can_be_found_by_their_root() {
    let layout = Layout::find(&Choice::default()).unwrap();
    let chosen = Choice { root: Some("/sys/fs/cgroup".into()), version: Some(layout.version) };
    assert_eq!(Layout::find(&chosen).unwrap(), layout);
    assert_eq!(fs::metadata(layout.rows_root()).unwrap().ino(), ROOT);
    let nowhere = Choice { root: Some("/nowhere/at/all".into()), version: None };
    let error = Layout::find(&nowhere).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/at/all: "), "{error}");
}

#[test]
fn a_part_of_a_hierarchy_is_refused_with_the_way_to_all_of_it() {
    let part = tempfile::tempdir().unwrap();
    let error = check_whole(part.path()).unwrap_err().to_string();
    assert!(error.contains("shows only a part") && error.contains("--cgroupns=host"), "{error}");
    assert!(matches!(check_whole(&part.path().join("gone")), Err(LayoutError::Io { .. })));
}

proptest! {
    #[test]
    fn no_text_panics(
        mountinfo in "([0-9]* [0-9]* 0:1 / /[a-z./]* rw - (cgroup2?|tmpfs) x rw(,cpu|,memory|,cpuacct){0,3}\n){0,5}",
        own_cgroups in "\\PC*|([0-9]{0,12}:(cpu|memory|,){0,3}:/\n){0,5}",
    ) {
        let _ = of(&mountinfo, &own_cgroups);
        let _ = choose(&mountinfo, Some("/a"), Some(Version::V1));
    }
}
