//! The reader: everything that the programs have counted, joined to cgroups, as one [`Snapshot`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::ptr::read_volatile;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use sampler_common::abi::{OTHER, Slot};
use sampler_common::resources::MemoryEvents;
use sampler_common::snapshot::{CgroupCounters, CgroupId, Counters, Durations, Losses, Presence, Snapshot};
use sampler_common::throttle::DURATIONS;
use thiserror::Error;

use super::cgroups::Cgroups;
use super::events;
use super::files::Resources;
use super::rows::SlotRows;
use super::slots::{self, Life, Step};
use super::throttles::Throttles;
use crate::cgroup::layout::{Choice, Layout, LayoutError};
use crate::cgroup::surroundings::Surroundings;
use crate::cgroup::tree::{self, TreeError};
use crate::kernel::layout::Key;
use crate::kernel::load::{LoadError, Options, Programs, ThrottleHooks};
use crate::kernel::self_check::{self, SelfCheckError};

/// How often limits, memory and stalls are read: as often as windows are reported.
pub const RESOURCES_EVERY: Duration = Duration::from_secs(15);

/// Cgroups that are remembered for each slot before the next snapshot, most of them gone: some 4 KiB each.
const REMEMBERED_PER_SLOT: usize = 4;

/// Why the reader could not start. Nothing is measured then.
#[derive(Debug, Error)]
pub enum StartError {
    /// There are no cgroups that could be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// They cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The programs misread this kernel.
    #[error(transparent)]
    SelfCheck(#[from] SelfCheckError),
}

/// What is chosen at start. The default finds everything out.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Where the host keeps its cgroups, and which version is used.
    pub cgroups: Choice,
    /// The controller that rows are keyed by; `None`: the one that is enabled down to the leaves.
    pub key: Option<Key>,
    /// See [`Options::slots`].
    pub slots: Option<u32>,
}

/// Reads the rows and keeps what they add up to.
pub struct Reader {
    programs: Programs,
    key: Key,
    cgroups: Cgroups,
    slots: Vec<SlotState>,
    /// The slot of each container and of every other cgroup that lies in none.
    slot_of: HashMap<CgroupId, usize>,
    /// The slots that had a CPU at the last snapshot.
    running: HashSet<usize>,
    /// For whom something has been counted since the last snapshot.
    ran: HashSet<CgroupId>,
    throttles: Throttles,
    /// Whose css had which serial number: the names of neighbours.
    holders: HashMap<u64, CgroupId>,
    counted: BTreeMap<CgroupId, CgroupCounters>,
    other: Counters,
    slots_exhausted: u64,
    epoch: u64,
    since_ns: u64,
    /// When resources were last read of all.
    resources_read_ns: u64,
    /// When throttles were read last.
    throttles_read_ns: u64,
    /// When it was looked last: what has not been seen then has counted nothing before.
    looked_ns: u64,
    /// A slot has been given back since the last snapshot.
    freed: bool,
}

/// A slot's life, and its rows as they were last read. The rows are nobody's: they go on growing under the
/// next owner.
struct SlotState {
    life: Life,
    /// For whom its owner counts; `None` while it has none.
    counts_for: Option<CgroupId>,
    rows: SlotRows,
}

impl Reader {
    /// Loads, attaches, looks at the cgroups that exist, begins to count, and checks the count.
    pub fn start(start: Start) -> Result<Self, StartError> {
        let layout = Layout::find(&start.cgroups)?;
        let key = match start.key {
            Some(key) => key,
            None => layout.key(&tree::walk(layout.rows_root())?),
        };
        let options = Options { key, hierarchy_id: layout.hierarchy_id, slots: start.slots };
        let mut programs = Programs::load(options)?;
        // The hooks that tell of new cgroups are attached: what is made from now on is told, and what was made
        // before is found here.
        let cgroups = Cgroups::find(layout)?;
        // What the self-check's threads wait for is counted, too.
        let since_ns = monotonic_ns();
        programs.start()?;
        self_check::run(&programs, &programs.baselines()?)?;
        let cpus = programs.cpus.len();
        let slot = || SlotState { life: Life::Free, counts_for: None, rows: SlotRows::new(cpus) };
        let mut reader = Self {
            slots: std::iter::repeat_with(slot).take(programs.slots.len()).collect(),
            slot_of: HashMap::new(),
            running: HashSet::new(),
            ran: HashSet::new(),
            throttles: Throttles::new(programs.throttles.len()),
            programs,
            key,
            cgroups,
            holders: HashMap::new(),
            counted: BTreeMap::new(),
            other: Counters::default(),
            slots_exhausted: 0,
            epoch: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
            since_ns,
            resources_read_ns: 0,
            throttles_read_ns: since_ns,
            looked_ns: since_ns,
            freed: false,
        };
        // Says of the cgroups that run already how they count for others.
        reader.snapshot();
        Ok(reader)
    }

    /// Everything that has been counted so far.
    pub fn snapshot(&mut self) -> Snapshot {
        let now_ns = monotonic_ns();
        self.meet(now_ns);
        let grown = self.read_rows(|_, _| true);
        self.read_throttles(now_ns);
        self.read_use();
        self.read_resources(now_ns);
        self.count_oom_kills();
        let snapshot = self.assemble(now_ns);
        self.live_on(&grown);
        self.forget();
        let (counted, owners) = (&self.counted, owned(&self.slots));
        self.cgroups.forget(now_ns, |id| owners.contains(&id) || counted.contains_key(&id));
        self.set_kinds();
        self.looked_ns = now_ns;
        snapshot
    }

    /// Looks after slots between two snapshots: meets who is new, and takes the slots of those who are gone on in their
    /// lives. Asked for every [`slots::QUIET`], it gives a slot back within three of them after the last count, however
    /// rarely there is a snapshot ([`super::Tended`]).
    ///
    /// What it reads is in the next snapshot, and so is everybody who is gone: it drops nobody's counts.
    pub fn tend(&mut self) {
        let now_ns = monotonic_ns();
        self.meet(now_ns);
        let grown = self.read_rows(Self::is_over);
        // Who is gone is remembered until the next snapshot. With a long interval and many who come and go, their slots
        // are kept so long: that is counted, and memory without a bound is not.
        if self.counted.len() <= REMEMBERED_PER_SLOT * self.slots.len() {
            self.live_on(&grown);
        }
        self.set_kinds();
        self.looked_ns = now_ns;
    }

    /// Takes in who came and who went since the last look.
    fn meet(&mut self, now_ns: u64) {
        // Owners first: whoever has a slot by now has been made before, so that its event is among those taken next.
        self.meet_owners(now_ns);
        for event in events::take(&mut self.programs) {
            self.cgroups.apply(event, now_ns);
        }
        let owners = owned(&self.slots);
        self.cgroups.catch_up(events::lost(&self.programs), owners.iter().copied(), now_ns);
        self.place_owners();
    }

    /// Looks who has been given a slot since the last time.
    fn meet_owners(&mut self, now_ns: u64) {
        for (slot, state) in self.slots.iter_mut().enumerate().skip(1) {
            if state.life != Life::Free {
                continue;
            }
            let Some(owner) = slots::owner(&self.programs.slots, slot) else { continue };
            state.life = Life::Counting { owner, quiet_since_ns: now_ns };
        }
    }

    /// Finds out for whom new owners count, and lets those within a container count in its slot from now on.
    fn place_owners(&mut self) {
        let looked_ns = self.looked_ns;
        for slot in 1..self.slots.len() {
            let state = &mut self.slots[slot];
            let (Some(owner), None) = (state.life.owner(), state.counts_for) else { continue };
            let id = self.cgroups.whole(owner.cgroup);
            state.counts_for = Some(id);
            self.holders.insert(owner.serial, id);
            self.counted.entry(id).or_insert_with(|| unseen_until(looked_ns));
            let first = *self.slot_of.entry(id).or_insert(slot);
            if first != slot
                && let Some(whole) = self.slots[first].life.owner()
            {
                slots::direct(&self.programs.csses, owner, whole.holder(first));
            }
        }
    }

    /// Whether a slot counts for nobody any more but for who is on the way out.
    fn is_over(&self, slot: usize) -> bool {
        let gone = |id| self.slot_of.get(&id) != Some(&slot) || self.cgroups.is_removed(id);
        self.slots[slot].counts_for.is_some_and(gone)
    }

    /// Adds what the rows of the slots that are meant have grown by, and returns which slots' have.
    fn read_rows(&mut self, is_meant: impl Fn(&Self, usize) -> bool) -> Vec<bool> {
        let slots = self.slots.len();
        let meant: Vec<_> = (0..slots).map(|slot| is_meant(self, slot)).collect();
        let (rows, holders, counted, other) =
            (&self.programs.rows, &self.holders, &mut self.counted, &mut self.other);
        let cycles = &self.programs.cycles;
        let mut grown = Vec::with_capacity(slots);
        for (slot, state) in self.slots.iter_mut().enumerate() {
            let counters = match state.counts_for {
                _ if !meant[slot] => None,
                Some(id) => counted.get_mut(&id).map(|cgroup| &mut cgroup.counters),
                None if slot == OTHER as usize => Some(&mut *other),
                None => None,
            };
            let Some(counters) = counters else {
                grown.push(false);
                continue;
            };
            let mut neighbors = Vec::new();
            let named = |holder, ns| neighbors.push((holder, ns));
            let has_grown = state.rows.read(rows, cycles, slots, slot, counters, named);
            for (holder, ns) in neighbors {
                // One that nobody knows any more stays unnamed; so does a cgroup within the container itself, which
                // counted as another until it was seen.
                if let Some(neighbor) =
                    holders.get(&holder.serial()).filter(|id| Some(**id) != state.counts_for)
                {
                    counters.add_neighbor(*neighbor, ns);
                }
            }
            if has_grown {
                self.ran.extend(state.counts_for);
            }
            grown.push(has_grown);
        }
        grown
    }

    fn read_throttles(&mut self, now_ns: u64) {
        let read_ns = std::mem::replace(&mut self.throttles_read_ns, now_ns);
        let (counted, cgroups) = (&mut self.counted, &self.cgroups);
        self.throttles.read(&self.programs.throttles, |id, growth| {
            // A limit that somebody has set within a container is not the container's: `cpu.stat` of the container
            // does not tell of it either.
            if cgroups.whole(id) != id {
                return;
            }
            // Nor is anything begun anew for a group that is gone with all that was counted of it.
            if !cgroups.is_known(id) && !counted.contains_key(&id) {
                return;
            }
            let cgroup = counted.entry(id).or_insert_with(|| unseen_until(read_ns));
            let mut more = [0; DURATIONS];
            for (more, growth) in more.iter_mut().zip(growth) {
                *more = u64::from(*growth);
            }
            cgroup.counters.throttling.durations.merge(&Durations::Counted(more));
        });
    }

    /// Reads the files of those that ran: the others' have not changed.
    fn read_use(&mut self) {
        let running = self.running();
        let mut ran = std::mem::take(&mut self.ran);
        let had_a_cpu = running.iter().chain(&self.running);
        ran.extend(had_a_cpu.filter_map(|slot| self.slots.get(*slot)?.counts_for));
        self.running = running;
        // A pod runs with its containers and has no slot; nor has anybody whose files have not been read yet.
        let has_slot = |id: &CgroupId| self.slot_of.contains_key(id) && self.cgroups.has_use(*id);
        let ids: Vec<_> =
            self.counted.keys().filter(|id| ran.contains(id) || !has_slot(id)).copied().collect();
        for (id, used) in self.cgroups.read_use(ids.into_iter()) {
            let Some(cgroup) = self.counted.get_mut(&id) else { continue };
            let counters = &mut cgroup.counters;
            counters.usage_ns = used.own.usage_ns;
            counters.throttling.periods = used.own.periods;
            counters.throttling.throttled_periods = used.own.throttled_periods;
            counters.throttling.throttled_ns = used.own.throttled_ns;
            counters.throttling.ancestors_throttled_periods = used.ancestors_throttled_periods;
        }
    }

    /// Reads limits, memory and stalls: of all every [`RESOURCES_EVERY`], and of a cgroup that is new at once.
    fn read_resources(&mut self, now_ns: u64) {
        let due = now_ns.saturating_sub(self.resources_read_ns) >= RESOURCES_EVERY.as_nanos() as u64;
        if due {
            self.resources_read_ns = now_ns;
        }
        let ids: Vec<_> =
            self.counted.keys().filter(|id| due || !self.cgroups.has_resources(**id)).copied().collect();
        for (id, resources) in self.cgroups.read_resources(ids.into_iter(), now_ns) {
            let Some(cgroup) = self.counted.get_mut(&id) else { continue };
            let Resources { limits, memory, memory_events, pressure } = resources;
            cgroup.limits = limits;
            // What could not be had this time is what it was: counters do not go back.
            cgroup.memory = memory.or(cgroup.memory);
            let counters = &mut cgroup.counters;
            if let Some(events) = memory_events {
                let oom_kill = counters.memory_events.map_or(0, |events| events.oom_kill);
                counters.memory_events = Some(MemoryEvents { oom_kill, ..events });
            }
            counters.pressure = pressure.or(counters.pressure);
        }
    }

    /// Adds kills for want of memory: to who has a row, or had one until it was gone, and those of all others together.
    fn count_oom_kills(&mut self) {
        let (counted, looked_ns) = (&self.counted, self.looked_ns);
        for (id, kills) in self.cgroups.take_oom_kills(|id| counted.contains_key(&id)) {
            let counters = match id {
                Some(id) => &mut self.counted.entry(id).or_insert_with(|| unseen_until(looked_ns)).counters,
                None => &mut self.other,
            };
            counters.memory_events.get_or_insert_default().oom_kill += kills;
        }
    }

    /// The slots whose threads have a CPU at the moment. They may have had it since before the last look: then their
    /// rows have not grown, but their use has.
    fn running(&self) -> HashSet<usize> {
        let cpus = &self.programs.cpus;
        // SAFETY: a word of a map value.
        let holder = |cpu| unsafe { read_volatile(&raw const (*cpus.at(cpu)).timeline.current) };
        let holders = (0..cpus.len()).map(holder);
        // Neither the idle task nor who ran before the programs came has a serial number.
        holders.filter(|holder| holder.serial() != 0).map(|holder| holder.slot() as usize).collect()
    }

    fn assemble(&mut self, now_ns: u64) -> Snapshot {
        let throttle_hooks = matches!(self.programs.throttle_hooks, ThrottleHooks::Attached);
        let mut losses = Losses::default();
        let mut switches = 0;
        for cpu in 0..self.programs.cpus.len() {
            let cpu = self.programs.cpus.read(cpu);
            losses.add_cpu(&cpu);
            switches += cpu.switches;
        }
        self.cgroups.add_losses(&mut losses);
        for (id, cgroup) in &mut self.counted {
            cgroup.presence = if self.cgroups.is_removed(*id) { Presence::Removed } else { Presence::Live };
            if cgroup.identity.path.is_empty()
                && let Some(identity) = self.cgroups.identity(*id)
            {
                cgroup.identity = identity;
            }
            if !throttle_hooks {
                cgroup.counters.throttling.durations = Durations::HooksUnavailable;
            }
        }
        Snapshot {
            epoch: self.epoch,
            since_ns: self.since_ns,
            at_ns: now_ns,
            throttle_hooks,
            cgroups: self.counted.clone(),
            other: self.other.clone(),
            losses,
            switches,
        }
    }

    /// Takes each slot on in its life, by what has `grown` at the look that is over by now: what is quiet is so from now on.
    fn live_on(&mut self, grown: &[bool]) {
        let now_ns = monotonic_ns();
        let over: Vec<_> = (0..self.slots.len()).map(|slot| self.is_over(slot)).collect();
        let mut freed = false;
        let mut closing = Vec::new();
        for (slot, (state, &grown)) in self.slots.iter_mut().zip(grown).enumerate().skip(1) {
            let Some(id) = state.counts_for else { continue };
            let is_of_container = self.slot_of.get(&id) == Some(&slot);
            let (life, step) = state.life.next(now_ns, grown, over[slot]);
            match step {
                Step::None => {}
                Step::Close => {
                    if is_of_container {
                        self.slot_of.remove(&id);
                    }
                    closing.push(slot as Slot);
                }
                Step::Free => {
                    if let Err(error) = slots::give_back(&mut self.programs, slot) {
                        // The queue has room for every slot. Should it not: tried again the next time.
                        tracing::warn!(slot, %error, "a slot cannot be given back");
                        continue;
                    }
                    state.counts_for = None;
                    freed = true;
                }
            }
            state.life = life;
        }
        if !closing.is_empty() {
            slots::close(&self.programs.csses, &closing);
        }
        let exhausted = (0..self.programs.cpus.len()).map(|cpu| self.programs.cpus.read(cpu).slots_exhausted);
        let exhausted = exhausted.sum();
        if freed && exhausted != self.slots_exhausted {
            self.slots_exhausted = exhausted;
            slots::retry_exhausted(&self.programs.csses);
        }
        self.freed |= freed;
    }

    /// Drops the cgroups that are gone with all their slots, now that their last counts have been in a snapshot.
    fn forget(&mut self) {
        let cgroups: BTreeSet<_> = self.slots.iter().filter_map(|slot| slot.counts_for).collect();
        let known = &mut self.cgroups;
        self.counted.retain(|id, cgroup| {
            let stays = cgroup.presence == Presence::Live || cgroups.contains(id);
            if !stays {
                known.counted_out(*id);
            }
            stays
        });
        if !std::mem::take(&mut self.freed) {
            return;
        }
        let owners = self.slots.iter().filter_map(|slot| slot.life.owner());
        let serials: BTreeSet<_> = owners.map(|owner| owner.serial).collect();
        self.holders.retain(|serial, _| serials.contains(serial));
        // Nor is a neighbour remembered that is gone.
        let live: BTreeSet<_> = self.counted.keys().copied().collect();
        for cgroup in self.counted.values_mut() {
            cgroup.counters.neighbors.retain(|neighbor, _| live.contains(neighbor));
        }
    }

    /// Tells the programs how each cgroup counts for the others who wait for it.
    fn set_kinds(&mut self) {
        let containers = self.cgroups.has_containers();
        for (slot, state) in self.slots.iter().enumerate() {
            if let Some(id) = state.counts_for {
                slots::set_kind(&self.programs.slots, slot, self.cgroups.kind(id, containers));
            }
        }
    }

    /// Path of a cgroup below the root of the hierarchy, as long as it has rows.
    pub fn path(&self, id: CgroupId) -> Option<&Path> {
        self.cgroups.path(id)
    }

    /// Where the host keeps its cgroups.
    pub fn layout(&self) -> &Layout {
        self.cgroups.layout()
    }

    /// What runs containers here.
    pub fn surroundings(&self) -> Surroundings {
        self.cgroups.surroundings()
    }

    /// The programs and their maps.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The controller that rows are keyed by.
    pub fn key(&self) -> Key {
        self.key
    }
}

/// The cgroups that have a slot of their own, in a container or not.
fn owned(slots: &[SlotState]) -> HashSet<CgroupId> {
    slots.iter().filter_map(|slot| slot.life.owner()).map(|owner| owner.cgroup).collect()
}

fn unseen_until(looked_ns: u64) -> CgroupCounters {
    CgroupCounters { since_ns: looked_ns, ..CgroupCounters::default() }
}

fn monotonic_ns() -> u64 {
    // The clock is always there; were it not, snapshots would be of one moment, which is an error of their own.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}
