//! Request rates: text files with one number a line, the requests of one second.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::Request;
use super::random::Random;
use super::trace::name_of;

const SECOND_NS: f64 = 1e9;
/// No service of one machine gets more in a second; it bounds how long a simulation may take.
const MOST_A_SECOND: f64 = 100_000.0;

/// Requests a second, second by second.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Name of its file without the ending.
    pub name: String,
    /// By second. At least one.
    pub per_second: Vec<f64>,
}

/// Why a file is no list of rates.
#[derive(Debug, thiserror::Error)]
pub enum RatesError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not a rate.
    #[error("{}, line {line}: {problem}; a file of rates has a line for each second: its number of requests", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Rates {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, RatesError> {
        let text = fs::read_to_string(path).map_err(|source| RatesError::Io { path: path.into(), source })?;
        let name = name_of(path);
        let per_second = parse(&text).map_err(|(line, problem)| RatesError::Malformed {
            path: path.into(),
            line,
            problem,
        })?;
        Ok(Self { name, per_second })
    }

    /// Requests a second, on average.
    pub fn mean(&self) -> f64 {
        self.per_second.iter().sum::<f64>() / self.per_second.len() as f64
    }

    /// Requests at these rates, one by one: those of a second arrive independently of each other, and each needs an
    /// exponentially distributed CPU time of this mean.
    pub fn requests(&self, mean_cpu_ns: f64, seed: u64) -> impl Iterator<Item = Request> + use<> {
        let mut gaps = Random::new(seed, 0);
        let mut needs = Random::new(seed, 1);
        let rates = self.per_second.clone();
        let (mut second, mut at_ns) = (0, 0.0);
        std::iter::from_fn(move || {
            loop {
                let rate: f64 = *rates.get(second)?;
                let end_ns = (second + 1) as f64 * SECOND_NS;
                // A second without requests has gaps of any length: the exponential forgets where the last one began.
                at_ns += if rate > 0.0 { gaps.exponential(SECOND_NS / rate) } else { f64::INFINITY };
                if at_ns < end_ns {
                    let needs_ns = needs.exponential(mean_cpu_ns).ceil() as u64;
                    return Some(Request { at_ns: at_ns as u64, needs_ns: needs_ns.max(1) });
                }
                at_ns = end_ns;
                second += 1;
            }
        })
    }
}

/// The rates of a file, or which line is wrong and how.
fn parse(text: &str) -> Result<Vec<f64>, (usize, &'static str)> {
    let mut rates = Vec::new();
    for (line, content) in (1..).zip(text.lines()).filter(|(_, content)| !content.trim().is_empty()) {
        let rate: f64 = content.trim().parse().map_err(|_| (line, "the rate is not a number"))?;
        if !(0.0..=MOST_A_SECOND).contains(&rate) {
            return Err((line, "the rate is not from 0 to 100000"));
        }
        rates.push(rate);
    }
    // What takes no request takes no time for one, either: there would be nothing to divide by.
    if rates.iter().any(|rate| *rate > 0.0) { Ok(rates) } else { Err((1, "there is no rate above 0")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rate_is_refused_with_its_line() {
        assert_eq!(parse("1\n\n2.5\n"), Ok(vec![1.0, 2.5]));
        for (text, line, problem) in [
            ("", 1, "there is no rate above 0"),
            ("0\n0.0\n", 1, "there is no rate above 0"),
            ("1\nmany", 2, "the rate is not a number"),
            ("-1", 1, "the rate is not from 0 to 100000"),
            ("1\n1e9", 2, "the rate is not from 0 to 100000"),
            ("NaN", 1, "the rate is not from 0 to 100000"),
        ] {
            assert_eq!(parse(text), Err((line, problem)), "{text:?}");
        }
        assert_eq!(Rates::read(Path::new("/nowhere/a")).unwrap_err().to_string(), "cannot read /nowhere/a");
    }

    #[test]
    fn requests_come_at_their_rate_and_need_their_mean() {
        let rates = Rates {
            name: "r".into(),
            per_second: [vec![100.0; 200], vec![0.0; 10], vec![300.0; 200]].concat(),
        };
        let requests: Vec<Request> = rates.requests(10e6, 1).collect();
        assert!(requests.is_sorted_by_key(|request| request.at_ns));
        let until = |second: u64| {
            requests.iter().filter(|request| request.at_ns < second * 1_000_000_000).count() as f64
        };
        assert!((until(200) / 20_000.0 - 1.0).abs() < 0.03, "{}", until(200));
        assert_eq!(until(200), until(210));
        assert!(((until(410) - until(210)) / 60_000.0 - 1.0).abs() < 0.02);
        let mean =
            requests.iter().map(|request| request.needs_ns as f64).sum::<f64>() / requests.len() as f64;
        assert!((mean / 10e6 - 1.0).abs() < 0.02, "{mean}");
        assert_eq!(rates.requests(10e6, 1).collect::<Vec<_>>(), requests);
        assert_ne!(rates.requests(10e6, 2).next(), requests.first().copied());
    }
}
