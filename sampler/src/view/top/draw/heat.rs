//! The heat map: windows from left to right, lengths of delays from bottom to top, and in each cell which share of
//! the window's delays had that length.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use sampler_common::buckets::{OCTAVES, PER_OCTAVE, upper_edge_seconds};

use super::super::super::quantity;
use super::super::history::{History, Moment};
use super::super::model::Key;
use super::super::theme::{Theme, letter};

/// Columns of the lengths at the left.
const LABELS: u16 = 8;
/// Columns of the letters at the right.
const LETTERS: u16 = 2;
/// Lines above and below the cells.
const AROUND: u16 = 2;
/// Delays below this octave (15 µs) are those of waking up: they need no line of their own.
const SHORT: usize = 4;
/// The map reaches up to 977 µs at least: what is shorter hurts nobody, and shall not look tall.
const TOP_AT_LEAST: usize = 10;
/// Marks, and the share of a window's delays from which on they stand. The lowest is of any: the tail is what
/// matters, and few delays are in it.
const MARKS: [(f64, char); 5] = [(0.5, '█'), (0.2, '▓'), (0.05, '▒'), (0.01, '░'), (0.0, '·')];

/// How many of so many columns the map takes.
pub fn width(columns: u16) -> u16 {
    (columns * 2 / 5).min(LABELS + LETTERS + 120)
}

/// Draws that of a row.
pub fn draw(key: Key, history: &History, theme: Theme, area: Rect, buf: &mut Buffer) {
    let columns = area.width.saturating_sub(LABELS + LETTERS);
    let Some(lines) = area.height.checked_sub(AROUND).filter(|lines| *lines > 0 && columns > 0) else {
        return;
    };
    let moments: Vec<&Moment> = history.of(key, usize::from(columns)).collect();
    let heading = format!("{:>7} last {} windows → now", "delay ≤", moments.len());
    buf.set_line(area.x, area.y, &Line::styled(heading, theme.faint()), area.width);
    let left = usize::from(columns) - moments.len();
    let highest = moments.iter().filter_map(|moment| moment.highest()).max().unwrap_or(0);
    let mut y = area.y;
    for band in bands(usize::from(lines), highest) {
        y += 1;
        let edge = quantity::duration(upper_edge_seconds(band.end * PER_OCTAVE));
        let more = if band.end == OCTAVES { "+" } else { " " };
        let label = Span::styled(format!("{edge:>7}{more}"), theme.faint());
        let mut spans = vec![label, Span::raw(" ".repeat(left))];
        let shares: Vec<_> = moments.iter().map(|moment| moment.share(band.clone())).collect();
        spans.extend(shares.iter().map(|share| match share {
            Some((share, cause)) => Span::styled(mark(*share).to_string(), theme.mark(*cause)),
            None => Span::raw(" "),
        }));
        if let Some((_, cause)) = shares.iter().rev().find_map(|share| *share) {
            spans.push(Span::styled(format!(" {}", letter(cause)), theme.mark(cause)));
        }
        buf.set_line(area.x, y, &Line::from(spans), area.width);
    }
    let legend = "· ░1 ▒5 ▓20 █50 % of delays";
    buf.set_line(area.x, y + 1, &Line::styled(legend, theme.faint()), area.width);
}

fn mark(share: f64) -> char {
    MARKS.iter().find(|(from, _)| share >= *from).map_or(' ', |(_, mark)| *mark)
}

/// The octaves of each of at most so many lines, the highest first, up to the highest with a delay: as many on each,
/// and the lowest has what is left.
fn bands(lines: usize, highest: usize) -> Vec<Range<usize>> {
    let top = (highest + 1).max(TOP_AT_LEAST);
    let each = (top - SHORT).div_ceil(lines.max(1));
    let count = (top - SHORT).div_ceil(each);
    (0..count)
        .map(|line| {
            let end = top - line * each;
            let start = if line + 1 == count { 0 } else { end - each };
            start..end
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bands_have_as_many_octaves_each_and_the_lowest_the_rest() {
        assert_eq!(bands(7, 22), [20..23, 17..20, 14..17, 11..14, 8..11, 5..8, 0..5]);
        assert_eq!(bands(7, 16), [15..17, 13..15, 11..13, 9..11, 7..9, 5..7, 0..5]);
        assert_eq!(bands(40, 0), [9..10, 8..9, 7..8, 6..7, 5..6, 0..5]);
        assert_eq!(bands(2, 22), [13..23, 0..13]);
    }

    #[test]
    fn any_delay_leaves_a_mark() {
        let marks = [1e-9, 0.0099, 0.01, 0.05, 0.2, 0.5, 1.0].map(mark);
        assert_eq!(marks, ['·', '·', '░', '▒', '▓', '█', '█']);
    }

    proptest! {
        #[test]
        fn every_octave_up_to_the_highest_is_in_one_band(lines in 1usize..60, highest in 0..OCTAVES) {
            let bands = bands(lines, highest);
            prop_assert!(bands.len() <= lines);
            let octaves: Vec<_> = bands.into_iter().rev().flatten().collect();
            prop_assert_eq!(&octaves, &(0..octaves.len()).collect::<Vec<_>>());
            prop_assert!((highest + 1..=OCTAVES).contains(&octaves.len()));
        }
    }
}
