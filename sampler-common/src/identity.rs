//! Whose a cgroup is: a container of a pod, a container, a systemd unit, or nobody's.
//!
//! The path of a cgroup tells all of it but the names, which the API server knows. The sampler reads the
//! path and joins the names; everything behind it (metrics, views, recordings, reports) shows what is here.

use serde::{Deserialize, Serialize};

/// Hex digits of a container's id.
const CONTAINER_ID_DIGITS: usize = 64;
/// Digits of it that are shown to people, as Docker does.
const SHOWN_DIGITS: usize = 12;
/// Hex digits of a pod's UID.
const POD_UID_DIGITS: usize = 32;

/// Text that is not the id that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a container's.
    #[error("{0:?} is not a container id: 64 hex digits in lower case")]
    Container(String),
    /// Not a pod's.
    #[error("{0:?} is not a pod UID: 32 hex digits in lower case, with or without dashes")]
    Pod(String),
}

/// A container's id: 64 hex digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first 12 digits, as people know it.
    pub fn short(&self) -> &str {
        &self.0[..SHOWN_DIGITS]
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let hex = text.len() == CONTAINER_ID_DIGITS && text.bytes().all(is_lower_hex);
        if hex { Ok(Self(text)) } else { Err(IdError::Container(shown(&text))) }
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// A pod's UID as the kubelet names its cgroup: with dashes, or without for a static pod, whose cgroup has the hash
/// of its manifest (annotation `kubernetes.io/config.hash`) in its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodUid(String);

impl PodUid {
    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PodUid {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        /// Where a UID has its dashes, if it has any.
        const DASHES: [usize; 4] = [8, 13, 18, 23];
        let dashes: Vec<_> =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at).collect();
        let digits = text.bytes().filter(|byte| is_lower_hex(*byte)).count();
        let uid = digits == POD_UID_DIGITS
            && digits + dashes.len() == text.len()
            && (dashes.is_empty() || dashes == DASHES);
        if uid { Ok(Self(text)) } else { Err(IdError::Pod(shown(&text))) }
    }
}

impl From<PodUid> for String {
    fn from(uid: PodUid) -> Self {
        uid.0
    }
}

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// containerd, by the CRI or by itself.
    Containerd,
    /// CRI-O.
    #[serde(rename = "cri-o")]
    CriO,
    /// Docker.
    Docker,
    /// podman.
    Podman,
}

impl Runtime {
    /// Its name, as the API server writes it before a container's id.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// A pod's quality of service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QosClass {
    /// Every container has limits that equal its requests.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// None.
    BestEffort,
}

impl QosClass {
    /// Its name in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// What a path says of a container's pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its UID.
    pub uid: PodUid,
    /// Its class; `None` where the path does not tell, as in a kubelet without a cgroup per class.
    pub qos: Option<QosClass>,
}

/// What the API server calls a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container; [`Names::SANDBOX`] for the pod's sandbox, which has none; `None` while it is not known.
    pub container: Option<String>,
}

impl Names {
    /// What a pod's sandbox is called in place of a container, as cAdvisor had it. No container can be: their names are in
    /// lower case.
    pub const SANDBOX: &str = "POD";
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its runtime; `None` where the path does not tell: with the cgroupfs driver it is the bare id.
    pub runtime: Option<Runtime>,
    /// Its pod; `None` outside Kubernetes.
    pub pod: Option<Pod>,
    /// What the API server calls it; `None` where there is none, or it has not told yet.
    pub names: Option<Names>,
}

/// Whose a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// A container's. What runs in cgroups within it is counted with it.
    Container(Box<Container>),
    /// A systemd service's, or that of a scope that somebody's programs were started in.
    Unit {
        /// Its name as systemd shows it.
        name: String,
    },
    /// Nobody's: slices, the root, what the kubelet makes for pods.
    #[default]
    Outside,
}

/// Where a cgroup is, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Path below the root of the hierarchy, without a leading slash; empty for the root, and while nobody has told.
    /// Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Whose it is.
    pub owner: Owner,
}

impl Identity {
    /// The container, where it is one.
    pub fn container(&self) -> Option<&Container> {
        match &self.owner {
            Owner::Container(container) => Some(container),
            Owner::Unit { .. } | Owner::Outside => None,
        }
    }

    /// What to call it on a screen: the best name that is known. Not unique.
    pub fn display_name(&self) -> &str {
        match &self.owner {
            Owner::Container(container) => match &container.names {
                Some(Names { container: Some(name), .. }) => name,
                Some(Names { pod, container: None, .. }) => pod,
                None => container.id.short(),
            },
            Owner::Unit { name } => name,
            Owner::Outside if self.path.is_empty() => "/",
            Owner::Outside => &self.path,
        }
    }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// So much of a text as an error shows.
fn shown(text: &str) -> String {
    text.chars().take(CONTAINER_ID_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<ContainerId, IdError> {
        text.to_owned().try_into()
    }

    fn uid(text: &str) -> Result<PodUid, IdError> {
        text.to_owned().try_into()
    }

    #[test]
    fn a_container_id_is_64_digits_in_lower_case() {
        let digits = "0f3c5b8e9a7d6c4b".repeat(4);
        let whole = id(&digits).unwrap();
        assert_eq!((whole.as_str(), whole.short()), (digits.as_str(), "0f3c5b8e9a7d"));
        for wrong in [&digits[1..], &digits.to_uppercase(), &format!("{digits}0"), "", &"é".repeat(32)] {
            assert_eq!(id(wrong), Err(IdError::Container(wrong.chars().take(64).collect())), "{wrong}");
        }
    }

    #[test]
    fn a_pod_uid_has_all_its_dashes_or_none() {
        for right in ["3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60", "3c1a5f0e8d2b4c7a9e6f1b2d3c4e5f60"] {
            assert_eq!(uid(right).map(String::from), Ok(right.to_owned()));
        }
        for wrong in ["3c1a5f0e-8d2b4c7a9e6f1b2d3c4e5f60", "3C1A5F0E8D2B4C7A9E6F1B2D3C4E5F60", "3c1a", "-"] {
            assert_eq!(uid(wrong), Err(IdError::Pod(wrong.to_owned())));
        }
    }

    #[test]
    fn an_id_of_a_recording_is_checked_like_any_other() {
        assert!(serde_json::from_str::<ContainerId>("\"0f3c\"").is_err());
        let digits = format!("\"{}\"", "0".repeat(64));
        let read: ContainerId = serde_json::from_str(&digits).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), digits);
    }

    #[test]
    fn the_best_name_that_is_known_is_shown() {
        let mut container =
            Container { id: id(&"a".repeat(64)).unwrap(), runtime: None, pod: None, names: None };
        let shown = |container: &Container| {
            let owner = Owner::Container(Box::new(container.clone()));
            Identity { path: "x".to_owned(), owner }.display_name().to_owned()
        };
        assert_eq!(shown(&container), "aaaaaaaaaaaa");
        let names = |container| Names { namespace: "shop".into(), pod: "web-0".into(), container };
        container.names = Some(names(None));
        assert_eq!(shown(&container), "web-0");
        container.names = Some(names(Some("nginx".into())));
        assert_eq!(shown(&container), "nginx");
        let of = |path: &str, owner| Identity { path: path.to_owned(), owner }.display_name().to_owned();
        assert_eq!(of("a/b.service", Owner::Unit { name: "b.service".into() }), "b.service");
        assert_eq!(of("a.slice", Owner::Outside), "a.slice");
        assert_eq!(of("", Owner::Outside), "/");
    }
}
