//! The table: a line a container, as many columns as there is room for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use sampler_common::demand::Demand;
use sampler_common::snapshot::Cause;

use super::super::super::{quantity, table};
use super::super::apart;
use super::super::model::{Key, Row};
use super::super::state::{Sort, State};
use super::super::theme::{Theme, letter};
use super::{bar, demand};

/// Lines of the header.
pub const HEADER: u16 = 2;
/// What stands where there is nothing to show.
const NONE: &str = "–";
/// With so many columns there is room for all of the table's.
const FULL: usize = 120;
/// Width of the mark before the selected row.
const MARK: usize = 1;

/// Draws the header and the rows around the selected one, if one is.
pub fn draw(
    state: &State,
    visible: &[&Row],
    selected: Option<usize>,
    theme: Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let columns = columns(usize::from(area.width));
    let room = usize::from(area.height.saturating_sub(HEADER));
    let first = selected.map_or(0, |selected| (selected + 1).saturating_sub(room));
    let shown = which(state, visible.len(), first, room);
    for (line, y) in (0..HEADER.min(area.height)).zip(area.y..) {
        let heads = columns.iter().map(|(column, width)| {
            let style = if column.sort() == Some(state.sort) { theme.strong() } else { theme.faint() };
            let head = match (column, line) {
                (Column::Name, 0) => shown.as_str(),
                _ => column.head()[usize::from(line)],
            };
            vec![Span::styled(column.align(head, *width), style)]
        });
        buf.set_line(area.x, y, &in_columns(" ", heads), area.width);
    }
    if visible.is_empty() && room > 0 {
        let text = if state.filter.is_empty() { "Nothing has run." } else { "No name has the filter in it." };
        buf.set_line(area.x + 1, area.y + HEADER, &Line::raw(text), area.width.saturating_sub(1));
    }
    let names = names(visible, columns.first().map_or(0, |(_, width)| *width));
    for ((at, row), y) in visible.iter().enumerate().skip(first).take(room).zip(area.y + HEADER..) {
        let chosen = Some(at) == selected;
        let cells = columns.iter().map(|(column, width)| column.cell(row, &names[at], *width, theme));
        buf.set_line(area.x, y, &in_columns(if chosen { "▶" } else { " " }, cells), area.width);
        if chosen {
            // But for the bar, whose colours mean something.
            let line = Rect { y, height: 1, ..area };
            buf.set_style(line, theme.strong());
        }
    }
}

/// What the rows are called, in so many columns.
fn names(rows: &[&Row], width: usize) -> Vec<String> {
    let id = |key| match key {
        Key::Cgroup(id) => Some(id),
        Key::Other => None,
    };
    apart::within(rows.iter().map(|row| (&row.name, id(row.key))), width)
}

/// Which of the rows are shown, where these are not all.
fn which(state: &State, visible: usize, first: usize, room: usize) -> String {
    let all = state.view.as_ref().map_or(0, |view| view.rows.len());
    if visible > room {
        format!("{}–{} of {visible}", first + 1, first + room)
    } else if visible != all {
        format!("{visible} of {all}")
    } else {
        String::new()
    }
}

fn in_columns<'a>(mark: &'a str, cells: impl Iterator<Item = Vec<Span<'a>>>) -> Line<'a> {
    let mut spans = vec![Span::raw(mark)];
    for (at, cell) in cells.enumerate() {
        if at != 0 {
            spans.push(Span::raw(" "));
        }
        spans.extend(cell);
    }
    Line::from(spans)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    P50,
    P99,
    Highest,
    WaitPerSecond,
    Causes,
    Throttled,
    Used,
    /// CPU that it would use, and its limit.
    Demand,
    /// The same with the bounds.
    DemandBounds,
}

/// The columns that fit, and their widths.
fn columns(width: usize) -> Vec<(Column, usize)> {
    use Column::*;
    let others: &[(Column, usize)] = match width {
        FULL.. => &[
            (P50, 7),
            (P99, 7),
            (Highest, 8),
            (WaitPerSecond, 8),
            (Causes, 20),
            (Throttled, 6),
            (Used, 5),
            (DemandBounds, 23),
        ],
        100.. => &[
            (P50, 7),
            (P99, 7),
            (Highest, 8),
            (WaitPerSecond, 8),
            (Causes, 14),
            (Throttled, 6),
            (Used, 5),
            (Demand, 12),
        ],
        80.. => &[(P50, 7), (P99, 7), (Highest, 8), (Causes, 10), (Throttled, 6), (Used, 5), (Demand, 12)],
        60.. => &[(P50, 7), (P99, 7), (Highest, 8), (Causes, 10), (Throttled, 6)],
        _ => &[(P99, 7), (Causes, 6)],
    };
    let taken: usize = others.iter().map(|(_, width)| width + 1).sum();
    let name = (Name, width.saturating_sub(MARK + taken));
    std::iter::once(name).chain(others.iter().copied()).collect()
}

/// Columns of a table that has all of its own, and names of this length.
pub fn width_with_names(longest: usize) -> usize {
    let all = columns(FULL);
    FULL.max(all.iter().skip(1).fold(MARK + longest, |sum, (_, width)| sum + width + 1))
}

impl Column {
    fn head(self) -> [&'static str; HEADER as usize] {
        match self {
            Self::Name => ["", "container or unit"],
            Self::P50 => ["delay", "p50"],
            Self::P99 => ["delay", "p99"],
            Self::Highest => ["delay", "longest"],
            Self::WaitPerSecond => ["wait", "per s"],
            Self::Causes => ["waited for", "by share"],
            Self::Throttled => ["throt-", "tled"],
            Self::Used => ["CPU", "used"],
            Self::Demand | Self::DemandBounds => ["CPU demand", "/ limit"],
        }
    }

    /// By what the table is sorted when this is what it goes by.
    fn sort(self) -> Option<Sort> {
        match self {
            Self::Name => Some(Sort::Name),
            Self::P99 => Some(Sort::P99),
            Self::WaitPerSecond => Some(Sort::Hurt),
            Self::Throttled => Some(Sort::Throttled),
            Self::Used => Some(Sort::Used),
            Self::P50 | Self::Highest | Self::Causes | Self::Demand | Self::DemandBounds => None,
        }
    }

    fn align(self, text: &str, width: usize) -> String {
        match self {
            Self::Name | Self::Causes => format!("{:<width$}", text.chars().take(width).collect::<String>()),
            _ => format!("{text:>width$}"),
        }
    }

    fn cell(self, row: &Row, name: &str, width: usize, theme: Theme) -> Vec<Span<'static>> {
        let window = &row.window;
        let text = match self {
            Self::Causes => return causes(row, width, theme),
            Self::Name => Some(name.to_owned()),
            Self::P50 => quantity::quantile(&window.latency, 0.5).map(narrow),
            Self::P99 => quantity::quantile(&window.latency, 0.99).map(narrow),
            Self::Highest => quantity::highest(&window.latency).map(narrow),
            Self::WaitPerSecond => table::wait_per_second(window).map(quantity::duration),
            Self::Throttled => window.throttled_share().map(quantity::percent),
            Self::Used => row.used_cores.map(quantity::cores_number),
            Self::Demand => Some(against_limit(row, demand::point)),
            Self::DemandBounds => Some(against_limit(row, demand::with_bounds)),
        };
        let style = if row.verdict.hardly && self != Self::Name { theme.faint() } else { Style::new() };
        vec![Span::styled(self.align(text.as_deref().unwrap_or(NONE), width), style)]
    }
}

/// Without the space after a sign.
fn narrow(text: String) -> String {
    ["≤ ", "< ", "> "].iter().fold(text, |text, sign| text.replacen(sign, sign.trim_end(), 1))
}

fn causes(row: &Row, width: usize, theme: Theme) -> Vec<Span<'static>> {
    let letters = bar::letters(&row.window, width);
    if letters.iter().all(|letters| *letters == 0) {
        return vec![Span::raw(format!("{NONE:<width$}"))];
    }
    let parts = Cause::ALL.into_iter().zip(letters).filter(|(_, letters)| *letters != 0);
    // Where nothing hurts there is nothing to point at with colours.
    let style = |cause| if row.verdict.hardly { theme.faint() } else { theme.ground(cause) };
    parts
        .map(|(cause, letters)| Span::styled(letter(cause).to_string().repeat(letters), style(cause)))
        .collect()
}

fn against_limit(row: &Row, shown: impl Fn(&Demand) -> String) -> String {
    let demand = row.demand.as_ref().map_or_else(|| NONE.into(), shown);
    let limit =
        row.window.limits.cpu.map_or_else(|| NONE.into(), |limit| quantity::cores_number(limit.cores()));
    if (row.demand, row.window.limits.cpu) == (None, None) {
        NONE.into()
    } else {
        format!("{demand} / {limit}")
    }
}
