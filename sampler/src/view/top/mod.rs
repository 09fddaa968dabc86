//! `sampler top`: containers, live, the one that hurts most first, and why.
//!
//! ```text
//! Source ──▶ feed ──▶ model (View: rows, verdicts) ──▶ state ──▶ draw ──▶ terminal
//!          snapshots   pure                     keys ─▶ pure       pure    screen
//!                          └──▶ text, json: for pipes
//! ```
//!
//! | file | what is in it |
//! |---|---|
//! | `feed` | one view after the other, each when it is due |
//! | `model`, `name`, `apart` | what one window shows |
//! | `history` | what the windows before it showed: the heat map |
//! | `state` | what the person has chosen; what each key does |
//! | `draw` | a state as cells of a screen |
//! | `text`, [`json`] | a window for pipes |
//! | `stream` | one after the other for a pipe |
//! | `screen` | the terminal: the only place that touches one |

mod apart;
mod draw;
mod feed;
#[cfg(test)]
mod fixture;
mod history;
pub mod json;
mod model;
mod name;
#[cfg(test)]
mod picture;
mod screen;
mod state;
mod stream;
mod text;
mod theme;

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use sampler_common::window::WindowError;
use thiserror::Error;

use self::feed::Feed;
use self::json::JsonWindow;
use self::model::View;
use crate::args::Output;
use crate::source::{Source, SourceError};

/// Why it ended early.
#[derive(Debug, Error)]
pub enum TopError {
    /// There are no snapshots, or no more.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Two snapshots are not one after the other.
    #[error("the snapshots are out of order")]
    Order(#[from] WindowError),
    /// Fewer than two snapshots.
    #[error("the recording has no window: that takes two snapshots")]
    NoWindow,
    /// Nothing to draw on.
    #[error("standard output is no terminal: use --once for one table, or -o json for a line a window")]
    NoTerminal,
    /// No handlers for signals.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// The terminal, or the pipe.
    #[error("cannot show it")]
    Show(#[from] io::Error),
}

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// One window, and the end: of a recording the last.
    pub once: bool,
    /// For people or for programs.
    pub output: Output,
}

impl Options {
    /// Whether it can be shown where standard output goes: to be asked before anything is measured.
    pub fn check(self) -> Result<(), TopError> {
        let draws = self.output == Output::Table && !self.once;
        if draws && !io::stdout().is_terminal() { Err(TopError::NoTerminal) } else { Ok(()) }
    }
}

/// Shows what `source` has until it ends, or somebody ends it.
pub fn run(source: Source, options: Options) -> Result<(), TopError> {
    options.check()?;
    let mut feed = Feed::begin(source, Instant::now())?;
    let sleep_until = |due: Instant| std::thread::sleep(due.saturating_duration_since(Instant::now()));
    match (options.once, options.output) {
        (true, output) => {
            print(&feed.only(sleep_until)?, output)?;
        }
        (false, Output::Table) => screen::run(feed)?,
        (false, Output::Json) => stream::run(feed)?,
    }
    Ok(())
}

/// Prints a window; `false` where nobody reads it any more.
fn print(view: &View, output: Output) -> Result<bool, TopError> {
    let printed = match output {
        Output::Table => text::table(view, terminal_columns()),
        Output::Json => serde_json::to_string(&JsonWindow::from(view)).map_err(io::Error::from)? + "\n",
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(printed.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Columns of the terminal; `None` for a pipe or a file, which have room for everything, and for a terminal that does
/// not know, as a serial console.
fn terminal_columns() -> Option<u16> {
    let size = io::stdout().is_terminal().then(ratatui::crossterm::terminal::size)?;
    size.ok().map(|(columns, _)| columns).filter(|columns| *columns != 0)
}
