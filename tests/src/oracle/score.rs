//! The score of an attribution against the oracle: `1 − Σ|ours − oracle| ÷ (2·Σ oracle)` over the causes.

use super::replay::CauseNs;

/// Why there is no score.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The oracle saw no wait at all, so nothing can be right or wrong.
    #[error("the oracle has no wait to judge by: the case did not make its threads wait")]
    NothingWaited,
}

/// What the measuring side says of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Its wait by cause.
    pub causes: CauseNs,
    /// Nanoseconds of wait whose cause it could not tell.
    pub unknown_ns: u64,
}

/// How right it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Share of wait time put under the right cause: 1 is all, 0 is none; below 0 when far more was measured than was.
    pub right: f64,
    /// Share of the measured wait whose cause was not told; it is shown beside the score, as it was spread.
    pub unknown: f64,
}

/// Scores one row. What was not told is spread over the told causes in proportion to them.
///
/// Where nothing was told there is no proportion to spread by: then all of it counts as wrong.
///
/// # Errors
/// [`ScoreError::NothingWaited`] when the oracle's total is zero.
pub fn score(ours: &Measured, oracle: &CauseNs) -> Result<Score, ScoreError> {
    let truth = oracle.total();
    if truth == 0 {
        return Err(ScoreError::NothingWaited);
    }
    let told = ours.causes.total() as f64;
    let unknown = ours.unknown_ns as f64;
    let (spread, wrong) = if told > 0.0 { ((told + unknown) / told, 0.0) } else { (1.0, unknown) };
    let apart: f64 = ours
        .causes
        .as_array()
        .into_iter()
        .zip(oracle.as_array())
        .map(|(ours, oracle)| (ours as f64 * spread - oracle as f64).abs())
        .sum();
    Ok(Score {
        right: 1.0 - (apart + wrong) / (2.0 * truth as f64),
        unknown: if told + unknown > 0.0 { unknown / (told + unknown) } else { 0.0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORACLE: CauseNs = CauseNs { quota: 400, self_: 100, neighbor: 300, system: 150, idle: 50 };

    fn right(causes: CauseNs, unknown_ns: u64) -> f64 {
        score(&Measured { causes, unknown_ns }, &ORACLE).unwrap().right
    }

    #[test]
    fn the_same_is_one_and_all_elsewhere_is_zero() {
        assert_eq!(right(ORACLE, 0), 1.0);
        let only = CauseNs { quota: 1000, ..CauseNs::default() };
        let other = CauseNs { idle: 1000, ..CauseNs::default() };
        assert_eq!(score(&Measured { causes: other, unknown_ns: 0 }, &only).unwrap().right, 0.0);
    }

    #[test]
    fn a_part_under_the_wrong_cause_costs_its_share_once() {
        // 50 of 1000 moved from quota to neighbour: |350-400| + |350-300| = 100, over 2000: 5 % wrong.
        let moved = CauseNs { quota: 350, neighbor: 350, ..ORACLE };
        assert!((right(moved, 0) - 0.95).abs() < 1e-12);
    }

    #[test]
    fn unknown_is_spread_in_proportion_and_shown() {
        // Half of every cause told, the other half unknown: spread by 2 it is the oracle itself.
        let half = CauseNs { quota: 200, self_: 50, neighbor: 150, system: 75, idle: 25 };
        let got = score(&Measured { causes: half, unknown_ns: 500 }, &ORACLE).unwrap();
        assert_eq!(got, Score { right: 1.0, unknown: 0.5 });
    }

    #[test]
    fn unknown_alone_is_not_right() {
        assert_eq!(right(CauseNs::default(), 1000), 0.0);
    }

    #[test]
    fn no_wait_is_an_error() {
        let nothing = score(&Measured::default(), &CauseNs::default());
        assert_eq!(nothing, Err(ScoreError::NothingWaited));
    }
}
