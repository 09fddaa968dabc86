//! Kinds of workload, written as Kubernetes does: `Deployment`, or `Rollout.argoproj.io` of another API group.
//!
//! The version of an API is left out: an owner reference and a HorizontalPodAutoscaler may name the same object by
//! different ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no kind of workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no kind of workload; write Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, \
     ReplicationController, or KIND.GROUP such as Rollout.argoproj.io"
)]
pub struct KindError(String);

/// The kinds of workload whose pods can be selected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WorkloadKind {
    /// Replicas are alike.
    Deployment,
    /// A ReplicaSet of no Deployment.
    ReplicaSet,
    /// Replicas have names of their own.
    StatefulSet,
    /// One pod per node: replicas may differ as their nodes do.
    DaemonSet,
    /// Runs to its end.
    Job,
    /// Makes Jobs by the clock.
    CronJob,
    /// What a ReplicaSet was before there were any.
    ReplicationController,
    /// One that Kubernetes itself does not have.
    Other(GroupKind),
}

/// A kind of an API group that Kubernetes itself does not have, as `Kind.group`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKind(String);

impl WorkloadKind {
    /// One of Kubernetes' own, by its name and group.
    fn own(kind: &str, group: &str) -> Option<Self> {
        Some(match (kind, group) {
            ("Deployment", "apps") => Self::Deployment,
            ("ReplicaSet", "apps") => Self::ReplicaSet,
            ("StatefulSet", "apps") => Self::StatefulSet,
            ("DaemonSet", "apps") => Self::DaemonSet,
            ("Job", "batch") => Self::Job,
            ("CronJob", "batch") => Self::CronJob,
            ("ReplicationController", "") => Self::ReplicationController,
            _ => return None,
        })
    }
}

impl FromStr for WorkloadKind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        let error = || KindError(text.chars().take(80).collect());
        let Some((kind, group)) = text.split_once('.') else {
            let mut groups = ["apps", "batch", ""].into_iter();
            return groups.find_map(|group| Self::own(text, group)).ok_or_else(error);
        };
        let is_kind = kind.len() <= 63
            && kind.starts_with(|first: char| first.is_ascii_uppercase())
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let part = |part: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
        };
        if !is_kind || group.len() > 253 || !group.split('.').all(part) {
            return Err(error());
        }
        Ok(Self::own(kind, group).unwrap_or_else(|| Self::Other(GroupKind(text.to_owned()))))
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::ReplicationController => "ReplicationController",
            Self::Other(GroupKind(other)) => other,
        })
    }
}

impl TryFrom<String> for WorkloadKind {
    type Error = KindError;

    fn try_from(text: String) -> Result<Self, KindError> {
        text.parse()
    }
}

impl From<WorkloadKind> for String {
    fn from(kind: WorkloadKind) -> Self {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_another_group_is_told_from_those_of_kubernetes() {
        for (text, printed) in [
            ("Deployment", "Deployment"),
            ("Deployment.apps", "Deployment"),
            ("CronJob.batch", "CronJob"),
            ("ReplicationController", "ReplicationController"),
            ("Rollout.argoproj.io", "Rollout.argoproj.io"),
            ("StatefulSet.apps.kruise.io", "StatefulSet.apps.kruise.io"),
        ] {
            let kind: WorkloadKind = text.parse().unwrap();
            assert_eq!(kind.to_string(), printed);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("{printed:?}"));
            assert_eq!(serde_json::from_str::<WorkloadKind>(&json).unwrap(), kind);
        }
        assert_ne!("StatefulSet".parse::<WorkloadKind>(), "StatefulSet.apps.kruise.io".parse());
    }

    #[test]
    fn what_is_no_kind_is_refused_with_what_to_write() {
        for text in
            ["", "Deploymnet", "deployment", ".io", "Rollout.", "Rollout..io", "rollout.io", "A.-b", "A.b/v1"]
        {
            assert!(text.parse::<WorkloadKind>().is_err(), "{text}");
        }
        let long = format!("A.{}", "b".repeat(1000)).parse::<WorkloadKind>().unwrap_err().to_string();
        assert!(long.len() < 300 && long.ends_with("such as Rollout.argoproj.io"), "{long}");
    }
}
