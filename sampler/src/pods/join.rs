//! Where names meet cgroups: the containers of a snapshot get what the API server calls them.
//!
//! A name is kept for as long as its cgroup is in snapshots, since the pod may be gone from the API server before its
//! last counts are in one. A recording's containers that have names keep theirs.
//!
//! # The sandbox
//!
//! No status names a pod's sandbox, nor a container that was made just now, and their cgroups look alike. But the
//! kubelet tells of all of a pod's containers at once, and the kernel numbers cgroups in the order in which they are
//! made: so what is older than a container that is named, and is not named itself, is none of the containers. Until
//! there is one that is named nothing is said, and it goes by its id.

use std::collections::HashMap;

use sampler_common::identity::{Names, Owner, PodUid};
use sampler_common::snapshot::{CgroupId, Snapshot};

use super::Table;

/// The names that have been given to cgroups.
#[derive(Debug, Default)]
pub struct Join {
    given: HashMap<CgroupId, Names>,
}

impl Join {
    /// Names the containers of a snapshot by what is known now, and by what was known when it last was.
    pub fn name(&mut self, snapshot: &mut Snapshot, table: &Table) {
        self.given.retain(|id, _| snapshot.cgroups.contains_key(id));
        let mut youngest = HashMap::<PodUid, CgroupId>::new();
        for (id, cgroup) in &mut snapshot.cgroups {
            let Owner::Container(container) = &mut cgroup.identity.owner else { continue };
            if container.names.is_some() {
                continue;
            }
            let uid = container.pod.as_ref().map(|pod| &pod.uid);
            if let Some(mut now) = table.names(&container.id, uid) {
                // A container that was replaced twice is in no status any more.
                let before = self.given.remove(id).and_then(|names| names.container);
                now.container = now.container.or(before);
                self.given.insert(*id, now);
            }
            if let Some(pod) = &mut container.pod {
                pod.qos = pod.qos.or_else(|| table.qos(&pod.uid));
                if self.given.get(id).is_some_and(|names| is_container(names.container.as_deref())) {
                    let youngest = youngest.entry(pod.uid.clone()).or_insert(*id);
                    *youngest = (*id).max(*youngest);
                }
            }
        }
        for (id, cgroup) in &mut snapshot.cgroups {
            let Owner::Container(container) = &mut cgroup.identity.owner else { continue };
            let Some(names) = self.given.get_mut(id).filter(|_| container.names.is_none()) else { continue };
            let youngest = container.pod.as_ref().and_then(|pod| youngest.get(&pod.uid));
            if names.container.is_none() && youngest.is_some_and(|youngest| id < youngest) {
                names.container = Some(Names::SANDBOX.to_owned());
            }
            container.names = Some(names.clone());
        }
    }
}

/// Whether it is the name of a container.
fn is_container(name: Option<&str>) -> bool {
    name.is_some_and(|name| name != Names::SANDBOX)
}

#[cfg(test)]
mod tests {
    use sampler_common::identity::{Container, ContainerId, Identity, Pod, QosClass};
    use sampler_common::snapshot::CgroupCounters;

    use super::super::PodNames;
    use super::*;

    fn uid(number: u64) -> PodUid {
        format!("{number:032x}").try_into().unwrap()
    }

    fn id(number: u64) -> ContainerId {
        format!("{number:064x}").try_into().unwrap()
    }

    /// Cgroups, each of the container of its number, in a pod.
    fn snapshot(cgroups: &[(u64, u64)]) -> Snapshot {
        let cgroup = |(number, pod): &(u64, u64)| {
            let pod = Some(Pod { uid: uid(*pod), qos: None });
            let container = Container { id: id(*number), runtime: None, pod, names: None };
            let owner = Owner::Container(Box::new(container));
            let identity = Identity { path: format!("{number}"), owner };
            (CgroupId(*number), CgroupCounters { identity, ..CgroupCounters::default() })
        };
        Snapshot { cgroups: cgroups.iter().map(cgroup).collect(), ..Snapshot::default() }
    }

    /// A pod whose status has these containers.
    fn pod(number: u64, containers: &[(u64, &str)]) -> PodNames {
        PodNames {
            uid: uid(number),
            static_uid: None,
            namespace: "shop".into(),
            name: format!("pod-{number}"),
            qos: Some(QosClass::Burstable),
            containers: containers.iter().map(|(number, name)| (id(*number), (*name).to_owned())).collect(),
            left_out: 0,
        }
    }

    fn table(pods: impl IntoIterator<Item = PodNames>) -> Table {
        let mut table = Table::default();
        for pod in pods {
            assert!(table.apply(pod));
        }
        table
    }

    /// Pod and container of each cgroup.
    fn named(join: &mut Join, cgroups: &[(u64, u64)], table: &Table) -> Vec<(String, Option<String>)> {
        let mut snapshot = snapshot(cgroups);
        join.name(&mut snapshot, table);
        let names = |cgroup: &CgroupCounters| {
            let names = cgroup.identity.container().unwrap().names.clone();
            names.map_or_else(Default::default, |names| (names.pod, names.container))
        };
        snapshot.cgroups.values().map(names).collect()
    }

    fn of(pod: &str, container: Option<&str>) -> (String, Option<String>) {
        (pod.into(), container.map(str::to_owned))
    }

    #[test]
    fn a_container_that_was_made_just_now_is_not_the_sandbox() {
        let mut join = Join::default();
        // The sandbox, and the first container.
        let cgroups = [(10, 1), (11, 1)];
        let nothing = table([pod(1, &[])]);
        assert_eq!(named(&mut join, &cgroups, &nothing), [of("pod-1", None), of("pod-1", None)]);
        let first = table([pod(1, &[(11, "nginx")])]);
        let both = [of("pod-1", Some(Names::SANDBOX)), of("pod-1", Some("nginx"))];
        assert_eq!(named(&mut join, &cgroups, &first), both);
        // The second comes, before its name does.
        let cgroups = [(10, 1), (11, 1), (12, 1)];
        let [sandbox, nginx] = both;
        assert_eq!(named(&mut join, &cgroups, &first), [sandbox.clone(), nginx.clone(), of("pod-1", None)]);
        let second = table([pod(1, &[(11, "nginx"), (12, "log")])]);
        assert_eq!(named(&mut join, &cgroups, &second), [sandbox, nginx, of("pod-1", Some("log"))]);
    }

    #[test]
    fn a_runtime_without_sandboxes_has_none() {
        let mut join = Join::default();
        let both = table([pod(1, &[(11, "nginx"), (12, "log")])]);
        let names = [of("pod-1", Some("nginx")), of("pod-1", Some("log"))];
        assert_eq!(named(&mut join, &[(11, 1), (12, 1)], &both), names);
    }

    #[test]
    fn what_has_names_already_keeps_them() {
        let mut snapshot = snapshot(&[(11, 1)]);
        Join::default().name(&mut snapshot, &table([pod(1, &[(11, "nginx")])]));
        let recorded = snapshot.clone();
        Join::default().name(&mut snapshot, &table([pod(1, &[(11, "another")])]));
        assert_eq!(snapshot, recorded);
    }

    #[test]
    fn another_pods_containers_say_nothing_of_a_sandbox() {
        let mut join = Join::default();
        let table = table([pod(1, &[]), pod(2, &[(21, "nginx")])]);
        assert_eq!(
            named(&mut join, &[(10, 1), (21, 2)], &table),
            [of("pod-1", None), of("pod-2", Some("nginx"))]
        );
    }

    #[test]
    fn what_is_gone_from_the_api_server_keeps_its_names_until_its_cgroup_goes() {
        let mut join = Join::default();
        let cgroups = [(10, 1), (11, 1)];
        let known = table([pod(1, &[(11, "nginx")])]);
        let both = [of("pod-1", Some(Names::SANDBOX)), of("pod-1", Some("nginx"))];
        assert_eq!(named(&mut join, &cgroups, &known), both);
        let gone = table([]);
        assert_eq!(named(&mut join, &cgroups, &gone), both);
        // Replaced twice: its pod is there, but tells of others.
        let replaced = table([pod(1, &[(15, "nginx"), (16, "nginx")])]);
        assert_eq!(named(&mut join, &cgroups, &replaced), both);
        // Another cgroup with the same number is another container.
        assert_eq!(named(&mut join, &[], &gone), []);
        assert_eq!(named(&mut join, &cgroups, &gone), [of("", None), of("", None)]);
    }

    #[test]
    fn a_class_that_the_path_does_not_tell_is_the_api_servers() {
        let mut snapshot = snapshot(&[(11, 1)]);
        Join::default().name(&mut snapshot, &table([pod(1, &[(11, "nginx")])]));
        let container = snapshot.cgroups[&CgroupId(11)].identity.container().unwrap();
        assert_eq!(container.pod.as_ref().unwrap().qos, Some(QosClass::Burstable));
    }
}
