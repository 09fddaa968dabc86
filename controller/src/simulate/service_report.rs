//! The figures of closed loops, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::service::Outcome;

/// One service, by who sized it, from one allocation on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loop {
    /// Name of its rates.
    pub name: String,
    /// The request at the beginning, as a multiple of the CPU that it needs on average.
    pub start: f64,
    /// CPU that it needs on average, in cores.
    pub mean_demand_cores: f64,
    /// Ours, which has seen the usage of the 8 days before, as VPA has.
    pub ours: Outcome,
    /// Ours, which knows nothing at the beginning.
    pub ours_cold: Outcome,
    /// VPA's algorithm.
    pub vpa: Outcome,
    /// The allocation at the beginning, for ever.
    #[serde(rename = "static")]
    pub fixed: Outcome,
    /// The same request without a limit.
    pub no_limits: Outcome,
}

impl Loop {
    fn rows(&self) -> [(&'static str, &Outcome); 5] {
        [
            ("ours", &self.ours),
            ("ours, cold", &self.ours_cold),
            ("VPA", &self.vpa),
            ("static", &self.fixed),
            ("no limits", &self.no_limits),
        ]
    }
}

/// A whole simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoopReport {
    /// By rates and start.
    pub series: Vec<Loop>,
}

/// A time in ms as a person reads it.
struct Time(f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            ms if ms < 100.0 => format!("{ms:.1} ms"),
            ms if ms < 1000.0 => format!("{ms:.0} ms"),
            ms => format!("{:.1} s", ms / 1e3),
        };
        f.pad(&text)
    }
}

impl fmt::Display for LoopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, series) in self.series.iter().enumerate() {
            let Loop { name, start, mean_demand_cores, .. } = series;
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{name}: needs {mean_demand_cores:.2} cores on average, starts with {start} × that")?;
            writeln!(
                f,
                "{:11}{:>9}{:>8}{:>7}{:>10}{:>10}{:>9}{:>11}{:>9}",
                "sized by", "reserved", "of VPA", "limit", "p50", "p99", "× free", "throttled", "changes"
            )?;
            let (vpa, free) = (series.vpa.cores_reserved, series.no_limits.p99_ms);
            for (who, outcome) in series.rows() {
                writeln!(
                    f,
                    "{who:11}{:>9.2}{:>6.0} %{:>7}{:>10}{:>10}{:>9.2}{:>9.2} %{:>9}",
                    outcome.cores_reserved,
                    100.0 * outcome.cores_reserved / vpa,
                    outcome.cores_limit.map_or("–".into(), |limit| format!("{limit:.2}")),
                    Time(outcome.p50_ms),
                    Time(outcome.p99_ms),
                    outcome.p99_ms / free,
                    100.0 * outcome.throttled_share,
                    outcome.changes,
                )?;
            }
        }
        Ok(())
    }
}
