//! Real shapes of paths, each with where it was seen, and what no path may do.

use super::*;
use proptest::prelude::*;

const ID: &str = "0f3c5b8e9a7d6c4b2a1f0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b";
const OTHER: &str = "9b0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f6a7b8c9d0e1f2a4b6c7d9a8e5b3c0f";
const DASHED: &str = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60";
const ESCAPED: &str = "3c1a5f0e_8d2b_4c7a_9e6f_1b2d3c4e5f60";
/// UID of a static pod: the hash of its manifest.
const HASHED: &str = "9729a196c4723b60ab401eaff722982d";

/// Puts ids where the table has words for them.
fn spelled_out(path: &str) -> String {
    let words = [("DASHED", DASHED), ("ESCAPED", ESCAPED), ("HASHED", HASHED), ("OTHER", OTHER), ("ID", ID)];
    words.iter().fold(path.to_owned(), |path, (word, id)| path.replace(word, id))
}

/// The class of a path in the words of the table.
fn described(class: &Class) -> String {
    match &class.owner {
        Owner::Container(container) => {
            assert_eq!(container.names, None);
            let runtime = container.runtime.map_or("container", Runtime::label);
            let id = if container.id.as_str() == ID { "ID" } else { "OTHER" };
            let Some(pod) = &container.pod else { return format!("{runtime} {id}") };
            let uid = match pod.uid.as_str() {
                DASHED => "DASHED",
                HASHED => "HASHED",
                uid => panic!("{uid}"),
            };
            format!("{runtime} {id}, {} pod {uid}", pod.qos.map_or("some", QosClass::label))
        }
        Owner::Unit { name } => format!("unit {name}"),
        Owner::Outside => "outside".to_owned(),
    }
}

/// Path, with `|` where the owner's own cgroup ends; whose it is; where such a path was seen.
type Shape = (&'static str, &'static str, &'static str);

const COROOT: &str = "https://github.com/coroot/coroot-node-agent/blob/main/cgroup/cgroup_test.go";
const KEPLER: &str =
    "https://github.com/sustainable-computing-io/kepler/blob/main/internal/resource/container_test.go";
const CILIUM: &str = "https://github.com/cilium/cilium/blob/main/pkg/cgroups/manager/provider_test.go";
const SPIRE: &str =
    "https://github.com/spiffe/spire/blob/main/pkg/agent/plugin/workloadattestor/k8s/k8s_posix.go";
const SPIRE_CGROUPS: &str =
    "https://github.com/spiffe/spire/blob/main/pkg/agent/common/cgroups/cgroups_test.go";
const NEUVECTOR: &str = "https://github.com/neuvector/neuvector/blob/main/share/system/cgroup_test.go";
const RT_OPERATOR: &str = "https://github.com/CJLove/rt-operator/blob/main/notes/cgroupv1_notes.md";
const NERDCTL: &str = "https://github.com/falcosecurity/plugins/pull/1378";
const K3S_ROOTLESS: &str = "https://github.com/k3s-io/k3s/pull/3005";
const USERNETES: &str = "https://github.com/rootless-containers/usernetes/pull/200";
const ECS: &str = "https://github.com/aws/amazon-ecs-agent/issues/4077";
const DOCKER_PARENT: &str = "https://github.com/moby/moby/issues/42704";
const PODMAN_PODS: &str = "https://github.com/podman-container-tools/podman/issues/13673";
const PODMAN_SPLIT: &str = "https://github.com/podman-container-tools/podman/issues/6400";
const PODMAN_CGROUPFS: &str = "https://github.com/podman-container-tools/podman/issues/826";
const PODMAN_POD_CGROUPFS: &str = "https://github.com/podman-container-tools/podman/pull/784";
const PODMAN_DISABLED: &str = "https://github.com/podman-container-tools/podman/issues/20910";
const PODMAN_CONMON: &str = "https://github.com/containers/podman/blob/main/libpod/oci_conmon_linux.go";
const CRIO_CONMON: &str = "https://github.com/coroot/coroot-node-agent/blob/main/containers/registry.go";
const CRIO_CONMON_CGROUPFS: &str =
    "https://github.com/cri-o/cri-o/blob/main/internal/config/cgmgr/cgroupfs_linux.go";
const QOS_OFF: &str = "https://github.com/kubernetes/kubernetes/pull/66617";
const KUBE_SPAWN: &str = "https://github.com/kinvolk/kube-spawn/issues/12";
const NSPAWN: &str = "https://github.com/systemd/systemd/issues/18104";
const NSPAWN_SCOPE: &str = "https://github.com/systemd/systemd/issues/16796";
const LXC: &str = "https://github.com/lxc/lxc/pull/2606";
const LXC_4: &str = "https://github.com/lxc/lxc/issues/4376";

const SHAPES: &[Shape] = &[
    // Kubernetes with the systemd driver.
    (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podESCAPED.slice/cri-containerd-ID.scope|",
        "containerd ID, Burstable pod DASHED",
        CILIUM,
    ),
    (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASHED.slice/cri-containerd-ID|",
        "containerd ID, Burstable pod HASHED",
        COROOT,
    ),
    ("kubepods.slice/kubepods-podESCAPED.slice/crio-ID.scope|", "cri-o ID, Guaranteed pod DASHED", CILIUM),
    (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podESCAPED.slice/crio-ID.scope|/container",
        "cri-o ID, Burstable pod DASHED",
        COROOT,
    ),
    (
        "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podESCAPED.slice/docker-ID.scope|",
        "docker ID, BestEffort pod DASHED",
        COROOT,
    ),
    (
        "kubepods.slice/kubepods-podESCAPED.slice/docker-ID.scope|",
        "docker ID, Guaranteed pod DASHED",
        RT_OPERATOR,
    ),
    (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podDASHED.slice/docker-ID.scope|",
        "docker ID, Burstable pod DASHED",
        SPIRE,
    ),
    // systemd's names, made without systemd.
    (
        "system.slice/containerd.service/kubepods-burstable-podESCAPED.slice:cri-containerd:ID|",
        "containerd ID, Burstable pod DASHED",
        KEPLER,
    ),
    (
        "system.slice/containerd.service/kubepods-besteffort-podESCAPED.slice:cri-containerd:ID|",
        "containerd ID, BestEffort pod DASHED",
        KEPLER,
    ),
    (
        "kubepods-besteffort-podESCAPED.slice:cri-containerd:ID|",
        "containerd ID, BestEffort pod DASHED",
        SPIRE,
    ),
    // Kubernetes with the cgroupfs driver: containerd and Docker alike.
    ("kubepods/burstable/podDASHED/ID|", "container ID, Burstable pod DASHED", CILIUM),
    ("kubepods/besteffort/podDASHED/ID|/kube-proxy", "container ID, BestEffort pod DASHED", COROOT),
    ("kubepods/podDASHED/ID|", "container ID, Guaranteed pod DASHED", CILIUM),
    ("kubepods/burstable/podHASHED/ID|", "container ID, Burstable pod HASHED", COROOT),
    ("kubepods/podDASHED/crio-ID|", "cri-o ID, Guaranteed pod DASHED", COROOT),
    ("podDASHED/ID|", "container ID, some pod DASHED", SPIRE),
    // With --cgroup-root.
    ("kubelet/kubepods/burstable/podDASHED/ID|", "container ID, Burstable pod DASHED", CILIUM),
    (
        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
         kubelet-kubepods-burstable-podESCAPED.slice/cri-containerd-ID.scope|",
        "containerd ID, Burstable pod DASHED",
        CILIUM,
    ),
    (
        "machine.slice/machine-kube\\x2dspawn\\x2d0.scope/kubepods/besteffort/podDASHED/ID|",
        "container ID, BestEffort pod DASHED",
        KUBE_SPAWN,
    ),
    // Without a root user.
    (
        "user.slice/user-1001.slice/user@1001.service/k3s-rootless.service/kubepods/podDASHED/ID|",
        "container ID, Guaranteed pod DASHED",
        K3S_ROOTLESS,
    ),
    (
        "user.slice/user-1001.slice/user@1001.service/u7s-rootlesskit.service/kubepods/burstable/podDASHED/ID|",
        "container ID, Burstable pod DASHED",
        USERNETES,
    ),
    // Without cgroups for pods (--cgroups-per-qos=false), containers are where their runtime has others.
    ("system.slice/docker-ID.scope|", "docker ID", QOS_OFF),
    ("docker/ID|", "docker ID", QOS_OFF),
    // A cluster in containers (kind).
    (
        "system.slice/docker-OTHER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
         kubelet-kubepods-besteffort-podESCAPED.slice/cri-containerd-ID.scope|",
        "containerd ID, BestEffort pod DASHED",
        KEPLER,
    ),
    ("docker/OTHER/kubepods/besteffort/podDASHED/ID|", "container ID, BestEffort pod DASHED", SPIRE),
    ("system.slice/docker-OTHER.scope|/system.slice/kubelet.service", "docker OTHER", KEPLER),
    ("system.slice/docker-OTHER.scope|/kubelet.slice/kubelet-kubepods.slice", "docker OTHER", KEPLER),
    // Docker.
    ("docker-ID|", "docker ID", KEPLER),
    ("ID|", "container ID", NEUVECTOR),
    ("my-example-cgroup.slice/docker-ID.scope|", "docker ID", DOCKER_PARENT),
    ("ecs/bf1ddbfbbc8f45c9b1ac4f779368741e/ID|", "container ID", ECS),
    ("ecstasks.slice/ecstasks-bf1ddbfbbc8f45c9b1ac4f779368741e.slice/docker-ID.scope|", "docker ID", ECS),
    // containerd by itself.
    ("system.slice/nerdctl-ID.scope|", "containerd ID", NERDCTL),
    ("containerd/ID|", "container ID", KEPLER),
    // podman.
    ("machine.slice/libpod-ID.scope|", "podman ID", KEPLER),
    ("machine.slice/libpod-ID.scope|/container", "podman ID", KEPLER),
    (
        "user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope|/container",
        "podman ID",
        KEPLER,
    ),
    ("machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope|/container", "podman ID", PODMAN_PODS),
    (
        "user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_OTHER.slice/libpod-ID.scope|/container",
        "podman ID",
        PODMAN_SPLIT,
    ),
    ("system.slice/kepler.service/libpod-payload-ID|", "podman ID", KEPLER),
    (
        "srv.slice/container-homeassistant.service|/runtime",
        "unit container-homeassistant.service",
        PODMAN_PODS,
    ),
    ("system.slice/mycool-pod.service|/supervisor", "unit mycool-pod.service", PODMAN_SPLIT),
    ("libpod_parent/libpod-ID|/ctr", "podman ID", PODMAN_CGROUPFS),
    ("libpod_parent/libpod-ID|/conmon", "podman ID", PODMAN_CGROUPFS),
    ("libpod_parent/OTHER/libpod-ID|", "podman ID", PODMAN_POD_CGROUPFS),
    ("libpod_parent/OTHER", "outside", PODMAN_POD_CGROUPFS),
    (
        "user.slice/user-10000.slice/user@10000.service/user.slice/podman-239302.scope|",
        "unit podman-239302.scope",
        PODMAN_DISABLED,
    ),
    // The monitor of a container is none.
    ("system.slice/crio-conmon-ID.scope", "outside", CRIO_CONMON),
    ("kubepods/burstable/podDASHED/crio-conmon-ID", "outside", CRIO_CONMON_CGROUPFS),
    ("machine.slice/libpod-conmon-ID.scope", "outside", PODMAN_CONMON),
    // What the kubelet makes, without a container.
    ("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podESCAPED.slice", "outside", CILIUM),
    ("kubepods/burstable/podDASHED", "outside", CILIUM),
    // Units.
    ("system.slice/docker.service|", "unit docker.service", COROOT),
    ("runtime.slice/kubelet.service|", "unit kubelet.service", COROOT),
    ("system.slice/ssh.service|", "unit ssh.service", KEPLER),
    (
        "system.slice/system-postgresql.slice/postgresql@9.4-main.service|",
        "unit postgresql@9.4-main.service",
        COROOT,
    ),
    ("system.slice/system-serial\\x2dgetty.slice", "outside", COROOT),
    ("user.slice/user-1000.slice/session-2.scope|", "unit session-2.scope", SPIRE_CGROUPS),
    (
        "user.slice/user-1000.slice/user@1000.service/gnome-terminal-server.service|",
        "unit gnome-terminal-server.service",
        SPIRE_CGROUPS,
    ),
    (
        "user.slice/user-10000.slice/user@10000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-f22f14d2.scope|",
        "unit vte-spawn-f22f14d2.scope",
        PODMAN_DISABLED,
    ),
    // Machines: systemd-nspawn and LXC.
    ("machine.slice/machine-web.scope|/payload/system.slice/nginx.service", "unit machine-web.scope", NSPAWN),
    (
        "user.slice/user-1001.slice/user@1001.service/leaky.scope|/payload/system.slice/dbus-broker.service",
        "unit leaky.scope",
        NSPAWN_SCOPE,
    ),
    ("lxc/mysql-primary-db|", "unit lxc/mysql-primary-db", COROOT),
    ("lxc.payload/c1|/system.slice/cron.service", "unit lxc.payload/c1", LXC),
    ("lxc.payload.a1|/crond", "unit lxc.payload.a1", LXC_4),
    ("lxc.monitor/c1", "outside", LXC),
    ("lxc.monitor.a1", "outside", LXC_4),
    // Systems without systemd name what they start as they like.
    ("podruntime/kubelet", "outside", COROOT),
    ("init", "outside", COROOT),
];

/// Made up: what follows from the real ones, and what only looks like one.
const NEARLY: &[(&str, &str)] = &[
    ("", "outside"),
    ("init.scope", "outside"),
    ("system.slice", "outside"),
    ("user.slice/user-1000.slice/user@1000.service|/init.scope", "unit user@1000.service"),
    ("system.slice/docker.service|/child", "unit docker.service"),
    // A pod with Docker in it: the pod's container has the limit. So with kind in a pod.
    ("kubepods/burstable/podDASHED/ID|/docker/OTHER", "container ID, Burstable pod DASHED"),
    (
        "kubepods/burstable/podDASHED/ID|/docker/OTHER/kubelet/kubepods/podHASHED/OTHER",
        "container ID, Burstable pod DASHED",
    ),
    ("docker/ID|/docker/OTHER", "docker ID"),
    ("docker/OTHER/kubelet/kubepods/besteffort/podDASHED/ID|", "container ID, BestEffort pod DASHED"),
    ("user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-ID.scope|", "containerd ID"),
    ("lxc.payload.a1/docker/ID|", "docker ID"),
    ("machine.slice/libpod-ID.scope|/system.slice/nginx.service", "podman ID"),
    ("machine.slice/machine-web.scope/payload/system.slice/docker-ID.scope|", "docker ID"),
    ("machine.slice/machine-lxc\\x2d7.scope|/system.slice/nginx.service", "unit machine-lxc\\x2d7.scope"),
    // A class that is not the kubelet's.
    ("burstable/podDASHED/ID|", "container ID, some pod DASHED"),
    ("demo.slice/demo-podESCAPED.slice/cri-containerd-ID.scope|", "containerd ID, some pod DASHED"),
    ("podESCAPED.slice/crio-ID.scope|", "cri-o ID, some pod DASHED"),
    ("kubepods/burstable/podcast/ID|", "container ID"),
    ("kubepods/burstable/podESCAPED/ID|", "container ID"),
    ("kubepods/burstable/xpodDASHED/ID|", "container ID"),
    // What only looks like a container.
    ("docker", "outside"),
    ("lxc", "outside"),
    ("lxc.payload.", "outside"),
    (".service", "outside"),
    (".scope", "outside"),
    ("docker/IDa", "outside"),
    ("docker/0F3C5B8E9A7D6C4B2A1F0E9D8C7B6A5F4E3D2C1B0A9F8E7D6C5B4A3F2E1D0C9B", "outside"),
    ("docker-0f3c5b8e.slice", "outside"),
    ("docker-ID.slice", "outside"),
    ("docker-ID.mount", "outside"),
    ("docker-ID.scope.d", "outside"),
    ("dockerID", "outside"),
    ("docker_ID.scope|", "unit docker_ID.scope"),
    ("mydocker-ID.scope|", "unit mydocker-ID.scope"),
    ("docker-ID.service|", "unit docker-ID.service"),
    ("docker:ID", "outside"),
    ("system.slice:docker-ID", "outside"),
    ("system.slice:mine:ID", "outside"),
    ("ID:cri-containerd:", "outside"),
];

#[test]
fn every_shape_of_a_path_has_its_owner() {
    assert!(SHAPES.iter().all(|(.., source)| source.starts_with("https://")));
    let shapes = SHAPES.iter().map(|(path, expected, _)| (path, expected));
    for (path, expected) in shapes.chain(NEARLY.iter().map(|(path, expected)| (path, expected))) {
        let own = path.split_once('|').map(|(own, _)| PathBuf::from(spelled_out(own)));
        let path = spelled_out(&path.replace('|', ""));
        for path in [path.clone(), format!("/{path}")] {
            let class = classify(Path::new(&path));
            assert_eq!((described(&class), &class.root), (spelled_unit(expected), &own), "{path}");
        }
    }
}

/// A unit's name has the ids spelled out.
fn spelled_unit(expected: &str) -> String {
    if expected.starts_with("unit ") { spelled_out(expected) } else { expected.to_owned() }
}

#[test]
fn an_identity_has_the_path_below_the_root_and_the_owner() {
    let path = format!("/docker/{ID}");
    let identity = classify(Path::new(&path)).identity(Path::new(&path));
    assert_eq!(identity.path, path[1..]);
    assert_eq!(identity.display_name(), "0f3c5b8e9a7d");
    let container = identity.container().unwrap();
    assert_eq!(
        (container.id.as_str(), container.runtime, &container.pod),
        (ID, Some(Runtime::Docker), &None)
    );
}

#[test]
fn outside_containers_is_the_system_and_without_containers_units_are_neighbours() {
    let container = classify(Path::new(&format!("docker/{ID}"))).owner;
    let unit = classify(Path::new("system.slice/nginx.service")).owner;
    assert!(!counts_as_system(&container, true));
    assert!(counts_as_system(&unit, true));
    assert!(!counts_as_system(&unit, false));
    assert!(counts_as_system(&Owner::Outside, true));
    assert!(counts_as_system(&Owner::Outside, false));
}

#[test]
fn a_name_that_is_no_text_is_a_name() {
    let path = |text: &[u8]| classify(&of_bytes(text));
    assert_eq!(path(b"\xff\xfe"), Class::default());
    assert_eq!(path(b"lxc.payload/\xff"), Class::default());
    assert_eq!(path(b"system.slice/a.service/\xff").root(), Some(Path::new("system.slice/a.service")));
    assert_eq!(Class::default().identity(&of_bytes(b"/a/\xff")).path, "a/\u{fffd}");
}

fn of_bytes(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// Paths of steps that mean something somewhere.
fn paths() -> impl Strategy<Value = PathBuf> {
    const WORDS: [&str; 25] = [
        "kubepods",
        "kubepods.slice",
        "burstable",
        "docker",
        "lxc",
        "lxc.payload",
        "lxc.payload.a",
        "machine.slice",
        "payload",
        "init.scope",
        "libpod_parent",
        "a.service",
        "b.scope",
        "podDASHED",
        "podHASHED",
        "kubepods-podESCAPED.slice",
        "ID",
        "OTHER",
        "docker-ID.scope",
        "crio-conmon-ID.scope",
        "libpod-OTHER",
        "x.slice:cri-containerd:ID",
        "kubepods-podESCAPED.slice:cri-containerd:ID",
        "é.service",
        "..",
    ];
    let step = prop::sample::select(&WORDS[..]).prop_map(spelled_out);
    prop::collection::vec(prop_oneof![9 => step.boxed(), 1 => "\\PC{0,70}".boxed()], 0..8)
        .prop_map(|steps| PathBuf::from(steps.join("/")))
}

/// Written another way than the code: some step is an id, by itself or behind a runtime's name.
fn names_a_container(path: &Path) -> bool {
    let is_id = |text: &str| {
        text.len() == 64 && text.chars().all(|digit| digit.is_ascii_digit() || ('a'..='f').contains(&digit))
    };
    let steps: Vec<_> = path.iter().map(|step| step.to_str().unwrap()).collect();
    steps.iter().enumerate().any(|(depth, step)| {
        let prefixes = ["cri-containerd-", "nerdctl-", "crio-", "docker-", "libpod-", "libpod-payload-"];
        let bare = is_id(step) && (depth == 0 || steps[depth - 1] != "libpod_parent");
        let prefixed = prefixes.iter().any(|prefix| {
            step.strip_prefix(prefix).is_some_and(|rest| is_id(rest.strip_suffix(".scope").unwrap_or(rest)))
        });
        let coloned = prefixes.iter().any(|prefix| {
            let middle = format!(":{}:", prefix.trim_end_matches('-'));
            step.split_once(&middle).is_some_and(|(_, id)| is_id(id))
        });
        bare || prefixed || coloned
    })
}

proptest! {
    #[test]
    fn no_bytes_panic_and_the_owner_is_above(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let path = of_bytes(&bytes);
        if let Some(root) = classify(&path).root() {
            prop_assert!(path.strip_prefix("/").unwrap_or(&path).starts_with(root));
        }
    }

    #[test]
    fn the_owner_s_own_cgroup_is_the_owner_s(path in paths()) {
        let class = classify(&path);
        prop_assert_eq!(class.root.is_none(), class.owner == Owner::Outside);
        if let Some(root) = class.root() {
            prop_assert!(path.strip_prefix("/").unwrap_or(&path).starts_with(root));
            prop_assert_eq!(&classify(root), &class);
        }
    }

    #[test]
    fn there_is_a_container_exactly_where_a_step_names_one(path in paths()) {
        prop_assert_eq!(classify(&path).is_container(), names_a_container(&path), "{:?}", path);
    }

    #[test]
    fn what_is_within_a_container_is_the_container(below in "[a-z.]{1,9}(/[a-z0-9.-]{1,9}){0,4}") {
        let own = PathBuf::from(format!("system.slice/docker-{ID}.scope"));
        prop_assert_eq!(classify(&own.join(below)), classify(&own));
    }

    #[test]
    fn no_digit_more_or_less_is_a_container(digits in "[0-9a-f]{1,63}|[0-9a-f]{65,80}|[0-9A-F]{63}[A-F]") {
        for path in [digits.clone(), format!("docker/{digits}"), format!("x/crio-{digits}.scope")] {
            prop_assert!(!classify(Path::new(&path)).is_container(), "{}", path);
        }
    }
}
