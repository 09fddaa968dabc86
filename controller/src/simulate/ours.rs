//! Our own sizing, as the controller runs it.

use super::Sizer;
use crate::decide::history::{History, Observed};
use crate::decide::target::{Changes, Prices, target};
use crate::decide::units::{MilliCpu, Timestamp};

/// One container's history and its changes.
pub struct Ours {
    prices: Prices,
    history: Option<History>,
    changes: Changes,
}

impl Ours {
    /// Nothing known yet.
    pub fn new(prices: Prices) -> Self {
        Self { prices, history: None, changes: Changes::default() }
    }
}

impl Sizer for Ours {
    fn next(&mut self, at: Timestamp, cores: f64, current: MilliCpu) -> MilliCpu {
        let history = self.history.get_or_insert_with(|| History::new(at));
        let observed = history.observe(at, cores);
        // Between slots only what has been outgrown cannot wait.
        if observed != Observed::EndedSlot && cores <= current.cores() {
            return current;
        }
        let target = target(history, current, self.changes, &self.prices, at);
        if target.request != current {
            self.changes.add(at);
        }
        target.request
    }
}
