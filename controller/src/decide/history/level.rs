//! An amount of CPU in two bytes.

use serde::{Deserialize, Serialize};

/// An amount of CPU from 10⁻⁵ to 80,000 cores on a logarithmic scale, always rounded up: at most 0.035 % more than it
/// was. Or nothing at all: [`Level::MISSING`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(u16);

/// The smallest amount that is told from less, in cores.
pub const SMALLEST_CORES: f64 = 1e-5;
/// The largest amount that is told from more, in cores.
pub const LARGEST_CORES: f64 = 80_000.0;
/// Steps by which it grows e-fold.
const STEPS_PER_E: f64 = 2_870.0;

impl Level {
    /// There was no sample.
    pub const MISSING: Self = Self(0);

    /// So many cores.
    pub fn from_cores(cores: f64) -> Self {
        // Saturates at both ends; what is no number counts as nothing used. The tolerance keeps a level that is read
        // and stored again what it was.
        let steps = ((cores / SMALLEST_CORES).ln() * STEPS_PER_E - 1e-6).ceil() as u16;
        Self(steps.saturating_add(1))
    }

    /// In cores; `None` where there was no sample.
    pub fn cores(self) -> Option<f64> {
        let steps = self.0.checked_sub(1)?;
        Some(SMALLEST_CORES * (f64::from(steps) / STEPS_PER_E).exp())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_scale() {
        assert_eq!(Level::MISSING.cores(), None);
        assert_eq!(Level::from_cores(0.0).cores(), Some(SMALLEST_CORES));
        assert_eq!(Level::from_cores(f64::NAN), Level::from_cores(0.0));
        assert!(Level::from_cores(f64::INFINITY).cores().unwrap() > 80_000.0);
    }

    proptest! {
        #[test]
        fn a_level_is_never_less_and_at_most_a_step_more(ln in -11.0..11.0f64) {
            let cores = ln.exp();
            let level = Level::from_cores(cores);
            let read = level.cores().unwrap();
            prop_assert!(read >= cores * (1.0 - 1e-9) && read <= cores * 1.00036, "{cores} {read}");
            prop_assert_eq!(Level::from_cores(read), level);
        }
    }
}
