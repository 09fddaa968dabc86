//! Whether snapshots keep coming, for probes. They are answered whatever else is going on: what is asked here has a lock of
//! its own, and whoever has that does nothing else meanwhile.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;
use crate::pods::{self, Trouble};

/// When the last snapshot was taken in, and what was to be said of it.
pub struct Pulse {
    /// How long after a snapshot the next one is late.
    patience: Duration,
    last: Mutex<Last>,
}

struct Last {
    at: Instant,
    /// Windows so far.
    windows: u64,
    /// Why containers go without names.
    trouble: Option<Trouble>,
    /// A recording is over: none are awaited.
    ended: bool,
}

impl Pulse {
    /// Of a daemon that starts now, of which a snapshot is late after so long.
    pub fn new(patience: Duration) -> Self {
        let last = Last { at: Instant::now(), windows: 0, trouble: None, ended: false };
        Self { patience, last: Mutex::new(last) }
    }

    /// A snapshot has been taken in: there have been so many windows, and such is the state of names, where they come.
    pub fn beat(&self, windows: u64, names: Option<&pods::State>) {
        let trouble = match names {
            Some(pods::State::Troubled(trouble)) => Some(trouble.clone()),
            _ => None,
        };
        let mut last = lock(&self.last);
        (last.at, last.windows, last.trouble) = (Instant::now(), windows, trouble);
    }

    /// There will be no more snapshots.
    pub fn end(&self) {
        lock(&self.last).ended = true;
    }

    /// Whether snapshots keep coming, or why not.
    pub fn health(&self) -> Result<(), String> {
        let last = lock(&self.last);
        let age = last.at.elapsed();
        if last.ended || age <= self.patience {
            return Ok(());
        }
        Err(format!("the last snapshot is {} s old", age.as_secs()))
    }

    /// Whether there is a window to show, with what is missing in it; or why not.
    pub fn readiness(&self) -> Result<Option<String>, String> {
        let last = lock(&self.last);
        // The one from the reader's start to the first snapshot is short and says little.
        if last.windows < 2 {
            return Err("the first window is not over".to_owned());
        }
        let note = |trouble| format!("containers go by the names known so far, or their ids: {trouble}");
        Ok(last.trouble.as_ref().map(note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_without_snapshots_is_not_healthy_unless_there_are_no_more() {
        let pulse = Pulse::new(Duration::from_secs(35));
        lock(&pulse.last).at = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        assert_eq!(pulse.health(), Err("the last snapshot is 60 s old".to_owned()));
        pulse.end();
        assert_eq!(pulse.health(), Ok(()));
    }
}
