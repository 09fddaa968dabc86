//! A client for the API server, where there is one.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;

/// Set in every container of a pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// A connection that says nothing is given up after this. A watch is ended by the server after 290 s at most, and
/// has bookmarks in between.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// There should be an API server, but there cannot be a client for it.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The kubeconfig that was named is of no use.
    #[error("kubeconfig {path}")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// We run in a pod, but without what the kubelet gives its containers.
    #[error(
        "this is a pod ({IN_CLUSTER} is set), but its service account cannot be read; is automountServiceAccountToken \
         false?"
    )]
    InCluster(#[source] kube::config::InClusterError),
    /// What they say makes no client: a certificate that is none.
    #[error("no client for the API server can be made of this configuration")]
    Client(#[source] kube::Error),
}

/// A client by a kubeconfig, or else by the service account of the pod that we run in; `None` outside of any. The
/// kubeconfig in somebody's home is not taken: it may belong to any cluster.
///
/// # Errors
///
/// The configuration that is there is of no use. That the API server does not answer is none: that is told by
/// [`super::Pods::status`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Option<Client>, ConnectError> {
    let mut config = if let Some(path) = kubeconfig {
        let failed = |source| ConnectError::Kubeconfig { path: path.display().to_string(), source };
        let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
    } else if std::env::var_os(IN_CLUSTER).is_some() {
        Config::incluster().map_err(ConnectError::InCluster)?
    } else {
        return Ok(None);
    };
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map(Some).map_err(ConnectError::Client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let error = connect(Some(&path)).await.err().unwrap();
        assert_eq!(error.to_string(), format!("kubeconfig {}", path.display()));
        std::fs::write(&path, "clusters: 1").unwrap();
        assert!(matches!(connect(Some(&path)).await, Err(ConnectError::Kubeconfig { .. })));
    }

    #[tokio::test]
    async fn a_kubeconfig_makes_a_client_without_asking_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "{apiVersion: v1, kind: Config, current-context: c, \
            clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], \
            users: [{name: u, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: u}}]}";
        std::fs::write(&path, text).unwrap();
        assert!(connect(Some(&path)).await.unwrap().is_some());
    }
}
