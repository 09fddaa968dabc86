//! The terminal: keys in, cells out. The only place that touches one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::TopError;
use super::draw;
use super::feed::{Feed, Snapshots};
use super::state::{Action, State};
use super::theme::Theme;

/// How often it is looked whether a signal has come.
const TICK: Duration = Duration::from_millis(200);

/// Draws what the feed has until a key or a signal ends it.
pub fn run(feed: Feed<impl Snapshots>) -> Result<(), TopError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // From here on a panic gives the terminal back before it says what happened.
    let terminal = ratatui::try_init()?;
    let _taken = Taken;
    watch(terminal, feed, &stop)
}

/// The terminal, as long as it is ours. Dropping this gives it back as it was.
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn watch(
    mut terminal: DefaultTerminal,
    mut feed: Feed<impl Snapshots>,
    stop: &AtomicBool,
) -> Result<(), TopError> {
    let theme = Theme::from_environment();
    let mut state = State::default();
    while !stop.load(Ordering::Relaxed) {
        terminal.draw(|frame| draw::draw(&state, theme, frame.area(), frame.buffer_mut()))?;
        let left = |due: Instant| due.saturating_duration_since(Instant::now());
        // A key, a new size, a window, or time to look for signals: whatever comes first. A recording that stands still
        // is always due.
        let mut wait = if state.paused { TICK } else { feed.due().map_or(TICK, left).min(TICK) };
        while event::poll(wait)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && state.on_key(key) == Action::Quit
            {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
        match feed.due() {
            Some(due) if left(due).is_zero() && state.paused => feed.pass(Instant::now())?,
            Some(due) if left(due).is_zero() => {
                if let Some(view) = feed.take(Instant::now())? {
                    state.show(view);
                }
            }
            Some(_) => {}
            None => state.ended = true,
        }
    }
    Ok(())
}
