//! Memory of one cgroup and everything below it: what it has, what it had at most, and how often it met its limits.
//!
//! The working set is what cAdvisor and so the kubelet take for it: usage less `inactive_file`, at least 0
//! (`setMemoryStats` of <https://github.com/google/cadvisor/blob/master/container/libcontainer/handler.go>); on v1 the
//! same of the whole subtree, `total_inactive_file`. The root has no such files.

use std::path::Path;

use sampler_common::resources::{Memory, MemoryEvents};

use super::Format;
use super::file::{FileError, Malformed, read_if_there};
use super::flat::{Flat, single};

const STAT: &str = "memory.stat";
const EVENTS: &str = "memory.events";
const OOM_CONTROL: &str = "memory.oom_control";

/// Names of the files and the field in which one version of cgroups keeps what a cgroup has.
pub struct Names {
    current: &'static str,
    peak: &'static str,
    inactive_file: &'static str,
}

/// Those of v2.
pub const V2: Names =
    Names { current: "memory.current", peak: "memory.peak", inactive_file: "inactive_file" };
/// Those of v1.
pub const V1: Names = Names {
    current: "memory.usage_in_bytes",
    peak: "memory.max_usage_in_bytes",
    inactive_file: "total_inactive_file",
};

/// Reads what a cgroup has from its directory of `memory`, at `now_ns` (`CLOCK_MONOTONIC`): 3 files, 9 system calls. The
/// kernel adds up `memory.stat` of all CPUs for it. `None` where the controller is off.
pub fn read(directory: &Path, format: Format, now_ns: u64) -> Result<Option<Memory>, FileError> {
    match format {
        Format::V2 => V2.read(directory, now_ns),
        Format::V1 => V1.read(directory, now_ns),
    }
}

/// Reads how often a cgroup met its limits from its directory of `memory`: 1 file, 3 system calls. v1 tells of no more
/// than processes killed, and of those in the cgroup itself. `None` where the controller is off.
pub fn read_events(directory: &Path, format: Format) -> Result<Option<MemoryEvents>, FileError> {
    match format {
        Format::V2 => read_if_there(&directory.join(EVENTS), parse_events),
        Format::V1 => read_if_there(&directory.join(OOM_CONTROL), parse_v1_events),
    }
}

impl Names {
    fn read(&self, directory: &Path, now_ns: u64) -> Result<Option<Memory>, FileError> {
        let number = |file| read_if_there(&directory.join(file), |text| single(file, text));
        let inactive = |text: &str| self.parse_inactive_file(text);
        let Some(current_bytes) = number(self.current)? else { return Ok(None) };
        let Some(inactive_bytes) = read_if_there(&directory.join(STAT), inactive)? else { return Ok(None) };
        Ok(Some(Memory {
            current_bytes,
            working_set_bytes: current_bytes.saturating_sub(inactive_bytes),
            peak_bytes: number(self.peak)?,
            read_ns: now_ns,
        }))
    }

    /// Reads `inactive_file`, in bytes, from the content of `memory.stat`.
    pub fn parse_inactive_file(&self, text: &str) -> Result<u64, Malformed> {
        Flat::new(STAT, self.inactive_file, text)?.number(self.inactive_file)
    }
}

/// Reads the content of `memory.events`.
pub fn parse_events(text: &str) -> Result<MemoryEvents, Malformed> {
    let fields = Flat::new(EVENTS, "oom_kill", text)?;
    Ok(MemoryEvents {
        low: fields.number("low")?,
        high: fields.number("high")?,
        max: fields.number("max")?,
        oom: fields.number("oom")?,
        oom_kill: fields.number("oom_kill")?,
    })
}

/// Reads the content of v1's `memory.oom_control`.
pub fn parse_v1_events(text: &str) -> Result<MemoryEvents, Malformed> {
    let oom_kill = Flat::new(OOM_CONTROL, "oom_kill", text)?.number("oom_kill")?;
    Ok(MemoryEvents { oom_kill, ..MemoryEvents::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::file::Problem;
    use proptest::prelude::*;
    use std::fs;

    const EVENTS_6_12: &str = "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n";
    const STAT_6_12: &str = "anon 1241088\nfile 5242880\nkernel 311296\nkernel_stack 32768\npagetables 86016\n\
                             inactive_anon 1200128\nactive_anon 8192\ninactive_file 5000000\nactive_file 242880\n\
                             unevictable 0\nworkingset_refault_file 0\npgfault 1033\n";
    const STAT_V1: &str = "cache 9068544\nrss 0\ninactive_file 57344\nactive_file 815104\n\
                           hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file 1000000\n\
                           total_active_file 1862733824\n";

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(directory.path().join(file), text).unwrap();
        }
        directory
    }

    fn memory(current_bytes: u64, working_set_bytes: u64, peak_bytes: Option<u64>) -> Memory {
        Memory { current_bytes, working_set_bytes, peak_bytes, read_ns: 7 }
    }

    #[test]
    fn the_working_set_is_what_the_kubelet_takes_for_it() {
        let files =
            [("memory.current", "6795264\n"), ("memory.stat", STAT_6_12), ("memory.peak", "7000000\n")];
        let read_of = |files: &[(&str, &str)]| read(directory(files).path(), Format::V2, 7).unwrap();
        assert_eq!(read_of(&files), Some(memory(6_795_264, 1_795_264, Some(7_000_000))));
        // Linux 5.18 and before have no peak.
        assert_eq!(read_of(&files[..2]), Some(memory(6_795_264, 1_795_264, None)));
        // The two files are not of one moment.
        let less = [("memory.current", "4096\n"), ("memory.stat", STAT_6_12)];
        assert_eq!(read_of(&less), Some(memory(4096, 0, None)));
        assert_eq!(read_of(&files[..1]), None);
        assert_eq!(read_of(&[]), None);
    }

    #[test]
    fn on_v1_the_working_set_is_that_of_the_subtree_too() {
        let files = [
            ("memory.usage_in_bytes", "5000000\n"),
            ("memory.stat", STAT_V1),
            ("memory.max_usage_in_bytes", "6000000\n"),
        ];
        let read_of = |files: &[(&str, &str)]| read(directory(files).path(), Format::V1, 7).unwrap();
        assert_eq!(read_of(&files), Some(memory(5_000_000, 4_000_000, Some(6_000_000))));
        assert_eq!(read_of(&[]), None);
    }

    #[test]
    fn events_are_read_by_name_and_v1_knows_of_kills_only() {
        let events = MemoryEvents { low: 1, high: 2, max: 3, oom: 4, oom_kill: 5 };
        let read_of = |text| read_events(directory(&[("memory.events", text)]).path(), Format::V2);
        assert_eq!(read_of(EVENTS_6_12).unwrap(), Some(events));
        let control = directory(&[("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")]);
        let kills = MemoryEvents { oom_kill: 5, ..MemoryEvents::default() };
        assert_eq!(read_events(control.path(), Format::V1).unwrap(), Some(kills));
        assert_eq!(read_events(control.path(), Format::V2).unwrap(), None);
        assert_eq!(read_events(directory(&[]).path(), Format::V1).unwrap(), None);
    }

    #[test]
    fn what_was_cut_off_or_lies_is_refused_by_file_and_field() {
        for end in 0..EVENTS_6_12.len() {
            let cut = &EVENTS_6_12[..end];
            let whole = cut.ends_with('\n') && cut.contains("oom_kill 5");
            assert_eq!(parse_events(cut).is_ok(), whole, "{cut:?}");
        }
        let wrong = |file: &'static str, field: &'static str, problem| Malformed { file, field, problem };
        assert_eq!(parse_events("low 1\n"), Err(wrong(EVENTS, "high", Problem::Missing)));
        let lying = EVENTS_6_12.replace("oom_kill 5", "oom_kill -5");
        assert_eq!(parse_events(&lying), Err(wrong(EVENTS, "oom_kill", Problem::not_a_number("-5"))));
        assert_eq!(
            V2.parse_inactive_file("anon 1\ninactive_fi"),
            Err(wrong(STAT, "inactive_file", Problem::CutOff))
        );
        assert_eq!(
            V1.parse_inactive_file(STAT_6_12),
            Err(wrong(STAT, "total_inactive_file", Problem::Missing))
        );
        assert_eq!(
            parse_v1_events("oom_kill_disable 0\n"),
            Err(wrong(OOM_CONTROL, "oom_kill", Problem::Missing))
        );
        let odd = directory(&[("memory.current", "lots\n")]);
        let error = read(odd.path(), Format::V2, 7).unwrap_err().to_string();
        assert!(error.ends_with("memory.current: value: \"lots\" is not a number in its range"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|((inactive_file|low|high|max|oom|oom_kill) [0-9]{0,25}\n){0,6}") {
            let _ = (parse_events(&text), parse_v1_events(&text));
            let _ = (V1.parse_inactive_file(&text), V2.parse_inactive_file(&text));
        }
    }
}
