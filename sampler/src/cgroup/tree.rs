//! The tree of cgroups: what is in it, and which controller reaches its leaves.
//!
//! The kernel counts per css, so a cgroup has a row only where the controller that rows are keyed by is
//! enabled. That controller is chosen once, by [`which_key`], from a walk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sampler_common::snapshot::CgroupId;

use super::path::classify;
use super::{Format, is_gone};
use crate::kernel::layout::Key;

const CONTROLLERS: &str = "cgroup.controllers";

/// Why there is no tree to look at.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file or directory could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Inode number of its directory.
    pub id: CgroupId,
    /// Path below the root of the hierarchy; empty for the root.
    pub path: PathBuf,
    /// It has no children.
    pub leaf: bool,
    /// It has processes or threads of its own.
    pub populated: bool,
    /// Controllers enabled for it (`cgroup.controllers`); none in a v1 hierarchy, where each has all of that hierarchy.
    pub controllers: BTreeSet<String>,
}

/// All cgroups of a hierarchy at about one moment.
#[derive(Debug, Default)]
pub struct Tree {
    /// Parents before their children.
    pub nodes: Vec<Node>,
    /// Cgroups that are there and could not be read; they and what is below them are not in `nodes`.
    pub unread: Vec<TreeError>,
}

/// Walks a hierarchy, of v2 or of v1. Cgroups that are removed meanwhile may be missing, and new ones too.
pub fn walk(root: &Path) -> Result<Tree, TreeError> {
    let mut tree = Tree::default();
    let format = match fs::symlink_metadata(root.join(CONTROLLERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Format::V1,
        _ => Format::V2,
    };
    let (node, mut to_do) = visit(root, PathBuf::new(), format)?;
    tree.nodes.push(node);
    while let Some(path) = to_do.pop() {
        match visit(root, path, format) {
            Ok((node, children)) => {
                tree.nodes.push(node);
                to_do.extend(children);
            }
            Err(TreeError::Io { source, .. }) if is_gone(&source) => {}
            Err(error) => tree.unread.push(error),
        }
    }
    Ok(tree)
}

/// One cgroup, and the paths of its children.
fn visit(root: &Path, path: PathBuf, format: Format) -> Result<(Node, Vec<PathBuf>), TreeError> {
    // Joining nothing would add a slash.
    let directory = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| TreeError::Io { path, source }
    };
    let id = CgroupId(fs::symlink_metadata(&directory).map_err(failed(&directory))?.ino());
    let mut children = Vec::new();
    for entry in fs::read_dir(&directory).map_err(failed(&directory))? {
        let entry = entry.map_err(failed(&directory))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children.push(path.join(entry.file_name()));
        }
    }
    let controllers = match format {
        Format::V1 => String::new(),
        Format::V2 => {
            let file = directory.join(CONTROLLERS);
            fs::read_to_string(&file).map_err(failed(&file))?
        }
    };
    let node = Node {
        id,
        path,
        leaf: children.is_empty(),
        populated: is_populated(&directory)?,
        controllers: controllers.split_ascii_whitespace().map(str::to_owned).collect(),
    };
    Ok((node, children))
}

/// Whether a cgroup has members of its own. A threaded one has no processes, and says so with an error.
fn is_populated(directory: &Path) -> Result<bool, TreeError> {
    let has_members = |file: &str| {
        let path = directory.join(file);
        fs::read(&path).map(|members| !members.is_empty()).map_err(|source| TreeError::Io { path, source })
    };
    match has_members("cgroup.procs") {
        Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::Unsupported => {
            has_members("cgroup.threads")
        }
        result => result,
    }
}

/// The controller to key rows by: the first that every container and unit with members has, or the one
/// that most have.
///
/// It need not be enabled within a container: what runs there is counted with the container.
pub fn which_key(tree: &Tree) -> Key {
    let populated = tree.nodes.iter().filter(|node| node.populated);
    let owners: BTreeSet<PathBuf> = populated.filter_map(|node| classify(&node.path).root).collect();
    let covered = |key: &Key| {
        let of_owner = tree.nodes.iter().filter(|node| owners.contains(&node.path));
        of_owner.filter(|node| node.controllers.contains(key.controller())).count()
    };
    // Of equal ones the last of the reversed is the first of all.
    Key::ALL.into_iter().rev().max_by_key(covered).unwrap_or(Key::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "pod3c1a5f0e-8d2b-4c7a-9e6f-1b2d3c4e5f60";
    const ID: &str = "0f3c5b8e9a7d6c4b2a1f0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b";

    /// Makes a cgroup as the kernel shows it, with the members and controllers given.
    fn make(root: &Path, path: &str, controllers: &str, members: &str) {
        let directory = root.join(path);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup.controllers"), format!("{controllers}\n")).unwrap();
        fs::write(directory.join("cgroup.procs"), members).unwrap();
    }

    fn tree(cgroups: &[(&str, &str, &str)]) -> Tree {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "", "cpuset cpu io memory pids", "");
        for (path, controllers, members) in cgroups {
            make(root.path(), &path.replace("POD", POD).replace("ID", ID), controllers, members);
        }
        walk(root.path()).unwrap()
    }

    #[test]
    fn a_walk_finds_every_cgroup_by_its_inode() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "", "cpu memory", "1\n");
        make(root.path(), "a", "memory", "");
        make(root.path(), "a/b", "", "17\n18\n");
        let tree = walk(root.path()).unwrap();
        let inode = |path: &str| CgroupId(fs::metadata(root.path().join(path)).unwrap().ino());
        let node = |path: &str, leaf, populated, controllers: &[&str]| Node {
            id: inode(path),
            path: path.into(),
            leaf,
            populated,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(
            tree.nodes,
            [
                node("", false, true, &["cpu", "memory"]),
                node("a", false, false, &["memory"]),
                node("a/b", true, true, &[]),
            ]
        );
        assert!(tree.unread.is_empty());
    }

    #[test]
    fn a_cgroup_that_goes_away_meanwhile_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "", "cpu", "");
        make(root.path(), "stays", "cpu", "");
        // As of a directory whose files are gone already.
        fs::create_dir(root.path().join("goes")).unwrap();
        let tree = walk(root.path()).unwrap();
        let paths: Vec<_> = tree.nodes.iter().map(|node| node.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["", "stays"]);
        assert!(tree.unread.is_empty());
    }

    #[test]
    fn a_cgroup_that_cannot_be_read_harms_no_other() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "", "cpu", "");
        make(root.path(), "fine", "cpu", "");
        fs::create_dir_all(root.path().join("broken/cgroup.controllers")).unwrap();
        let tree = walk(root.path()).unwrap();
        assert_eq!(tree.nodes.len(), 2);
        let [error] = tree.unread.as_slice() else { panic!("{:?}", tree.unread) };
        assert!(error.to_string().contains("broken/cgroup.controllers"), "{error}");
    }

    #[test]
    fn a_v1_hierarchy_is_walked_without_its_controllers() {
        let root = tempfile::tempdir().unwrap();
        for (path, members) in [("", "1\n"), ("a", ""), ("a/b", "17\n")] {
            fs::create_dir_all(root.path().join(path)).unwrap();
            fs::write(root.path().join(path).join("cgroup.procs"), members).unwrap();
        }
        let tree = walk(root.path()).unwrap();
        let found: Vec<_> =
            tree.nodes.iter().map(|node| (node.path.to_str().unwrap(), node.leaf, node.populated)).collect();
        assert_eq!(found, [("", false, true), ("a", false, false), ("a/b", true, true)]);
        assert!(tree.unread.is_empty() && tree.nodes.iter().all(|node| node.controllers.is_empty()));
    }

    #[test]
    fn without_a_root_the_error_names_it() {
        let error = walk(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/at/all: "), "{error}");
    }

    #[test]
    fn a_kubernetes_node_is_keyed_by_cpu() {
        let all = "cpuset cpu io memory pids";
        let tree = tree(&[
            ("kubepods", all, ""),
            ("kubepods/burstable", all, ""),
            ("kubepods/burstable/POD", all, ""),
            ("kubepods/burstable/POD/ID", all, "10\n"),
            ("system", all, ""),
            ("system/kubelet", all, "11\n"),
        ]);
        assert_eq!(which_key(&tree), Key::Cpu);
    }

    #[test]
    fn plain_services_without_cpu_are_keyed_by_what_they_have() {
        let services = |controllers| {
            tree(&[
                ("system.slice", "memory pids", ""),
                ("system.slice/a.service", controllers, "10\n"),
                ("system.slice/b.service", controllers, "11\n"),
                ("init.scope", "cpu", "1\n"),
            ])
        };
        assert_eq!(which_key(&services("memory pids")), Key::Memory);
        assert_eq!(which_key(&services("pids")), Key::Pids);
    }

    #[test]
    fn the_controller_that_most_have_wins_and_empty_units_do_not_count() {
        let tree = tree(&[
            ("system.slice", "cpu memory pids", ""),
            ("system.slice/a.service", "cpu memory pids", "10\n"),
            ("system.slice/b.service", "pids", "11\n"),
            ("system.slice/c.service", "memory pids", "12\n"),
            ("system.slice/empty.service", "cpu memory", ""),
        ]);
        assert_eq!(which_key(&tree), Key::Pids);
    }

    #[test]
    fn what_runs_within_a_container_needs_no_controller_of_its_own() {
        let tree = tree(&[
            ("system.slice", "cpu memory pids", ""),
            ("system.slice/docker-ID.scope", "cpu memory pids", ""),
            ("system.slice/docker-ID.scope/init", "memory pids", "10\n"),
        ]);
        assert_eq!(which_key(&tree), Key::Cpu);
    }

    #[test]
    fn an_empty_host_is_keyed_by_cpu() {
        assert_eq!(which_key(&tree(&[])), Key::Cpu);
    }
}
