//! Arrays of counters and sets of ids as few small numbers, for recordings and reports.
//!
//! **Sparse** counts are pairs: how many unchanged ones to skip, and how much the next one grew. **Gaps** are
//! ascending ids, each as the difference to the one before less 1; the first one is whole.

/// Numbers that are no counts or ids: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

/// How counters changed, modulo 2⁶⁴.
pub(crate) fn growth(earlier: &[u64], later: &[u64]) -> Vec<u64> {
    pairs(earlier.iter().zip(later))
}

fn pairs<'a>(counts: impl Iterator<Item = (&'a u64, &'a u64)>) -> Vec<u64> {
    let mut pairs = Vec::new();
    let mut next = 0;
    for (at, (earlier, later)) in counts.enumerate() {
        if earlier != later {
            pairs.extend([(at - next) as u64, later.wrapping_sub(*earlier)]);
            next = at + 1;
        }
    }
    pairs
}

/// Counters that grew from 0.
pub(crate) fn nonzero(counts: &[u64]) -> Vec<u64> {
    let zero = std::iter::repeat_n(&0, counts.len());
    pairs(zero.zip(counts))
}

/// Lets counters grow by what [`growth`] says.
pub(crate) fn grow(counts: &mut [u64], pairs: &[u64]) -> Result<(), Malformed> {
    let mut left = counts.iter_mut();
    for pair in pairs.chunks(2) {
        let &[skip, grown] = pair else { return Err(Malformed("half a pair of counts")) };
        let skip = usize::try_from(skip).map_err(|_| Malformed("a count beyond the last"))?;
        let count = left.nth(skip).ok_or(Malformed("a count beyond the last"))?;
        *count = count.wrapping_add(grown);
    }
    Ok(())
}

/// Ascending ids to gaps, or back: the lowest id that may come next, `None` after the highest that there is.
pub(crate) struct Gaps(Option<u64>);

impl Default for Gaps {
    fn default() -> Self {
        Self(Some(0))
    }
}

impl Gaps {
    /// The gap before this id, which is higher than the one before.
    pub(crate) fn before(&mut self, id: u64) -> u64 {
        let gap = id.wrapping_sub(self.0.unwrap_or(0));
        self.0 = id.checked_add(1);
        gap
    }

    /// The id after this gap.
    pub(crate) fn after(&mut self, gap: u64) -> Result<u64, Malformed> {
        let id = self.0.and_then(|lowest| lowest.checked_add(gap)).ok_or(Malformed("ids out of order"))?;
        self.0 = id.checked_add(1);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_there_and_in_small_numbers() {
        assert_eq!(growth(&[1, 2, 3, 4, 5], &[1, 2, 5, 5, 5]), [2, 2, 0, 1]);
        assert_eq!(growth(&[7], &[7]), [0; 0]);
        assert_eq!(nonzero(&[0, 0, 9, 0]), [2, 9]);
    }

    #[test]
    fn a_count_that_went_back_is_exact() {
        let mut counts = [5, u64::MAX];
        grow(&mut counts, &growth(&[5, u64::MAX], &[0, 1])).unwrap();
        assert_eq!(counts, [0, 1]);
    }

    #[test]
    fn counts_that_are_not_there_are_refused() {
        let mut counts = [0; 3];
        assert_eq!(grow(&mut counts, &[3, 1]), Err(Malformed("a count beyond the last")));
        assert_eq!(grow(&mut counts, &[2, 1, 0, 1]), Err(Malformed("a count beyond the last")));
        assert_eq!(grow(&mut counts, &[u64::MAX, 1]), Err(Malformed("a count beyond the last")));
        assert_eq!(grow(&mut counts, &[0]), Err(Malformed("half a pair of counts")));
    }

    #[test]
    fn ids_come_back_from_their_gaps_and_no_others() {
        let ids = [0, 1, 7, u64::MAX - 1, u64::MAX];
        let mut gaps = Gaps::default();
        let written = ids.map(|id| gaps.before(id));
        assert_eq!(written, [0, 0, 5, u64::MAX - 9, 0]);
        let mut gaps = Gaps::default();
        assert_eq!(written.map(|gap| gaps.after(gap).unwrap()), ids);
        assert_eq!(gaps.after(0), Err(Malformed("ids out of order")));
    }
}
