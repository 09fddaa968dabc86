//! The limits in force on a cgroup: the tightest of its own and of those of the cgroups above it.
//!
//! v2: `cpu.max`, `cpu.weight`, `memory.max`, `memory.high`
//! (<https://docs.kernel.org/admin-guide/cgroup-v2.html>). v1: `cpu.cfs_quota_us` and `cpu.cfs_period_us`
//! (<https://docs.kernel.org/scheduler/sched-bwc.html>), `cpu.shares`, `memory.limit_in_bytes`
//! (<https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>).

use std::path::Path;

use sampler_common::resources::{CpuLimit, LimitOf, Limits};

use super::Format;
use super::file::{FileError, Malformed, Problem, read_if_there};
use super::flat::{VALUE, line, number, single};

const CPU_MAX: &str = "cpu.max";
const CPU_WEIGHT: &str = "cpu.weight";
const MEMORY_MAX: &str = "memory.max";
const MEMORY_HIGH: &str = "memory.high";
const CFS_QUOTA: &str = "cpu.cfs_quota_us";
const CFS_PERIOD: &str = "cpu.cfs_period_us";
const CPU_SHARES: &str = "cpu.shares";
const MEMORY_LIMIT: &str = "memory.limit_in_bytes";

/// The highest `cpu.weight`.
const HIGHEST_WEIGHT: u64 = 10_000;
/// v1 says "no limit" with the highest number of bytes that is a multiple of the page size. This is the least of these
/// numbers, with pages of 64 KiB.
const V1_UNLIMITED_BYTES: u64 = i64::MAX as u64 / (64 << 10) * (64 << 10);

/// CPU time that may be used in every period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// In µs; never 0.
    pub quota_us: u64,
    /// Length of a period, in µs; never 0.
    pub period_us: u64,
}

impl Quota {
    /// Reads it from the content of `cpu.max`: quota or `max`, and the period.
    pub fn parse(text: &str) -> Result<Option<Self>, Malformed> {
        let wrong = |field, problem| Malformed { file: CPU_MAX, field, problem };
        let line = line(CPU_MAX, "period", text)?;
        let (quota, period) = line.split_once(' ').ok_or_else(|| wrong("period", Problem::Missing))?;
        let period_us = positive(period).map_err(|problem| wrong("period", problem))?;
        if quota == "max" {
            return Ok(None);
        }
        let quota_us = positive(quota).map_err(|problem| wrong("quota", problem))?;
        Ok(Some(Self { quota_us, period_us }))
    }

    /// Reads it from the contents of v1's `cpu.cfs_quota_us`, where -1 is no limit, and `cpu.cfs_period_us`.
    pub fn parse_v1(quota: &str, period: &str) -> Result<Option<Self>, Malformed> {
        let of = |file, text| {
            positive(line(file, VALUE, text)?).map_err(|problem| Malformed { file, field: VALUE, problem })
        };
        let period_us = of(CFS_PERIOD, period)?;
        if quota == "-1\n" { Ok(None) } else { Ok(Some(Self { quota_us: of(CFS_QUOTA, quota)?, period_us })) }
    }

    /// Whether it allows less than another.
    fn is_tighter_than(self, other: Self) -> bool {
        let scaled = |one: Self, by: Self| u128::from(one.quota_us) * u128::from(by.period_us);
        scaled(self, other) < scaled(other, self)
    }
}

/// The limits that one cgroup has itself. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// CPU.
    pub cpu: Option<Quota>,
    /// Memory in bytes, beyond which the kernel kills.
    pub memory_max_bytes: Option<u64>,
    /// Memory in bytes, beyond which the kernel slows down.
    pub memory_high_bytes: Option<u64>,
}

/// Reads a cgroup's own CPU limit from its directory of `cpu`: 1 file, 3 system calls; of v1 twice that. `None` is no
/// limit, or no controller.
pub fn read_quota(directory: &Path, format: Format) -> Result<Option<Quota>, FileError> {
    let quota = match format {
        Format::V2 => read_if_there(&directory.join(CPU_MAX), Quota::parse)?,
        Format::V1 => {
            let quota = read_if_there(&directory.join(CFS_QUOTA), |text| Ok(text.to_owned()))?;
            let Some(quota) = quota else { return Ok(None) };
            read_if_there(&directory.join(CFS_PERIOD), |period| Quota::parse_v1(&quota, period))?
        }
    };
    Ok(quota.flatten())
}

/// Reads a cgroup's share among its siblings, in the terms of v2, from its directory of `cpu`: 1 file, 3 system calls.
/// `None` where the controller is off.
pub fn read_weight(directory: &Path, format: Format) -> Result<Option<u64>, FileError> {
    match format {
        Format::V2 => read_if_there(&directory.join(CPU_WEIGHT), parse_weight),
        Format::V1 => {
            read_if_there(&directory.join(CPU_SHARES), |text| single(CPU_SHARES, text).map(weight_of_shares))
        }
    }
}

/// Reads a cgroup's own `memory.max` and `memory.high` from its directory of `memory`: 2 files, 6 system calls; of v1,
/// which has no `memory.high`, half of that. `None` is no limit, or no controller.
pub fn read_memory(directory: &Path, format: Format) -> Result<(Option<u64>, Option<u64>), FileError> {
    let bytes = |file| Ok(read_if_there(&directory.join(file), |text| parse_bytes(file, text))?.flatten());
    match format {
        Format::V2 => Ok((bytes(MEMORY_MAX)?, bytes(MEMORY_HIGH)?)),
        Format::V1 => Ok((read_if_there(&directory.join(MEMORY_LIMIT), parse_v1_bytes)?.flatten(), None)),
    }
}

/// The limits in force on a cgroup that has `own` and `weight`, below others that have `above`. Of limits that allow the
/// same, the cgroup's own is named.
pub fn in_force<'a>(own: &Level, weight: Option<u64>, above: impl IntoIterator<Item = &'a Level>) -> Limits {
    let mut cpu = own.cpu.map(|quota| (quota, LimitOf::Own));
    let (mut max, mut high) = (own.memory_max_bytes, own.memory_high_bytes);
    for level in above {
        if let Some(quota) = level.cpu
            && cpu.is_none_or(|(tightest, _)| quota.is_tighter_than(tightest))
        {
            cpu = Some((quota, LimitOf::Ancestor));
        }
        max = tighter(max, level.memory_max_bytes);
        high = tighter(high, level.memory_high_bytes);
    }
    Limits {
        cpu: cpu.map(|(Quota { quota_us, period_us }, of)| CpuLimit { quota_us, period_us, of }),
        cpu_weight: weight,
        memory_max_bytes: max,
        memory_high_bytes: high,
    }
}

/// v1's `cpu.shares` as v2's `cpu.weight`, by the formula that runc has from 1.3.2 and crun from 1.23: it takes the
/// least, the default (1024, 100) and the greatest of the one to those of the other
/// (<https://github.com/opencontainers/cgroups/pull/20>, <https://github.com/opencontainers/runc/issues/4772>). Runtimes
/// before them took 1024 to 39, so a host on v2 may show another weight for the same container.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => HIGHEST_WEIGHT,
        _ => {
            let doublings = (shares as f64).log2();
            let exponent = (doublings * doublings + 125.0 * doublings) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn tighter(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn positive(text: &str) -> Result<u64, Problem> {
    number(text).and_then(|number| if number == 0 { Err(Problem::not_a_number(text)) } else { Ok(number) })
}

/// Reads the content of `cpu.weight`: a weight, or 0 for a cgroup that only runs when no other wants to (`cpu.idle`), which
/// is less than the least.
pub fn parse_weight(text: &str) -> Result<u64, Malformed> {
    let weight = single(CPU_WEIGHT, text)?;
    if weight > HIGHEST_WEIGHT {
        let problem = Problem::not_a_number(&weight.to_string());
        return Err(Malformed { file: CPU_WEIGHT, field: VALUE, problem });
    }
    Ok(weight.max(1))
}

/// Reads the content of a file with a number of bytes or `max`, which is `None`.
pub fn parse_bytes(file: &'static str, text: &str) -> Result<Option<u64>, Malformed> {
    if text == "max\n" { Ok(None) } else { single(file, text).map(Some) }
}

/// Reads the content of v1's `memory.limit_in_bytes`. `None` is no limit.
pub fn parse_v1_bytes(text: &str) -> Result<Option<u64>, Malformed> {
    Ok(Some(single(MEMORY_LIMIT, text)?).filter(|bytes| *bytes < V1_UNLIMITED_BYTES))
}

#[cfg(test)]
mod tests;
