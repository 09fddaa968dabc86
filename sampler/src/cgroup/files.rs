//! A cgroup's files, one function a kind, whichever version of cgroups the host has.
//!
//! Each says what it costs in system calls, with v2 and where nothing fails. Rows are worth reading every time; memory,
//! pressure and limits change slowly, so they may be read less often, and of no cgroup that did not run.

use std::path::Path;

use sampler_common::resources::{Memory, MemoryEvents, Pressure};

use super::Format;
use super::file::FileError;
use super::layout::{Controller, Layout};
use super::limits::{self, Level};
use super::stat::CpuStat;
use super::{memory, pressure};

/// Reads of the cgroup at a path below the root. `None` is what the host does not have for it; of a cgroup that was
/// removed, all say so.
impl Layout {
    /// CPU time and throttling: 3 system calls, on v1 6.
    pub fn cpu_stat(&self, cgroup: &Path) -> Result<CpuStat, FileError> {
        let cpu = self.cpu.root.join(cgroup);
        match self.cpu.format {
            Format::V2 => CpuStat::read(&cpu),
            Format::V1 => CpuStat::read_v1(&cpu, &self.cpuacct.join(cgroup)),
        }
    }

    /// Its own limits: 9 or 10 system calls.
    pub fn level(&self, cgroup: &Path) -> Result<Level, FileError> {
        let cpu = limits::read_quota(&self.cpu.root.join(cgroup), self.cpu.format)?;
        let (memory_max_bytes, memory_high_bytes) = match &self.memory {
            Some(memory) => limits::read_memory(&memory.root.join(cgroup), memory.format)?,
            None => (None, None),
        };
        // A limit that is not there may be one that is there no more.
        if cpu.is_none() || memory_max_bytes.is_none() {
            self.check_there(cgroup)?;
        }
        Ok(Level { cpu, memory_max_bytes, memory_high_bytes })
    }

    /// Its share among its siblings, 1 to 10,000: 3 system calls.
    pub fn cpu_weight(&self, cgroup: &Path) -> Result<Option<u64>, FileError> {
        let weight = limits::read_weight(&self.cpu.root.join(cgroup), self.cpu.format)?;
        self.or_vanished(cgroup, weight)
    }

    /// Memory at `now_ns` (`CLOCK_MONOTONIC`): 9 system calls.
    pub fn memory(&self, cgroup: &Path, now_ns: u64) -> Result<Option<Memory>, FileError> {
        let read = |at: &Controller| memory::read(&at.root.join(cgroup), at.format, now_ns);
        let memory = self.memory.as_ref().map(read).transpose()?.flatten();
        self.or_vanished(cgroup, memory)
    }

    /// How often its memory limits were met: 3 system calls.
    pub fn memory_events(&self, cgroup: &Path) -> Result<Option<MemoryEvents>, FileError> {
        let read = |at: &Controller| memory::read_events(&at.root.join(cgroup), at.format);
        let events = self.memory.as_ref().map(read).transpose()?.flatten();
        self.or_vanished(cgroup, events)
    }

    /// For how long its threads were stalled: 6 system calls, on v1 none.
    pub fn pressure(&self, cgroup: &Path) -> Result<Option<Pressure>, FileError> {
        match self.cpu.format {
            Format::V1 => Ok(None),
            Format::V2 => {
                let pressure = pressure::read(&self.cpu.root.join(cgroup))?;
                self.or_vanished(cgroup, pressure)
            }
        }
    }

    /// What was read; nothing is only nothing where the cgroup is still there.
    fn or_vanished<T>(&self, cgroup: &Path, read: Option<T>) -> Result<Option<T>, FileError> {
        if read.is_none() {
            self.check_there(cgroup)?;
        }
        Ok(read)
    }

    fn check_there(&self, cgroup: &Path) -> Result<(), FileError> {
        let path = self.cpu.root.join(cgroup);
        if path.is_dir() { Ok(()) } else { Err(FileError::Vanished { path }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::layout::Version;
    use crate::cgroup::limits::Quota;
    use std::fs;
    use tempfile::TempDir;

    fn write(root: &TempDir, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
    }

    fn controller(root: &TempDir, directory: &str, format: Format) -> Controller {
        Controller { root: root.path().join(directory), format }
    }

    fn v2(root: &TempDir) -> Layout {
        Layout {
            version: Version::V2,
            hierarchy_id: 0,
            cpu: controller(root, "", Format::V2),
            cpuacct: root.path().to_owned(),
            memory: Some(controller(root, "", Format::V2)),
        }
    }

    fn v1(root: &TempDir) -> Layout {
        Layout {
            version: Version::V1,
            hierarchy_id: 1,
            cpu: controller(root, "cpu", Format::V1),
            cpuacct: root.path().join("cpuacct"),
            memory: Some(controller(root, "memory", Format::V1)),
        }
    }

    const PSI: &str =
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2";

    fn memory(current_bytes: u64, working_set_bytes: u64) -> Memory {
        Memory { current_bytes, working_set_bytes, peak_bytes: None, read_ns: 7 }
    }

    #[test]
    fn every_kind_is_read_on_v2() {
        let root = tempfile::tempdir().unwrap();
        write(
            &root,
            &[
                ("a/cpu.stat", "usage_usec 5"),
                ("a/cpu.weight", "39"),
                ("a/cpu.pressure", PSI),
                ("a/memory.pressure", PSI),
                ("a/memory.current", "100"),
                ("a/memory.stat", "inactive_file 40"),
                ("a/memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1"),
            ],
        );
        let (layout, a) = (v2(&root), Path::new("a"));
        assert_eq!(layout.cpu_stat(a).unwrap(), CpuStat { usage_ns: 5_000, ..CpuStat::default() });
        assert_eq!(layout.cpu_weight(a).unwrap(), Some(39));
        assert_eq!(layout.level(a).unwrap(), Level::default());
        let pressure =
            Pressure { cpu_some_ns: 3_000, cpu_full_ns: 2_000, memory_some_ns: 3_000, memory_full_ns: 2_000 };
        assert_eq!(layout.pressure(a).unwrap(), Some(pressure));
        assert_eq!(layout.memory(a, 7).unwrap(), Some(memory(100, 60)));
        let kill = MemoryEvents { oom_kill: 1, ..MemoryEvents::default() };
        assert_eq!(layout.memory_events(a).unwrap(), Some(kill));
    }

    #[test]
    fn every_kind_is_read_on_v1_where_its_controller_is() {
        let root = tempfile::tempdir().unwrap();
        write(
            &root,
            &[
                ("cpu/a/cpu.stat", "nr_periods 2\nnr_throttled 1\nthrottled_time 9"),
                ("cpu/a/cpu.shares", "1024"),
                ("cpu/a/cpu.cfs_quota_us", "20000"),
                ("cpu/a/cpu.cfs_period_us", "10000"),
                ("cpuacct/a/cpuacct.usage", "5"),
                ("memory/a/memory.usage_in_bytes", "100"),
                ("memory/a/memory.stat", "total_inactive_file 40"),
                ("memory/a/memory.limit_in_bytes", "200"),
                ("memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1"),
            ],
        );
        let (layout, a) = (v1(&root), Path::new("a"));
        let stat = CpuStat { usage_ns: 5, periods: 2, throttled_periods: 1, throttled_ns: 9 };
        assert_eq!(layout.cpu_stat(a).unwrap(), stat);
        assert_eq!(layout.pressure(a).unwrap(), None);
        assert_eq!(layout.memory(a, 7).unwrap(), Some(memory(100, 60)));
        assert_eq!(layout.memory_events(a).unwrap().map(|events| events.oom_kill), Some(1));
        let quota = Some(Quota { quota_us: 20_000, period_us: 10_000 });
        let level = Level { cpu: quota, memory_max_bytes: Some(200), memory_high_bytes: None };
        assert_eq!(layout.level(a).unwrap(), level);
        assert_eq!(layout.cpu_weight(a).unwrap(), Some(100));
    }

    #[test]
    fn what_the_host_does_not_have_is_none_and_what_was_removed_has_vanished() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["a", "cpu/a"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let no_memory = Layout { memory: None, ..v2(&root) };
        for layout in [v1(&root), v2(&root), no_memory] {
            let (there, gone) = (Path::new("a"), Path::new("gone"));
            assert_eq!(layout.level(there).unwrap(), Level::default());
            assert_eq!(layout.cpu_weight(there).unwrap(), None);
            assert_eq!(layout.memory(there, 7).unwrap(), None);
            assert_eq!(layout.memory_events(there).unwrap(), None);
            assert_eq!(layout.pressure(there).unwrap(), None);
            let vanished = |error: FileError| matches!(error, FileError::Vanished { .. });
            assert!(vanished(layout.cpu_stat(gone).unwrap_err()));
            assert!(vanished(layout.level(gone).unwrap_err()));
            assert!(vanished(layout.cpu_weight(gone).unwrap_err()));
            assert!(vanished(layout.memory(gone, 7).unwrap_err()));
            assert!(vanished(layout.memory_events(gone).unwrap_err()));
        }
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_no_guess() {
        let root = tempfile::tempdir().unwrap();
        write(&root, &[("a/cpu.max", "nonsense"), ("b/memory.high", "-1")]);
        let error = |cgroup| v2(&root).level(Path::new(cgroup)).unwrap_err().to_string();
        assert!(error("a").contains("a/cpu.max: cpu.max: period: missing"), "{}", error("a"));
        assert!(error("b").contains("b/memory.high: memory.high: value: \"-1\""), "{}", error("b"));
    }
}
