//! Where this host keeps its cgroups, and what is lost there: cgroup v2, or as a fallback v1 and hybrid.
//!
//! Rows are keyed by a css of a controller; with `cpu` in v1, by that hierarchy's. Its cgroups have inode numbers like
//! those of v2, so all else works alike; only the files have other names, and some there are not ([`Layout::lost`]).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Format;
use super::mounts::{self, Kind, Mount};
use super::tree::{Tree, which_key};
use crate::kernel::layout::Key;

const MOUNTINFO: &str = "/proc/self/mountinfo";
const OWN_CGROUPS: &str = "/proc/self/cgroup";
/// Inode number of the root of every cgroup hierarchy, and of nothing below it.
const ROOT: u64 = 1;
/// How to get a host on cgroup v2.
pub const WAY_OUT: &str = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line, or use an \
                           image whose systemd defaults to cgroup v2";

/// Why there are no cgroups to look at.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// No cgroup file system is mounted here.
    #[error(
        "no cgroup file system is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup), or give the \
         container the host's /sys/fs/cgroup"
    )]
    None,
    /// None is mounted where the operator says.
    #[error("no cgroup file system is mounted at or below {}; there are some at {}", chosen.display(), listed(mounted))]
    NotThere {
        /// Where the operator says.
        chosen: PathBuf,
        /// Where there are some.
        mounted: Vec<PathBuf>,
    },
    /// The operator names a cgroup instead of the root of all.
    #[error(
        "{} is a cgroup within the hierarchy at {}: name where that is mounted", chosen.display(), root.display()
    )]
    NotTheRoot {
        /// What the operator names.
        chosen: PathBuf,
        /// Where the hierarchy is mounted.
        root: PathBuf,
    },
    /// A hierarchy that is needed is not below what the operator names.
    #[error(
        "{} does not show v1's {controller}, which is at {}: name a directory above all hierarchies",
        chosen.display(), at.display()
    )]
    Elsewhere {
        /// What the operator names.
        chosen: PathBuf,
        /// The controller that is needed.
        controller: &'static str,
        /// Where it is.
        at: PathBuf,
    },
    /// The operator asks for a version that the host does not have there.
    #[error(
        "cgroup {chosen} was asked for, but this host has {found}: ask for that or for none{}",
        if *chosen == Version::V2 { format!("; to have v2, {WAY_OUT}") } else { String::new() }
    )]
    OtherVersion {
        /// What the operator asks for.
        chosen: Version,
        /// What there is.
        found: Version,
    },
    /// There are v1 hierarchies, but none for the CPU.
    #[error(
        "cgroup v1 is mounted without {controller}: waits and use of the CPU cannot be told by cgroup; {WAY_OUT}"
    )]
    V1Without {
        /// The controller that is not there.
        controller: &'static str,
    },
    /// What is mounted is not the root of the hierarchy.
    #[error(
        "{} shows only a part of the cgroup hierarchy (a cgroup namespace of its own?): give the container the host's \
         /sys/fs/cgroup and cgroup namespace (docker run --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:ro)",
        root.display()
    )]
    Partial {
        /// Where it is mounted.
        root: PathBuf,
    },
    /// A file or directory could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Which cgroups a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// v1 only.
    V1,
    /// Both, with CPU or memory in v1.
    Hybrid,
    /// v2, and v1 for nothing that matters.
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        })
    }
}

/// A word that names no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of cgroups: v1, hybrid or v2")]
pub struct UnknownVersion(String);

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        [Self::V1, Self::Hybrid, Self::V2]
            .into_iter()
            .find(|version| version.to_string() == text)
            .ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

/// What the operator says of the host's cgroups. The default finds everything out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The directory at or below which cgroup file systems are mounted: `/sys/fs/cgroup`, or where a container has the
    /// host's.
    pub root: Option<PathBuf>,
    /// The version to use.
    pub version: Option<Version>,
}

/// Where the cgroups of one controller are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Root of its hierarchy.
    pub root: PathBuf,
    /// What its files are called.
    pub format: Format,
}

/// Where a host keeps its cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which cgroups it has.
    pub version: Version,
    /// Id of the hierarchy that rows are keyed by, as in `struct cgroup_root`: 0 is v2.
    pub hierarchy_id: u32,
    /// Limits and throttling, and the hierarchy that rows are keyed by: inode numbers of its directories are cgroup ids.
    pub cpu: Controller,
    /// Root of the hierarchy of use of the CPU: v1's `cpuacct`, and on v2 the only one.
    pub cpuacct: PathBuf,
    /// Memory; `None` where no hierarchy has it that may be used.
    pub memory: Option<Controller>,
}

impl Layout {
    /// Finds out, or checks, where this host's cgroups are.
    pub fn find(choice: &Choice) -> Result<Self, LayoutError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            |source| LayoutError::Io { path, source }
        };
        let read = |path: &str| {
            let text = fs::read(path).map_err(io(path.as_ref()))?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let root = choice.root.as_deref().map(|root| fs::canonicalize(root).map_err(io(root))).transpose()?;
        let choice = Choice { root, ..choice.clone() };
        let layout = Self::of(&read(MOUNTINFO)?, &read(OWN_CGROUPS)?, &choice)?;
        layout.roots().try_for_each(check_whole)?;
        Ok(layout)
    }

    /// The same from the contents of `/proc/self/mountinfo` and `/proc/self/cgroup`, without a look at what is mounted.
    pub fn of(mountinfo: &str, own_cgroups: &str, choice: &Choice) -> Result<Self, LayoutError> {
        let all = mounts::parse(mountinfo);
        if all.is_empty() {
            return Err(LayoutError::None);
        }
        let mounts = chosen(&all, choice.root.as_deref())?;
        let unified = mounts.iter().find(|mount| mount.kind == Kind::Unified).map(|mount| &mount.point);
        let in_v1 = |controller| mounts.iter().find(|mount| mount.has(controller)).map(|mount| &mount.point);
        // The kernel has a controller in one hierarchy only: one that v1 has anywhere, v2 has not.
        let of = |controller| {
            let format = if all.iter().any(|mount| mount.has(controller)) { Format::V1 } else { Format::V2 };
            let root = if format == Format::V1 { in_v1(controller) } else { unified };
            root.map(|root| Controller { root: root.clone(), format })
        };
        let missing = |controller| {
            let elsewhere = all.iter().find(|mount| mount.has(controller)).map(|mount| mount.point.clone());
            match (choice.root.clone(), elsewhere) {
                (Some(chosen), Some(at)) => LayoutError::Elsewhere { chosen, controller, at },
                _ => LayoutError::V1Without { controller },
            }
        };
        let (cpu, memory) = (of("cpu").ok_or_else(|| missing("cpu"))?, of("memory"));
        let any_in_v1 = [Some(&cpu), memory.as_ref()].into_iter().flatten().any(|at| at.format == Format::V1);
        let found = match unified {
            Some(_) if any_in_v1 => Version::Hybrid,
            Some(_) => Version::V2,
            None => Version::V1,
        };
        let version = match choice.version {
            None => found,
            // Then what v2 has there is not used; the kernel would not have CPU or memory in both.
            Some(Version::V1) if found == Version::Hybrid => Version::V1,
            Some(chosen) if chosen != found => return Err(LayoutError::OtherVersion { chosen, found }),
            Some(chosen) => chosen,
        };
        let usable = |at: &Controller| version != Version::V1 || at.format == Format::V1;
        if !usable(&cpu) {
            return Err(LayoutError::V1Without { controller: "cpu" });
        }
        let (hierarchy_id, cpuacct) = match cpu.format {
            Format::V2 => (0, cpu.root.clone()),
            Format::V1 => (
                hierarchy_id(own_cgroups).ok_or_else(|| missing("cpu"))?,
                in_v1("cpuacct").ok_or_else(|| missing("cpuacct"))?.clone(),
            ),
        };
        Ok(Self { version, hierarchy_id, cpu, cpuacct, memory: memory.filter(usable) })
    }

    /// Root of the hierarchy that rows are keyed by.
    pub fn rows_root(&self) -> &Path {
        &self.cpu.root
    }

    fn roots(&self) -> impl Iterator<Item = &Path> {
        let memory = self.memory.as_ref().map(|memory| memory.root.as_path());
        [self.cpu.root.as_path(), &self.cpuacct].into_iter().chain(memory)
    }

    /// The controller to key rows by: on v1 there is one in the hierarchy that can be asked for.
    pub fn key(&self, tree: &Tree) -> Key {
        match self.cpu.format {
            Format::V1 => Key::Cpu,
            Format::V2 => which_key(tree),
        }
    }

    /// What is not measured, or not as on v2, each in words; [`WAY_OUT`] cures all of it. Nothing on v2.
    pub fn lost(&self) -> Vec<&'static str> {
        let mut lost = Vec::new();
        if self.cpu.format == Format::V1 {
            lost.extend([
                "pressure stall information: cgroup v1 has none",
                "services without a CPU cgroup of their own are counted together, as their slice or the root \
                 (CPUAccounting=yes gives them one)",
                "cpu.weight is computed from cpu.shares",
            ]);
        }
        match self.memory.as_ref().map(|memory| memory.format) {
            Some(Format::V2) => {}
            Some(Format::V1) => lost.extend([
                "memory.high: cgroup v1 has none",
                "memory events other than OOM kills; and these without those of cgroups below",
                "the memory peak is that since somebody last reset it",
            ]),
            None => lost.push("memory: no hierarchy that is used has its controller"),
        }
        lost
    }
}

/// Whether what is mounted there is a whole hierarchy: another cgroup's directory is the root of a part.
fn check_whole(root: &Path) -> Result<(), LayoutError> {
    match fs::metadata(root) {
        Ok(directory) if directory.ino() == ROOT => Ok(()),
        Ok(_) => Err(LayoutError::Partial { root: root.to_owned() }),
        Err(source) => Err(LayoutError::Io { path: root.to_owned(), source }),
    }
}

/// The cgroup file systems at or below `root`.
fn chosen<'a>(all: &'a [Mount], root: Option<&Path>) -> Result<Vec<&'a Mount>, LayoutError> {
    let Some(root) = root else { return Ok(all.iter().collect()) };
    let below: Vec<_> = all.iter().filter(|mount| mount.point.starts_with(root)).collect();
    if !below.is_empty() {
        return Ok(below);
    }
    let chosen = root.to_owned();
    Err(match all.iter().find(|mount| root.starts_with(&mount.point)) {
        Some(mount) => LayoutError::NotTheRoot { chosen, root: mount.point.clone() },
        None => {
            LayoutError::NotThere { chosen, mounted: all.iter().map(|mount| mount.point.clone()).collect() }
        }
    })
}

/// The id of the v1 hierarchy with `cpu`. A line is `id:controllers:path`.
fn hierarchy_id(own_cgroups: &str) -> Option<u32> {
    own_cgroups.lines().find_map(|line| {
        let (id, rest) = line.split_once(':')?;
        let (controllers, _) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "cpu").then(|| id.parse().ok())?
    })
}

#[cfg(test)]
mod tests;
