//! Cgroups with the cpu controller, for threads of one process: v1, or threaded v2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::gettid;

/// Cgroups that are removed when this is dropped. The process that makes them is in their parent.
pub struct Groups {
    parent: PathBuf,
    groups: Vec<PathBuf>,
    /// The file that takes a thread.
    threads: &'static str,
    /// Where the process was before.
    home: PathBuf,
}

impl Groups {
    /// Makes so many.
    pub fn make(count: usize) -> Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        let (root, threads) = if v1.join("tasks").exists() {
            (v1, "tasks")
        } else {
            (Path::new("/sys/fs/cgroup"), "cgroup.threads")
        };
        let parent = root.join(format!("loadline-bench-{}", std::process::id()));
        fs::create_dir(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let mut made = Self { parent, groups: Vec::new(), threads, home: home(root) };
        made.fill(count)?;
        Ok(made)
    }

    fn fill(&mut self, count: usize) -> Result<()> {
        let unified = self.threads == "cgroup.threads";
        if unified {
            // Above: without it no group below would have the controller.
            if let Some(root) = self.parent.parent() {
                write(&root.join("cgroup.subtree_control"), "+cpu")?;
            }
        }
        for number in 0..count {
            let group = self.parent.join(number.to_string());
            fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
            if unified {
                write(&group.join("cgroup.type"), "threaded")?;
            }
            self.groups.push(group);
        }
        write(&self.parent.join("cgroup.procs"), &std::process::id().to_string())?;
        if unified {
            write(&self.parent.join("cgroup.subtree_control"), "+cpu")?;
        }
        Ok(())
    }

    /// Number of cgroups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Moves the calling thread into a cgroup.
    pub fn enter(&self, number: usize) -> Result<()> {
        write(&self.groups[number].join(self.threads), &gettid().to_string())
    }

    /// Moves the calling thread back into the parent.
    pub fn leave(&self) -> Result<()> {
        write(&self.parent.join(self.threads), &gettid().to_string())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let _ = write(&self.home.join("cgroup.procs"), &std::process::id().to_string());
        for group in self.groups.iter().chain([&self.parent]) {
            if let Err(error) = remove(group) {
                eprintln!("cgroup {} is left behind: {error}", group.display());
            }
        }
    }
}

/// A thread that has just ended may still be in its cgroup for a moment.
pub fn remove(group: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && tries < 500 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

/// The cgroup of this process, in the hierarchy at `root`; the root itself if that is not visible.
fn home(root: &Path) -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let v1 = root.ends_with("cpu");
    let ours = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let here = if v1 { controllers.split(',').any(|one| one == "cpu") } else { controllers.is_empty() };
        here.then(|| root.join(path.trim_start_matches('/')))
    });
    ours.filter(|path| path.exists()).unwrap_or_else(|| root.to_owned())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
}
