//! Names of pods and containers, by `sampler::pods`.

use std::time::Duration;

use sampler::pods::{NodeName, Pods, State, Status, Trouble, VERBS};
use sampler_common::identity::{ContainerId, Names, PodUid, QosClass};
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, id, run, running};

crate::tests![
    names_arrive_with_the_one_rule_and_go_with_their_pod within 240 s,
    every_kind_of_container_has_a_name within 240 s,
    other_nodes_pods_are_not_seen within 240 s,
    without_any_one_verb_it_says_so_and_goes_on_by_ids within 240 s,
    a_token_that_is_none_is_told_apart within 240 s,
    a_restarted_api_server_is_followed_again within 300 s,
];

const NODE: &str = "node-1";
/// Most of it is the longest delay between two tries, on a busy host.
const PATIENCE: Duration = Duration::from_secs(90);

fn watch(client: kube::Client) -> Pods {
    Pods::watch(client, &NodeName::try_from(NODE.to_owned()).unwrap())
}

async fn until(pods: &Pods, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
    let condition = async {
        loop {
            let status = pods.status();
            if condition(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, condition).await {
        Ok(status) => status,
        Err(_) => panic!("not in {} s: {what}; {:?}", PATIENCE.as_secs(), pods.status()),
    }
}

fn names(pod: &str, container: Option<&str>) -> Names {
    Names { namespace: NAMESPACE.into(), pod: pod.into(), container: container.map(str::to_owned) }
}

async fn named(pods: &Pods, id: &ContainerId, uid: Option<&PodUid>, expected: Names) {
    until(pods, &format!("{expected:?}"), |_| pods.names(id, uid).as_ref() == Some(&expected)).await;
}

fn names_arrive_with_the_one_rule_and_go_with_their_pod() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.allow(&VERBS).await;
        let before = cluster.running_pod("before", NODE, &id('a')).await;
        let pods = watch(cluster.sampler().await);
        named(&pods, &id('a'), None, names("before", Some("nginx"))).await;
        assert_eq!(pods.qos(&before), Some(QosClass::BestEffort));

        let after = cluster.running_pod("after", NODE, &id('b')).await;
        named(&pods, &id('b'), None, names("after", Some("nginx"))).await;
        // The sandbox, which no status names.
        assert_eq!(pods.names(&id('c'), Some(&after)), Some(names("after", None)));

        cluster.delete("before").await;
        until(&pods, "the pod is forgotten", |_| pods.names(&id('a'), Some(&before)).is_none()).await;
        let expected =
            Status { state: State::Watching, lists: 1, pods: 1, containers: 1, ..Status::default() };
        assert_eq!(pods.status(), expected);
    });
}

fn every_kind_of_container_has_a_name() {
    /// As the kubelet makes of a manifest: no UID of the API has this shape.
    const HASH: &str = "0123456789abcdef0123456789abcdef";
    run(async {
        let cluster = Cluster::start().await;
        cluster.allow(&VERBS).await;
        let pods = watch(cluster.sampler().await);
        cluster.pod("web", NODE, json!({})).await;
        let mut restarted = running("nginx", &id('b'));
        restarted["lastState"] = json!({ "terminated": {
            "exitCode": 1, "containerID": format!("containerd://{}", id('c').as_str()),
        } });
        let status = json!({
            "initContainerStatuses": [running("migrate", &id('a'))],
            "containerStatuses": [restarted],
            "ephemeralContainerStatuses": [running("debugger", &id('d'))],
        });
        cluster.tell("web", status).await;
        for (digit, container) in [('a', "migrate"), ('b', "nginx"), ('c', "nginx"), ('d', "debugger")] {
            named(&pods, &id(digit), None, names("web", Some(container))).await;
        }

        let annotations = json!({
            "kubernetes.io/config.hash": HASH,
            "kubernetes.io/config.mirror": HASH,
            "kubernetes.io/config.source": "file",
        });
        let mirror = cluster.pod("etcd", NODE, annotations).await;
        let hash = PodUid::try_from(HASH.to_owned()).unwrap();
        named(&pods, &id('f'), Some(&hash), names("etcd", None)).await;
        assert_eq!(pods.names(&id('f'), Some(&mirror)), Some(names("etcd", None)));
    });
}

fn other_nodes_pods_are_not_seen() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.allow(&VERBS).await;
        let before = cluster.running_pod("before", "node-2", &id('a')).await;
        let pods = watch(cluster.sampler().await);
        until(&pods, "the first list", |status| status.state == State::Watching).await;
        let after = cluster.running_pod("after", "node-2", &id('b')).await;
        // What comes after it has come, so that it would have.
        cluster.running_pod("own", NODE, &id('c')).await;
        named(&pods, &id('c'), None, names("own", Some("nginx"))).await;
        assert_eq!(pods.names(&id('a'), Some(&before)), None);
        assert_eq!(pods.names(&id('b'), Some(&after)), None);
        assert_eq!(pods.status().pods, 1);
    });
}

fn without_any_one_verb_it_says_so_and_goes_on_by_ids() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.running_pod("web", NODE, &id('a')).await;
        let pods = watch(cluster.sampler().await);
        let forbidden = |status: &Status| matches!(status.state, State::Troubled(Trouble::Forbidden(_)));
        let status = until(&pods, "refused without a role", forbidden).await;
        assert_eq!((status.lists, status.pods), (0, 0));
        assert_eq!(pods.names(&id('a'), None), None);
        let State::Troubled(trouble) = status.state else { panic!() };
        let text = trouble.to_string();
        assert!(text.contains("system:serviceaccount:shop:sampler"), "{text}");
        assert!(text.contains(r#"resources ["pods"], verbs ["list", "watch"]"#), "{text}");

        cluster.allow(&VERBS).await;
        named(&pods, &id('a'), None, names("web", Some("nginx"))).await;
        for missing in VERBS {
            let left: Vec<_> = VERBS.into_iter().filter(|verb| *verb != missing).collect();
            cluster.change_verbs(&left).await;
            // A watch that is open stays open: what it may is asked when it begins.
            let pods = watch(cluster.sampler().await);
            let status = until(&pods, &format!("refused without {missing}"), forbidden).await;
            let State::Troubled(Trouble::Forbidden(text)) = status.state else { panic!() };
            assert!(text.contains(&format!("cannot {missing} resource \"pods\"")), "{text}");
            cluster.change_verbs(&VERBS).await;
            named(&pods, &id('a'), None, names("web", Some("nginx"))).await;
        }
    });
}

fn a_token_that_is_none_is_told_apart() {
    run(async {
        let cluster = Cluster::start().await;
        let pods = watch(cluster.control_plane.client("nobody's").await.unwrap());
        until(&pods, "refused without a token that counts", |status| {
            matches!(status.state, State::Troubled(Trouble::Unauthorized(_)))
        })
        .await;
    });
}

fn a_restarted_api_server_is_followed_again() {
    run(async {
        let mut cluster = Cluster::start().await;
        cluster.allow(&VERBS).await;
        cluster.running_pod("stays", NODE, &id('a')).await;
        cluster.running_pod("goes", NODE, &id('b')).await;
        let pods = watch(cluster.sampler().await);
        named(&pods, &id('b'), None, names("goes", Some("nginx"))).await;

        cluster.control_plane.kill_api_server();
        let status = until(&pods, "out of reach", |status| {
            matches!(status.state, State::Troubled(Trouble::Unreachable(_)))
        })
        .await;
        assert_eq!((status.pods, status.containers), (2, 2));
        assert_eq!(pods.names(&id('a'), None), Some(names("stays", Some("nginx"))));

        cluster.control_plane.start_api_server().await.unwrap();
        cluster.delete("goes").await;
        cluster.running_pod("comes", NODE, &id('c')).await;
        named(&pods, &id('c'), None, names("comes", Some("nginx"))).await;
        assert_eq!(pods.names(&id('a'), None), Some(names("stays", Some("nginx"))));
        until(&pods, "the pod is forgotten", |_| pods.names(&id('b'), None).is_none()).await;
        let status = pods.status();
        assert_eq!(status.state, State::Watching);
        assert!(status.troubles > 0 && status.lists > 1, "{status:?}");
    });
}
