//! What a cgroup is called on the screen, and how that is shortened where there is little room.

use sampler_common::identity::{Container, Identity, Names, Owner};
use sampler_common::snapshot::CgroupId;

/// What stands where something was left out.
pub const CUT: &str = "…";
/// From so many characters on it pays to show a part of a pod's name.
const POD_AT_LEAST: usize = 8;
/// So many characters at the end of a name are kept: the random part of a pod's name has five.
const END: usize = 5;

/// The name of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A container of a pod, as the API server calls it.
    Pod {
        /// Namespace.
        namespace: String,
        /// Pod.
        pod: String,
        /// Container, or its short id while its name is not known; in brackets for the pod's sandbox.
        container: String,
    },
    /// A systemd unit.
    Unit(String),
    /// A short id, or the path of a cgroup that is nobody's.
    Plain(String),
}

impl Name {
    /// The best name that is known of a cgroup. Characters that would move the terminal's cursor are replaced:
    /// anybody who may make a cgroup chooses its name.
    pub fn of(id: CgroupId, identity: &Identity) -> Self {
        match &identity.owner {
            Owner::Container(container) => Self::of_container(container),
            Owner::Unit { name } => Self::Unit(printable(name)),
            Owner::Outside if !identity.path.is_empty() => Self::Plain(printable(&identity.path)),
            Owner::Outside if id == CgroupId::ROOT => Self::Plain("(root)".into()),
            Owner::Outside => Self::Plain(format!("cgroup {id}")),
        }
    }

    fn of_container(container: &Container) -> Self {
        match (&container.names, &container.pod) {
            (Some(names), _) => Self::Pod {
                namespace: printable(&names.namespace),
                pod: printable(&names.pod),
                container: match names.container.as_deref() {
                    Some(Names::SANDBOX) => "(sandbox)".into(),
                    Some(name) => printable(name),
                    None => container.id.short().to_owned(),
                },
            },
            (None, Some(pod)) => {
                let uid: String = pod.uid.as_str().chars().take(POD_AT_LEAST).collect();
                Self::Plain(format!("pod {uid}/{}", container.id.short()))
            }
            (None, None) => Self::Plain(container.id.short().to_owned()),
        }
    }

    /// All of it.
    pub fn whole(&self) -> String {
        match self {
            Self::Pod { namespace, pod, container } => format!("{namespace}/{pod}/{container}"),
            Self::Unit(name) | Self::Plain(name) => name.clone(),
        }
    }

    /// At most so many characters of it: those that tell it from others.
    pub fn within(&self, columns: usize) -> String {
        let whole = self.whole();
        if length(&whole) <= columns {
            return whole;
        }
        match self {
            Self::Pod { namespace, pod, container } => pod_within(namespace, pod, container, columns),
            Self::Unit(name) => cut(name.strip_suffix(".service").unwrap_or(name), columns),
            Self::Plain(name) => cut(name, columns),
        }
    }
}

fn pod_within(namespace: &str, pod: &str, container: &str, columns: usize) -> String {
    // A container that is called like its pod is told by that.
    let container = if pod.starts_with(container) { String::new() } else { format!("/{container}") };
    let with_namespace = format!("{namespace}/{pod}{container}");
    if length(&with_namespace) <= columns {
        return with_namespace;
    }
    match columns.checked_sub(length(&container)) {
        Some(left) if left >= POD_AT_LEAST => cut(pod, left) + &container,
        _ => cut(&format!("{pod}{container}"), columns),
    }
}

/// The text without its middle, so that it has at most so many characters.
pub fn cut(text: &str, columns: usize) -> String {
    let long = length(text);
    if long <= columns {
        return text.to_owned();
    }
    let left = columns.saturating_sub(length(CUT));
    let end = if left >= POD_AT_LEAST { END } else { 0 };
    let beginning = text.chars().take(left - end);
    beginning.chain(CUT.chars()).chain(text.chars().skip(long - end)).take(columns).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// The text with characters that move the cursor replaced.
pub fn printable(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { char::REPLACEMENT_CHARACTER } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sampler_common::identity::Names;

    fn pod(namespace: &str, pod: &str, container: &str) -> Name {
        Name::Pod { namespace: namespace.into(), pod: pod.into(), container: container.into() }
    }

    #[test]
    fn a_name_is_shortened_to_what_tells_it_from_others() {
        let web = pod("shop", "web-7d9f8b6c5d-x2x9z", "nginx");
        let proxy = pod("kube-system", "kube-proxy-abcde", "kube-proxy");
        let unit = Name::Unit("systemd-journald.service".into());
        let shortened = [
            (&web, 31, "shop/web-7d9f8b6c5d-x2x9z/nginx"),
            (&web, 30, "web-7d9f8b6c5d-x2x9z/nginx"),
            (&web, 20, "web-7d9f…x2x9z/nginx"),
            (&web, 17, "web-7…x2x9z/nginx"),
            (&web, 10, "web-…nginx"),
            (&web, 6, "web-7…"),
            (&web, 0, ""),
            (&proxy, 38, "kube-system/kube-proxy-abcde"),
            (&proxy, 17, "kube-proxy-abcde"),
            (&unit, 24, "systemd-journald.service"),
            (&unit, 17, "systemd-journald"),
            (&unit, 12, "system…rnald"),
        ];
        for (name, columns, text) in shortened {
            assert_eq!(name.within(columns), text, "{columns}");
        }
    }

    #[test]
    fn the_best_name_that_is_known_is_taken() {
        let of =
            |id, path: &str, owner| Name::of(CgroupId(id), &Identity { path: path.into(), owner }).whole();
        let mut container =
            Container { id: "ab".repeat(32).try_into().unwrap(), runtime: None, pod: None, names: None };
        let boxed = |container: &Container| Owner::Container(Box::new(container.clone()));
        assert_eq!(of(7, "x", boxed(&container)), "abababababab");
        let uid = "3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60".to_owned().try_into().unwrap();
        container.pod = Some(sampler_common::identity::Pod { uid, qos: None });
        assert_eq!(of(7, "x", boxed(&container)), "pod 3c1a5f0e/abababababab");
        let names = |container| Names { namespace: "shop".into(), pod: "web-0".into(), container };
        container.names = Some(names(None));
        assert_eq!(of(7, "x", boxed(&container)), "shop/web-0/abababababab");
        container.names = Some(names(Some(Names::SANDBOX.into())));
        assert_eq!(of(7, "x", boxed(&container)), "shop/web-0/(sandbox)");
        container.names = Some(names(Some("nginx".into())));
        assert_eq!(of(7, "x", boxed(&container)), "shop/web-0/nginx");
        assert_eq!(of(7, "a/b.service", Owner::Unit { name: "b.service".into() }), "b.service");
        assert_eq!(of(7, "a.slice", Owner::Outside), "a.slice");
        assert_eq!(of(1, "", Owner::Outside), "(root)");
        assert_eq!(of(7, "", Owner::Outside), "cgroup 7");
    }

    #[test]
    fn a_name_cannot_send_commands_to_the_terminal() {
        let identity = Identity { path: "a\u{1b}[2J\nb\u{9b}c".into(), owner: Owner::Outside };
        assert_eq!(Name::of(CgroupId(7), &identity).whole(), "a\u{fffd}[2J\u{fffd}b\u{fffd}c");
    }

    proptest! {
        #[test]
        fn a_shortened_name_fits(namespace in ".{0,30}", name in ".{0,60}", container in ".{0,60}", columns in 0usize..80) {
            for name in [pod(&namespace, &name, &container), Name::Unit(name.clone()), Name::Plain(name)] {
                prop_assert!(length(&name.within(columns)) <= columns);
            }
        }
    }
}
