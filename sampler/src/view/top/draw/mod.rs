//! The screen, as a function of the state: nothing is remembered from one drawing to the next.
//!
//! From the top: a line that says what is shown, the table, the legend of its letters, the selected row in
//! detail, a line of keys.

mod bar;
mod demand;
mod heat;
mod help;
mod table;
mod words;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};
use sampler_common::snapshot::Cause;

use super::super::quantity;
use super::model::{Row, View};
use super::state::{Mode, State};
use super::theme::{Theme, letter};

/// With fewer lines there is a table and nothing else.
const DETAIL_FROM: u16 = 18;
/// Lines that the legend and the detail need.
const DETAIL: u16 = 14;
/// With fewer columns there are words and no heat map.
const HEAT_FROM: u16 = 72;
/// Columns between the heat map and the words.
const GAP: u16 = 2;

/// Draws everything.
pub fn draw(state: &State, theme: Theme, area: Rect, buf: &mut Buffer) {
    let [title, body, hint] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    line(Line::from(title_of(state)), theme.reversed(), title, buf);
    match &state.view {
        None => first_window(theme, body, buf),
        Some(view) => draw_view(state, view, theme, body, buf),
    }
    line(hint_of(state), theme.reversed(), hint, buf);
    if state.mode == Mode::Help {
        help::draw(theme, body, buf);
    }
}

/// Lines that [`page`] takes.
pub fn page_height(view: &View) -> u16 {
    // A title, the rows, the notes, the legend.
    u16::try_from(view.rows.len()).unwrap_or(u16::MAX).saturating_add(table::HEADER + 3)
}

/// Columns that [`page`] takes to show every column, and every name whole.
pub fn page_width(view: &View) -> u16 {
    let longest = view.rows.iter().map(|row| row.name.whole().chars().count()).max().unwrap_or(0);
    u16::try_from(table::width_with_names(longest)).unwrap_or(u16::MAX)
}

/// What a page on paper would have of the state: no keys, no row selected.
pub fn page(state: &State, buf: &mut Buffer) {
    let Some(view) = &state.view else { return };
    let theme = Theme { color: false };
    let [title, table, note, legend] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(buf.area);
    let none = ratatui::style::Style::new();
    line(Line::from(title_of(state)), none, title, buf);
    table::draw(state, &state.visible(), None, theme, table, buf);
    line(legend_of(theme), none, note, buf);
    line(Line::from(notes(view)), none, legend, buf);
}

/// One line over the whole width.
fn line(text: Line<'_>, style: ratatui::style::Style, area: Rect, buf: &mut Buffer) {
    Paragraph::new(text).style(style).render(area, buf);
}

fn first_window(theme: Theme, area: Rect, buf: &mut Buffer) {
    let text = "Measuring how long threads wait for a CPU. The first window has not ended yet.";
    let [_, middle, _] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(2), Constraint::Fill(1)]).areas(area);
    Paragraph::new(text).style(theme.strong()).centered().wrap(Wrap { trim: true }).render(middle, buf);
}

fn draw_view(state: &State, view: &View, theme: Theme, area: Rect, buf: &mut Buffer) {
    let visible = state.visible();
    let selected = state.selected(&visible);
    if area.height + 2 < DETAIL_FROM {
        table::draw(state, &visible, Some(selected), theme, area, buf);
        return;
    }
    let rows = u16::try_from(visible.len()).unwrap_or(u16::MAX);
    // The table has what it needs, as long as the rest has too; then each has about a half.
    let most = (area.height * 9 / 20).max(area.height.saturating_sub(DETAIL));
    let table_height = rows.saturating_add(table::HEADER).min(most).max(table::HEADER + 3);
    let notes = notes(view);
    let [table, note, legend, detail] = Layout::vertical([
        Constraint::Length(table_height),
        Constraint::Length(u16::from(!notes.is_empty())),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    table::draw(state, &visible, Some(selected), theme, table, buf);
    line(Line::from(notes), theme.warning(), note, buf);
    line(legend_of(theme), ratatui::style::Style::new(), legend, buf);
    if let Some(row) = visible.get(selected) {
        draw_detail(state, row, theme, detail, buf);
    }
}

fn draw_detail(state: &State, row: &Row, theme: Theme, area: Rect, buf: &mut Buffer) {
    let [head, below] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let name = row.name.within(usize::from(head.width.saturating_sub(6)));
    let rule = "─".repeat(usize::from(head.width));
    line(Line::from(rule), theme.faint(), head, buf);
    buf.set_line(
        head.x + 2,
        head.y,
        &Line::styled(format!(" {name} "), theme.strong()),
        head.width.saturating_sub(2),
    );
    if area.width < HEAT_FROM {
        words::draw(row, &state.history, theme, below, buf);
        return;
    }
    let [map, _, words] = Layout::horizontal([
        Constraint::Length(heat::width(area.width)),
        Constraint::Length(GAP),
        Constraint::Fill(1),
    ])
    .areas(below);
    heat::draw(row.key, &state.history, theme, map, buf);
    words::draw(row, &state.history, theme, words, buf);
}

/// What is shown. It fits 80 columns.
fn title_of(state: &State) -> String {
    let mut parts = vec![" Loadline: waiting for a CPU".to_owned()];
    if state.paused {
        parts.push("PAUSED".into());
    } else if state.ended {
        parts.push("ENDED".into());
    }
    if let Some(view) = &state.view {
        parts.push(if view.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", view.cpus) });
        parts.push(format!("last {}", quantity::duration_ns(view.length_ns)));
        parts.push(format!("by {}", state.sort.label()));
    }
    parts.join(" │ ")
}

/// The keys that are worth knowing now.
fn hint_of(state: &State) -> Line<'static> {
    match state.mode {
        Mode::Filter => Line::from(format!(" Filter: {}▏  Enter keeps it, Esc clears it", state.filter)),
        Mode::Help => Line::from(" Any key closes this page"),
        Mode::Table => {
            let filter = if state.filter.is_empty() {
                "/ filter".to_owned()
            } else {
                format!("/ filter: {} (Esc clears)", state.filter)
            };
            let pause = if state.paused { "p go on" } else { "p pause" };
            Line::from(format!(" ? help  ↑↓ select  s sort  {filter}  {pause}  q quit"))
        }
    }
}

/// What the letters mean.
fn legend_of(theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::raw(" waited for ")];
    for cause in Cause::ALL {
        spans.push(Span::styled(format!(" {} ", letter(cause)), theme.ground(cause)));
        spans.push(Span::raw(format!(" {}  ", cause.label())));
    }
    Line::from(spans)
}

/// What the reader has to know of this window before believing it.
fn notes(view: &View) -> String {
    let mut notes = Vec::new();
    if !view.throttle_hooks {
        notes.push("this kernel does not tell when: waits of what was throttled are unknown".to_owned());
    }
    let lost: Vec<_> = view
        .losses
        .named()
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if !lost.is_empty() {
        notes.push(format!("not counted exactly: {}", lost.join(", ")));
    }
    if view.losses.slots_exhausted != 0 {
        notes.push("too few slots: start it with more (--slots)".to_owned());
    }
    if view.missed != 0 {
        notes.push(format!("{} came and went unseen", view.missed));
    }
    if notes.is_empty() { String::new() } else { format!(" ! {}", notes.join("; ")) }
}

#[cfg(test)]
mod tests;
