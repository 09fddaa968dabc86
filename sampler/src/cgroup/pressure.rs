//! For how long threads of one cgroup were stalled, as the kernel's pressure stall information counts it: `cpu.pressure`
//! and `memory.pressure` (<https://docs.kernel.org/accounting/psi.html>). cgroup v1 has none.

use std::io;
use std::path::Path;

use sampler_common::resources::Pressure;

use super::file::{FileError, Malformed, Problem, read_if_there};
use super::flat::{number, us_in_ns};

/// Where the stalls for want of a CPU are.
pub const CPU: &str = "cpu.pressure";
/// Where the stalls for want of memory are.
pub const MEMORY: &str = "memory.pressure";
const SOME: &str = "some total";
const FULL: &str = "full total";

/// Reads both from a cgroup's directory: 2 files, 6 system calls. `None` where the kernel does not count (built without
/// PSI, `psi=0`) or counts not for this cgroup (`cgroup.pressure`).
pub fn read(directory: &Path) -> Result<Option<Pressure>, FileError> {
    let Some((cpu_some_ns, cpu_full_ns)) = read_totals(directory, CPU)? else { return Ok(None) };
    let Some((memory_some_ns, memory_full_ns)) = read_totals(directory, MEMORY)? else { return Ok(None) };
    Ok(Some(Pressure { cpu_some_ns, cpu_full_ns, memory_some_ns, memory_full_ns }))
}

fn read_totals(directory: &Path, file: &'static str) -> Result<Option<(u64, u64)>, FileError> {
    or_not_counted(read_if_there(&directory.join(file), |text| parse(file, text)))
}

/// A kernel that does not count says so when the file is read.
fn or_not_counted<T>(result: Result<Option<T>, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::Unsupported => Ok(None),
        result => result,
    }
}

/// Reads the content of either file: the totals in ns, of some and of full. Before Linux 5.13 `cpu.pressure` has no line
/// for full: 0.
pub fn parse(file: &'static str, text: &str) -> Result<(u64, u64), Malformed> {
    let wrong = |field, problem| Malformed { file, field, problem };
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(wrong(FULL, Problem::CutOff));
    }
    let total = |field, line: &str| {
        let mut lines = text.lines().filter_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
        let Some(first) = lines.next() else { return Ok(None) };
        if lines.next().is_some() {
            return Err(wrong(field, Problem::Twice));
        }
        let total = first.split(' ').find_map(|word| word.strip_prefix("total="));
        let total = total.ok_or_else(|| wrong(field, Problem::Missing))?;
        number(total).and_then(us_in_ns).map(Some).map_err(|problem| wrong(field, problem))
    };
    let some = total(SOME, "some")?.ok_or_else(|| wrong(SOME, Problem::Missing))?;
    match total(FULL, "full")? {
        Some(full) => Ok((some, full)),
        None if file == CPU => Ok((some, 0)),
        None => Err(wrong(FULL, Problem::Missing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use proptest::prelude::*;
    use std::fs;

    const TEXT: &str = "some avg10=83.71 avg60=34.41 avg300=29.99 total=4195511214\n\
                        full avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";

    #[test]
    fn totals_are_read_in_ns() {
        assert_eq!(parse(CPU, TEXT), Ok((4_195_511_214_000, 17_000)));
        assert_eq!(parse(MEMORY, TEXT), Ok((4_195_511_214_000, 17_000)));
    }

    #[test]
    fn only_old_kernels_have_no_full_and_only_for_the_cpu() {
        let old = TEXT.lines().next().unwrap().to_owned() + "\n";
        assert_eq!(parse(CPU, &old), Ok((4_195_511_214_000, 0)));
        let error = Malformed { file: MEMORY, field: FULL, problem: Problem::Missing };
        assert_eq!(parse(MEMORY, &old), Err(error));
    }

    #[test]
    fn what_was_cut_off_or_lies_is_refused_by_file_and_field() {
        for end in 0..TEXT.len() {
            let result = parse(MEMORY, &TEXT[..end]);
            assert!(result.is_err(), "{:?}", &TEXT[..end]);
        }
        let wrong = |text: &str| parse(CPU, text).map_err(|error| (error.field, error.problem)).unwrap_err();
        assert_eq!(wrong(""), (SOME, Problem::Missing));
        assert_eq!(wrong("some avg10=0.00\n"), (SOME, Problem::Missing));
        assert_eq!(wrong("some total=-1\n"), (SOME, Problem::not_a_number("-1")));
        assert_eq!(wrong("some total=1\nsome total=2\n"), (SOME, Problem::Twice));
        assert_eq!(wrong("some total=1\nfull total=1.5\n"), (FULL, Problem::not_a_number("1.5")));
        let too_long = u64::MAX.to_string();
        assert_eq!(wrong(&format!("some total={too_long}\n")), (SOME, Problem::not_a_number(&too_long)));
        assert_eq!(wrong("some total=1"), (FULL, Problem::CutOff));
    }

    #[test]
    fn a_kernel_that_does_not_count_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(read(directory.path()), Ok(None)));
        fs::write(directory.path().join(CPU), TEXT).unwrap();
        assert!(matches!(read(directory.path()), Ok(None)));
        fs::write(directory.path().join(MEMORY), TEXT).unwrap();
        let pressure = Pressure {
            cpu_some_ns: 4_195_511_214_000,
            cpu_full_ns: 17_000,
            memory_some_ns: 4_195_511_214_000,
            memory_full_ns: 17_000,
        };
        assert_eq!(read(directory.path()).unwrap(), Some(pressure));
        let failed = |errno: Errno| {
            let source = io::Error::from_raw_os_error(errno as i32);
            or_not_counted::<()>(Err(FileError::Io { path: CPU.into(), source }))
        };
        assert!(matches!(failed(Errno::EOPNOTSUPP), Ok(None)));
        assert!(matches!(failed(Errno::EACCES), Err(FileError::Io { .. })));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|((some|full)? (avg10=0.00)? (total=)?[0-9]{0,25}\n){0,3}") {
            let _ = (parse(CPU, &text), parse(MEMORY, &text));
        }

        #[test]
        fn what_the_kernel_writes_is_what_is_read(some in 0..1u64 << 50, full in 0..1u64 << 50) {
            let line = |name, total| format!("{name} avg10=1.00 avg60=2.00 avg300=3.00 total={total}\n");
            let text = line("some", some) + &line("full", full);
            prop_assert_eq!(parse(CPU, &text), Ok((some * 1_000, full * 1_000)));
        }
    }
}
