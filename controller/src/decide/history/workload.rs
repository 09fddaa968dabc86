//! What is remembered of workloads: beyond the life of their replicas, and of all replicas together.
//!
//! ```text
//! replica gone ─▶ retire ─▶ gone ┐
//! replicas that live ────────────┴▶ together: one history, as if one had counted for all
//! ```
//!
//! # Invariants
//!
//! * What is retired is there until nothing of the workload has been seen for a window's length, and for a day at least
//!   ([`Workloads::forget`]). A gap, a rollout or a controller that was away for an hour wipes nothing.
//! * Of workloads that have no replicas any more those that went last are remembered, [`MOST_GONE`] of them and some 20 MB: Jobs with
//!   a name of their own for each run come and go by the thousand, and none of them comes back.
//! * A replica that is retired twice, as after a restart of the controller that undid the first time, counts twice in
//!   percentiles and not at all in the last hours; it is the caller who retires once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::History;
use super::memory::MemoryHistory;
use crate::decide::duration::Seconds;
use crate::decide::units::Timestamp;

/// For so long at least a workload without replicas is remembered, be the window ever so short.
pub const LEAST: Seconds = Seconds(86_400);
/// So many workloads of which no replica is there are remembered.
pub const MOST_GONE: usize = 10_000;
/// Of which none has been seen for so long, none is there.
const ABSENT: Seconds = Seconds(3600);

/// What is remembered of CPU and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// CPU.
    pub cpu: History,
    /// Memory.
    pub memory: MemoryHistory,
}

impl Remembered {
    /// Adds what is remembered of another replica.
    pub fn merge(&mut self, cpu: &History, memory: &MemoryHistory) {
        self.cpu.merge(cpu);
        self.memory.merge(memory);
    }
}

/// What is remembered of replicas that are gone, by workload and container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(W, Gone)>", into = "Vec<(W, Gone)>", bound(serialize = "W: Clone + Serialize"))]
pub struct Workloads<W: Ord> {
    gone: BTreeMap<W, Gone>,
}

/// Replicas of one workload that are gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gone {
    remembered: Box<Remembered>,
    /// When anything of the workload was last there.
    seen: Timestamp,
}

impl<W: Ord> Default for Workloads<W> {
    fn default() -> Self {
        Self { gone: BTreeMap::new() }
    }
}

// As pairs: a key of JSON is a string.
impl<W: Ord> From<Vec<(W, Gone)>> for Workloads<W> {
    fn from(gone: Vec<(W, Gone)>) -> Self {
        Self { gone: gone.into_iter().collect() }
    }
}

impl<W: Ord> From<Workloads<W>> for Vec<(W, Gone)> {
    fn from(workloads: Workloads<W>) -> Self {
        workloads.gone.into_iter().collect()
    }
}

impl<W: Ord + Clone> Workloads<W> {
    /// A replica is gone; what it did stays with its workload.
    pub fn retire(&mut self, workload: W, cpu: &History, memory: &MemoryHistory, seen: Timestamp) {
        match self.gone.entry(workload) {
            std::collections::btree_map::Entry::Occupied(mut gone) => {
                let gone = gone.get_mut();
                gone.remembered.merge(cpu, memory);
                gone.seen = gone.seen.max(seen);
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                let remembered = Box::new(Remembered { cpu: cpu.clone(), memory: memory.clone() });
                place.insert(Gone { remembered, seen });
            }
        }
    }

    /// A replica of it is there.
    pub fn seen(&mut self, workload: &W, now: Timestamp) {
        if let Some(gone) = self.gone.get_mut(workload) {
            gone.seen = gone.seen.max(now);
        }
    }

    /// Forgets workloads that have not been there for the length of their window, a day at least; and of those that are not there the
    /// ones that went first, where they are more than [`MOST_GONE`].
    pub fn forget(&mut self, now: Timestamp) {
        let window = |gone: &Gone| gone.remembered.cpu.window().max(LEAST);
        self.gone.retain(|_, gone| now.seconds_since(gone.seen) <= window(gone).0);
        let is_absent = |gone: &Gone| now.seconds_since(gone.seen) >= ABSENT.0;
        let absent = self.gone.iter().filter(|(_, gone)| is_absent(gone));
        let mut absent: Vec<_> = absent.map(|(workload, gone)| (gone.seen, workload)).collect();
        let Some(too_many) = absent.len().checked_sub(MOST_GONE).filter(|too_many| *too_many > 0) else {
            return;
        };
        let (_, last, _) = absent.select_nth_unstable(too_many - 1);
        let (seen, workload) = (last.0, last.1.clone());
        self.gone.retain(|other, gone| !is_absent(gone) || (gone.seen, other) > (seen, &workload));
    }

    /// What is remembered of those that are gone.
    pub fn get(&self, workload: &W) -> Option<&Remembered> {
        self.gone.get(workload).map(|gone| &*gone.remembered)
    }

    /// Takes what was stored of a workload.
    pub fn insert(&mut self, workload: W, gone: Gone) {
        self.gone.insert(workload, gone);
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = (&W, &Gone)> {
        self.gone.iter()
    }

    /// What is remembered of those that are gone and these, which live; `None` of a workload that nothing is known of.
    pub fn together<'a>(
        &self,
        workload: &W,
        replicas: impl IntoIterator<Item = (&'a History, &'a MemoryHistory)>,
    ) -> Option<Remembered> {
        let mut together = self.get(workload).cloned();
        for (cpu, memory) in replicas {
            match &mut together {
                Some(together) => together.merge(cpu, memory),
                None => together = Some(Remembered { cpu: cpu.clone(), memory: memory.clone() }),
            }
        }
        together
    }

    /// Of how many workloads there are replicas that are gone.
    pub fn len(&self) -> usize {
        self.gone.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::policy::{HistorySettings, Policy};
    use crate::decide::units::Bytes;

    const DAY: u64 = 86_400;
    const START: u64 = 1_700_006_400;

    /// A replica that used so much for two days.
    fn replica(cores: f64) -> (History, MemoryHistory) {
        let window = settings().window;
        replica_with(cores, window)
    }

    fn replica_with(cores: f64, window: Seconds) -> (History, MemoryHistory) {
        let mut replica =
            (History::new(Timestamp(START), window), MemoryHistory::new(Timestamp(START), window));
        for minute in 0..2 * 1440 {
            let at = Timestamp(START + 60 * minute);
            replica.0.observe(at, cores);
            replica.1.observe(at, Bytes((cores * 1e9) as u64));
        }
        replica
    }

    fn settings() -> HistorySettings {
        Policy::default().history
    }

    #[test]
    fn what_replicas_did_outlives_them_and_is_forgotten_after_the_window() {
        let (cpu, memory) = replica_with(2.0, Seconds(3 * DAY));
        let end = Timestamp(START + 2 * DAY);
        let mut workloads = Workloads::default();
        workloads.retire("shop/cart", &cpu, &memory, end);
        // A new replica is not cold: it has used half a core for a minute.
        let mut young = (History::new(end, settings().window), MemoryHistory::new(end, settings().window));
        young.0.observe(end, 0.5);
        young.1.observe(end, Bytes(1));
        let together = workloads.together(&"shop/cart", [(&young.0, &young.1)]).unwrap();
        assert_eq!(together.cpu.percentile_at(end, 0.5, &settings()), Some(2.0));
        assert!(together.cpu.age_seconds() >= 2 * DAY);
        assert_eq!(together.memory.recent_peak(end), Some(Bytes(2_000_000_000)));

        workloads.forget(end.plus_seconds(3 * DAY));
        assert_eq!(workloads.len(), 1);
        // Seen again, it is kept from then on.
        workloads.seen(&"shop/cart", end.plus_seconds(DAY));
        workloads.forget(end.plus_seconds(4 * DAY));
        assert_eq!(workloads.len(), 1);
        workloads.forget(end.plus_seconds(4 * DAY + 1));
        assert!(workloads.is_empty());
        assert_eq!(workloads.together(&"shop/cart", []), None);
    }

    #[test]
    fn a_short_window_forgets_no_sooner_than_after_a_day() {
        let (cpu, memory) = replica_with(1.0, Seconds(600));
        let end = Timestamp(START + 2 * DAY);
        let mut workloads = Workloads::default();
        workloads.retire("a", &cpu, &memory, end);
        workloads.forget(end.plus_seconds(DAY));
        assert!(!workloads.is_empty());
        workloads.forget(end.plus_seconds(DAY + 1));
        assert!(workloads.is_empty());
    }

    #[test]
    fn of_too_many_that_went_those_that_went_first_are_forgotten() {
        let (cpu, memory) = replica_with(1.0, Seconds(8 * DAY));
        let end = Timestamp(START + 2 * DAY);
        let mut workloads = Workloads::default();
        // One of which a replica is there went before all others.
        workloads.retire("deployment".to_owned(), &cpu, &memory, Timestamp(end.0 - DAY));
        for job in 0..MOST_GONE as u64 + 100 {
            workloads.retire(format!("job-{job:06}"), &cpu, &memory, Timestamp(end.0 - DAY + job / 2));
        }
        workloads.seen(&"deployment".to_owned(), end);
        workloads.forget(end);
        assert_eq!(workloads.len(), MOST_GONE + 1);
        assert!(workloads.get(&"deployment".to_owned()).is_some());
        assert!(workloads.get(&"job-000099".to_owned()).is_none());
        assert!(workloads.get(&"job-000100".to_owned()).is_some());
    }

    #[test]
    fn it_does_not_matter_who_goes_first() {
        let (small, large) = (replica(1.0), replica(3.0));
        let end = Timestamp(START + 2 * DAY);
        let retired = |order: [&(History, MemoryHistory); 2]| {
            let mut workloads = Workloads::default();
            order.into_iter().for_each(|(cpu, memory)| workloads.retire("a", cpu, memory, end));
            workloads
        };
        assert_eq!(retired([&small, &large]), retired([&large, &small]));
        let together = retired([&small, &large]).together(&"a", []).unwrap();
        let alive = Workloads::default().together(&"a", [&small, &large].map(|(cpu, memory)| (cpu, memory)));
        assert_eq!(Some(together), alive);
    }
}
