//! Traces of use: those of CSV files `ts,value`, seconds since the epoch and cores.

use std::fs;
use std::path::{Path, PathBuf};

use crate::decide::units::Timestamp;

/// Use of one container over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Name of its file without the ending; of a recording's container `pod/container`.
    pub name: String,
    /// When, and how much CPU was used until then, in cores. At least one, in the order of time.
    pub samples: Vec<(Timestamp, f64)>,
}

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not a sample.
    #[error("{}, line {line}: {problem}; a trace has lines `ts,value`: seconds since the epoch, cores", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Trace {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let io = |source| TraceError::Io { path: path.into(), source };
        let text = fs::read_to_string(path).map_err(io)?;
        let name = name_of(path);
        let samples = parse(&text).map_err(|(line, problem)| TraceError::Malformed {
            path: path.into(),
            line,
            problem,
        })?;
        Ok(Self { name, samples })
    }
}

/// What a series in this file is called: the file, without folder and ending.
pub fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The samples of a file, or which line is wrong and how. A first line without any digit is a heading; spreadsheets begin
/// theirs with a byte order mark.
fn parse(text: &str) -> Result<Vec<(Timestamp, f64)>, (usize, &'static str)> {
    let mut samples: Vec<(Timestamp, f64)> = Vec::new();
    for (line, content) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let wrong = |problem| (line, problem);
        if content.trim().is_empty() || line == 1 && !content.contains(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let (at, cores) = content.split_once(',').ok_or(wrong("there is no comma"))?;
        let at =
            Timestamp(at.trim().parse().map_err(|_| wrong("the time is not a whole number of seconds"))?);
        let cores: f64 = cores.trim().parse().map_err(|_| wrong("the value is not a number"))?;
        if !cores.is_finite() || cores < 0.0 {
            return Err(wrong("the value is not a number of cores from 0 up"));
        }
        if samples.last().is_some_and(|last| at <= last.0) {
            return Err(wrong("the time is not later than the line before"));
        }
        samples.push((at, cores));
    }
    if samples.is_empty() { Err((1, "there is no sample")) } else { Ok(samples) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_samples_with_or_without_a_heading() {
        let samples = vec![(Timestamp(60), 0.5), (Timestamp(120), 2.0)];
        assert_eq!(parse("ts,value\n60,0.5\n120, 2\n"), Ok(samples.clone()));
        assert_eq!(parse("\u{feff}timestamp,cores\r\n60,0.5\r\n120,2\r\n"), Ok(samples.clone()));
        assert_eq!(parse("60,0.5\n\n120,2"), Ok(samples));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        for (text, line, problem) in [
            ("", 1, "there is no sample"),
            ("ts,value\n", 1, "there is no sample"),
            ("60;0.5", 1, "there is no comma"),
            ("60,1\nsoon,1", 2, "the time is not a whole number of seconds"),
            ("60,1\n120,much", 2, "the value is not a number"),
            ("60,-1", 1, "the value is not a number of cores from 0 up"),
            ("60,inf", 1, "the value is not a number of cores from 0 up"),
            ("60,1\n60,1", 2, "the time is not later than the line before"),
        ] {
            assert_eq!(parse(text), Err((line, problem)), "{text:?}");
        }
        let error = Trace::read(Path::new("/nowhere/a.csv")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/a.csv");
    }
}
