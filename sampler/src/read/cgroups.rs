//! What is known of each cgroup besides its rows: its path, whether it is still there, what its files say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sampler_common::abi::Kind;
use sampler_common::identity::Identity;
use sampler_common::resources::{MemoryEvents, Pressure};
use sampler_common::snapshot::{CgroupId, Losses};

use super::events::Event;
use super::files::{CpuUse, Pass, Resources, SinceSeen};
use crate::cgroup::layout::Layout;
use crate::cgroup::path::{Class, classify, counts_as_system};
use crate::cgroup::surroundings::Surroundings;
use crate::cgroup::tree::{self, TreeError};

/// Every cgroup that is or was there while it had rows.
pub struct Cgroups {
    layout: Layout,
    known: HashMap<CgroupId, Cgroup>,
    /// Events that were lost by the last look at the whole tree.
    events_lost: u64,
    paths_cut: u64,
    files_unread: u64,
    uses_missed: u64,
}

struct Cgroup {
    /// Below the root; `None` while nobody has told.
    path: Option<PathBuf>,
    class: Class,
    /// It was made after the reader started: all that its files say was counted since.
    new: bool,
    removed: bool,
    cpu: SinceSeen<CpuUse>,
    memory_events: SinceSeen<MemoryEvents>,
    pressure: SinceSeen<Pressure>,
    resources_read: bool,
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
        };
        for node in tree::walk(cgroups.layout.rows_root())?.nodes {
            cgroups.known.insert(node.id, Cgroup::at(Some(node.path), false));
        }
        Ok(cgroups)
    }

    /// Notes that a cgroup came or went.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Made(id, path) => {
                self.paths_cut += u64::from(path.is_none());
                self.known.insert(id, Cgroup::at(path, true));
            }
            Event::Removed(id) => {
                if let Some(cgroup) = self.known.get_mut(&id) {
                    cgroup.removed = true;
                }
            }
        }
    }

    /// Looks at the whole tree again if events have been lost since the last time, paths were cut off, or one of
    /// `counted` is unknown: `lost` is how many events have been lost so far.
    pub fn catch_up(&mut self, lost: u64, counted: impl Iterator<Item = CgroupId>) {
        let unknown: Vec<_> = counted.filter(|id| !self.known.contains_key(id)).collect();
        let nameless = self.known.values().any(|cgroup| cgroup.path.is_none() && !cgroup.removed);
        if lost == self.events_lost && !nameless && unknown.is_empty() {
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
                    cgroup.removed = false;
                    if cgroup.path.is_none() {
                        cgroup.name(node.path);
                    }
                }
                None => new.push(node),
            }
        }
        if whole {
            gone.into_values().for_each(|cgroup| cgroup.removed = true);
        }
        self.known.extend(new.into_iter().map(|node| (node.id, Cgroup::at(Some(node.path), true))));
        if whole {
            for id in unknown {
                // It came and went between two looks.
                self.known.entry(id).or_insert_with(|| Cgroup { removed: true, ..Cgroup::at(None, true) });
            }
        }
    }

    /// Forgets the removed cgroups that `is_needed` does not ask for.
    pub fn forget(&mut self, is_needed: impl Fn(CgroupId) -> bool) {
        self.known.retain(|id, cgroup| !cgroup.removed || is_needed(*id));
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
                None if cgroup.removed && !cgroup.cpu.is_read() && !cgroup.use_missed => {
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
            let memory_events = now.memory_events.map(|now| cgroup.memory_events.grown_to(now, cgroup.new));
            let pressure = now.pressure.map(|now| cgroup.pressure.grown_to(now, cgroup.new));
            all.push((id, Resources { memory_events, pressure, ..now }));
        }
        self.files_unread += pass.unread;
        all
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
        self.known.get(&id).is_some_and(|cgroup| cgroup.removed)
    }

    /// The container or unit that a cgroup lies within, or is; itself where there is none, or it is not known.
    pub fn whole(&self, id: CgroupId) -> CgroupId {
        let Some(cgroup) = self.known.get(&id) else { return id };
        let root = cgroup.class.root();
        if root.is_none() || root == cgroup.path.as_deref() {
            return id;
        }
        let whole = self.known.iter().find(|(_, whole)| !whole.removed && whole.path.as_deref() == root);
        whole.map_or(id, |(id, _)| *id)
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
        self.known.values().any(|cgroup| !cgroup.removed && cgroup.class.is_container())
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
            removed: false,
            cpu: SinceSeen::default(),
            memory_events: SinceSeen::default(),
            pressure: SinceSeen::default(),
            resources_read: false,
            use_missed: false,
        };
        if let Some(path) = path {
            cgroup.name(path);
        }
        cgroup
    }

    /// Where its files are, while it is there.
    fn live_path(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| !self.removed)
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
