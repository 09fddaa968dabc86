//! Which container a cgroup is: the sampler's reading of the path against containerd's own list.

use std::collections::BTreeMap;
use std::path::PathBuf;

use loadline_tests::cgroup;
use loadline_tests::containers::{Spec, cgroup_of, load_command};
use loadline_tests::load::Work;
use sampler::cgroup::path::classify;
use sampler::read::{Reader, Start};
use sampler_common::identity::{Container, QosClass, Runtime};
use sampler_common::snapshot::CgroupId;

use crate::{clear, containerd};

crate::tests![every_container_has_the_name_that_its_runtime_gave_it within 120 s];

/// 64 digits that end in this one.
pub fn id(digit: u8) -> String {
    format!("0f3c5b8e9a7d6c4b2a1f0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c{digit:02x}")
}

/// The id of a cgroup at a path below the root of the hierarchy: the inode of its directory.
pub fn cgroup_id(path: &PathBuf) -> CgroupId {
    use std::os::unix::fs::MetadataExt as _;
    CgroupId(std::fs::metadata(cgroup::root().unwrap().join(path)).unwrap().ino())
}

/// What the sampler says of a cgroup.
pub fn container_at(reader: &Reader, cgroup: CgroupId) -> Container {
    let path = reader.path(cgroup).unwrap_or_else(|| panic!("{cgroup} is not known"));
    let identity = classify(path).identity(path);
    identity.container().unwrap_or_else(|| panic!("{identity:?} is no container")).clone()
}

/// Containers where the kubelet has them, with either of its drivers and in each QoS class, and one where `ctr` puts it
/// by itself. From the pid that containerd says, by way of the cgroup that the kernel says, the sampler comes to the id
/// that containerd says. Catches a shape of path that no runtime makes, and one that is made and not known.
fn every_container_has_the_name_that_its_runtime_gave_it() {
    const UID: &str = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f6";
    const SLICE: &str = "3c1a5f0e_8d2b_4c7a_9e6f_1b2d3c4e5f6";
    let cases = [
        (Some(format!("kubepods/pod{UID}0/{}", id(0))), Some((0, QosClass::Guaranteed)), None),
        (Some(format!("kubepods/burstable/pod{UID}1/{}", id(1))), Some((1, QosClass::Burstable)), None),
        (Some(format!("kubepods/besteffort/pod{UID}2/{}", id(2))), Some((2, QosClass::BestEffort)), None),
        (
            Some(format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}3.slice/cri-containerd-{}.scope",
                id(3)
            )),
            Some((3, QosClass::Burstable)),
            Some(Runtime::Containerd),
        ),
        (None, None, None),
    ];
    let mut reader = Reader::start(Start::default()).unwrap();
    let mut containers = Vec::new();
    for (digit, (cgroup, ..)) in (0..).zip(&cases) {
        let command = load_command(&[Work::Sleep.anywhere()], false);
        let cgroup = cgroup.clone().map(PathBuf::from);
        let spec = Spec { id: id(digit), cgroup, command, ..Spec::default() };
        containers.push(containerd().run(&spec).unwrap());
    }
    let snapshot = reader.snapshot();
    let tasks: BTreeMap<_, _> = containerd().tasks().unwrap().into_iter().collect();
    assert_eq!(tasks.len(), cases.len(), "{tasks:?}");
    for (digit, (cgroup, pod, runtime)) in (0..).zip(&cases) {
        let (task, pid) = tasks.get_key_value(&id(digit)).unwrap();
        let path = cgroup_of(*pid).unwrap();
        println!("     {}", path.display());
        match cgroup {
            Some(cgroup) => assert_eq!(path, PathBuf::from(cgroup)),
            // Where ctr puts one: the namespace, and the id.
            None => assert_eq!(path, PathBuf::from(format!("default/{task}"))),
        }
        let cgroup = cgroup_id(&path);
        assert!(snapshot.cgroups[&cgroup].counters.latency.count() > 0, "it ran and was counted");
        let container = container_at(&reader, cgroup);
        assert_eq!(container.id.as_str(), task);
        assert_eq!(container.runtime, *runtime);
        let said = container.pod.map(|pod| (pod.uid.as_str().to_owned(), pod.qos));
        assert_eq!(said, pod.map(|(digit, qos)| (format!("{UID}{digit}"), Some(qos))));
    }
    // Nothing else is a container: not the shims, not containerd, not the pods.
    let named = snapshot
        .cgroups
        .keys()
        .filter(|id| reader.path(**id).is_some_and(|path| classify(path).is_container()));
    assert_eq!(named.count(), cases.len());
    drop(containers);
    clear();
}
