//! What the daemon publishes of pods: the very code that `sampler serve` runs, from how it finds the API server to what
//! Prometheus scrapes. Only the counts are not the kernel's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loadline_tests::daemon::Scrape;
use sampler::pods::{Named, NodeName, State, VERBS};
use sampler::publish::{Format, Publisher};
use sampler::source::Health;
use sampler_common::identity::{Container, Identity, Owner, Pod, PodUid};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Presence, Snapshot};
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, id, run, running};

crate::tests![
    names_reach_the_scrape_and_stay_for_the_last_window within 240 s,
    a_container_without_a_name_is_not_its_pods_sandbox within 240 s,
];

const NODE: &str = "node-1";
const SECOND: u64 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// The daemon without a kernel: cgroups are told to it.
struct Daemon {
    named: Named,
    publisher: Publisher,
    second: u64,
    cgroups: BTreeMap<CgroupId, CgroupCounters>,
}

impl Daemon {
    /// As on a node where `KUBECONFIG` says how to reach the API server.
    async fn start(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.sampler_kubeconfig().await;
        // SAFETY: every test is a process of its own, in which no other thread looks at the environment.
        unsafe { std::env::set_var("KUBECONFIG", kubeconfig) };
        let node = NodeName::try_from(NODE.to_owned()).unwrap();
        // It waits, and has a runtime of its own.
        let named = tokio::task::spawn_blocking(move || Named::start(&node)).await.unwrap().unwrap().unwrap();
        let publisher = Publisher::new(4, 100, Duration::from_secs(1));
        Self { named, publisher, second: 0, cgroups: BTreeMap::new() }
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

    /// The next window: what `sampler serve` does at the end of each interval.
    fn look(&mut self) {
        self.second += 1;
        let mut snapshot = Snapshot {
            at_ns: self.second * SECOND,
            throttle_hooks: true,
            cgroups: self.cgroups.clone(),
            ..Snapshot::default()
        };
        self.named.name(&mut snapshot);
        let health = Health { pods: Some(self.named.status()), ..Health::default() };
        self.publisher.observe(snapshot, health).unwrap();
        self.cgroups.retain(|_, cgroup| cgroup.presence == Presence::Live);
    }

    /// What somebody scrapes who likes text.
    fn scrape(&self) -> Scrape {
        let text = self.publisher.scrape(Format::OpenMetrics).unwrap();
        Scrape::read(std::str::from_utf8(&text).unwrap())
    }

    /// Looks again and again, until what is scraped is as expected.
    async fn until(&mut self, what: &str, expected: impl Fn(&Self, &Scrape) -> bool) -> Scrape {
        let until = Instant::now() + PATIENCE;
        loop {
            self.look();
            let scrape = self.scrape();
            if expected(self, &scrape) {
                return scrape;
            }
            assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}; {:#?}", delays(&scrape));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Delays by pod and container.
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
    scrape.samples().iter().filter_map(count).collect()
}

fn of<const N: usize>(counts: [(&str, &str, f64); N]) -> BTreeMap<(String, String), f64> {
    let owned = |(pod, container, count): (&str, &str, f64)| ((pod.to_owned(), container.to_owned()), count);
    counts.into_iter().map(owned).collect()
}

/// The first digits of the id of this digit.
fn short(digit: char) -> String {
    id(digit).short().to_owned()
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
        let scrape = daemon.until("the first pod", |_, scrape| delays(scrape) == named).await;
        assert_eq!(scrape.sum("loadline_sampler_api_server_watched", &[]), Some(1.0));

        // Another comes while we look on.
        let new = cluster.running_pod("new", NODE, &id('b')).await;
        daemon.until("the second pod is known", |daemon, _| daemon.named.status().containers == 2).await;
        daemon.make(12, &new, 'b');
        daemon.count(12, 5);
        daemon.look();
        assert_eq!(delays(&daemon.scrape()), of([("old", "nginx", 3.0), ("new", "nginx", 5.0)]));

        // The container of the first is replaced: the series of its name goes on.
        let mut restarted = running("nginx", &id('c'));
        restarted["lastState"] = json!({ "terminated": {
            "exitCode": 1, "containerID": format!("containerd://{}", id('a').as_str()),
        } });
        cluster.tell("old", json!({ "containerStatuses": [restarted] })).await;
        daemon.until("the replaced one is known", |daemon, _| daemon.named.status().containers == 3).await;
        daemon.count(11, 1);
        daemon.remove(11);
        daemon.make(13, &old, 'c');
        daemon.count(13, 10);
        daemon.look();
        assert_eq!(delays(&daemon.scrape()), of([("old", "nginx", 14.0), ("new", "nginx", 5.0)]));

        // It is gone from the API server, then its cgroup counts once more and goes.
        cluster.delete("old").await;
        daemon.until("the first pod is forgotten", |daemon, _| daemon.named.status().pods == 1).await;
        daemon.count(13, 100);
        daemon.remove(13);
        daemon.look();
        assert_eq!(delays(&daemon.scrape()), of([("old", "nginx", 114.0), ("new", "nginx", 5.0)]));
        assert_eq!(daemon.named.status().state, State::Watching);

        // Another pod of the same name and another container of the same number have nothing of it.
        let again = cluster.running_pod("old", NODE, &id('d')).await;
        assert_ne!(again, old);
        daemon.until("the pod of the same name", |daemon, _| daemon.named.status().containers == 2).await;
        daemon.make(14, &again, 'd');
        daemon.count(14, 1);
        daemon.look();
        let again = of([("old", "nginx", 115.0), ("new", "nginx", 5.0)]);
        assert_eq!(delays(&daemon.scrape()), again, "the same name is the same series");
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
        let unnamed = of([("web", &short('e'), 1.0), ("web", &short('f'), 7.0)]);
        daemon.until("the pod", |_, scrape| delays(scrape) == unnamed).await;

        cluster.tell("web", json!({ "containerStatuses": [running("nginx", &id('f'))] })).await;
        daemon.until("the container", |daemon, _| daemon.named.status().containers == 1).await;
        daemon.count(21, 1);
        daemon.count(22, 1);
        daemon.look();
        let counted = delays(&daemon.scrape());
        let by_name = |name: &str| counted.get(&("web".to_owned(), name.to_owned())).copied();
        assert_eq!((by_name("nginx"), by_name("POD")), (Some(1.0), Some(1.0)), "{counted:?}");
        assert_eq!(counted.values().sum::<f64>(), 10.0, "whatever it is called, it is counted once");
    });
}
