//! Publishing: what Prometheus scrapes.
//!
//! ```text
//! snapshots ─→ windows ─→ ledger: a series for each container ─→ families ─→ text or protobuf ─→ server
//! ```
//!
//! * [`ledger`] keeps, for each set of labels, everything that was counted, and drops it when its container is gone.
//! * [`families`] is the list of all metrics: names, help, and how each is made of a series.
//! * [`encode`] writes them; [`native`] makes native histograms of our buckets without counting anew.
//! * [`reference`] describes them for people.
//! * [`pulse`] says whether snapshots keep coming.
//! * [`server`] is HTTP; [`turns`] says who is answered with metrics.

pub mod encode;
pub mod families;
pub mod ledger;
pub mod native;
pub mod pulse;
pub mod reference;
pub mod server;
pub mod state;
pub mod turns;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sampler_common::snapshot::Snapshot;
use sampler_common::window::{WindowError, Windows};

use self::encode::{EncodeError, Exposition};
use self::ledger::Ledger;
use self::pulse::Pulse;
use self::state::{Node, Process};
use crate::pods;
use crate::source::Health;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, with classic histograms.
    OpenMetrics,
    /// Prometheus' protobuf, with native histograms besides.
    Protobuf,
}

impl Format {
    /// For the HTTP header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// What is published: fed by the thread that samples, asked by the server.
pub struct Publisher {
    pulse: Pulse,
    state: Mutex<State>,
    /// The body of each format that somebody reads. Its lock is held while one is encoded, so that many scrapes at one time
    /// cost one.
    bodies: Mutex<Bodies>,
}

struct State {
    node: Node,
    ledger: Ledger,
    earlier: Option<Snapshot>,
    /// Scrapes that were answered; those of `node` up to the last window, so that all of one window show the same.
    scrapes: u64,
}

/// Bodies, with the turn of the ledger that they show.
#[derive(Default)]
struct Bodies {
    text: Option<(u64, Weak<Bytes>)>,
    protobuf: Option<(u64, Weak<Bytes>)>,
}

/// A body that goes when its last reader does: between two scrapes there is none.
struct Body(Arc<Bytes>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Publisher {
    /// Publishes up to `limit` containers of a machine with so many CPUs. Snapshots are to be expected every
    /// `interval`.
    pub fn new(cpus: u32, limit: usize, interval: Duration) -> Self {
        /// A busy host may be slow for a while.
        const SLACK: Duration = Duration::from_secs(20);
        let now = SystemTime::now();
        let state = State {
            node: Node::new(cpus, limit, now),
            ledger: Ledger::new(limit, now),
            earlier: None,
            scrapes: 0,
        };
        let pulse = Pulse::new(interval * 3 + SLACK);
        Self { pulse, state: Mutex::new(state), bodies: Mutex::default() }
    }

    /// Takes in the next snapshot. One that is not later than the one before it changes nothing.
    pub fn observe(&self, snapshot: Snapshot, health: Health) -> Result<(), WindowError> {
        let now = SystemTime::now();
        let mut state = lock(&self.state);
        let State { node, ledger, earlier, scrapes, .. } = &mut *state;
        // The first has counted since its reader's start.
        let first = Snapshot {
            epoch: snapshot.epoch,
            since_ns: snapshot.since_ns,
            at_ns: snapshot.since_ns,
            throttle_hooks: snapshot.throttle_hooks,
            ..Snapshot::default()
        };
        let earlier = earlier.get_or_insert(first);
        let windows = Windows::between(earlier, &snapshot)?;
        node.restarts += u64::from(earlier.epoch != snapshot.epoch);
        node.add(&snapshot, &windows, now);
        let names_come = health.pods.as_ref().is_some_and(|pods| pods.state == pods::State::Watching);
        ledger.add(&snapshot, &windows, names_come, now);
        node.scrapes = *scrapes;
        node.health = health;
        node.process = Process::own();
        *earlier = snapshot;
        self.pulse.beat(node.windows, node.health.pods.as_ref().map(|pods| &pods.state));
        Ok(())
    }

    /// There will be no more snapshots.
    pub fn ended(&self) {
        self.pulse.end();
    }

    /// Everything up to the last window, encoded, for one who keeps it: a series that has ended may go then.
    pub fn scrape(&self, format: Format) -> Result<Bytes, EncodeError> {
        let encoded = self.encoded(format, Self::handed_out)?;
        lock(&self.state).scrapes += 1;
        Ok(encoded)
    }

    /// The same for one who does not read it.
    pub fn peek(&self, format: Format) -> Result<Bytes, EncodeError> {
        self.encoded(format, Self::exposition)
    }

    fn encoded(&self, format: Format, take: fn(&Self) -> (Exposition, u64)) -> Result<Bytes, EncodeError> {
        let mut bodies = lock(&self.bodies);
        let (exposition, turn) = take(self);
        let body = match format {
            Format::OpenMetrics => &mut bodies.text,
            Format::Protobuf => &mut bodies.protobuf,
        };
        let read = body.as_ref().filter(|(of, _)| *of == turn).and_then(|(_, body)| body.upgrade());
        let read = match read {
            Some(read) => read,
            None => {
                let encoded = Arc::new(encode::encode(&Arc::new(exposition), format)?);
                *body = Some((turn, Arc::downgrade(&encoded)));
                encoded
            }
        };
        Ok(Bytes::from_owner(Body(read)))
    }

    /// The state now, which counts as scraped from this moment on and not from when it is encoded: a series that has to
    /// make room meanwhile is in it, and would be in the rest too.
    fn handed_out(&self) -> (Exposition, u64) {
        let mut state = lock(&self.state);
        let (exposition, turn) = Self::exposition_of(&state);
        state.ledger.scraped(turn);
        (exposition, turn)
    }

    fn exposition(&self) -> (Exposition, u64) {
        Self::exposition_of(&lock(&self.state))
    }

    fn exposition_of(state: &State) -> (Exposition, u64) {
        let (series, turn) = state.ledger.series();
        let mut node = state.node.clone();
        // The last is what has none of its own.
        node.series = series.len().saturating_sub(1);
        node.left_out = state.ledger.left_out();
        node.awaited = state.ledger.awaited();
        node.unscraped = state.ledger.unscraped();
        (Exposition { series, node }, turn)
    }

    /// Whether snapshots keep coming: answered also while one is taken in.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves behind is whole: values are only ever replaced or added to.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
