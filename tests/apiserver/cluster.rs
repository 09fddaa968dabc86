//! The parts of others that tests play: who makes pods, the kubelet that tells of their containers, and the
//! administrator who lets the sampler see them.

use std::future::Future;
use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use loadline_tests::control_plane::ControlPlane;
use sampler::pods;
use sampler_common::identity::{ContainerId, PodUid};
use serde_json::{Value, json};

/// Where everything of the tests is.
pub const NAMESPACE: &str = "shop";
/// The sampler's service account and role.
const SAMPLER: &str = "sampler";

/// A cluster of a control plane alone, with a namespace and a service account for the sampler that may do nothing.
pub struct Cluster {
    /// Its control plane.
    pub control_plane: ControlPlane,
    admin: Client,
}

/// Runs a test that waits.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    // One thread: what a test has started ends with it.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// The container id of this digit alone.
pub fn id(digit: char) -> ContainerId {
    digit.to_string().repeat(64).try_into().unwrap()
}

/// The status of a running container, as the kubelet writes it.
pub fn running(name: &str, id: &ContainerId) -> Value {
    json!({
        "name": name, "image": "pause", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{}", id.as_str()),
        "state": { "running": {} },
    })
}

impl Cluster {
    /// Starts one.
    pub async fn start() -> Self {
        let control_plane = ControlPlane::start().await.unwrap();
        let admin = control_plane.admin().await.unwrap();
        let cluster = Self { control_plane, admin: admin.clone() };
        let _: Namespace =
            cluster.create(Api::all(admin), json!({ "metadata": { "name": NAMESPACE } })).await;
        // A pod needs the first one, which a controller makes elsewhere.
        for name in ["default", SAMPLER] {
            let _: ServiceAccount = cluster
                .create(cluster.namespaced(), json!({ "metadata": { "name": name, "namespace": NAMESPACE } }))
                .await;
        }
        cluster
    }

    fn namespaced<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }

    async fn create<K>(&self, api: Api<K>, object: Value) -> K
    where
        K: serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
    {
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    /// A client with a token of the sampler's service account.
    pub async fn sampler(&self) -> Client {
        self.control_plane.client(&self.sampler_token().await).await.unwrap()
    }

    /// A kubeconfig with such a token.
    pub async fn sampler_kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig(&self.sampler_token().await).unwrap()
    }

    async fn sampler_token(&self) -> String {
        let api: Api<ServiceAccount> = self.namespaced();
        let request: TokenRequest = serde_json::from_value(json!({ "spec": { "audiences": [] } })).unwrap();
        let answer = api.create_token_request(SAMPLER, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token.unwrap()
    }

    /// Gives the sampler a role with these verbs on the resource that it asks for.
    pub async fn allow(&self, verbs: &[&str]) {
        let rule = json!({ "apiGroups": [""], "resources": [pods::RESOURCE], "verbs": verbs });
        let _: ClusterRole = self
            .create(Api::all(self.admin.clone()), json!({ "metadata": { "name": SAMPLER }, "rules": [rule] }))
            .await;
        let binding = json!({
            "metadata": { "name": SAMPLER },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": SAMPLER },
            "subjects": [{ "kind": "ServiceAccount", "name": SAMPLER, "namespace": NAMESPACE }],
        });
        let _: ClusterRoleBinding = self.create(Api::all(self.admin.clone()), binding).await;
    }

    /// Changes the verbs of that role.
    pub async fn change_verbs(&self, verbs: &[&str]) {
        let api: Api<ClusterRole> = Api::all(self.admin.clone());
        let rule = json!({ "apiGroups": [""], "resources": [pods::RESOURCE], "verbs": verbs });
        api.patch(SAMPLER, &PatchParams::default(), &Patch::Merge(json!({ "rules": [rule] }))).await.unwrap();
    }

    /// Makes a pod on a node, and returns its UID.
    pub async fn pod(&self, name: &str, node: &str, annotations: Value) -> PodUid {
        let pod = json!({
            "metadata": { "name": name, "annotations": annotations },
            "spec": { "nodeName": node, "containers": [{ "name": "nginx", "image": "nginx" }] },
        });
        let pod: Pod = self.create(self.namespaced(), pod).await;
        pod.metadata.uid.unwrap().try_into().unwrap()
    }

    /// Makes a pod on a node whose only container runs.
    pub async fn running_pod(&self, name: &str, node: &str, id: &ContainerId) -> PodUid {
        let uid = self.pod(name, node, json!({})).await;
        self.tell(name, json!({ "containerStatuses": [running("nginx", id)] })).await;
        uid
    }

    /// Tells the pod's status, as the kubelet does.
    pub async fn tell(&self, name: &str, status: Value) {
        let api: Api<Pod> = self.namespaced();
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Deletes a pod at once, as when the kubelet has ended it.
    pub async fn delete(&self, name: &str) {
        let api: Api<Pod> = self.namespaced();
        api.delete(name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
            .await
            .unwrap();
    }
}
