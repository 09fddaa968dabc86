//! The names of all pods of this node, by what a cgroup path tells: a container's id, or a pod's UID.

use std::collections::{BTreeMap, HashMap};

use sampler_common::identity::{ContainerId, Names, PodUid, QosClass};

use super::pod::PodNames;

/// Pods that are kept: a kubelet runs 110 unless told otherwise, and a node of a thousand is known of.
const MOST_PODS: usize = 4_096;
/// Containers that are kept.
const MOST_CONTAINERS: usize = 4 * MOST_PODS;

/// Names by id. Grows and shrinks with the events of a watch.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pods: BTreeMap<PodUid, PodNames>,
    containers: HashMap<ContainerId, PodUid>,
    /// The pod in the API for the UID that a static pod's cgroup is named after.
    mirrors: HashMap<PodUid, PodUid>,
}

impl Table {
    /// Takes in what a pod now says. Returns `false` if there is no room for it.
    #[must_use]
    pub fn apply(&mut self, pod: PodNames) -> bool {
        self.remove(&pod.uid);
        let containers = self.containers.len() + pod.containers.len();
        if self.pods.len() >= MOST_PODS || containers > MOST_CONTAINERS {
            return false;
        }
        for (id, _name) in &pod.containers {
            self.containers.insert(id.clone(), pod.uid.clone());
        }
        if let Some(static_uid) = &pod.static_uid {
            self.mirrors.insert(static_uid.clone(), pod.uid.clone());
        }
        self.pods.insert(pod.uid.clone(), pod);
        true
    }

    /// Forgets a pod. What another has claimed since then stays that one's: the mirror of a static pod is replaced by
    /// one with the same containers.
    pub fn remove(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.remove(uid) else { return };
        for (id, _name) in &pod.containers {
            if self.containers.get(id) == Some(uid) {
                self.containers.remove(id);
            }
        }
        if let Some(static_uid) = &pod.static_uid
            && self.mirrors.get(static_uid) == Some(uid)
        {
            self.mirrors.remove(static_uid);
        }
    }

    /// What the API server calls the container `id` of the pod `uid`. It may know the pod alone: of a sandbox, which
    /// no status names, and of a container that was made just now.
    pub fn names(&self, id: &ContainerId, uid: Option<&PodUid>) -> Option<Names> {
        let of_container = self.containers.get(id).and_then(|uid| self.pods.get(uid));
        let pod = of_container.or_else(|| self.pod(uid?))?;
        let container = pod.containers.iter().find(|(known, _)| known == id).map(|(_, name)| name.clone());
        Some(Names { namespace: pod.namespace.clone(), pod: pod.name.clone(), container })
    }

    /// The class of the pod `uid`.
    pub fn qos(&self, uid: &PodUid) -> Option<QosClass> {
        self.pod(uid)?.qos
    }

    /// A pod by the UID of its cgroup. Its own UID counts before what a mirror says.
    fn pod(&self, uid: &PodUid) -> Option<&PodNames> {
        self.pods.get(uid).or_else(|| self.pods.get(self.mirrors.get(uid)?))
    }

    /// How many pods are known.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// How many containers are known.
    pub fn containers(&self) -> usize {
        self.containers.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uid(number: usize) -> PodUid {
        format!("{number:032x}").try_into().unwrap()
    }

    fn id(number: usize) -> ContainerId {
        format!("{number:064x}").try_into().unwrap()
    }

    fn pod(number: usize, containers: &[usize]) -> PodNames {
        PodNames {
            uid: uid(number),
            static_uid: None,
            namespace: "shop".into(),
            name: format!("pod-{number}"),
            qos: Some(QosClass::Guaranteed),
            containers: containers.iter().map(|&number| (id(number), format!("c-{number}"))).collect(),
            left_out: 0,
        }
    }

    fn names(pod: &str, container: Option<&str>) -> Option<Names> {
        let container = container.map(str::to_owned);
        Some(Names { namespace: "shop".into(), pod: pod.into(), container })
    }

    #[test]
    fn a_container_is_found_by_its_id_and_a_sandbox_by_its_pod() {
        let mut table = Table::default();
        assert!(table.apply(pod(1, &[10, 11])));
        assert_eq!(table.names(&id(11), None), names("pod-1", Some("c-11")));
        assert_eq!(table.names(&id(12), Some(&uid(1))), names("pod-1", None));
        assert_eq!(table.names(&id(12), None), None);
        assert_eq!(table.names(&id(12), Some(&uid(2))), None);
        assert_eq!(table.qos(&uid(1)), Some(QosClass::Guaranteed));
    }

    #[test]
    fn a_static_pod_is_found_by_the_uid_of_its_cgroup_also_after_its_mirror_was_replaced() {
        let mirror = |number| PodNames { static_uid: Some(uid(99)), ..pod(number, &[10]) };
        let mut table = Table::default();
        assert!(table.apply(mirror(1)));
        assert_eq!(table.names(&id(5), Some(&uid(99))), names("pod-1", None));
        assert!(table.apply(mirror(2)));
        table.remove(&uid(1));
        assert_eq!(table.names(&id(5), Some(&uid(99))), names("pod-2", None));
        assert_eq!(table.names(&id(10), None), names("pod-2", Some("c-10")));
        table.remove(&uid(2));
        assert_eq!(table.names(&id(5), Some(&uid(99))), None);
    }

    #[test]
    fn a_mirror_that_names_another_pods_uid_does_not_take_its_place() {
        let mut table = Table::default();
        assert!(table.apply(pod(1, &[])));
        assert!(table.apply(PodNames { static_uid: Some(uid(1)), ..pod(2, &[]) }));
        assert_eq!(table.names(&id(5), Some(&uid(1))), names("pod-1", None));
    }

    #[test]
    fn what_finds_no_room_is_said_and_harms_nobody() {
        let mut table = Table::default();
        for number in 0..MOST_PODS {
            assert!(table.apply(pod(number, &[number])));
        }
        assert!(!table.apply(pod(MOST_PODS, &[MOST_PODS])));
        // Who is in may change.
        assert!(table.apply(pod(0, &[0, MOST_PODS])));
        let many: Vec<_> = (0..MOST_CONTAINERS).collect();
        assert!(!table.apply(pod(1, &many)));
        assert_eq!(table.names(&id(2), None), names("pod-2", Some("c-2")));
    }

    proptest! {
        /// The table holds what the pods that are left said last, whatever happened before.
        #[test]
        fn events_leave_no_trace_of_what_is_gone(
            events in prop::collection::vec((0..6_usize, prop::option::of(prop::collection::btree_set(0..4_usize, 0..4))), 0..40)
        ) {
            let mut table = Table::default();
            let mut last = BTreeMap::new();
            for (number, containers) in events {
                // Ids are nobody else's.
                let containers = containers.map(|set| set.iter().map(|one| number * 10 + one).collect::<Vec<_>>());
                match containers {
                    Some(containers) => {
                        prop_assert!(table.apply(pod(number, &containers)));
                        last.insert(number, containers);
                    }
                    None => {
                        table.remove(&uid(number));
                        last.remove(&number);
                    }
                }
            }
            prop_assert_eq!(table.pods(), last.len());
            prop_assert_eq!(table.containers(), last.values().map(Vec::len).sum::<usize>());
            for number in 0..6 {
                for container in (0..4).map(|one| number * 10 + one) {
                    let known = last.get(&number).is_some_and(|containers| containers.contains(&container));
                    let expected = known
                        .then(|| names(&format!("pod-{number}"), Some(&format!("c-{container}"))))
                        .flatten();
                    prop_assert_eq!(table.names(&id(container), None), expected);
                }
            }
        }
    }
}
