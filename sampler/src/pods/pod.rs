//! What one pod's object says of names, and the few of its fields that are read for it.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::core::ObjectMeta;
use sampler_common::identity::{ContainerId, IdError, PodUid, QosClass};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// The longest name that the API server takes: that of a DNS subdomain (RFC 1123).
pub(super) const LONGEST_NAME: usize = 253;

/// A pod that is left out, because what it says of itself cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PodError {
    /// Every object has this field.
    #[error("a pod without metadata.{0}")]
    Missing(&'static str),
    /// Its UID is none.
    #[error("pod {namespace}/{name}: metadata.uid: {error}")]
    Uid {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        error: IdError,
    },
    /// The API server takes no such name.
    #[error("a pod whose metadata.{0} is longer than {LONGEST_NAME} bytes")]
    TooLong(&'static str),
}

/// The part of a pod's object that is read. The rest is skipped while the answer is parsed and takes no memory: of
/// some ten KiB a pod (`spec`, `managedFields`, conditions) these are some hundred bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Pod {
    #[serde(deserialize_with = "read_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Option<PodStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    qos_class: Option<String>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    last_state: Option<ContainerState>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerState {
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Deserialize)]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

/// Set by the kubelet on the mirror, in the API, of a pod that it runs from a file: the UID that it knows the pod
/// by, and that the pod's cgroup is named after. `kubernetes.io/config.hash` has the same value, but on any pod
/// anybody may write that one.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

fn read_metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        annotations: Option<Annotations>,
    }
    #[derive(Deserialize)]
    struct Annotations {
        // As CONFIG_MIRROR.
        #[serde(rename = "kubernetes.io/config.mirror")]
        config_mirror: Option<String>,
    }
    let Metadata { name, namespace, uid, resource_version, annotations } = Metadata::deserialize(from)?;
    let config_mirror = annotations.and_then(|annotations| annotations.config_mirror);
    let annotations = config_mirror.map(|hash| [(CONFIG_MIRROR.to_owned(), hash)].into());
    Ok(ObjectMeta { name, namespace, uid, resource_version, annotations, ..ObjectMeta::default() })
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What a pod and its containers are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNames {
    /// Its UID in the API.
    pub uid: PodUid,
    /// The UID that its cgroup is named after where that is another: that of a static pod.
    pub static_uid: Option<PodUid>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its class; `None` while the API server has not told.
    pub qos: Option<QosClass>,
    /// Its containers by id, with their names: init, ordinary and ephemeral ones. The last container that a restart
    /// has replaced is among them, since its cgroup may outlive it in the status.
    pub containers: Vec<(ContainerId, String)>,
    /// Containers that are not among them, because their id or their name is none.
    pub left_out: u32,
}

/// What a pod's object says of names.
pub fn names_of(pod: &Pod) -> Result<PodNames, PodError> {
    let field = |value: &Option<String>, name| match value {
        None => Err(PodError::Missing(name)),
        Some(value) if value.len() > LONGEST_NAME => Err(PodError::TooLong(name)),
        Some(value) => Ok(value.clone()),
    };
    let namespace = field(&pod.metadata.namespace, "namespace")?;
    let name = field(&pod.metadata.name, "name")?;
    let uid = field(&pod.metadata.uid, "uid")?;
    let uid = PodUid::try_from(uid).map_err(|error| PodError::Uid {
        namespace: namespace.clone(),
        name: name.clone(),
        error,
    })?;
    let annotations = pod.metadata.annotations.as_ref();
    let static_uid = annotations
        .and_then(|annotations| annotations.get(CONFIG_MIRROR))
        .and_then(|hash| PodUid::try_from(hash.clone()).ok())
        .filter(|hash| *hash != uid);
    let mut names =
        PodNames { uid, static_uid, namespace, name, qos: None, containers: Vec::new(), left_out: 0 };
    if let Some(status) = &pod.status {
        names.qos = status.qos_class.as_deref().and_then(qos_class);
        let kinds = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        kinds.into_iter().flatten().flatten().for_each(|container| names.add(container));
    }
    Ok(names)
}

impl PodNames {
    fn add(&mut self, container: &ContainerStatus) {
        let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let ids = [container.container_id.as_ref(), last.and_then(|last| last.container_id.as_ref())];
        // Not yet created, it has an empty one.
        for id in ids.into_iter().flatten().filter(|id| !id.is_empty()) {
            match container_id(id) {
                Some(id) if container.name.len() <= LONGEST_NAME => {
                    self.containers.push((id, container.name.clone()));
                }
                _ => self.left_out += 1,
            }
        }
    }
}

/// The id in `containerd://ID`, `cri-o://ID`, `docker://ID`: the cgroup path tells the runtime.
fn container_id(text: &str) -> Option<ContainerId> {
    let (_runtime, id) = text.split_once("://")?;
    ContainerId::try_from(id.to_owned()).ok()
}

fn qos_class(label: &str) -> Option<QosClass> {
    let classes = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];
    classes.into_iter().find(|class| class.label() == label)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60";
    const HASH: &str = "0123456789abcdef0123456789abcdef";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn container(digit: char) -> ContainerId {
        id(digit).try_into().unwrap()
    }

    fn parse(pod: Value) -> Pod {
        serde_json::from_value(pod).unwrap()
    }

    fn names(pod: Value) -> Result<PodNames, PodError> {
        names_of(&parse(pod))
    }

    /// As a kubelet 1.36 with containerd writes it: one ordinary, one init and one ephemeral container, the ordinary
    /// one restarted.
    fn pod() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "web-0",
                "namespace": "shop",
                "uid": UID,
                "resourceVersion": "4711",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app": "web" },
                "annotations": { "kubernetes.io/config.seen": "never", "other": "x" },
                "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }],
            },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "nginx", "image": "nginx" }] },
            "status": {
                "phase": "Running",
                "qosClass": "Burstable",
                "initContainerStatuses": [{
                    "name": "migrate",
                    "containerID": format!("containerd://{}", id('a')),
                    "state": { "terminated": {
                        "exitCode": 0, "containerID": format!("containerd://{}", id('a')),
                    } },
                }],
                "containerStatuses": [{
                    "name": "nginx",
                    "containerID": format!("containerd://{}", id('b')),
                    "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
                    "lastState": { "terminated": {
                        "exitCode": 1, "containerID": format!("containerd://{}", id('c')),
                    } },
                }],
                "ephemeralContainerStatuses": [{
                    "name": "debugger",
                    "containerID": format!("containerd://{}", id('d')),
                }],
            },
        })
    }

    #[test]
    fn init_ordinary_ephemeral_and_replaced_containers_have_names() {
        let expected = PodNames {
            uid: UID.to_owned().try_into().unwrap(),
            static_uid: None,
            namespace: "shop".into(),
            name: "web-0".into(),
            qos: Some(QosClass::Burstable),
            containers: vec![
                (container('a'), "migrate".into()),
                (container('b'), "nginx".into()),
                (container('c'), "nginx".into()),
                (container('d'), "debugger".into()),
            ],
            left_out: 0,
        };
        assert_eq!(names(pod()), Ok(expected));
    }

    #[test]
    fn what_is_not_read_is_not_kept() {
        let pod = parse(pod());
        assert_eq!((&pod.metadata.managed_fields, &pod.metadata.labels), (&None, &None));
        assert_eq!(pod.metadata.annotations, None);
        // But what the watch goes on from is.
        assert_eq!(pod.metadata.resource_version.as_deref(), Some("4711"));
    }

    #[test]
    fn ids_of_every_runtime_are_read() {
        for runtime in ["containerd", "cri-o", "docker"] {
            assert_eq!(container_id(&format!("{runtime}://{}", id('e'))), Some(container('e')));
        }
    }

    #[test]
    fn a_static_pod_is_known_by_both_its_uids() {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({
            "kubernetes.io/config.hash": HASH,
            "kubernetes.io/config.mirror": HASH,
            "kubernetes.io/config.source": "file",
        });
        let names = names(pod).unwrap();
        assert_eq!(names.uid.as_str(), UID);
        assert_eq!(names.static_uid.unwrap().as_str(), HASH);
    }

    #[test]
    fn a_hash_on_a_pod_that_is_no_mirror_is_somebodys_own_business() {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.hash": HASH });
        assert_eq!(names(pod).unwrap().static_uid, None);
    }

    #[test]
    fn a_pod_that_has_not_started_has_no_containers_yet() {
        let mut pod = pod();
        pod["status"] = json!({
            "phase": "Pending",
            "containerStatuses": [{ "name": "nginx", "containerID": "" }, { "name": "sidecar" }],
        });
        let pending = names(pod.clone()).unwrap();
        assert_eq!((pending.containers, pending.qos, pending.left_out), (vec![], None, 0));
        for nothing in [json!({}), json!(null)] {
            pod["status"] = nothing;
            assert_eq!(names(pod.clone()).unwrap().containers, vec![]);
        }
    }

    #[test]
    fn ids_that_are_none_are_left_out_and_counted() {
        let mut pod = pod();
        let statuses = ["0f3c", "containerd://0f3c", "containerd:", &format!("docker://{}", "G".repeat(64))]
            .map(|id| json!({ "name": "x", "containerID": id }));
        pod["status"] = json!({ "containerStatuses": statuses });
        let names = names(pod).unwrap();
        assert_eq!((names.containers, names.left_out), (vec![], 4));
    }

    #[test]
    fn a_pod_without_a_name_or_with_an_endless_one_is_an_error() {
        for field in ["name", "namespace", "uid"] {
            let mut missing = pod();
            missing["metadata"].as_object_mut().unwrap().remove(field);
            assert_eq!(names(missing), Err(PodError::Missing(field)));
            let mut long = pod();
            long["metadata"][field] = json!("x".repeat(254));
            assert_eq!(names(long), Err(PodError::TooLong(field)));
        }
        let mut odd = pod();
        odd["metadata"]["uid"] = json!("../../etc");
        let error = names(odd).unwrap_err().to_string();
        assert!(error.starts_with("pod shop/web-0: metadata.uid: \"../../etc\" is not"), "{error}");
    }
}
