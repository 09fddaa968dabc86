//! A window as text, for a pipe or a terminal that keeps it: the table of the screen without styles, with every row.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::draw;
use super::model::View;
use super::state::State;

/// The table, and what its letters mean. As wide as the terminal, which has so many columns; `None`: as wide as it
/// takes to show everything whole.
pub fn table(view: &View, columns: Option<u16>) -> String {
    let mut state = State::default();
    state.show(view.clone());
    let columns = columns.unwrap_or_else(|| draw::page_width(view));
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, draw::page_height(view)));
    draw::page(&state, &mut buffer);
    format!("{}\n", lines(&buffer).trim_end())
}

/// What is in a buffer, line by line, without styles and without blanks at the ends of lines.
pub fn lines(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let text: String = cells.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", text.trim_end())
    };
    buffer.content.chunks(width).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use expect_test::expect_file;

    #[test]
    fn a_pipe_gets_every_row_and_every_name_whole() {
        let view = fixture::state().view.unwrap();
        let text = table(&view, None);
        for row in &view.rows {
            assert!(text.contains(&row.name.whole()), "{}", row.name.whole());
        }
        assert!(!text.contains('\u{1b}'));
        expect_file!["expected/once.txt"].assert_eq(&text);
    }

    #[test]
    fn a_terminal_gets_as_much_as_is_wide() {
        let view = fixture::state().view.unwrap();
        let text = table(&view, Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("kube-proxy-abcde "));
    }

    #[test]
    fn what_was_lost_is_said() {
        let mut view = fixture::state().view.unwrap();
        view.losses.no_baseline = 3;
        view.losses.slots_exhausted = 2;
        view.missed = 1;
        view.throttle_hooks = false;
        let text = table(&view, Some(260));
        let last = text.lines().last();
        assert_eq!(
            last,
            Some(
                " ! this kernel does not tell when: waits of what was throttled are unknown; not counted exactly: 3 \
                 no_baseline, 2 slots_exhausted; too few slots: start it with more (--slots); 1 came and went unseen"
            )
        );
    }
}
