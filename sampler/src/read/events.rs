//! Cgroups that were made and removed since the last look, and OOM kills in them, as the kernel told it.

use std::path::{Path, PathBuf};

use sampler_common::abi::{CgroupEvent, Happened};
use sampler_common::snapshot::CgroupId;

use crate::kernel::load::Programs;

/// What happened to one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was made. The path is below the root of the hierarchy; `None` when it was too long to be sent.
    Made(CgroupId, Option<PathBuf>),
    /// It was removed.
    Removed(CgroupId),
    /// A process in it was killed for want of memory.
    OomKill(CgroupId),
}

/// The events since the last call, oldest first.
pub fn take(programs: &mut Programs) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(item) = programs.cgroup_events.next() {
        events.extend(parse(&item));
    }
    events
}

/// How many events have been lost so far, for want of room.
pub fn lost(programs: &Programs) -> u64 {
    let lost = &programs.cgroup_events_lost;
    (0..lost.len()).map(|cpu| lost.read(cpu)).sum()
}

/// One event from the ring; `None` if it is none of ours, which cannot be.
fn parse(bytes: &[u8]) -> Option<Event> {
    const PATH: usize = std::mem::offset_of!(CgroupEvent, path);
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let id = CgroupId(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?));
    match word(std::mem::offset_of!(CgroupEvent, what))? {
        what if what == Happened::Made as u32 => {}
        what if what == Happened::Removed as u32 => return Some(Event::Removed(id)),
        what if what == Happened::OomKill as u32 => return Some(Event::OomKill(id)),
        _ => return None,
    }
    let length = word(std::mem::offset_of!(CgroupEvent, path_bytes))? as usize;
    let room = bytes.len().checked_sub(PATH)?;
    // The kernel's copy keeps a byte for the terminating zero: a path that fills the rest was cut off.
    let whole = length > 0 && length + 1 < room;
    let path = bytes.get(PATH..PATH + length).and_then(|path| std::str::from_utf8(path).ok());
    let path = path.filter(|_| whole).map(|path| Path::new(path.trim_start_matches('/')).to_owned());
    Some(Event::Made(id, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(id: u64, what: Happened, path: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<CgroupEvent>()];
        bytes[..8].copy_from_slice(&id.to_ne_bytes());
        bytes[8..12].copy_from_slice(&(what as u32).to_ne_bytes());
        bytes[12..16].copy_from_slice(&(path.len() as u32).to_ne_bytes());
        bytes[16..16 + path.len()].copy_from_slice(path);
        bytes
    }

    #[test]
    fn a_made_cgroup_has_its_path_below_the_root() {
        let parsed = parse(&event(42, Happened::Made, b"/system.slice/a.service"));
        assert_eq!(parsed, Some(Event::Made(CgroupId(42), Some(PathBuf::from("system.slice/a.service")))));
    }

    #[test]
    fn a_path_that_was_cut_off_is_no_path() {
        assert_eq!(parse(&event(42, Happened::Made, &[b'x'; 367])), Some(Event::Made(CgroupId(42), None)));
        assert_eq!(parse(&event(42, Happened::Made, b"")), Some(Event::Made(CgroupId(42), None)));
        assert!(matches!(parse(&event(42, Happened::Made, &[b'x'; 366])), Some(Event::Made(_, Some(_)))));
    }

    #[test]
    fn a_removed_cgroup_and_one_with_a_kill_are_known_by_their_ids() {
        assert_eq!(parse(&event(42, Happened::Removed, b"/gone")), Some(Event::Removed(CgroupId(42))));
        assert_eq!(parse(&event(42, Happened::OomKill, b"")), Some(Event::OomKill(CgroupId(42))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }
    }
}
