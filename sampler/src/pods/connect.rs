//! A client for the API server, where there is one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;

/// Where somebody says which kubeconfig to take, as to `kubectl`.
const KUBECONFIG: &str = "KUBECONFIG";
/// Set in every container of a pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// A connection that says nothing is given up after this. A watch is ended by the server after 290 s at most, and
/// has bookmarks in between.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// There should be an API server, but there cannot be a client for it.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A kubeconfig is of no use.
    #[error("kubeconfig {path}")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// Whether somebody has named it, and it was not only looked for where it usually is.
        named: bool,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// We run in a pod, but without what the kubelet gives its containers.
    #[error(
        "this is a pod ({IN_CLUSTER} is set), but its service account cannot be read; is automountServiceAccountToken \
         false?"
    )]
    InCluster(#[source] kube::config::InClusterError),
    /// It wants a program run for a token.
    #[error(
        "{of} has a program run for its token (`exec` or `auth-provider`), and the sampler, which may have every privilege \
         then, runs none: give it a `token`, a `tokenFile` or a client certificate"
    )]
    Program {
        /// The kubeconfig.
        of: String,
        /// As with a kubeconfig.
        named: bool,
    },
    /// What it says makes no client: a certificate that is none.
    #[error("no client for the API server can be made of {of}")]
    Client {
        /// The kubeconfig, or what else it was.
        of: String,
        /// As with a kubeconfig.
        named: bool,
        /// What is wrong with it.
        #[source]
        source: kube::Error,
    },
}

impl ConnectError {
    /// Whether it is something that somebody has named which is of no use: that one wants to know at once. What was
    /// found where it usually is may be there for others.
    pub fn is_of_what_was_named(&self) -> bool {
        match self {
            Self::Kubeconfig { named, .. } | Self::Program { named, .. } | Self::Client { named, .. } => {
                *named
            }
            Self::InCluster(_) => false,
        }
    }
}

/// Where it says how to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    /// In the files of `KUBECONFIG`.
    Environment,
    /// In the service account of the pod that we run in.
    ServiceAccount,
    /// In this kubeconfig, which somebody has named.
    Named(PathBuf),
    /// In this kubeconfig, which is where they usually are.
    Found(PathBuf),
    /// Nowhere.
    Nowhere,
}

impl Access {
    /// What somebody has said, then the pod that we run in, then what `kubectl` would take. A cluster that is not this
    /// node's does no harm: containers are named by their ids and their pods' UIDs, which no two clusters share.
    fn find(variable: impl Fn(&str) -> Option<OsString>, exists: impl Fn(&Path) -> bool) -> Self {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        if said(KUBECONFIG).is_some() {
            return Self::Environment;
        }
        if said(IN_CLUSTER).is_some() {
            return Self::ServiceAccount;
        }
        let home = said("HOME").map(|home| Path::new(&home).join(".kube/config"));
        home.filter(|path| exists(path)).map_or(Self::Nowhere, Self::Found)
    }
}

/// A client by the kubeconfig that is given, or by what there is: `KUBECONFIG`, the service account of the pod that we
/// run in, the kubeconfig in one's home; `None` where there is nothing.
///
/// # Errors
///
/// The configuration that is there is of no use. That the API server does not answer is none: that is told by
/// [`super::Pods::status`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Option<Client>, ConnectError> {
    let access = match kubeconfig {
        Some(path) => Access::Named(path.to_owned()),
        None => Access::find(|name| std::env::var_os(name), Path::exists),
    };
    connect_by(access).await
}

async fn connect_by(access: Access) -> Result<Option<Client>, ConnectError> {
    let (path, read, named) = match access {
        Access::Nowhere => return Ok(None),
        Access::ServiceAccount => {
            let config = Config::incluster().map_err(ConnectError::InCluster)?;
            return client(config, "the service account of this pod".to_owned(), false).map(Some);
        }
        // It may name several files, which are one then.
        Access::Environment => {
            let paths = std::env::var_os(KUBECONFIG).unwrap_or_default();
            let read = Kubeconfig::from_env().map(Option::unwrap_or_default);
            (PathBuf::from(paths), read, true)
        }
        Access::Named(path) => {
            let read = Kubeconfig::read_from(&path);
            (path, read, true)
        }
        Access::Found(path) => {
            let read = Kubeconfig::read_from(&path);
            (path, read, false)
        }
    };
    let path = path.display().to_string();
    let failed = |source| ConnectError::Kubeconfig { path: path.clone(), named, source };
    let read = read.map_err(failed)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(failed)?;
    client(config, format!("kubeconfig {path}"), named).map(Some)
}

/// A client of this configuration, which `of` says where it is from.
fn client(mut config: Config, of: String, named: bool) -> Result<Client, ConnectError> {
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err(ConnectError::Program { of, named });
    }
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|source| ConnectError::Client { of, named, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_none_is_named_and_whether_somebody_has_named_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let no_certificate = "{clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], \
            users: [{name: u, user: {client-certificate-data: bm8=, client-key-data: bm8=}}], \
            contexts: [{name: c, context: {cluster: c, user: u}}], current-context: c}";
        for text in [None, Some("clusters: 1"), Some("{}"), Some(no_certificate)] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            for (access, named) in [(Access::Named(path.clone()), true), (Access::Found(path.clone()), false)]
            {
                let error = connect_by(access).await.err().unwrap();
                assert!(error.to_string().ends_with(&format!("kubeconfig {}", path.display())), "{error}");
                assert_eq!(error.is_of_what_was_named(), named, "{error}");
            }
        }
    }

    #[tokio::test]
    async fn no_program_is_run_for_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ran) = (dir.path().join("config"), dir.path().join("ran"));
        let text = format!(
            "{{clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}], users: [{{name: u, user: {{exec: \
             {{apiVersion: client.authentication.k8s.io/v1, command: touch, args: ['{}'], interactiveMode: Never}}}}}}], \
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}], current-context: c}}",
            ran.display()
        );
        std::fs::write(&path, text).unwrap();
        let error = connect_by(Access::Named(path)).await.err().unwrap();
        assert!(matches!(error, ConnectError::Program { named: true, .. }), "{error}");
        assert!(!ran.exists());
    }

    #[test]
    fn what_somebody_has_said_comes_before_the_pod_and_that_before_ones_home() {
        let found = |set: &[(&str, &str)], exists: bool| {
            let variable =
                |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            Access::find(variable, |_| exists)
        };
        let (said, pod, home) = ((KUBECONFIG, "/a:/b"), (IN_CLUSTER, "10.0.0.1"), ("HOME", "/root"));
        assert_eq!(found(&[home, pod, said], true), Access::Environment);
        assert_eq!(found(&[home, pod], true), Access::ServiceAccount);
        assert_eq!(found(&[home], true), Access::Found("/root/.kube/config".into()));
        assert_eq!(found(&[home, (KUBECONFIG, ""), (IN_CLUSTER, "")], false), Access::Nowhere);
        assert_eq!(found(&[], true), Access::Nowhere);
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
