//! What is drawn, to the letter: `UPDATE_EXPECT=1` writes the pictures anew.

use expect_test::{ExpectFile, expect_file};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Color;

use super::super::state::State;
use super::super::text::lines;
use super::super::{fixture, theme::Theme};
use super::draw;

/// What a terminal of this size shows.
fn drawn(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let theme = Theme { color: true };
    terminal.draw(|frame| draw(state, theme, frame.area(), frame.buffer_mut())).unwrap();
    lines(terminal.backend().buffer())
}

#[track_caller]
fn shows(state: &State, [width, height]: [u16; 2], expected: ExpectFile) {
    expected.assert_eq(&drawn(state, width, height));
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '↓' => KeyCode::Down,
            '⏎' => KeyCode::Enter,
            one => KeyCode::Char(one),
        };
        state.on_key(KeyEvent::from(code));
    }
}

#[test]
fn a_small_terminal() {
    shows(&fixture::state(), [80, 24], expect_file!["expected/80x24.txt"]);
}

#[test]
fn a_large_terminal() {
    shows(&fixture::state(), [120, 40], expect_file!["expected/120x40.txt"]);
}

#[test]
fn a_tiny_terminal() {
    shows(&fixture::state(), [40, 10], expect_file!["expected/40x10.txt"]);
}

#[test]
fn help() {
    let mut state = fixture::state();
    press(&mut state, "?");
    shows(&state, [80, 24], expect_file!["expected/help.txt"]);
}

#[test]
fn the_help_fits_the_smallest_terminal_whole() {
    let mut state = fixture::state();
    press(&mut state, "?");
    let page = drawn(&state, 80, 24);
    assert_eq!(page.matches('┌').count() + page.matches('┘').count(), 2);
    assert!(!super::help::TEXT.lines().any(|line| !page.contains(line)), "{page}");
}

#[test]
fn without_color_every_cell_has_the_colors_of_the_terminal() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let (state, theme) = (fixture::state(), Theme { color: false });
    terminal.draw(|frame| draw(&state, theme, frame.area(), frame.buffer_mut())).unwrap();
    let plain = |cell: &ratatui::buffer::Cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset);
    assert!(terminal.backend().buffer().content.iter().all(plain));
    assert_eq!(lines(terminal.backend().buffer()), drawn(&state, 80, 24), "letters say what colours say");
}

#[test]
fn a_filter_and_another_row() {
    let mut state = fixture::state();
    press(&mut state, "s/shop⏎↓p");
    shows(&state, [100, 24], expect_file!["expected/filter.txt"]);
}

#[test]
fn before_the_first_window() {
    shows(&State::default(), [80, 10], expect_file!["expected/first.txt"]);
}

#[test]
fn no_size_is_too_small_to_draw() {
    let mut state = fixture::state();
    for keys in ["", "?", "x/nobody"] {
        press(&mut state, keys);
        for width in (0..130).step_by(13) {
            (0..50).step_by(7).for_each(|height| drop(drawn(&state, width, height)));
        }
    }
}
