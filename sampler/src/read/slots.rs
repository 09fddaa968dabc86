//! The life of a slot, from the kernel's side to user space's and back.
//!
//! ```text
//!          first switch-in               gone and quiet              quiet still
//!   free ───────────────────▶ counting ────────────────▶ leaving ───────────────▶ free
//!          (kernel)                      css entry cleared            back in the queue
//! ```
//!
//! A container has one slot. A cgroup within it that the kernel meets counts in a slot of its own until user space has
//! seen it; then its css is directed to the container's, its threads and the container's others are one to each
//! other, and its own slot takes the same way back.
//!
//! A removed cgroup's slot still counts the last switch-ins of its exiting threads, so it is left alone until
//! nothing more has come for a while. Only then is the way to it closed, and only when nothing has come
//! after that either is it given to somebody else. A thread that comes later still is met for the first
//! time again, and counted in a slot of its own under the same cgroup.

use std::ptr::{read_volatile, write_volatile};
use std::time::Duration;

use sampler_common::abi::{CssEntry, Kind, OTHER, Slot, SlotRecord};
use sampler_common::snapshot::CgroupId;
use sampler_common::timeline::Holder;

use crate::kernel::load::Programs;
use crate::kernel::mapped::Mapped;

/// How long nothing must have come before the next step of a slot's way back.
pub const QUIET: Duration = Duration::from_secs(1);

/// Whose a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Serial number of its css, never reused.
    pub serial: u64,
    /// The cgroup.
    pub cgroup: CgroupId,
    /// Index of its css entry.
    css_id: u32,
}

impl Owner {
    /// As whom its threads count in its slot.
    pub fn holder(self, slot: usize) -> Holder {
        Holder::cgroup(self.serial, slot as Slot)
    }
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Nobody's, as far as is known.
    #[default]
    Free,
    /// Somebody's.
    Counting {
        /// Whose.
        owner: Owner,
        /// Since when nothing has come (`CLOCK_MONOTONIC`).
        quiet_since_ns: u64,
    },
    /// Somebody's who is gone; the way to it has been closed.
    Leaving {
        /// Whose it was.
        owner: Owner,
        /// Since when nothing has come (`CLOCK_MONOTONIC`).
        quiet_since_ns: u64,
    },
}

impl Life {
    /// Whose it is.
    pub fn owner(self) -> Option<Owner> {
        match self {
            Self::Free => None,
            Self::Counting { owner, .. } | Self::Leaving { owner, .. } => Some(owner),
        }
    }

    /// The next state, at `now_ns`: `grown` says whether anything was counted since the last look, `gone`
    /// whether it needs the slot no more.
    pub fn next(self, now_ns: u64, grown: bool, gone: bool) -> (Self, Step) {
        let quiet = |since_ns: u64| now_ns.saturating_sub(since_ns) >= QUIET.as_nanos() as u64;
        match self {
            Self::Free => (self, Step::None),
            Self::Counting { owner, .. } if grown || !gone => {
                (Self::Counting { owner, quiet_since_ns: now_ns }, Step::None)
            }
            Self::Counting { owner, quiet_since_ns } if quiet(quiet_since_ns) => {
                (Self::Leaving { owner, quiet_since_ns: now_ns }, Step::Close)
            }
            Self::Leaving { owner, .. } if grown => {
                (Self::Leaving { owner, quiet_since_ns: now_ns }, Step::None)
            }
            Self::Leaving { quiet_since_ns, .. } if quiet(quiet_since_ns) => (Self::Free, Step::Free),
            Self::Counting { .. } | Self::Leaving { .. } => (self, Step::None),
        }
    }
}

/// What a change of [`Life`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    None,
    /// Closing the ways to the slot.
    Close,
    /// Giving the slot back to the kernel.
    Free,
}

/// The owner that the kernel has written into a slot's record; `None` while it has none.
pub fn owner(records: &Mapped<SlotRecord>, slot: usize) -> Option<Owner> {
    let record = records.at(slot);
    // SAFETY: a word of a map value. The kernel writes it after the others.
    let serial = unsafe { read_volatile(&raw const (*record).serial) };
    if serial == 0 {
        return None;
    }
    let record = records.read(slot);
    Some(Owner { serial, cgroup: CgroupId(record.cgroup_id), css_id: record.css_id })
}

/// Says how a slot's cgroup counts for others who wait for it.
pub fn set_kind(records: &Mapped<SlotRecord>, slot: usize, kind: Kind) {
    // SAFETY: a word of a map value that only user space writes.
    unsafe { write_volatile(&raw mut (*records.at(slot)).kind, kind as u32) };
}

/// Lets an owner's threads count as another holder from now on.
pub fn direct(csses: &Mapped<CssEntry>, owner: Owner, holder: Holder) {
    let Some(entry) = css_entry(csses, owner.css_id) else { return };
    // SAFETY: words of a map value. Were the id given to another css meanwhile, that css would count as this holder: hence
    // the second look, after which it is met for the first time again. The kernel clears the serial number before it
    // writes a holder, so if the second look finds the old one, the kernel's holder is written after ours.
    unsafe {
        if read_volatile(&raw const (*entry).serial) == owner.serial {
            write_volatile(&raw mut (*entry).holder, holder);
            if read_volatile(&raw const (*entry).serial) != owner.serial {
                write_volatile(&raw mut (*entry).serial, 0);
            }
        }
    }
}

/// Closes every way to these slots: a css that counted there is met for the first time again, should it come.
pub fn close(csses: &Mapped<CssEntry>, slots: &[Slot]) {
    forget_csses(csses, |holder| slots.contains(&holder.slot()));
}

/// Gives a slot back to the kernel.
pub fn give_back(programs: &mut Programs, slot: usize) -> Result<(), aya::maps::MapError> {
    set_kind(&programs.slots, slot, Kind::Container);
    // SAFETY: a word of a map value. The slot is in no css entry and not in the queue: nobody else has it.
    unsafe { write_volatile(&raw mut (*programs.slots.at(slot)).serial, 0) };
    programs.free_slots.push(slot as Slot, 0)
}

/// Lets every css that got no slot try again.
pub fn retry_exhausted(csses: &Mapped<CssEntry>) {
    forget_csses(csses, |holder| holder.slot() == OTHER);
}

/// Lets every css that counts as such a holder be met for the first time again.
fn forget_csses(csses: &Mapped<CssEntry>, is_meant: impl Fn(Holder) -> bool) {
    for id in 0..csses.len() {
        let entry = csses.at(id);
        // SAFETY: words of a map value. The id may have been given to another css meanwhile, which has its own
        // serial number; were it written between the two lines, that css would be met for the first time twice,
        // which gives it two slots that are added up.
        unsafe {
            if read_volatile(&raw const (*entry).serial) != 0
                && is_meant(read_volatile(&raw const (*entry).holder))
            {
                write_volatile(&raw mut (*entry).serial, 0);
            }
        }
    }
}

fn css_entry(csses: &Mapped<CssEntry>, id: u32) -> Option<*mut CssEntry> {
    let id = usize::try_from(id).ok()?;
    (id < csses.len()).then(|| csses.at(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const OWNER: Owner = Owner { serial: 7, cgroup: CgroupId(42), css_id: 3 };

    #[test]
    fn a_live_cgroup_keeps_its_slot_however_quiet() {
        let mut life = Life::Counting { owner: OWNER, quiet_since_ns: 0 };
        for second in 1..100 {
            let (next, step) = life.next(second * SECOND, false, false);
            assert_eq!(step, Step::None);
            life = next;
        }
        assert_eq!(life.owner(), Some(OWNER));
    }

    #[test]
    fn a_removed_cgroups_slot_is_closed_when_quiet_and_free_when_quiet_again() {
        let life = Life::Counting { owner: OWNER, quiet_since_ns: SECOND };
        let (life, step) = life.next(SECOND + SECOND / 2, false, true);
        assert_eq!(step, Step::None, "half a second is not quiet enough");
        let (life, step) = life.next(2 * SECOND, false, true);
        assert_eq!(step, Step::Close);
        let (life, step) = life.next(2 * SECOND + 1, false, true);
        assert_eq!(step, Step::None);
        assert_eq!(life.next(3 * SECOND, false, true), (Life::Free, Step::Free));
    }

    #[test]
    fn a_late_switch_in_begins_the_quiet_time_anew() {
        let life = Life::Counting { owner: OWNER, quiet_since_ns: 0 };
        let (life, _) = life.next(SECOND / 2, true, true);
        let (life, step) = life.next(SECOND, false, true);
        assert_eq!(step, Step::None);
        let (life, _) = life.next(2 * SECOND, false, true);
        let (life, _) = life.next(3 * SECOND, true, true);
        assert_eq!(life.next(3 * SECOND + 1, false, true).1, Step::None);
        assert_eq!(life.next(4 * SECOND, false, true).1, Step::Free);
    }
}
