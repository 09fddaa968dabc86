//! `--explain SERIES@TIME`: one decision, as `loadline why` prints it.

use std::fmt;
use std::str::FromStr;

/// A series at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// A trace's name, or a container's.
    pub series: String,
    /// When: seconds as the trace counts them, or since the beginning of a recording.
    pub at: u64,
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (series, at) = text.rsplit_once('@').ok_or("there is no @: write SERIES@SECONDS")?;
        let at = at.parse().map_err(|_| "what follows the @ is not a whole number of seconds")?;
        if series.is_empty() {
            Err("there is no series before the @")
        } else {
            Ok(Self { series: series.into(), at })
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at or before {}", self.series, self.at)
    }
}
