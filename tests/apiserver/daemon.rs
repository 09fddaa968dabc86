//! What the real `sampler serve` publishes of pods: from how it finds the API server to what Prometheus scrapes. It
//! replays a recording that is written while it is read, so that cgroups are ours to make: the counts are not the
//! kernel's.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use loadline_tests::daemon::{self, Scrape};
use nix::sys::stat::Mode;
use sampler::pods::VERBS;
use sampler_common::identity::{Container, Identity, Owner, Pod, PodUid};
use sampler_common::recording::{Header, Writer};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Presence, Snapshot};
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, id, run, running};

crate::tests![
    names_reach_the_scrape_and_stay_for_the_last_window within 240 s,
    a_container_without_a_name_is_not_its_pods_sandbox within 240 s,
];

const NODE: &str = "node-1";
/// From one snapshot to the next.
const INTERVAL_NS: u64 = 50_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// The daemon without a kernel: cgroups are told to it.
struct Daemon {
    process: daemon::Daemon,
    /// The other end of what it replays, which has no end as long as this is open.
    recording: Writer<File>,
    windows: u64,
    cgroups: BTreeMap<CgroupId, CgroupCounters>,
}

impl Daemon {
    /// As on a node where `KUBECONFIG` says how to reach the API server.
    async fn start(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.sampler_kubeconfig().await;
        // SAFETY: every test is a process of its own, in which no other thread looks at the environment.
        unsafe { std::env::set_var("KUBECONFIG", kubeconfig) };
        let pipe = std::env::temp_dir().join("recording");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        // Also for reading, so that nobody waits for the other end.
        let file = File::options().read(true).write(true).open(&pipe).unwrap();
        let header = Header { cpus: 4, interval_ns: INTERVAL_NS, ..Header::default() };
        let recording = Writer::create(file, header).unwrap();
        let arguments = ["--replay", pipe.to_str().unwrap(), "--node-name", NODE];
        let process = daemon::Daemon::spawn(&arguments, || Ok(())).unwrap();
        Self { process, recording, windows: 0, cgroups: BTreeMap::new() }
    }

    /// A cgroup where the runtime makes it.
    fn make(&mut self, number: u64, uid: &PodUid, digit: char) {
        let container = Container {
            id: id(digit),
            runtime: None,
            pod: Some(Pod { uid: uid.clone(), qos: None }),
            names: None,
        };
        let identity = Identity {
            path: format!("kubepods/pod{}/{}", uid.as_str(), id(digit).as_str()),
            owner: Owner::Container(Box::new(container)),
        };
        self.cgroups.insert(CgroupId(number), CgroupCounters { identity, ..CgroupCounters::default() });
    }

    /// More delays of it.
    fn count(&mut self, number: u64, delays: u64) {
        let cgroup = self.cgroups.get_mut(&CgroupId(number)).unwrap();
        (0..delays).for_each(|_| cgroup.counters.latency.record(1_000_000));
    }

    /// It is removed: its last counts are in the next window.
    fn remove(&mut self, number: u64) {
        self.cgroups.get_mut(&CgroupId(number)).unwrap().presence = Presence::Removed;
    }

    /// The next window, as it is scraped.
    fn look(&mut self) -> Scrape {
        self.windows += 1;
        let snapshot = Snapshot {
            at_ns: self.windows * INTERVAL_NS,
            throttle_hooks: true,
            cgroups: self.cgroups.clone(),
            ..Snapshot::default()
        };
        self.recording.append(&snapshot).unwrap();
        self.cgroups.retain(|_, cgroup| cgroup.presence == Presence::Live);
        let until = Instant::now() + PATIENCE;
        loop {
            // It may not listen yet.
            if let Ok(scrape) = self.process.scrape()
                && scrape.sum("loadline_sampler_windows_total", &[]) == Some(self.windows as f64)
            {
                return scrape;
            }
            assert!(Instant::now() < until, "no window in {PATIENCE:?}: {}", self.process.said().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Looks again and again, until what is scraped is as expected.
    async fn until(&mut self, what: &str, expected: impl Fn(&Scrape) -> bool) -> Scrape {
        let until = Instant::now() + PATIENCE;
        loop {
            let scrape = self.look();
            if expected(&scrape) {
                return scrape;
            }
            assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}; {:#?}", delays(&scrape));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether the container of this digit has the name that is expected.
fn is_named(scrape: &Scrape, pod: &str, digit: char) -> bool {
    let id = id(digit);
    let labels = [("pod", pod), ("container", "nginx"), ("container_id", id.as_str())];
    scrape.sum("loadline_container_info", &labels).is_some()
}

/// Delays by pod and container, of those that had any.
fn delays(scrape: &Scrape) -> BTreeMap<(String, String), f64> {
    let label = |sample: &str, name: &str| {
        let value = sample.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
        Some(value.to_owned())
    };
    let count = |(sample, value): (&String, &f64)| {
        let labels = sample.strip_prefix("loadline_container_runq_latency_seconds_count")?;
        let pod = label(labels, "pod").filter(|pod| !pod.is_empty())?;
        assert_eq!(label(labels, "namespace").as_deref(), Some(NAMESPACE), "{sample}");
        Some(((pod, label(labels, "container")?), *value))
    };
    scrape.samples().iter().filter_map(count).filter(|(_, count)| *count > 0.0).collect()
}

fn of<const N: usize>(counts: [(&str, &str, f64); N]) -> BTreeMap<(String, String), f64> {
    let owned = |(pod, container, count): (&str, &str, f64)| ((pod.to_owned(), container.to_owned()), count);
    counts.into_iter().map(owned).collect()
}

/// A pod that was there, one that comes, a container that is replaced, and a pod that the API server has forgotten before
/// its cgroups are gone. Catches counts that change their names on the way, and last ones that have none.
fn names_reach_the_scrape_and_stay_for_the_last_window() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.allow(&VERBS).await;
        let old = cluster.running_pod("old", NODE, &id('a')).await;
        let mut daemon = Daemon::start(&cluster).await;
        daemon.make(11, &old, 'a');
        daemon.count(11, 3);
        let named = of([("old", "nginx", 3.0)]);
        let scrape = daemon.until("the first pod", |scrape| delays(scrape) == named).await;
        assert_eq!(scrape.sum("loadline_sampler_api_server_watched", &[]), Some(1.0));

        // Another comes while we look on.
        let new = cluster.running_pod("new", NODE, &id('b')).await;
        daemon.make(12, &new, 'b');
        daemon.until("the second pod is known", |scrape| is_named(scrape, "new", 'b')).await;
        daemon.count(12, 5);
        assert_eq!(delays(&daemon.look()), of([("old", "nginx", 3.0), ("new", "nginx", 5.0)]));

        // The container of the first is replaced: the series of its name goes on.
        let mut restarted = running("nginx", &id('c'));
        restarted["lastState"] = json!({ "terminated": {
            "exitCode": 1, "containerID": format!("containerd://{}", id('a').as_str()),
        } });
        cluster.tell("old", json!({ "containerStatuses": [restarted] })).await;
        daemon.count(11, 1);
        daemon.remove(11);
        daemon.make(13, &old, 'c');
        daemon.until("the replaced one is known", |scrape| is_named(scrape, "old", 'c')).await;
        daemon.count(13, 10);
        assert_eq!(delays(&daemon.look()), of([("old", "nginx", 14.0), ("new", "nginx", 5.0)]));

        // It is gone from the API server, then its cgroup counts once more and goes.
        cluster.delete("old").await;
        let known = |scrape: &Scrape| scrape.sum("loadline_sampler_pods_known", &[]);
        daemon.until("the first pod is forgotten", |scrape| known(scrape) == Some(1.0)).await;
        daemon.count(13, 100);
        daemon.remove(13);
        let scrape = daemon.look();
        assert_eq!(delays(&scrape), of([("old", "nginx", 114.0), ("new", "nginx", 5.0)]));
        assert_eq!(scrape.sum("loadline_sampler_api_server_watched", &[]), Some(1.0));

        // Another pod of the same name and another container of the same number have nothing of it.
        let again = cluster.running_pod("old", NODE, &id('d')).await;
        assert_ne!(again, old);
        daemon.make(14, &again, 'd');
        daemon.until("the pod of the same name", |scrape| is_named(scrape, "old", 'd')).await;
        daemon.count(14, 1);
        let again = of([("old", "nginx", 115.0), ("new", "nginx", 5.0)]);
        assert_eq!(delays(&daemon.look()), again, "the same name is the same series");
    });
}

/// A pod that starts, as the kubelet tells of it: at first nothing but the pod. Catches a container whose first counts
/// are its pod's sandbox's, which nobody looks at.
fn a_container_without_a_name_is_not_its_pods_sandbox() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.allow(&VERBS).await;
        let uid = cluster.pod("web", NODE, json!({})).await;
        let mut daemon = Daemon::start(&cluster).await;
        daemon.make(21, &uid, 'e');
        daemon.make(22, &uid, 'f');
        daemon.count(21, 1);
        daemon.count(22, 7);
        let awaited = |scrape: &Scrape| scrape.sum("loadline_sampler_names_awaited", &[]) == Some(2.0);
        let scrape = daemon.until("the pod", awaited).await;
        assert_eq!(delays(&scrape), of([]), "no series that would end when the name comes");

        cluster.tell("web", json!({ "containerStatuses": [running("nginx", &id('f'))] })).await;
        daemon.until("the container", |scrape| is_named(scrape, "web", 'f')).await;
        daemon.count(21, 1);
        daemon.count(22, 1);
        let counted = delays(&daemon.look());
        let by_name = |name: &str| counted.get(&("web".to_owned(), name.to_owned())).copied();
        assert_eq!((by_name("nginx"), by_name("POD")), (Some(8.0), Some(2.0)), "{counted:?}");
    });
}
