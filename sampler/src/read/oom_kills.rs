//! Kills for want of memory in one cgroup. Two tell of them: the kernel at once, as a process exits ([`super::events`]),
//! and `memory.events` of those who are still there when it is read. Both tell of the same kills, each perhaps without
//! some, so the larger figure is nearer. The kernel may choose a process that is about to exit anyway: that one
//! `memory.events` leaves out.
//!
//! # Invariant
//!
//! Each kill is taken once, whoever tells of it, and whenever.

/// Kills since the reader first saw the cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub struct OomKills {
    told: u64,
    in_file: u64,
    taken: u64,
}

impl OomKills {
    /// The kernel has told of one.
    pub fn tell(&mut self) {
        self.told += 1;
    }

    /// The file says that there have been so many.
    pub fn read(&mut self, in_file: u64) {
        self.in_file = self.in_file.max(in_file);
    }

    /// Those that have come to be known since this was last asked.
    pub fn take(&mut self) -> u64 {
        let all = self.told.max(self.in_file);
        all - std::mem::replace(&mut self.taken, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_taken_once_whoever_tells_of_it_first() {
        let mut kills = OomKills::default();
        kills.tell();
        assert_eq!(kills.take(), 1);
        kills.read(1);
        assert_eq!(kills.take(), 0, "the same one");
        kills.read(2);
        assert_eq!(kills.take(), 1);
        kills.tell();
        assert_eq!(kills.take(), 0);
        // The event of the third was lost, and the fourth is told.
        kills.read(3);
        assert_eq!(kills.take(), 1);
        kills.tell();
        assert_eq!(kills.take(), 0, "the larger of the two");
        kills.read(4);
        assert_eq!((kills.take(), kills.take()), (1, 0));
    }
}
