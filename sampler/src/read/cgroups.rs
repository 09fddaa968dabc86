//! What is known of each cgroup besides its rows: its path, whether it is still there, what its files say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sampler_common::abi::Kind;
use sampler_common::identity::Identity;
use sampler_common::resources::{MemoryEvents, Pressure};
use sampler_common::snapshot::{CgroupId, Losses};

use super::events::Event;
use super::files::{CpuUse, Pass, Resources, SinceSeen};
use super::oom_kills::OomKills;
use crate::cgroup::layout::Layout;
use crate::cgroup::path::{Class, classify, counts_as_system};
use crate::cgroup::surroundings::Surroundings;
use crate::cgroup::tree::{self, TreeError};

/// For how long a cgroup is known after it was removed and has no rows any more: a thread of it that comes even then, since
/// it had to wait so long for a CPU to exit on, is counted under its name.
const KNOWN_FOR_NS: u64 = 15_000_000_000;

/// Every cgroup that is there, or was while it had rows and for a while after.
pub struct Cgroups {
    layout: Layout,
    known: HashMap<CgroupId, Cgroup>,
    /// Events that were lost by the last look at the whole tree.
    events_lost: u64,
    paths_cut: u64,
    files_unread: u64,
    uses_missed: u64,
    /// Of each kill the cgroup, as long as it is not known for which one it counts.
    unplaced_oom_kills: Vec<CgroupId>,
    /// Kills in cgroups of which nothing can be known any more.
    nameless_oom_kills: u64,
}

struct Cgroup {
    /// Below the root; `None` while nobody has told.
    path: Option<PathBuf>,
    class: Class,
    /// It was made after the reader started: all that its files say was counted since.
    new: bool,
    /// When it was found to have been removed (`CLOCK_MONOTONIC`, ns).
    removed_ns: Option<u64>,
    cpu: SinceSeen<CpuUse>,
    memory_events: SinceSeen<MemoryEvents>,
    pressure: SinceSeen<Pressure>,
    resources_read: bool,
    /// Of its processes and, where it is a container, of those of what lies within it.
    oom_kills: OomKills,
    /// It has had a row, and was gone when that was dropped.
    had_row: bool,
    /// It was gone before they could be read once, and that has been counted.
    use_missed: bool,
}

impl Cgroups {
    /// Looks at the whole tree.
    pub fn find(layout: Layout) -> Result<Self, TreeError> {
        let mut cgroups = Self {
            layout,
            known: HashMap::new(),
            events_lost: 0,
            paths_cut: 0,
            files_unread: 0,
            uses_missed: 0,
            unplaced_oom_kills: Vec::new(),
            nameless_oom_kills: 0,
        };
        for node in tree::walk(cgroups.layout.rows_root())?.nodes {
            cgroups.known.insert(node.id, Cgroup::at(Some(node.path), false));
        }
        Ok(cgroups)
    }

    /// Notes at `now_ns` (`CLOCK_MONOTONIC`) what happened to a cgroup.
    pub fn apply(&mut self, event: Event, now_ns: u64) {
        match event {
            Event::Made(id, path) => {
                self.paths_cut += u64::from(path.is_none());
                // A look at the whole tree may have found it first, and counts may have been read since.
                let cgroup = self.known.entry(id).or_insert_with(|| Cgroup::at(None, true));
                if let (None, Some(path)) = (&cgroup.path, path) {
                    cgroup.name(path);
                }
            }
            Event::Removed(id) => {
                if let Some(cgroup) = self.known.get_mut(&id) {
                    cgroup.removed_ns = Some(now_ns);
                }
            }
            Event::OomKill(id) => match self.place(id) {
                Some(whole) => self.tell_oom_kill(whole),
                None => self.unplaced_oom_kills.push(id),
            },
        }
    }

    fn tell_oom_kill(&mut self, id: CgroupId) {
        match self.known.get_mut(&id) {
            Some(cgroup) => cgroup.oom_kills.tell(),
            None => self.nameless_oom_kills += 1,
        }
    }

    /// Looks at the whole tree again if events have been lost since the last time, paths were cut off, or one of
    /// `counted` is unknown, or one in which somebody was killed: `lost` is how many events have been lost so far.
    pub fn catch_up(&mut self, lost: u64, counted: impl Iterator<Item = CgroupId>, now_ns: u64) {
        let unknown: Vec<_> = counted.filter(|id| !self.known.contains_key(id)).collect();
        let nameless = self.known.values().any(|cgroup| cgroup.path.is_none() && !cgroup.is_removed());
        let unplaced = !self.unplaced_oom_kills.is_empty();
        if lost == self.events_lost && !nameless && !unplaced && unknown.is_empty() {
            return;
        }
        // A root that cannot be read now is looked at again the next time.
        let Ok(tree) = tree::walk(self.layout.rows_root()) else { return };
        // Only a look that saw everything tells what is not there.
        let whole = tree.unread.is_empty();
        if whole {
            self.events_lost = lost;
        }
        let mut gone: HashMap<_, _> = self.known.iter_mut().map(|(id, cgroup)| (*id, cgroup)).collect();
        let mut new = Vec::new();
        for node in tree.nodes {
            match gone.remove(&node.id) {
                Some(cgroup) => {
                    cgroup.removed_ns = None;
                    if cgroup.path.is_none() {
                        cgroup.name(node.path);
                    }
                }
                None => new.push(node),
            }
        }
        if whole {
            for cgroup in gone.into_values() {
                cgroup.removed_ns.get_or_insert(now_ns);
            }
        }
        self.known.extend(new.into_iter().map(|node| (node.id, Cgroup::at(Some(node.path), true))));
        if whole {
            for id in unknown {
                // It came and went between two looks.
                let gone = || Cgroup { removed_ns: Some(now_ns), ..Cgroup::at(None, true) };
                self.known.entry(id).or_insert_with(gone);
            }
        }
        // Not before: `memory.events` of one that was found only now has these kills too.
        for id in std::mem::take(&mut self.unplaced_oom_kills) {
            self.tell_oom_kill(self.whole(id));
        }
    }

    /// Forgets the cgroups that were removed some time ago and that `is_needed` does not ask for.
    pub fn forget(&mut self, now_ns: u64, is_needed: impl Fn(CgroupId) -> bool) {
        let recently = |removed_ns: u64| now_ns.saturating_sub(removed_ns) < KNOWN_FOR_NS;
        self.known.retain(|id, cgroup| cgroup.removed_ns.is_none_or(recently) || is_needed(*id));
    }

    /// Reads `cpu.stat` of every one of `ids` and of those above them, each file once. What cannot be read
    /// is left out: the use of a cgroup that is gone stays what it was.
    pub fn read_use(&mut self, ids: impl Iterator<Item = CgroupId>) -> Vec<(CgroupId, CpuUse)> {
        let mut pass = Pass::new(&self.layout);
        let mut uses = Vec::new();
        for id in ids {
            let Some(cgroup) = self.known.get_mut(&id) else { continue };
            match cgroup.own_files().and_then(|path| pass.cpu_use(path)) {
                Some(now) => uses.push((id, cgroup.cpu.grown_to(now, cgroup.new))),
                None if cgroup.is_removed() && !cgroup.cpu.is_read() && !cgroup.use_missed => {
                    cgroup.use_missed = true;
                    self.uses_missed += 1;
                }
                None => {}
            }
        }
        self.files_unread += pass.unread;
        uses
    }

    /// Reads what changes slowly of every one of `ids`, at `now_ns` (`CLOCK_MONOTONIC`). What cannot be read is left out.
    pub fn read_resources(
        &mut self,
        ids: impl Iterator<Item = CgroupId>,
        now_ns: u64,
    ) -> Vec<(CgroupId, Resources)> {
        let mut pass = Pass::new(&self.layout);
        let mut all = Vec::new();
        for id in ids {
            let Some(cgroup) = self.known.get_mut(&id) else { continue };
            let Some(now) = cgroup.own_files().and_then(|path| pass.resources(path, now_ns)) else {
                continue;
            };
            cgroup.resources_read = true;
            let memory_events = now.memory_events.map(|now| {
                let grown = cgroup.memory_events.grown_to(now, cgroup.new);
                cgroup.oom_kills.read(grown.oom_kill);
                // They are told by whoever counts them.
                MemoryEvents { oom_kill: 0, ..grown }
            });
            let pressure = now.pressure.map(|now| cgroup.pressure.grown_to(now, cgroup.new));
            all.push((id, Resources { memory_events, pressure, ..now }));
        }
        self.files_unread += pass.unread;
        all
    }

    /// Takes the OOM kills that have come to be known since the last time: each with the cgroup for which it counts, if that
    /// is `counted` or was until it was gone. Those of all who have no row are counted together.
    pub fn take_oom_kills(&mut self, counted: impl Fn(CgroupId) -> bool) -> Vec<(Option<CgroupId>, u64)> {
        let nameless = (None, std::mem::take(&mut self.nameless_oom_kills));
        let known = self.known.iter_mut().map(|(id, cgroup)| {
            let of_its_own = cgroup.had_row || counted(*id);
            (of_its_own.then_some(*id), cgroup.oom_kills.take())
        });
        known.chain([nameless]).filter(|(_, kills)| *kills != 0).collect()
    }

    /// What was counted of a cgroup has been in its last snapshot.
    pub fn counted_out(&mut self, id: CgroupId) {
        if let Some(cgroup) = self.known.get_mut(&id) {
            cgroup.had_row = true;
        }
    }

    /// Whether a cgroup's `cpu.stat` has been read.
    pub fn has_use(&self, id: CgroupId) -> bool {
        self.known.get(&id).is_some_and(|cgroup| cgroup.cpu.is_read())
    }

    /// Whether what changes slowly has been read of a cgroup.
    pub fn has_resources(&self, id: CgroupId) -> bool {
        self.known.get(&id).is_some_and(|cgroup| cgroup.resources_read)
    }

    /// Whether anything is known of a cgroup.
    pub fn is_known(&self, id: CgroupId) -> bool {
        self.known.contains_key(&id)
    }

    /// Whether a cgroup is known to have been removed.
    pub fn is_removed(&self, id: CgroupId) -> bool {
        self.known.get(&id).is_some_and(Cgroup::is_removed)
    }

    /// The container or unit that a cgroup lies within, or is; itself where there is none, or it is not known.
    pub fn whole(&self, id: CgroupId) -> CgroupId {
        self.place(id).unwrap_or(id)
    }

    /// The same; `None` where it is not known.
    fn place(&self, id: CgroupId) -> Option<CgroupId> {
        let cgroup = self.known.get(&id)?;
        let path = cgroup.path.as_deref()?;
        let Some(root) = cgroup.class.root().filter(|root| *root != path) else { return Some(id) };
        let whole =
            self.known.iter().find(|(_, whole)| !whole.is_removed() && whole.path.as_deref() == Some(root));
        whole.map(|(id, _)| *id)
    }

    /// Path of a cgroup below the root.
    pub fn path(&self, id: CgroupId) -> Option<&Path> {
        self.known.get(&id)?.path.as_deref()
    }

    /// Where a cgroup is, and whose; `None` while nobody has told.
    pub fn identity(&self, id: CgroupId) -> Option<Identity> {
        let cgroup = self.known.get(&id)?;
        Some(cgroup.class.identity(cgroup.path.as_deref()?))
    }

    /// How a cgroup counts for others who wait for it.
    pub fn kind(&self, id: CgroupId, containers: bool) -> Kind {
        match self.known.get(&id) {
            Some(cgroup) if counts_as_system(&cgroup.class.owner, containers) => Kind::System,
            _ => Kind::Container,
        }
    }

    /// Where the host keeps its cgroups.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What runs containers here.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings::of(self.known.values().filter_map(Cgroup::live_path))
    }

    /// Whether any container is there: then what is outside all of them is the system.
    pub fn has_containers(&self) -> bool {
        self.known.values().any(|cgroup| !cgroup.is_removed() && cgroup.class.is_container())
    }

    /// Adds what could not be had.
    pub fn add_losses(&self, losses: &mut Losses) {
        losses.names_lost += self.events_lost;
        losses.names_cut += self.paths_cut;
        losses.files_unread += self.files_unread;
        losses.uses_missed += self.uses_missed;
    }
}

impl Cgroup {
    fn at(path: Option<PathBuf>, new: bool) -> Self {
        let mut cgroup = Self {
            path: None,
            class: Class::default(),
            new,
            removed_ns: None,
            cpu: SinceSeen::default(),
            memory_events: SinceSeen::default(),
            pressure: SinceSeen::default(),
            resources_read: false,
            oom_kills: OomKills::default(),
            had_row: false,
            use_missed: false,
        };
        if let Some(path) = path {
            cgroup.name(path);
        }
        cgroup
    }

    fn is_removed(&self) -> bool {
        self.removed_ns.is_some()
    }

    /// Where its files are, while it is there.
    fn live_path(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| !self.is_removed())
    }

    /// The same of one whose files tell of it: the root's tell of the whole machine, all containers included.
    fn own_files(&self) -> Option<&Path> {
        self.live_path().filter(|path| !path.as_os_str().is_empty())
    }

    fn name(&mut self, path: PathBuf) {
        self.class = classify(&path);
        self.path = Some(path);
    }
}

#[cfg(test)]
mod tests;
