//! What the files of cgroups say: CPU time and throttling at every look, and the rest less often.
//!
//! A [`Pass`] reads each file once, however many cgroups lie below it. What cannot be read is left out and counted; it
//! takes nothing else with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sampler_common::resources::{Limits, Memory, MemoryEvents, Pressure};

use crate::cgroup::file::FileError;
use crate::cgroup::layout::Layout;
use crate::cgroup::limits::{self, Level};
use crate::cgroup::stat::CpuStat;

/// What `cpu.stat` says of a cgroup and of those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// Of the cgroup itself.
    pub own: CpuStat,
    /// `nr_throttled` of all ancestors added up.
    pub ancestors_throttled_periods: u64,
}

/// What changes slowly or costs more to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The limits in force.
    pub limits: Limits,
    /// Memory; `None` where the controller is off.
    pub memory: Option<Memory>,
    /// How often memory limits were met; `None` where the controller is off.
    pub memory_events: Option<MemoryEvents>,
    /// Time stalled; `None` where the kernel does not count it.
    pub pressure: Option<Pressure>,
}

/// A counter of a file since the reader first saw the cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinceSeen<T> {
    last: Option<T>,
    grown: T,
}

/// A counter that begins anew when its controller is switched off and on again.
pub trait Cumulative: Copy + Default {
    /// What the reader has missed when it reads for the first time: nothing of a cgroup that is `new`, which was
    /// made after the reader had started.
    fn baseline(self, new: bool) -> Self {
        if new { Self::default() } else { self }
    }

    /// Adds what has come between two reads. A figure that fell counts from 0 again.
    fn add_growth(&mut self, last: &Self, now: &Self);
}

impl<T: Cumulative> SinceSeen<T> {
    /// Whether it has been read.
    pub fn is_read(&self) -> bool {
        self.last.is_some()
    }

    /// The growth since the reader first saw the cgroup, now that its file says `now`.
    pub fn grown_to(&mut self, now: T, new: bool) -> T {
        let last = self.last.replace(now).unwrap_or(now.baseline(new));
        self.grown.add_growth(&last, &now);
        self.grown
    }
}

impl Cumulative for CpuUse {
    fn baseline(self, new: bool) -> Self {
        // Its ancestors need not be new.
        Self { own: if new { CpuStat::default() } else { self.own }, ..self }
    }

    fn add_growth(&mut self, last: &Self, now: &Self) {
        let grown = |last: u64, now: u64| now.checked_sub(last).unwrap_or(now);
        self.own.usage_ns += grown(last.own.usage_ns, now.own.usage_ns);
        self.own.periods += grown(last.own.periods, now.own.periods);
        self.own.throttled_periods += grown(last.own.throttled_periods, now.own.throttled_periods);
        self.own.throttled_ns += grown(last.own.throttled_ns, now.own.throttled_ns);
        // Of a sum that fell it is not known which part did.
        self.ancestors_throttled_periods +=
            now.ancestors_throttled_periods.saturating_sub(last.ancestors_throttled_periods);
    }
}

impl Cumulative for MemoryEvents {
    fn add_growth(&mut self, last: &Self, now: &Self) {
        self.merge(&now.since(last).unwrap_or(*now));
    }
}

impl Cumulative for Pressure {
    fn add_growth(&mut self, last: &Self, now: &Self) {
        self.merge(&now.since(last).unwrap_or(*now));
    }
}

/// Files of a host's cgroups, each read once.
pub struct Pass<'a> {
    layout: &'a Layout,
    stats: HashMap<PathBuf, Option<CpuStat>>,
    levels: HashMap<PathBuf, Option<Level>>,
    /// Reads that failed though the cgroup was there.
    pub unread: u64,
}

impl<'a> Pass<'a> {
    /// Over cgroups that are laid out so.
    pub fn new(layout: &'a Layout) -> Self {
        Self { layout, stats: HashMap::new(), levels: HashMap::new(), unread: 0 }
    }

    /// Use of the cgroup at `path`; `None` where its own file or one of those above it cannot be had.
    pub fn cpu_use(&mut self, path: &Path) -> Option<CpuUse> {
        let own = self.stat(path)?;
        let mut ancestors_throttled_periods = 0;
        for above in ancestors(path) {
            ancestors_throttled_periods += self.stat(above)?.throttled_periods;
        }
        Some(CpuUse { own, ancestors_throttled_periods })
    }

    /// Resources of the cgroup at `path`, at `now_ns` (`CLOCK_MONOTONIC`); `None` where it is gone, or a limit cannot be
    /// had: that would look like none.
    pub fn resources(&mut self, path: &Path, now_ns: u64) -> Option<Resources> {
        let own = self.level(path)?;
        let above = ancestors(path).map(|above| self.level(above)).collect::<Option<Vec<_>>>()?;
        let weight = self.or_counted(self.layout.cpu_weight(path))?;
        Some(Resources {
            limits: limits::in_force(&own, weight, &above),
            memory: self.or_counted(self.layout.memory(path, now_ns)).flatten(),
            memory_events: self.or_counted(self.layout.memory_events(path)).flatten(),
            pressure: self.or_counted(self.layout.pressure(path)).flatten(),
        })
    }

    fn stat(&mut self, path: &Path) -> Option<CpuStat> {
        if let Some(stat) = self.stats.get(path) {
            return *stat;
        }
        let stat = self.or_counted(self.layout.cpu_stat(path));
        self.stats.insert(path.to_owned(), stat);
        stat
    }

    fn level(&mut self, path: &Path) -> Option<Level> {
        if let Some(level) = self.levels.get(path) {
            return *level;
        }
        let level = self.or_counted(self.layout.level(path));
        self.levels.insert(path.to_owned(), level);
        level
    }

    fn or_counted<T>(&mut self, result: Result<T, FileError>) -> Option<T> {
        match result {
            Ok(told) => Some(told),
            Err(FileError::Vanished { .. }) => None,
            Err(error) => {
                tracing::debug!(%error, "a file of a cgroup cannot be read");
                self.unread += 1;
                None
            }
        }
    }
}

/// The cgroups above a path, but for the root, which has no limit.
fn ancestors(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Format;
    use crate::cgroup::layout::{Controller, Version};
    use sampler_common::resources::{CpuLimit, LimitOf};
    use std::fs;

    const STAT: &str = "usage_usec 5\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n";

    /// A pod with a limit and a container without, whose files are `files` besides.
    fn pod(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("pod/container")).unwrap();
        let all =
            [("pod/cpu.stat", STAT), ("pod/cpu.max", "50000 100000\n"), ("pod/container/cpu.stat", STAT)];
        for (path, text) in all.iter().chain(files) {
            fs::write(root.path().join(path), text).unwrap();
        }
        root
    }

    fn layout(root: &tempfile::TempDir) -> Layout {
        let controller = Controller { root: root.path().to_owned(), format: Format::V2 };
        let (cpuacct, memory) = (controller.root.clone(), Some(controller.clone()));
        Layout { version: Version::V2, hierarchy_id: 0, cpu: controller, cpuacct, memory }
    }

    #[test]
    fn what_a_cgroup_has_used_before_the_reader_came_is_not_counted() {
        let at = |usage_ns| CpuUse {
            own: CpuStat { usage_ns, ..CpuStat::default() },
            ancestors_throttled_periods: 7,
        };
        let mut old = SinceSeen::default();
        assert_eq!(old.grown_to(at(100), false).own.usage_ns, 0);
        assert_eq!(old.grown_to(at(130), false), CpuUse { ancestors_throttled_periods: 0, ..at(30) });
        assert_eq!(old.grown_to(at(10), false).own.usage_ns, 40, "began anew");
        let mut new = SinceSeen::default();
        assert_eq!(new.grown_to(at(100), true), CpuUse { ancestors_throttled_periods: 0, ..at(100) });
    }

    #[test]
    fn a_limit_above_is_in_force_and_its_throttles_are_told_apart() {
        let root = pod(&[]);
        let layout = layout(&root);
        let mut pass = Pass::new(&layout);
        let path = Path::new("pod/container");
        let used = pass.cpu_use(path).unwrap();
        assert_eq!((used.own.throttled_periods, used.ancestors_throttled_periods), (3, 3));
        let limit = CpuLimit { quota_us: 50_000, period_us: 100_000, of: LimitOf::Ancestor };
        assert_eq!(pass.resources(path, 1).unwrap().limits.cpu, Some(limit));
        let own = pass.resources(Path::new("pod"), 1).unwrap().limits.cpu;
        assert_eq!(own, Some(CpuLimit { of: LimitOf::Own, ..limit }));
        assert_eq!(pass.unread, 0);
    }

    #[test]
    fn a_file_that_lies_costs_what_it_would_have_told_and_is_counted() {
        let path = Path::new("pod/container");
        let files = [
            ("pod/container/memory.current", "7\n"),
            ("pod/container/memory.stat", "inactive_file x\n"),
            ("pod/container/memory.events", "low 0\nhigh 0\nmax 0\noom 1\noom_kill 1\n"),
        ];
        let root = pod(&files);
        let layout = layout(&root);
        let mut pass = Pass::new(&layout);
        let resources = pass.resources(path, 1).unwrap();
        assert_eq!(
            (resources.memory, resources.memory_events.map(|events| events.oom_kill)),
            (None, Some(1))
        );
        assert_eq!(pass.unread, 1);

        // A limit that cannot be read is not taken for none; the file is read once a pass.
        fs::write(root.path().join("pod/cpu.max"), "50000 1000").unwrap();
        let mut pass = Pass::new(&layout);
        assert_eq!((pass.resources(path, 1), pass.resources(path, 1), pass.unread), (None, None, 1));
        assert!(pass.cpu_use(path).is_some(), "the others are as they were");
    }

    #[test]
    fn a_cgroup_that_is_gone_is_no_loss() {
        let root = pod(&[]);
        fs::remove_dir_all(root.path().join("pod/container")).unwrap();
        let layout = layout(&root);
        let mut pass = Pass::new(&layout);
        assert_eq!((pass.cpu_use(Path::new("pod/container")), pass.unread), (None, 0));
    }
}
