//! The ledger: for each set of labels everything that was counted under it, since the daemon was started.
//!
//! Windows are added up here, rather than snapshots shown, because a series outlives what it is made of: a container
//! that is restarted keeps its labels and gets another cgroup, several units may have one name, a recording may go
//! over a restart of the sampler that made it. The sum of windows goes on through all of these, and never back.
//!
//! # When a series ends
//!
//! A container that is gone has its last counts in its last window. Its series stays until that window has been
//! scraped, and [`LINGER_NS`] at least, so that each of a pair of Prometheus servers sees it; and [`AT_MOST_NS`] at most.
//! One that nobody has ever scraped by then, or before it had to make room for a living one, is added to the rest, so
//! that its counts are not lost. One of which only the last counts were not scraped is counted: they are.
//!
//! # What is beyond the limit
//!
//! Containers that find no room are added up in one series, so that sums over all of them stay right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use sampler_common::identity::{Container, Identity, Owner};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Durations, Snapshot};
use sampler_common::window::{Case, Window, Windows};

/// A series of a container that is gone is there for at least so long, on the clock of the snapshots: longer than the
/// longest usual scrape interval, a minute.
pub const LINGER_NS: u64 = 75_000_000_000;
/// And for at most so long, scraped or not.
pub const AT_MOST_NS: u64 = 300_000_000_000;

/// Label `container` of what has no series of its own: containers beyond the limit, and cgroups beyond the slots.
pub const OTHER: &str = "_other";

/// What a series is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// Of the pod; empty outside Kubernetes and while the name is not known.
    pub namespace: String,
    /// Name of the pod, or its UID while that is not known; empty outside Kubernetes.
    pub pod: String,
    /// Name of the container, or the first digits of its id while that is not known; [`Names::SANDBOX`] for a pod's sandbox;
    /// name of a unit; path of any other cgroup, with a leading slash.
    pub container: String,
}

impl From<&Identity> for Labels {
    fn from(identity: &Identity) -> Self {
        let outside = |container: String| Self { container, ..Self::default() };
        match &identity.owner {
            Owner::Unit { name } => outside(name.clone()),
            Owner::Outside => outside(format!("/{}", identity.path)),
            Owner::Container(container) => match (&container.names, &container.pod) {
                (Some(names), _) => Self {
                    namespace: names.namespace.clone(),
                    pod: names.pod.clone(),
                    container: names.container.clone().unwrap_or_else(|| container.id.short().to_owned()),
                },
                (None, Some(pod)) => Self {
                    namespace: String::new(),
                    pod: pod.uid.as_str().to_owned(),
                    container: container.id.short().to_owned(),
                },
                (None, None) => outside(container.id.short().to_owned()),
            },
        }
    }
}

/// Everything of one set of labels.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub labels: Labels,
    /// Its container, where it is one: the newest.
    pub container: Option<Container>,
    /// All windows, added up. Without neighbours.
    pub total: Window,
    /// The last window, while it is alive.
    pub latest: Option<Window>,
    /// When it was first seen.
    pub since: SystemTime,
    /// The turn at which it was made.
    born: u64,
    /// The turn at which it was last added to.
    grown: u64,
    /// When it was found to be gone, on the clock of the snapshots.
    gone_ns: Option<u64>,
}

impl Series {
    fn new(labels: Labels, since: SystemTime, born: u64) -> Self {
        Self {
            labels,
            container: None,
            total: Window::default(),
            latest: None,
            since,
            born,
            grown: 0,
            gone_ns: None,
        }
    }

    fn add(&mut self, window: &Window, turn: u64) {
        // The sum needs none, and on a crowded node there are many.
        let window = Window { neighbors: Vec::new(), ..window.clone() };
        // Most that are removed have done nothing since the last look: what was scraped by then is all.
        if window.case != Case::Vanished || has_counted(&window) || self.grown == 0 {
            self.grown = turn;
        }
        self.total = std::mem::take(&mut self.total).then(&window);
    }
}

/// All series.
#[derive(Debug)]
pub struct Ledger {
    limit: usize,
    series: BTreeMap<Labels, Arc<Series>>,
    other: Arc<Series>,
    /// Number of windows that were added.
    turn: u64,
    /// The turn of the last state that was scraped.
    scraped: u64,
    left_out: usize,
    unscraped: u64,
}

impl Ledger {
    /// An empty one for up to `limit` series.
    pub fn new(limit: usize, now: SystemTime) -> Self {
        let labels = Labels { container: OTHER.to_owned(), ..Labels::default() };
        Self {
            limit,
            series: BTreeMap::new(),
            other: Arc::new(Series::new(labels, now, 0)),
            turn: 0,
            scraped: 0,
            left_out: 0,
            unscraped: 0,
        }
    }

    /// Adds what happened up to `snapshot`.
    pub fn add(&mut self, snapshot: &Snapshot, windows: &Windows, now: SystemTime) {
        self.turn += 1;
        self.left_out = 0;
        let turn = self.turn;
        for series in self.series.values_mut() {
            if series.latest.is_some() {
                Arc::make_mut(series).latest = None;
            }
        }
        let mut other = windows.other.clone();
        for (id, window) in &windows.cgroups {
            let Some(cgroup) = snapshot.cgroups.get(id) else { continue };
            let labels = Labels::from(&cgroup.identity);
            // One that came and went between two looks may have been without a name; the root's path is empty, too.
            let nameless = cgroup.identity.path.is_empty() && *id != CgroupId::ROOT;
            if nameless || !self.has_room_for(&labels) {
                self.left_out += 1;
                other = other.beside(window);
                continue;
            }
            let series = self.series.entry(labels.clone());
            let series = series.or_insert_with(|| Arc::new(Series::new(labels, now, turn)));
            add_cgroup(Arc::make_mut(series), cgroup, window, turn);
        }
        let sum = Arc::make_mut(&mut self.other);
        sum.add(&other, turn);
        sum.latest = Some(Window { neighbors: Vec::new(), ..other });
        self.end(snapshot.at_ns);
    }

    /// Whether there is a series of these labels, or can be. One whose container is gone makes room: those that have
    /// been scraped first, then those that never were and go to the rest whole, and only then one whose last counts
    /// would be lost; of each the oldest.
    fn has_room_for(&mut self, labels: &Labels) -> bool {
        if self.series.len() < self.limit || self.series.contains_key(labels) {
            return true;
        }
        let scraped = self.scraped;
        let cost = |series: &Series| match (series.grown > scraped, series.born > scraped) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => 2,
        };
        let gone = self.series.values().filter_map(|series| Some((cost(series), series.gone_ns?, series)));
        let Some((.., series)) = gone.min_by_key(|(cost, gone_ns, _)| (*cost, *gone_ns)) else {
            return false;
        };
        let first = series.labels.clone();
        self.bury(&first);
        true
    }

    /// Drops series whose time is over.
    fn end(&mut self, at_ns: u64) {
        let (turn, scraped) = (self.turn, self.scraped);
        let mut over = Vec::new();
        for (labels, series) in &mut self.series {
            let gone_ns = match series.gone_ns {
                _ if series.latest.is_some() => None,
                // What still counts after it is gone begins its time anew.
                Some(gone_ns) if series.grown < turn => Some(gone_ns),
                _ => Some(at_ns),
            };
            if series.gone_ns != gone_ns {
                Arc::make_mut(series).gone_ns = gone_ns;
            }
            let Some(gone_ns) = gone_ns else { continue };
            // The clock of another life, in a recording, may be of another boot.
            let gone_for_ns = at_ns.checked_sub(gone_ns).unwrap_or(AT_MOST_NS);
            let seen = series.grown <= scraped;
            if gone_for_ns >= LINGER_NS && (seen || gone_for_ns >= AT_MOST_NS) {
                over.push(labels.clone());
            }
        }
        over.iter().for_each(|labels| self.bury(labels));
    }

    /// Drops a series.
    fn bury(&mut self, labels: &Labels) {
        let Some(series) = self.series.remove(labels) else { return };
        if series.born > self.scraped {
            Arc::make_mut(&mut self.other).add(&series.total, self.turn);
        } else if series.grown > self.scraped {
            self.unscraped += 1;
        }
    }

    /// All series, the one for everything else last, and the turn that they are of.
    pub fn series(&self) -> (Vec<Arc<Series>>, u64) {
        (self.series.values().chain([&self.other]).cloned().collect(), self.turn)
    }

    /// The state of this turn has been scraped.
    pub fn scraped(&mut self, turn: u64) {
        self.scraped = self.scraped.max(turn);
    }

    /// Cgroups of the last window that have no series of their own.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Series that ended before their last counts were scraped.
    pub fn unscraped(&self) -> u64 {
        self.unscraped
    }
}

/// Whether anything of what is counted was.
fn has_counted(window: &Window) -> bool {
    let throttles = match &window.throttling.durations {
        Durations::Counted(durations) => durations.iter().any(|count| *count != 0),
        Durations::HooksUnavailable => false,
    };
    throttles || !window.latency.is_empty() || window.usage_ns != 0 || window.throttling.throttled()
}

fn add_cgroup(series: &mut Series, cgroup: &CgroupCounters, window: &Window, turn: u64) {
    series.add(window, turn);
    if window.case == Case::Vanished {
        return;
    }
    // Of several living ones together; one that is gone has no limits and no memory any more.
    let window = Window { neighbors: Vec::new(), ..window.clone() };
    series.latest = Some(match series.latest.take() {
        Some(beside) => beside.beside(&window),
        None => window,
    });
    let container = cgroup.identity.container();
    if series.container.as_ref() != container {
        series.container = container.cloned();
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
