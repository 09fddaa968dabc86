//! The ledger: for each set of labels everything that was counted under it, since the daemon was started.
//!
//! Windows are added up here, rather than snapshots shown, because a series outlives what it is made of: a container
//! that is restarted keeps its labels and gets another cgroup, several units may have one name, a recording may go
//! over a restart of the sampler that made it. The sum of windows goes on through all of these, and never back.
//!
//! # When a series begins
//!
//! The kubelet tells the API server of a container a moment after it has made it. Until then the container would have a
//! series by its id, which ends when the name comes, and one more by its name: two series for each start of each container.
//! So where names come, a container of a pod is held back until it has its own, for [`HELD_NS`] at most, and not beyond its
//! end. Then all that it has counted is in its series. At any time at most as many are held back as there may be series.
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
use sampler_common::snapshot::{CgroupCounters, CgroupId, Snapshot};
use sampler_common::window::{Case, Window, Windows};

/// A series of a container that is gone is there for at least so long, on the clock of the snapshots: longer than the
/// longest usual scrape interval, a minute.
pub const LINGER_NS: u64 = 75_000_000_000;
/// And for at most so long, scraped or not.
pub const AT_MOST_NS: u64 = 300_000_000_000;

/// A container whose name does not come has a series by its id after so long, on the clock of the snapshots: the kubelet
/// tells of a container in one or two seconds, and once in ten of whatever it could not tell.
pub const HELD_NS: u64 = 30_000_000_000;

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

    /// Adds what one had counted that was held back.
    fn begin(&mut self, container: Option<Container>, total: &Window, turn: u64) {
        self.add(total, turn);
        self.container = container;
    }

    fn add(&mut self, window: &Window, turn: u64) {
        let window = without_neighbors(window);
        // Most that are removed have done nothing since the last look: what was scraped by then is all.
        if window.case != Case::Vanished || window.has_counted() || self.grown == 0 {
            self.grown = turn;
        }
        self.total = std::mem::take(&mut self.total).then(&window);
    }
}

/// A container that has no name yet.
#[derive(Debug)]
struct Held {
    /// By its id.
    labels: Labels,
    container: Option<Container>,
    /// When it was first seen, on the clock of the snapshots.
    since_ns: u64,
    /// All its windows, added up.
    total: Window,
}

/// All series.
#[derive(Debug)]
pub struct Ledger {
    limit: usize,
    series: BTreeMap<Labels, Arc<Series>>,
    other: Arc<Series>,
    held: BTreeMap<CgroupId, Held>,
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
            held: BTreeMap::new(),
            turn: 0,
            scraped: 0,
            left_out: 0,
            unscraped: 0,
        }
    }

    /// Adds what happened up to `snapshot`. `names_come`: the names of containers that have none are on the way.
    pub fn add(&mut self, snapshot: &Snapshot, windows: &Windows, names_come: bool, now: SystemTime) {
        self.turn += 1;
        self.left_out = 0;
        let turn = self.turn;
        for series in self.series.values_mut() {
            if series.latest.is_some() {
                Arc::make_mut(series).latest = None;
            }
        }
        let mut other = windows.other.clone();
        // What is gone without a last window has none that it could be added to.
        for (_, held) in
            self.held.extract_if(.., |id, _| !windows.cgroups.contains_key(id)).collect::<Vec<_>>()
        {
            match self.series_of(held.labels, now) {
                Some(series) => series.begin(held.container, &held.total, turn),
                None => other = other.beside(&held.total),
            }
        }
        for (id, window) in &windows.cgroups {
            let Some(cgroup) = snapshot.cgroups.get(id) else { continue };
            let labels = Labels::from(&cgroup.identity);
            if names_come && self.holds_back(*id, cgroup, window, snapshot.at_ns) {
                continue;
            }
            let held = self.held.remove(id);
            // One that came and went between two looks may have been without a name; the root's path is empty, too.
            let nameless = cgroup.identity.path.is_empty() && *id != CgroupId::ROOT;
            let series = if nameless { None } else { self.series_of(labels, now) };
            let Some(series) = series else {
                self.left_out += 1;
                other = held.iter().fold(other, |other, held| other.beside(&held.total)).beside(window);
                continue;
            };
            if let Some(held) = held {
                series.begin(held.container, &held.total, turn);
            }
            add_cgroup(series, cgroup, window, turn);
        }
        let sum = Arc::make_mut(&mut self.other);
        sum.add(&other, turn);
        sum.latest = Some(Window { neighbors: Vec::new(), ..other });
        self.end(snapshot.at_ns);
    }

    /// Holds a container back that lives and has no name yet, if it has not been for too long: keeps what it has counted.
    fn holds_back(&mut self, id: CgroupId, cgroup: &CgroupCounters, window: &Window, at_ns: u64) -> bool {
        let Some(container) = cgroup.identity.container().filter(|_| window.case != Case::Vanished) else {
            return false;
        };
        let named = container.names.as_ref().is_some_and(|names| names.container.is_some());
        if named || container.pod.is_none() {
            return false;
        }
        let labels = Labels::from(&cgroup.identity);
        // One that has a series has had its time, or was there when names began to come.
        let begins = !self.series.contains_key(&labels) && self.held.len() < self.limit;
        match self.held.get_mut(&id) {
            Some(held) if at_ns.saturating_sub(held.since_ns) < HELD_NS => {
                held.labels = labels;
                held.container = Some(container.clone());
                held.total = std::mem::take(&mut held.total).then(&without_neighbors(window));
                true
            }
            Some(_) => false,
            None if !begins => false,
            None => {
                let total = without_neighbors(window);
                let held = Held { labels, container: Some(container.clone()), since_ns: at_ns, total };
                self.held.insert(id, held);
                true
            }
        }
    }

    /// The series of these labels, if there is one or can be.
    fn series_of(&mut self, labels: Labels, now: SystemTime) -> Option<&mut Series> {
        if !self.has_room_for(&labels) {
            return None;
        }
        let turn = self.turn;
        let series = self.series.entry(labels.clone());
        Some(Arc::make_mut(series.or_insert_with(|| Arc::new(Series::new(labels, now, turn)))))
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

    /// Containers that are held back until they have a name.
    pub fn awaited(&self) -> usize {
        self.held.len()
    }

    /// Series that ended before their last counts were scraped.
    pub fn unscraped(&self) -> u64 {
        self.unscraped
    }
}

/// A window to be added up or kept: sums need no neighbours, and on a crowded node there are many.
fn without_neighbors(window: &Window) -> Window {
    Window { neighbors: Vec::new(), ..window.clone() }
}

fn add_cgroup(series: &mut Series, cgroup: &CgroupCounters, window: &Window, turn: u64) {
    series.add(window, turn);
    if window.case == Case::Vanished {
        return;
    }
    // Of several living ones together; one that is gone has no limits and no memory any more.
    let window = without_neighbors(window);
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
