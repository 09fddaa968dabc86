//! Letters and colours of the screen. A colour repeats what a letter, a mark or a word says, and never says more.

use ratatui::style::{Color, Modifier, Style};
use sampler_common::snapshot::Cause;

/// The letter of a cause in bars and heat maps.
pub const fn letter(cause: Cause) -> char {
    match cause {
        Cause::Quota => 'q',
        Cause::Own => 's',
        Cause::Neighbor => 'n',
        Cause::System => 'y',
        Cause::Idle => 'i',
        Cause::Unknown => '?',
    }
}

/// What the terminal can show, and is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether there are colours.
    pub color: bool,
}

impl Theme {
    /// Without colours where the environment has a `NO_COLOR` that is not empty (<https://no-color.org>).
    pub fn from_environment() -> Self {
        Self { color: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// A cause as the ground of its letter.
    pub fn ground(self, cause: Cause) -> Style {
        match cause {
            _ if !self.color => Style::new(),
            Cause::Idle | Cause::Unknown => Style::new().fg(Color::White).bg(color(cause)),
            _ => Style::new().fg(Color::Black).bg(color(cause)),
        }
    }

    /// A cause as the colour of a mark.
    pub fn mark(self, cause: Cause) -> Style {
        if self.color { Style::new().fg(color(cause)) } else { Style::new() }
    }

    /// What is read last.
    pub fn faint(self) -> Style {
        if self.color { Style::new().fg(Color::Gray) } else { Style::new() }
    }

    /// What is read first.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What must be seen.
    pub fn warning(self) -> Style {
        let strong = self.strong();
        if self.color { strong.fg(Color::Yellow) } else { strong }
    }

    /// The bars at the top and the bottom, and the selected row.
    pub fn reversed(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// The sixteen colours that every terminal has, so that people see those that they have chosen.
const fn color(cause: Cause) -> Color {
    match cause {
        Cause::Quota => Color::Red,
        Cause::Own => Color::Yellow,
        Cause::Neighbor => Color::Magenta,
        Cause::System => Color::Cyan,
        Cause::Idle => Color::DarkGray,
        Cause::Unknown => Color::Blue,
    }
}
