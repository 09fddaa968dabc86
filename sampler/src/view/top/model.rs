//! What one window shows: a row for everything that ran, with what it means already said. Pure.

use std::cmp::Ordering;

use sampler_common::demand::{self, Demand};
use sampler_common::identity::{Identity, Owner};
use sampler_common::snapshot::{CgroupId, Losses, Snapshot};
use sampler_common::window::{Window, Windows};

use super::super::table::by_what_hurts;
use super::super::verdict::{self, Surroundings, Verdict};
use super::name::Name;

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A cgroup.
    Cgroup(CgroupId),
    /// Everything that found no slot of its own.
    Other,
}

/// One line of the table, and what is shown of it when it is selected.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is of.
    pub key: Key,
    /// What it is called.
    pub name: Name,
    /// Where it is, and whose.
    pub identity: Identity,
    /// What happened to it.
    pub window: Window,
    /// CPU that it used, in cores; `None` where `cpu.stat` is not its own: that of the root is the machine's.
    pub used_cores: Option<f64>,
    /// CPU that it would use; `None` where what it used is not known.
    pub demand: Option<Demand>,
    /// What that means.
    pub verdict: Verdict,
    /// Who held the CPU while it waited, the longest first.
    pub neighbors: Vec<Neighbor>,
    /// Processes killed for want of memory since the sampler first saw it; `None` where that is not known.
    pub oom_kills: Option<u64>,
}

/// Another container, or everything that could not be named.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbor {
    /// Its cgroup; `None` for the rest.
    pub id: Option<CgroupId>,
    /// What it is called.
    pub name: String,
    /// For how long it held the CPU while somebody here waited, in ns.
    pub held_ns: u64,
    /// Part of all wait, in 0..=1.
    pub share: f64,
}

/// All that is shown of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The one that hurts most first.
    pub rows: Vec<Row>,
    /// Length of the window, in ns.
    pub length_ns: u64,
    /// When it ended, in ns since 1970.
    pub ended_unix_ns: u64,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Without them waits for a quota look like others.
    pub throttle_hooks: bool,
    /// What was lost in it.
    pub losses: Losses,
    /// Cgroups whose last counts are in no window.
    pub missed: usize,
}

impl View {
    /// Of the windows that end with a snapshot, which was taken then.
    pub fn new(windows: &Windows, snapshot: &Snapshot, ended_unix_ns: u64, cpus: u32) -> Self {
        Self {
            rows: rows(windows, snapshot, cpus),
            length_ns: windows.length_ns,
            ended_unix_ns,
            cpus,
            throttle_hooks: windows.throttle_hooks,
            losses: windows.losses,
            missed: windows.missed.len(),
        }
    }
}

/// A row for every container and unit, and for what else ran; the one that hurts most first. `cpus` is how many CPUs
/// the machine has.
pub fn rows(windows: &Windows, snapshot: &Snapshot, cpus: u32) -> Vec<Row> {
    let around = Around { windows, snapshot };
    let system = around.busiest_of_the_system();
    let mut rows: Vec<_> =
        windows.cgroups.iter().filter_map(|(id, window)| around.row(*id, window, &system, cpus)).collect();
    if !windows.other.latency.is_empty() {
        rows.push(Row::of_other(&windows.other));
    }
    rows.sort_by(by_hurt);
    rows
}

/// What hurts more comes first: wait per second that somebody could do something about, then the 99th percentile.
pub fn by_hurt(a: &Row, b: &Row) -> Ordering {
    by_what_hurts(&a.window, &b.window)
        .then_with(|| b.window.p99().cmp(&a.window.p99()))
        .then_with(|| a.name.whole().cmp(&b.name.whole()))
        .then_with(|| a.key.cmp(&b.key))
}

struct Around<'a> {
    windows: &'a Windows,
    snapshot: &'a Snapshot,
}

impl Around<'_> {
    fn row(&self, id: CgroupId, window: &Window, system: &System, cpus: u32) -> Option<Row> {
        let cgroup = self.snapshot.cgroups.get(&id)?;
        let identity = cgroup.identity.clone();
        let outside = identity.owner == Owner::Outside;
        if outside && window.latency.is_empty() {
            // Slices and the like have no threads of their own.
            return None;
        }
        let name = Name::of(id, &identity);
        let is_root = outside && identity.path.is_empty();
        let known = |id| self.name(id);
        let around = Surroundings { name: &known, system: system.clone() };
        Some(Row {
            key: Key::Cgroup(id),
            verdict: verdict::verdict(&name.whole(), window, &around),
            neighbors: self.neighbors(window),
            used_cores: window.used_cores().filter(|_| !is_root),
            oom_kills: cgroup.counters.memory_events.map(|events| events.oom_kill),
            demand: window.used_cores().filter(|_| !is_root).map(|_| demand::estimate(window, cpus)),
            name,
            identity,
            window: window.clone(),
        })
    }

    fn name(&self, id: CgroupId) -> Option<String> {
        Some(Name::of(id, &self.snapshot.cgroups.get(&id)?.identity).whole())
    }

    fn neighbors(&self, window: &Window) -> Vec<Neighbor> {
        let all_ns = window.causes.total().max(1) as f64;
        let named = window.neighbors.iter().map(|(id, held_ns)| {
            let name = self.name(*id).unwrap_or_else(|| format!("cgroup {id}, which is gone"));
            (Some(*id), name, *held_ns)
        });
        let rest = (window.unnamed_neighbor_ns != 0)
            .then(|| (None, "others".to_owned(), window.unnamed_neighbor_ns));
        named
            .chain(rest)
            .map(|(id, name, held_ns)| Neighbor { id, name, held_ns, share: held_ns as f64 / all_ns })
            .collect()
    }

    /// Of what counts as the system for others: the units where there are containers.
    fn busiest_of_the_system(&self) -> System {
        let identity = |id: &CgroupId| self.snapshot.cgroups.get(id).map(|cgroup| &cgroup.identity);
        let ids = || self.windows.cgroups.iter();
        ids().find(|(id, _)| identity(id).is_some_and(|identity| identity.container().is_some()))?;
        let (name, used_ns) = ids()
            .filter_map(|(id, window)| match &identity(id)?.owner {
                Owner::Unit { .. } => Some((self.name(*id)?, window.usage_ns)),
                Owner::Container(_) | Owner::Outside => None,
            })
            .max_by_key(|(_, used_ns)| *used_ns)
            .filter(|(_, used_ns)| *used_ns != 0)?;
        Some((name, used_ns as f64 / self.windows.length_ns.max(1) as f64))
    }
}

/// Who used most CPU outside any container, and how much, in cores.
type System = Option<(String, f64)>;

impl Row {
    /// What found no slot of its own: its CPU time is not known.
    pub fn of_other(window: &Window) -> Self {
        let name = Name::Plain("(no slot left)".into());
        let around = Surroundings { name: &|_| None, system: None };
        Self {
            key: Key::Other,
            verdict: verdict::verdict(&name.whole(), window, &around),
            name,
            identity: Identity::default(),
            window: window.clone(),
            used_cores: None,
            demand: None,
            neighbors: Vec::new(),
            oom_kills: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use sampler_common::snapshot::Cause;

    fn view() -> View {
        fixture::state().view.unwrap()
    }

    fn row(name: &str) -> Row {
        view().rows.into_iter().find(|row| row.name.whole().contains(name)).unwrap()
    }

    #[test]
    fn what_hurts_comes_first_and_waking_up_hurts_nobody() {
        let names: Vec<_> = view().rows.iter().map(|row| row.name.within(12)).collect();
        assert_eq!(
            names,
            [
                "checko…x2x9z",
                "report…tq7wl",
                "web-6c…nginx",
                "cart-8…m2v5d",
                "pod 3c…4f612",
                "kubelet",
                "coredn…8sn4v",
                "(root)",
                "containerd",
                "kube-p…abcde",
                "migrat…x8k2p",
                "system…rnald",
            ]
        );
    }

    #[test]
    fn of_two_that_wait_as_long_the_one_with_the_longer_delays_comes_first() {
        let row = |ns: u64| {
            let delays = [(1_000_000_000 / ns, ns, sampler_common::abi::Cause::Own)];
            Row::of_other(&super::super::super::sample::waited(&delays, 0))
        };
        assert_eq!(by_hurt(&row(1_000_000), &row(100_000_000)), Ordering::Greater);
        assert_eq!(by_hurt(&row(1_000_000), &row(1_000_000)), Ordering::Equal);
    }

    #[test]
    fn slices_are_left_out_and_the_root_has_no_use_of_its_own() {
        let view = view();
        assert!(!view.rows.iter().any(|row| row.key == Key::Cgroup(CgroupId(30))));
        let root = view.rows.iter().find(|row| row.key == Key::Cgroup(CgroupId(1))).unwrap();
        assert_eq!((root.used_cores, &root.demand), (None, &None));
        assert_eq!(root.verdict.cause, Some(Cause::Idle));
    }

    #[test]
    fn neighbors_have_their_names_and_the_rest_is_others() {
        let shown: Vec<_> = row("nginx")
            .neighbors
            .iter()
            .map(|held| (held.name.clone(), (held.share * 100.0) as u32))
            .collect();
        assert_eq!(
            shown,
            [
                ("batch/report-29384756-tq7wl/report".to_owned(), 74),
                ("shop/cart-84b9f6d5c7-m2v5d/cart".to_owned(), 9),
                ("others".to_owned(), 9),
            ]
        );
    }

    #[test]
    fn the_busiest_unit_is_named_to_those_who_wait_for_the_system() {
        let why = row("shop/cart").verdict.why;
        assert!(why.ends_with("The busiest was kubelet.service (0.06 CPU)."), "{why}");
    }

    #[test]
    fn a_neighbor_that_left_no_name_is_told_by_its_id() {
        let snapshots = fixture::snapshots();
        let windows = Windows::between(&snapshots[50], &snapshots[51]).unwrap();
        let mut later = snapshots[51].clone();
        later.cgroups.remove(&CgroupId(12));
        let rows = rows(&windows, &later, fixture::CPUS);
        let web = rows.iter().find(|row| row.key == Key::Cgroup(CgroupId(11))).unwrap();
        assert_eq!(web.neighbors[0].name, "cgroup 12, which is gone");
        assert!(!rows.iter().any(|row| row.key == Key::Cgroup(CgroupId(12))));
    }

    #[test]
    fn what_found_no_slot_has_a_row_if_it_waited() {
        let snapshots = fixture::snapshots();
        let mut windows = Windows::between(&snapshots[50], &snapshots[51]).unwrap();
        let others = |windows: &Windows| {
            rows(windows, &snapshots[51], fixture::CPUS).iter().filter(|row| row.key == Key::Other).count()
        };
        assert_eq!(others(&windows), 0);
        windows.other.latency.record(5_000);
        assert_eq!(others(&windows), 1);
    }
}
