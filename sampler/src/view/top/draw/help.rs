//! The page of help: what the figures are, what the causes mean, which keys there are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Widget};

use super::super::theme::Theme;

/// Fits 80 columns and 22 lines with its border: a test says so.
pub const TEXT: &str = "\
A delay is the time from when a thread could run until a CPU ran it. The table
has those of the last window: first who waited most for what can be helped.

 p50, p99     half, 99 % of the delays were shorter; off by 4.4 % at most
 longest      no delay was longer
 waited for   a letter for each part of the wait:    what helps:
   q quota     its CPU limit, or one above it        a higher limit
   s self      its own other threads                 more CPUs, fewer threads
   n neighbor  another container                     a higher request
   y system    a process outside any container       reserve CPU for it
   i idle      nobody: this is what waking up takes  nothing
   ? unknown   it cannot be told
 throttled    share of its limit's periods in which the limit held it back
 CPU          used; demand: what it would use if nothing held it back
              (~: roughly); limit: – if there is none

 ↑ ↓ j k  select (Esc: the worst)       /  filter by name (Esc clears)
 s        sort: hurts, p99, throttled,  p  pause: what happens meanwhile is
          CPU used, name                   in the next window
 q Ctrl-C quit";

/// Draws it over what is there.
pub fn draw(theme: Theme, area: Rect, buf: &mut Buffer) {
    let lines = TEXT.lines().count() as u16 + 2;
    let columns = TEXT.lines().map(|line| line.chars().count()).max().unwrap_or(0) as u16 + 2;
    let (width, height) = (columns.min(area.width), lines.min(area.height));
    let over =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(over, buf);
    let block = Block::bordered().title(Line::styled(" Help ", theme.strong()));
    Paragraph::new(Text::raw(TEXT)).block(block).render(over, buf);
}
