//! Where cgroups and threads are now: the v2 hierarchy's directories and `/proc/PID/task/TID/cgroup`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::trace::{CgroupId, Membership, Tid};

/// Why the hierarchy could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CgroupsError {
    /// No cgroup v2 is mounted.
    #[error("no cgroup2 is mounted: the oracle tells cgroups apart by their v2 path")]
    NotMounted,
    /// A file or directory could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Every cgroup's path from the root of the mounted v2 hierarchy, by id.
///
/// # Errors
/// When no v2 hierarchy is mounted. Cgroups that vanish while this reads are left out.
pub fn paths() -> Result<BTreeMap<CgroupId, String>, CgroupsError> {
    let mounts = read(Path::new("/proc/self/mounts"))?;
    let root = mount_point(&mounts).ok_or(CgroupsError::NotMounted)?;
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::from(root)];
    while let Some(directory) = open.pop() {
        let Ok(meta) = fs::metadata(&directory) else { continue };
        if let Ok(path) = directory.strip_prefix(root) {
            found.insert(CgroupId(meta.ino()), format!("/{}", path.display()));
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        open.extend(entries.filter(is_directory).map(|entry| entry.path()));
    }
    Ok(found)
}

/// Every thread's process and cgroup. Threads that end while this reads are left out.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn threads(paths: &BTreeMap<CgroupId, String>) -> Result<BTreeMap<Tid, Membership>, CgroupsError> {
    let ids: BTreeMap<&str, CgroupId> = paths.iter().map(|(id, path)| (path.as_str(), *id)).collect();
    let mut found = BTreeMap::new();
    let proc = Path::new("/proc");
    let processes =
        fs::read_dir(proc).map_err(|source| CgroupsError::Read { path: proc.to_owned(), source })?;
    for process in processes.flatten() {
        let Some(id) = tid(&process) else { continue };
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            let membership = fs::read_to_string(thread.path().join("cgroup")).ok();
            let cgroup = membership.as_deref().and_then(v2_path).and_then(|path| ids.get(path));
            if let (Some(thread), Some(&cgroup)) = (tid(&thread), cgroup) {
                found.insert(thread, Membership { process: id, cgroup });
            }
        }
    }
    Ok(found)
}

fn tid(entry: &fs::DirEntry) -> Option<Tid> {
    entry.file_name().to_str()?.parse().ok().map(Tid)
}

fn read(path: &Path) -> Result<String, CgroupsError> {
    fs::read_to_string(path).map_err(|source| CgroupsError::Read { path: path.to_owned(), source })
}

/// The v2 line of `/proc/PID/cgroup` is the one without a controller list: `0::/pods/a`.
fn v2_path(membership: &str) -> Option<&str> {
    membership.lines().find_map(|line| line.strip_prefix("0::"))
}

fn mount_point(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_and_membership_lines_are_read() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("proc /proc proc rw 0 0\n"), None);
        assert_eq!(v2_path("9:name=systemd:/\n0::/pods/a\n"), Some("/pods/a"));
        assert_eq!(v2_path("1:cpu:/x\n"), None);
    }
}
