//! How far apart samples are, and so for how much time each of them speaks.
//!
//! A sample says what was used since the one before. Whether that is so over a long time depends on how samples come: of
//! one an hour each speaks for its hour; of one a minute the first after a gap does not speak for the gap.

use serde::{Deserialize, Serialize};

/// Every sample speaks for so much time, if as much has passed.
pub const LEAST_SECONDS: u64 = 300;
/// No sample speaks for more: nothing happens within it that could be forecast. The longest horizon of a forecast.
pub const MOST_SECONDS: u64 = 5_400;
/// A sample that comes after so many times the step before it is still one of the row: one may have been lost.
const LATE: u64 = 2;

/// The last two steps from one sample to the next, in seconds; 0 where there was none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cadence {
    last: u32,
    before: u32,
}

impl Cadence {
    /// A sample came so many seconds after the one before. Returns for how many of them it speaks.
    pub(super) fn step(&mut self, seconds: u64) -> u64 {
        let regular = seconds <= LATE * u64::from(self.last) && seconds <= MOST_SECONDS;
        self.before = self.last;
        self.last = u32::try_from(seconds).unwrap_or(u32::MAX);
        if regular { seconds } else { seconds.min(LEAST_SECONDS) }
    }

    /// For so long nothing will be known after a sample, in seconds: the shorter of the last two steps, since one may have been a
    /// gap; 0 before there was a step.
    pub fn seconds(self) -> u64 {
        let steps = [self.last, self.before].into_iter().filter(|step| *step > 0);
        steps.min().unwrap_or(0).into()
    }

    /// Takes the longer steps of the two.
    pub(super) fn merge(&mut self, other: Self) {
        (self.last, self.before) = (self.last.max(other.last), self.before.max(other.before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how long each of samples that come after these steps speaks.
    fn spoken(steps: &[u64]) -> Vec<u64> {
        let mut cadence = Cadence::default();
        steps.iter().map(|step| cadence.step(*step)).collect()
    }

    #[test]
    fn a_sample_speaks_for_the_step_before_it_unless_that_is_a_gap() {
        assert_eq!(spoken(&[60, 60, 720, 60, 60]), [60, 60, 300, 60, 60]);
        // The first one of a row may be a gap, too.
        assert_eq!(spoken(&[3600, 3600, 3600]), [300, 3600, 3600]);
        // One that was lost, and a gap.
        assert_eq!(spoken(&[600, 600, 1200, 600, 1260, 600]), [300, 600, 1200, 600, 300, 600]);
        // Nobody speaks for hours.
        assert_eq!(spoken(&[7200, 7200, 7200]), [300, 300, 300]);
    }

    #[test]
    fn a_gap_is_no_cadence() {
        let mut cadence = Cadence::default();
        assert_eq!(cadence.seconds(), 0);
        let after = [60, 60, 720, 60, 600, 600].map(|step| {
            cadence.step(step);
            cadence.seconds()
        });
        assert_eq!(after, [60, 60, 60, 60, 60, 600]);
    }
}
