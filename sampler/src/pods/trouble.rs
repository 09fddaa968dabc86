//! Why there may be no names, or old ones: in types, and in words that say what helps.

use std::error::Error as StdError;

use kube::runtime::watcher;
use thiserror::Error;

use super::ConnectError;

/// The resource that names come from.
pub const RESOURCE: &str = "pods";
/// All that may be done with it, and needs to be: no single pod is ever asked for, so that `get` is not among them.
pub const VERBS: [&str; 2] = ["list", "watch"];
/// The API server's own words are cut here.
const LONGEST_TEXT: usize = 400;

/// What keeps the API server from telling names. All of it is tried again, but for the first: that is not read again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    /// Nothing says how to reach it, or nothing that is of use.
    #[error("there is no API server to ask: {0}")]
    Unconfigured(String),
    /// No rule lets us (403).
    #[error(
        "the API server does not let the sampler see {RESOURCE} ({0}): bind its service account to a ClusterRole with \
         the rule apiGroups [\"\"], resources [\"{RESOURCE}\"], verbs [\"{verbs}\"]",
        verbs = VERBS.join("\", \"")
    )]
    Forbidden(String),
    /// It does not know our token, or we have none that can be read (401).
    #[error(
        "the API server does not accept the sampler's credentials ({0}): check its service account token"
    )]
    Unauthorized(String),
    /// No answer.
    #[error("the API server cannot be reached ({0}): check its address, certificate and network policies")]
    Unreachable(String),
    /// The watch was away for longer than the API server remembers (410). The pods are listed anew.
    #[error("the watch of pods fell behind ({0}) and begins anew")]
    Expired(String),
    /// Any other answer than the one that was asked for.
    #[error("the API server answered {code}: {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// In its words.
        message: String,
    },
    /// An answer that is no list or event of pods.
    #[error("the API server's answer cannot be read: {0}")]
    Unreadable(String),
}

impl From<watcher::Error> for Trouble {
    fn from(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of_client(&error),
            watcher::Error::WatchError(status) => Self::of_status(status.code, &status.message),
            watcher::Error::NoResourceVersion => Self::Unreadable("it has no resourceVersion".to_owned()),
        }
    }
}

impl Trouble {
    /// Nothing says how to reach an API server.
    pub fn unconfigured() -> Self {
        let why = "no KUBECONFIG, no service account of a pod, and no ~/.kube/config say how to reach it";
        Self::Unconfigured(why.to_owned())
    }

    /// What was found is of no use.
    pub fn unusable(error: &ConnectError) -> Self {
        Self::Unconfigured(chain(error))
    }

    fn of_client(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, &status.message),
            kube::Error::Auth(error) => Self::Unauthorized(chain(error)),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Unreadable(chain(error)),
            _ => Self::Unreachable(chain(error)),
        }
    }

    fn of_status(code: u16, message: &str) -> Self {
        let message = cut(message);
        match code {
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            410 => Self::Expired(message),
            code => Self::Refused { code, message },
        }
    }

    /// Whether an operator has something to do about it. What is not mends itself.
    pub fn needs_somebody(&self) -> bool {
        !matches!(self, Self::Expired(_))
    }
}

/// An error with its sources, each said once: many say their source's words too.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    cut(&text)
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn status(code: u16, message: &str) -> Box<Status> {
        Box::new(Status { code, message: message.into(), ..Status::default() })
    }

    #[test]
    fn answers_are_told_apart() {
        let of = |code| Trouble::from(watcher::Error::WatchError(status(code, "no")));
        assert_eq!(of(401), Trouble::Unauthorized("no".into()));
        assert_eq!(of(403), Trouble::Forbidden("no".into()));
        assert_eq!(of(410), Trouble::Expired("no".into()));
        assert_eq!(of(500), Trouble::Refused { code: 500, message: "no".into() });
        assert!(of(403).needs_somebody() && !of(410).needs_somebody());
    }

    #[test]
    fn a_refusal_names_the_rule_that_is_missing() {
        let error = kube::Error::Api(status(403, "pods is forbidden"));
        let text = Trouble::from(watcher::Error::InitialListFailed(error)).to_string();
        assert_eq!(
            text,
            "the API server does not let the sampler see pods (pods is forbidden): bind its service account to a \
             ClusterRole with the rule apiGroups [\"\"], resources [\"pods\"], verbs [\"list\", \"watch\"]"
        );
    }

    #[test]
    fn no_answer_is_told_with_its_reason() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(refused));
        let trouble = Trouble::from(watcher::Error::WatchFailed(error));
        assert_eq!(trouble, Trouble::Unreachable("ServiceError: connection refused".into()));
    }

    #[test]
    fn an_endless_message_is_cut() {
        let Trouble::Refused { message, .. } = Trouble::of_status(500, &"é".repeat(10_000)) else {
            panic!()
        };
        assert_eq!(message.chars().count(), 400);
    }
}
