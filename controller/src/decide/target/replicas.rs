//! One size for all replicas of a workload, or each its own.
//!
//! Replicas that do the same are sized together: more is known of all of them than of one, and a new one is not cold. Where
//! they do not, as on nodes of different kinds (DaemonSets) or where one leads, one size is too small for some or too
//! large for most.

use serde::{Deserialize, Serialize};

use crate::decide::history::History;
use crate::decide::policy::HistorySettings;
use crate::decide::units::Timestamp;

/// How the replicas of a workload are sized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Replicas {
    /// All alike, by what they did together.
    #[default]
    Together,
    /// Each by what it did itself.
    Apart,
}

/// How far apart replicas are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// P90 of the replica that uses least, in cores.
    pub least: f64,
    /// P90 of the one that uses most, in cores.
    pub most: f64,
}

/// From this ratio on they are sized apart.
const APART: f64 = 2.0;
/// Up to this ratio they are sized together again; between the two it stays as it was.
const TOGETHER: f64 = 1.5;
/// What is less than this (cores) is nothing to tell them apart by.
const NEGLIGIBLE_CORES: f64 = 0.05;
/// Nobody is judged by less than so much of its life.
const KNOWN_SECONDS: u64 = 6 * 3600;

/// Whether so much is known of a replica that it can be told from the others.
pub fn is_known(history: &History, settings: &HistorySettings) -> bool {
    history.age_seconds() >= KNOWN_SECONDS.min(settings.window.0)
}

impl Replicas {
    /// How to size replicas that did this, and how far apart they are; `None` where fewer than two are known for long
    /// enough, which leaves it as it was.
    pub fn after<'a>(
        self,
        histories: impl IntoIterator<Item = &'a History>,
        now: Timestamp,
        settings: &HistorySettings,
    ) -> (Self, Option<Spread>) {
        let known = histories.into_iter().filter(|history| is_known(history, settings));
        let (mut spread, mut replicas) = (Spread { least: f64::INFINITY, most: 0.0 }, 0);
        for p90 in known.filter_map(|history| history.percentile_at(now, 0.9, settings)) {
            spread = Spread { least: spread.least.min(p90), most: spread.most.max(p90) };
            replicas += 1;
        }
        if replicas < 2 {
            return (self, None);
        }
        let ratio = spread.most / spread.least;
        let decided = if ratio <= TOGETHER || spread.most - spread.least < NEGLIGIBLE_CORES {
            Self::Together
        } else if ratio >= APART {
            Self::Apart
        } else {
            self
        };
        (decided, Some(spread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::policy::Policy;

    const START: u64 = 1_700_006_400;

    fn decided(before: Replicas, hours: u64, cores: &[f64]) -> (Replicas, Option<Spread>) {
        let settings = Policy::default().history;
        let replicas: Vec<History> = cores
            .iter()
            .map(|cores| {
                let mut history = History::new(Timestamp(START), settings.window);
                for minute in 0..=hours * 60 {
                    history.observe(Timestamp(START + 60 * minute), *cores);
                }
                history
            })
            .collect();
        before.after(&replicas, Timestamp(START + hours * 3600), &settings)
    }

    #[test]
    fn a_leader_is_sized_apart_and_equals_are_not() {
        assert_eq!(decided(Replicas::Together, 12, &[0.5, 0.5, 2.0]).0, Replicas::Apart);
        assert_eq!(decided(Replicas::Apart, 12, &[1.0, 1.0, 1.0]).0, Replicas::Together);
        let spread = decided(Replicas::Together, 12, &[0.5, 0.5, 2.0]).1.unwrap();
        assert_eq!((spread.least, spread.most), (0.5, 2.0));
    }

    #[test]
    fn between_the_two_ratios_it_stays_as_it_was() {
        for before in [Replicas::Together, Replicas::Apart] {
            assert_eq!(decided(before, 12, &[1.0, 1.7]).0, before);
            // Too young, or alone.
            assert_eq!(decided(before, 5, &[0.5, 2.0]), (before, None));
            assert_eq!(decided(before, 12, &[0.5]), (before, None));
        }
    }

    #[test]
    fn next_to_nothing_tells_nobody_apart() {
        assert_eq!(decided(Replicas::Together, 12, &[0.001, 0.03]).0, Replicas::Together);
    }
}
