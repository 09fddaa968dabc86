//! `cpu.stat` of one cgroup: what it used and how it was throttled; and its v1 names.

use std::path::Path;

use super::file::{self, FileError, Malformed};
use super::flat::{self, Flat};

const CPU_STAT: &str = "cpu.stat";
const CPUACCT_USAGE: &str = "cpuacct.usage";

/// CPU time and throttling of one cgroup and everything below it, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// CPU time used, in ns.
    pub usage_ns: u64,
    /// Enforcement periods of its own limit in which it was active; 0 without the `cpu` controller.
    pub periods: u64,
    /// Those of them in which it was throttled.
    pub throttled_periods: u64,
    /// Time its run queues were throttled by its own limit, all CPUs added up, in ns.
    pub throttled_ns: u64,
}

impl CpuStat {
    /// Reads it from a cgroup's directory.
    pub fn read(directory: &Path) -> Result<Self, FileError> {
        file::read(&directory.join(CPU_STAT), Self::parse)
    }

    /// Reads it from a cgroup's v1 directories of `cpu` and `cpuacct`. A cgroup that `cpuacct` does not have has used
    /// nothing that was counted.
    pub fn read_v1(cpu: &Path, cpuacct: &Path) -> Result<Self, FileError> {
        let stat = file::read(&cpu.join(CPU_STAT), Self::parse_v1)?;
        let usage = |text: &str| flat::single(CPUACCT_USAGE, text);
        let usage_ns = match file::read_if_there(&cpuacct.join(CPUACCT_USAGE), usage)? {
            Some(usage_ns) => usage_ns,
            None if cpu.is_dir() => 0,
            None => return Err(FileError::Vanished { path: cpu.to_owned() }),
        };
        Ok(Self { usage_ns, ..stat })
    }

    /// Reads it from the content of `cpu.stat`. Where the `cpu` controller is not enabled, that is the usage alone.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fields = Flat::new(CPU_STAT, "usage_usec", text)?;
        let usage_ns = fields.us_in_ns("usage_usec")?;
        if !["nr_periods", "nr_throttled", "throttled_usec"].iter().any(|key| fields.has(key)) {
            return Ok(Self { usage_ns, ..Self::default() });
        }
        Ok(Self {
            usage_ns,
            periods: fields.number("nr_periods")?,
            throttled_periods: fields.number("nr_throttled")?,
            throttled_ns: fields.us_in_ns("throttled_usec")?,
        })
    }

    /// Reads it from the content of v1's `cpu.stat`, which does not have the usage and counts in ns.
    pub fn parse_v1(text: &str) -> Result<Self, Malformed> {
        let fields = Flat::new(CPU_STAT, "nr_periods", text)?;
        Ok(Self {
            usage_ns: 0,
            periods: fields.number("nr_periods")?,
            throttled_periods: fields.number("nr_throttled")?,
            throttled_ns: fields.number("throttled_time")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::file::Problem;
    use proptest::prelude::*;

    const LINUX_6_1: &str = "usage_usec 8513406\nuser_usec 8500212\nsystem_usec 13194\nnr_periods 142\n\
                             nr_throttled 137\nthrottled_usec 5312898\nnr_bursts 0\nburst_usec 0\n";
    const LINUX_6_12: &str = "usage_usec 8513406\nuser_usec 8500212\nsystem_usec 13194\n\
                              core_sched.force_idle_usec 0\nnr_periods 142\nnr_throttled 137\n\
                              throttled_usec 5312898\nnr_bursts 0\nburst_usec 0\n";
    const LINUX_7_2: &str = "usage_usec 8513406\nuser_usec 8500212\nsystem_usec 13194\nnice_usec 0\n\
                             core_sched.force_idle_usec 0\nnr_periods 142\nnr_throttled 137\n\
                             throttled_usec 5312898\nnr_bursts 0\nburst_usec 0\n";
    const WITHOUT_CONTROLLER: &str = "usage_usec 8513406\nuser_usec 8500212\nsystem_usec 13194\n";

    fn problem(text: &str) -> (&'static str, Problem) {
        let Malformed { file, field, problem } = CpuStat::parse(text).unwrap_err();
        assert_eq!(file, CPU_STAT);
        (field, problem)
    }

    fn not_a_number(value: &str) -> Problem {
        Problem::NotANumber { value: value.to_owned() }
    }

    #[test]
    fn files_of_every_kernel_are_read() {
        let stat = CpuStat {
            usage_ns: 8_513_406_000,
            periods: 142,
            throttled_periods: 137,
            throttled_ns: 5_312_898_000,
        };
        for text in [LINUX_6_1, LINUX_6_12, LINUX_7_2] {
            assert_eq!(CpuStat::parse(text), Ok(stat));
        }
    }

    #[test]
    fn without_the_controller_there_is_only_usage() {
        let stat = CpuStat { usage_ns: 8_513_406_000, ..CpuStat::default() };
        assert_eq!(CpuStat::parse(WITHOUT_CONTROLLER), Ok(stat));
    }

    #[test]
    fn what_was_cut_off_is_refused_and_never_half_a_number() {
        for end in 0..LINUX_6_1.len() {
            let cut = &LINUX_6_1[..end];
            let on_a_line_s_end_without_bandwidth = cut.ends_with('\n') && !cut.contains("nr_periods");
            let whole = cut.contains("throttled_usec") && cut.ends_with('\n');
            let result = CpuStat::parse(cut);
            assert_eq!(result.is_ok(), on_a_line_s_end_without_bandwidth || whole, "{cut:?}: {result:?}");
        }
        assert_eq!(problem(""), ("usage_usec", Problem::Missing));
        assert_eq!(problem("usage_usec 85134"), ("usage_usec", Problem::CutOff));
        assert_eq!(problem("usage_usec 1\nnr_periods 4\n"), ("nr_throttled", Problem::Missing));
    }

    #[test]
    fn what_lies_is_refused_by_the_name_of_its_field() {
        let with = |key: &str, value: &str| {
            let number = |line: &str| line.split_once(' ').unwrap().0 == key;
            let line = |line: &str| {
                if number(line) { format!("{key} {value}\n") } else { format!("{line}\n") }
            };
            problem(&LINUX_6_1.lines().map(line).collect::<String>())
        };
        assert_eq!(with("usage_usec", "-1"), ("usage_usec", not_a_number("-1")));
        assert_eq!(with("usage_usec", "+1"), ("usage_usec", not_a_number("+1")));
        assert_eq!(with("usage_usec", ""), ("usage_usec", not_a_number("")));
        assert_eq!(with("nr_periods", "1e3"), ("nr_periods", not_a_number("1e3")));
        assert_eq!(with("nr_throttled", " 7"), ("nr_throttled", not_a_number(" 7")));
        let in_us_only = u64::MAX.to_string();
        assert_eq!(with("throttled_usec", &in_us_only), ("throttled_usec", not_a_number(&in_us_only)));
        let endless = "9".repeat(10_000);
        assert_eq!(with("nr_periods", &endless), ("nr_periods", not_a_number(&"9".repeat(32))));
        assert_eq!(problem("usage_usec 1\nusage_usec 2\n"), ("usage_usec", Problem::Twice));
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cpu.stat");
        assert!(matches!(CpuStat::read(directory.path()), Err(FileError::Vanished { path: p }) if p == path));
        std::fs::write(&path, "usage_usec x\n").unwrap();
        let error = CpuStat::read(directory.path()).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        assert!(error.ends_with("cpu.stat: usage_usec: \"x\" is not a number in its range"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(CpuStat::read(directory.path()), Err(FileError::Io { path: p, .. }) if p == path));
    }

    #[test]
    fn on_v1_the_usage_is_another_file_s_and_times_are_in_ns() {
        let text = "nr_periods 142\nnr_throttled 137\nthrottled_time 5312898123\nnr_bursts 0\nburst_time 0\n";
        let stat = CpuStat { usage_ns: 0, periods: 142, throttled_periods: 137, throttled_ns: 5_312_898_123 };
        assert_eq!(CpuStat::parse_v1(text), Ok(stat));
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(matches!(CpuStat::read_v1(&at("cpu"), &at("cpuacct")), Err(FileError::Vanished { .. })));
        std::fs::create_dir(at("cpu")).unwrap();
        std::fs::write(at("cpu/cpu.stat"), text).unwrap();
        assert_eq!(CpuStat::read_v1(&at("cpu"), &at("cpuacct")).unwrap(), stat);
        std::fs::write(at("cpu/cpuacct.usage"), "123456789\n").unwrap();
        let read = CpuStat::read_v1(&at("cpu"), &at("cpu")).unwrap();
        assert_eq!(read, CpuStat { usage_ns: 123_456_789, ..stat });
        std::fs::write(at("cpu/cpuacct.usage"), "12 34\n").unwrap();
        let error = CpuStat::read_v1(&at("cpu"), &at("cpu")).unwrap_err().to_string();
        assert!(error.ends_with("cpuacct.usage: value: \"12 34\" is not a number in its range"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[a-z_]{0,12} [0-9-]{0,25}\n|(usage_usec|nr_periods) [0-9]{0,25}\n") {
            let _ = CpuStat::parse(&text);
            let _ = CpuStat::parse_v1(&text);
        }

        #[test]
        fn no_damage_panics(at in 0..LINUX_6_1.len(), byte in 0u8..128) {
            let mut text = LINUX_6_1.as_bytes().to_vec();
            text[at] = byte;
            let _ = CpuStat::parse(std::str::from_utf8(&text).unwrap());
        }

        #[test]
        fn what_the_kernel_writes_is_what_is_read(
            usage in 0..1u64 << 50, periods: u64, throttled: u64, time in 0..1u64 << 50,
        ) {
            let text = format!(
                "usage_usec {usage}\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec {time}\n"
            );
            let stat = CpuStat::parse(&text).unwrap();
            prop_assert_eq!((stat.usage_ns, stat.periods), (usage * 1_000, periods));
            prop_assert_eq!((stat.throttled_periods, stat.throttled_ns), (throttled, time * 1_000));
        }
    }
}
