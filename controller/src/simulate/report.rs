//! The figures of a simulation, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::score::{Score, Terms};
use super::trace::Trace;

/// A series that uses less on average says more about rounding than about sizing.
const SMALLEST_MEAN_CORES: f64 = 0.05;
/// No container has so many cores: the values are something else.
const LARGEST_CORES: f64 = 900.0;

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// It is shown and does not count.
    pub excluded: bool,
    /// Why not.
    #[serde(skip)]
    pub why_excluded: Option<&'static str>,
    /// Our figures.
    pub policy: Score,
    /// The other method's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Score>,
}

impl Series {
    /// The figures of a trace.
    pub fn new(trace: &Trace, terms: Terms, policy: Score, baseline: Option<Score>) -> Self {
        let cores = || trace.samples.iter().map(|sample| sample.1);
        let mean = cores().sum::<f64>() / trace.samples.len() as f64;
        let why_excluded = if !terms.judges(trace) {
            Some("it ends within its first day, which is not judged")
        } else if mean < SMALLEST_MEAN_CORES {
            Some("it hardly uses anything")
        } else {
            cores().any(|cores| cores > LARGEST_CORES).then_some("its values are no cores")
        };
        Self { name: trace.name.clone(), excluded: why_excluded.is_some(), why_excluded, policy, baseline }
    }
}

/// The plain mean of the series that count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Total {
    /// Ours.
    pub policy: Score,
    /// The other method's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Score>,
}

/// A whole simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// By series, in the order given.
    pub series: Vec<Series>,
    /// The mean; `None` where no series counts.
    pub total: Option<Total>,
}

impl Report {
    /// Adds up.
    pub fn new(series: Vec<Series>) -> Self {
        let counted: Vec<&Series> = series.iter().filter(|series| !series.excluded).collect();
        let policy: Vec<Score> = counted.iter().map(|series| series.policy).collect();
        let baseline: Option<Vec<Score>> = counted.iter().map(|series| series.baseline).collect();
        let total = Score::mean(&policy)
            .map(|policy| Total { policy, baseline: baseline.and_then(|scores| Score::mean(&scores)) });
        Self { series, total }
    }
}

/// The four figures under their headings.
struct Columns(Score);

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Score { slack, under, unmet, changes_per_day } = self.0;
        write!(
            f,
            "{:>7.1} % {:>6.2} % {:>6.2} % {changes_per_day:>8.1}",
            slack * 100.0,
            under * 100.0,
            unmet * 100.0
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEADING: &str = "    slack    under    unmet  changes/d";
        let beside = self.series.iter().any(|series| series.baseline.is_some());
        let width = self.series.iter().map(|series| series.name.chars().count()).max().unwrap_or(0).max(8);
        write!(f, "{:width$}{HEADING}", "series")?;
        writeln!(f, "{}", if beside { format!("   | baseline:{}", &HEADING[3..]) } else { String::new() })?;
        let mut row = |name: &str, policy: Score, baseline: Option<Score>, note: &str| {
            write!(f, "{name:width$}{}", Columns(policy))?;
            if let Some(baseline) = baseline {
                write!(f, "    |        {}", Columns(baseline))?;
            }
            writeln!(f, "{note}")
        };
        for series in &self.series {
            let note = series.why_excluded.map(|why| format!("   (excluded: {why})")).unwrap_or_default();
            row(&series.name, series.policy, series.baseline, &note)?;
        }
        if let Some(total) = self.total {
            row("mean", total.policy, total.baseline, "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::units::Timestamp;

    fn series(name: &str, cores: f64, slack: f64) -> Series {
        let samples = (1..=2).map(|day| (Timestamp(86_400 * day), cores)).collect();
        let score = |slack| Score { slack, under: 0.01, unmet: 0.005, changes_per_day: 24.0 };
        let trace = Trace { name: name.into(), samples };
        Series::new(&trace, Terms::of_trace(&trace), score(slack), Some(score(2.0 * slack)))
    }

    #[test]
    fn series_that_are_too_small_or_no_cores_are_shown_and_do_not_count() {
        let report = Report::new(vec![
            series("a", 1.0, 0.2),
            series("tiny", 0.04, 0.9),
            series("b", 900.0, 0.4),
            series("huge", 901.0, 0.9),
        ]);
        let excluded: Vec<bool> = report.series.iter().map(|series| series.excluded).collect();
        assert_eq!(excluded, [false, true, false, true]);
        let total = report.total.unwrap();
        assert!(
            (total.policy.slack - 0.3).abs() < 1e-12 && (total.baseline.unwrap().slack - 0.6).abs() < 1e-12
        );
        assert_eq!(Report::new(vec![series("tiny", 0.0, 0.9)]).total, None);
    }

    #[test]
    fn a_trace_that_ends_before_it_is_judged_is_not_perfect() {
        let samples = vec![(Timestamp(0), 1.0), (Timestamp(86_399), 1.0)];
        let trace = Trace { name: "short".into(), samples };
        let report = Report::new(vec![Series::new(&trace, Terms::of_trace(&trace), Score::default(), None)]);
        assert!(report.series[0].excluded);
        assert_eq!(report.total, None);
        assert!(report.to_string().contains("(excluded: it ends within its first day"), "{report}");
    }

    #[test]
    fn the_json_has_the_keys_that_others_read() {
        let json = serde_json::to_value(Report::new(vec![series("a", 1.0, 0.25)])).unwrap();
        let score = |slack: f64| serde_json::json!({ "slack": slack, "under": 0.01, "unmet": 0.005, "changes_per_day": 24.0 });
        let both = serde_json::json!({ "policy": score(0.25), "baseline": score(0.5) });
        let mut first = both.clone();
        first["name"] = "a".into();
        first["excluded"] = false.into();
        assert_eq!(json, serde_json::json!({ "series": [first], "total": both }));
    }

    #[test]
    fn the_table_is_as_a_person_reads_it() {
        let report = Report::new(vec![series("a", 1.0, 0.25), series("tiny", 0.0, 0.9)]);
        assert_eq!(
            report.to_string(),
            "\
series      slack    under    unmet  changes/d   | baseline: slack    under    unmet  changes/d
a          25.0 %   1.00 %   0.50 %     24.0    |           50.0 %   1.00 %   0.50 %     24.0
tiny       90.0 %   1.00 %   0.50 %     24.0    |          180.0 %   1.00 %   0.50 %     24.0   (excluded: it hardly uses anything)
mean       25.0 %   1.00 %   0.50 %     24.0    |           50.0 %   1.00 %   0.50 %     24.0
"
        );
    }
}
