//! The cgroup file systems that this process sees, from `/proc/self/mountinfo`
//! (<https://docs.kernel.org/filesystems/proc.html>, 3.5).

use std::collections::BTreeMap;
use std::path::PathBuf;

/// One cgroup file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Which.
    pub kind: Kind,
}

/// Which cgroup file system it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// cgroup v2.
    Unified,
    /// A v1 hierarchy with these controllers.
    V1(Vec<String>),
}

impl Mount {
    /// Whether it is a v1 hierarchy with this controller.
    pub fn has(&self, controller: &str) -> bool {
        matches!(&self.kind, Kind::V1(controllers) if controllers.iter().any(|name| name == controller))
    }
}

/// All that are not hidden by others, best first: of one hierarchy the mount that shows most, then the usual place.
/// Lines of another shape are none of ours.
pub fn parse(mountinfo: &str) -> Vec<Mount> {
    // A mount over another hides it.
    let mut visible = BTreeMap::new();
    for (order, line) in mountinfo.lines().filter_map(Line::parse).enumerate() {
        visible.insert(line.point, (order, line));
    }
    let mut lines: Vec<_> = visible.into_values().collect();
    lines.sort_by_key(|(order, line)| (line.depth(), !line.point.starts_with("/sys/fs/cgroup"), *order));
    lines.iter().filter_map(|(_, line)| line.mount()).collect()
}

/// One line of `mountinfo`.
struct Line<'a> {
    /// What of the file system is mounted.
    root: &'a str,
    /// Where, escaped.
    point: &'a str,
    fs: &'a str,
    /// Options of the file system: for cgroup v1, its controllers.
    options: &'a str,
}

impl<'a> Line<'a> {
    /// `id parent device root point options [tags] - fs source options`
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, fs) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut fs = fs.split(' ');
        let (root, point) = (mount.next()?, mount.next()?);
        Some(Self { root, point, fs: fs.next()?, options: fs.nth(1).unwrap_or_default() })
    }

    /// How far below the root of this process' cgroup namespace the mounted part begins: negative above
    /// it, as the host's `/sys/fs/cgroup` is in a container.
    fn depth(&self) -> i64 {
        let steps = self.root.split('/').filter(|step| !step.is_empty());
        steps.map(|step| if step == ".." { -1 } else { 1 }).sum()
    }

    fn mount(&self) -> Option<Mount> {
        let kind = match self.fs {
            "cgroup2" => Kind::Unified,
            "cgroup" => Kind::V1(self.options.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        Some(Mount { point: unescape(self.point).into(), kind })
    }
}

/// `mountinfo` writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V2: &str = "24 30 0:22 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate";

    fn points(mountinfo: &str) -> Vec<String> {
        parse(mountinfo).iter().map(|mount| mount.point.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn only_cgroup_file_systems_count() {
        let text = format!("22 30 0:20 / /proc rw shared:5 - proc proc rw\n{V2}\n");
        assert_eq!(parse(&text), [Mount { point: "/sys/fs/cgroup".into(), kind: Kind::Unified }]);
    }

    #[test]
    fn a_v1_hierarchy_has_its_controllers() {
        let text = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let mounts = parse(text);
        assert!(mounts[0].has("cpu") && mounts[0].has("cpuacct") && !mounts[0].has("cpuset"));
        assert!(!parse(V2)[0].has("cpu"));
    }

    #[test]
    fn the_highest_mount_that_can_be_seen_comes_first() {
        let own = "24 30 0:22 / /sys/fs/cgroup ro - cgroup2 cgroup rw";
        let host = "77 30 0:22 /../../.. /host/cgroup rw - cgroup2 cgroup rw";
        let part = "78 30 0:22 /a/b /part rw - cgroup2 cgroup rw";
        assert_eq!(points(&format!("{part}\n{own}\n{host}\n")), ["/host/cgroup", "/sys/fs/cgroup", "/part"]);
        let elsewhere = "79 30 0:22 / /run/cilium/cgroupv2 rw - cgroup2 none rw";
        assert_eq!(points(&format!("{elsewhere}\n{own}\n")), ["/sys/fs/cgroup", "/run/cilium/cgroupv2"]);
    }

    #[test]
    fn a_mount_over_another_hides_it() {
        let below = "31 23 0:29 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu";
        assert_eq!(parse(&format!("{below}\n{V2}\n")), parse(V2));
        let tmpfs = "31 23 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw";
        assert_eq!(parse(&format!("{V2}\n{tmpfs}\n")), []);
    }

    #[test]
    fn tags_and_blanks_in_names_are_read() {
        let text = "24 30 0:22 / /my\\040cgroups rw shared:9 master:2 - cgroup2 none rw\n";
        assert_eq!(points(text), ["/my cgroups"]);
    }

    proptest! {
        #[test]
        fn no_mountinfo_panics(text in "\\PC*|([0-9]* /[a-z./]* [a-z,]*( - )?(cgroup2? )?\n){0,9}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_line_of_another_shape_hides_the_hierarchy(noise in "[^\n]*") {
            prop_assume!(!noise.contains("cgroup"));
            prop_assert_eq!(parse(&format!("{noise}\n{V2}\n{noise}\n")), parse(V2));
        }
    }
}
