//! The bar of causes: a letter for each part of the wait.

use sampler_common::snapshot::Cause;
use sampler_common::window::Window;

/// How many of `columns` letters each cause gets, in the order of [`Cause::ALL`]: shares of the wait, rounded so that
/// they add up (largest remainder; of two equal ones the first). All 0 where nothing waited.
pub fn letters(window: &Window, columns: usize) -> [usize; Cause::ALL.len()] {
    let exact = Cause::ALL.map(|cause| window.share(cause).unwrap_or(0.0) * columns as f64);
    let mut letters = exact.map(|letters| letters as usize);
    if window.causes.total() == 0 {
        return letters;
    }
    let mut by_rest: Vec<usize> = (0..exact.len()).collect();
    by_rest.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let missing = columns.saturating_sub(letters.iter().sum());
    for at in by_rest.into_iter().take(missing) {
        letters[at] += 1;
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sampler_common::snapshot::Causes;

    fn window(wait_ns: [u32; 7]) -> Window {
        Window { causes: Causes::from_row(&wait_ns.map(u64::from)), ..Window::default() }
    }

    #[test]
    fn letters_are_shares_of_the_wait() {
        assert_eq!(letters(&window([50, 25, 0, 0, 25, 0, 0]), 8), [4, 2, 0, 0, 2, 0]);
        assert_eq!(letters(&window([1, 0, 0, 0, 0, 1, 1]), 10), [3, 0, 0, 0, 0, 7]);
        assert_eq!(letters(&window([1, 1, 0, 0, 0, 0, 0]), 3), [2, 1, 0, 0, 0, 0]);
        assert_eq!(letters(&window([999, 1, 0, 0, 0, 0, 0]), 10), [10, 0, 0, 0, 0, 0]);
        assert_eq!(letters(&window([0; 7]), 10), [0; 6]);
    }

    proptest! {
        #[test]
        fn a_bar_is_full_and_no_letter_is_off_by_one(wait_ns: [u32; 7], columns in 0usize..200) {
            let window = window(wait_ns);
            let letters = letters(&window, columns);
            if window.causes.total() != 0 {
                prop_assert_eq!(letters.iter().sum::<usize>(), columns);
            }
            for (cause, letters) in Cause::ALL.into_iter().zip(letters) {
                let exact = window.share(cause).unwrap_or(0.0) * columns as f64;
                prop_assert!((letters as f64 - exact).abs() < 1.0 + 1e-9, "{cause:?}: {letters} of {exact}");
            }
        }
    }
}
