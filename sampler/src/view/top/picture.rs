//! The picture of the README, from the cells that the screen has: `sampler/top.svg`. `UPDATE_EXPECT=1` draws it anew.

use std::fmt::Write as _;

use expect_test::expect_file;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::fixture;
use super::theme::Theme;

/// Size of a cell in pixels, and of a letter.
const CELL: [f64; 2] = [8.0, 17.0];
const FONT: f64 = 13.3;
/// Around the cells.
const MARGIN: f64 = 10.0;
const INK: &str = "#d8dee9";
const GROUND: &str = "#1c2027";

#[test]
fn the_picture_of_the_readme() {
    let mut terminal = Terminal::new(TestBackend::new(112, 27)).unwrap();
    let state = fixture::state();
    let theme = Theme { color: true };
    terminal.draw(|frame| draw(&state, theme, frame.area(), frame.buffer_mut())).unwrap();
    expect_file!["../../../top.svg"].assert_eq(&svg(terminal.backend().buffer()));
}

fn svg(buffer: &Buffer) -> String {
    let [width, height] = [buffer.area.width, buffer.area.height].map(f64::from);
    let (width, height) = (width * CELL[0] + 2.0 * MARGIN, height * CELL[1] + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"ui-monospace, \
         'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"{FONT}\" xml:space=\"preserve\" style=\"white-space:pre\">\n\
         <title>sampler top</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{GROUND}\"/>\n"
    );
    for (line, cells) in buffer.content.chunks(usize::from(buffer.area.width)).enumerate() {
        let mut column = 0;
        for run in cells.chunk_by(|one, next| look(one) == look(next)) {
            write_run(&mut svg, run, column, line);
            column += run.len();
        }
    }
    svg + "</svg>\n"
}

/// Cells of one look.
fn write_run(svg: &mut String, run: &[Cell], column: usize, line: usize) {
    let Some((ink, ground, bold)) = run.first().map(look) else { return };
    let (x, y) = (MARGIN + column as f64 * CELL[0], MARGIN + line as f64 * CELL[1]);
    let width = run.len() as f64 * CELL[0];
    if ground != GROUND {
        let height = CELL[1];
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>"
        );
    }
    let text: String = run.iter().map(Cell::symbol).collect();
    if text.trim().is_empty() {
        return;
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    let base = y + CELL[1] * 0.76;
    // However wide the reader's font is, the columns stay.
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{base:.1}\" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{ink}\"{weight}>{text}</text>"
    );
}

/// Ink, ground, and whether it is bold.
fn look(cell: &Cell) -> (&'static str, &'static str, bool) {
    let (ink, ground) = (rgb(cell.fg, INK), rgb(cell.bg, GROUND));
    let (ink, ground) =
        if cell.modifier.contains(Modifier::REVERSED) { (ground, ink) } else { (ink, ground) };
    (ink, ground, cell.modifier.contains(Modifier::BOLD))
}

fn rgb(color: Color, default: &'static str) -> &'static str {
    match color {
        Color::Reset => default,
        Color::Black => "#14171c",
        Color::Red => "#e0626c",
        Color::Yellow => "#e5c07b",
        Color::Blue => "#5c8fe0",
        Color::Magenta => "#c678dd",
        Color::Cyan => "#4fb3bf",
        Color::White => "#f4f6f9",
        Color::Gray => "#a3adbd",
        Color::DarkGray => "#4b5462",
        other => panic!("the theme has no {other}"),
    }
}
