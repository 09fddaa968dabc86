//! Who held a CPU when, for its last [`SEGMENTS`] changes of holder, and the cut of a wait along it.
//!
//! Each switch closes a segment; a segment that goes on with the same holder (threads of one container
//! switching among themselves) is extended instead. At switch-in the wait `(since, now]` is walked
//! back from its end. In the common case it began within the newest segment, and one comparison does.
//!
//! All times are of one CPU's run-queue clock. Clocks of two CPUs are never compared: `rq->clock` is
//! updated only when that CPU's scheduler has something to do, so another CPU's may be behind by a
//! tick, or by as long as it sleeps, and on machines without a synchronised TSC the clocks themselves
//! drift apart. A thread that is migrated while queued is dequeued on the old CPU's clock and enqueued
//! on the new one's by the kernel itself, so `last_queued` is always of the clock of the CPU that it
//! is queued on, and what it waited elsewhere is a duration (`run_delay`), not a stamp.

/// Segments that a CPU remembers; a power of two.
pub const SEGMENTS: usize = 64;

/// Who holds a CPU: the serial number of a cgroup's css, which is never reused, and its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Holder(pub u64);

impl Holder {
    /// Not seen: before the first switch on this CPU.
    pub const NOBODY: Self = Self(0);
    /// The idle task. (No css has the serial number 0.)
    pub const IDLE: Self = Self(1);

    /// A thread of the cgroup whose css has this serial number and this slot.
    #[inline(always)]
    pub const fn cgroup(serial: u64, slot: u32) -> Self {
        Self(serial << 16 | (slot as u64 & 0xffff))
    }

    /// Serial number of the css; 0 for [`Self::NOBODY`] and [`Self::IDLE`].
    #[inline(always)]
    pub const fn serial(self) -> u64 {
        self.0 >> 16
    }

    /// The slot of the cgroup, meaningless for [`Self::NOBODY`] and [`Self::IDLE`].
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 & 0xffff) as u32
    }
}

/// A stretch of time in which one holder had the CPU. It begins where the one before it ends.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// When it ended, on the CPU's run-queue clock.
    pub end_ns: u64,
    /// Who held the CPU.
    pub holder: Holder,
}

/// The last segments of one CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Timeline {
    /// A ring; `newest` is the index of the last closed one.
    pub segments: [Segment; SEGMENTS],
    /// Index of the newest segment, below [`SEGMENTS`].
    pub newest: u64,
    /// Who has the CPU now, since the end of the newest segment.
    pub current: Holder,
}

impl Timeline {
    /// Ends the current holder's stretch at `now`, the moment of a switch to `next`.
    #[inline(always)]
    pub fn switch(&mut self, now: u64, next: Holder) {
        let newest = self.newest as usize & (SEGMENTS - 1);
        let same = self.segments[newest].holder.0 == self.current.0;
        let at = (newest + !same as usize) & (SEGMENTS - 1);
        self.segments[at] = Segment { end_ns: now, holder: self.current };
        self.newest = at as u64;
        self.current = next;
    }

    /// When a segment began: when the one before it ended.
    #[inline(always)]
    fn begin_of(&self, at: usize) -> u64 {
        self.segments[(at + SEGMENTS - 1) & (SEGMENTS - 1)].end_ns
    }

    /// When the newest `segments` segments began.
    #[inline(always)]
    pub fn recent_ns(&self, segments: usize) -> u64 {
        self.begin_of((self.newest as usize + SEGMENTS + 1 - segments) & (SEGMENTS - 1))
    }

    /// Who held the CPU during all of a wait that began at `since` and ended with the last
    /// [`Self::switch`], if one holder did: the common case, in one comparison.
    #[inline(always)]
    pub fn sole_holder(&self, since: u64) -> Option<Holder> {
        let at = self.newest as usize & (SEGMENTS - 1);
        if since >= self.begin_of(at) { Some(self.segments[at].holder) } else { None }
    }

    /// Cuts the stretch `(since, until]` of a wait by who held the CPU, newest first, and hands each piece with
    /// its length in ns to `piece`. What is older than the oldest segment is handed out as held by
    /// [`Holder::NOBODY`]; the lengths add up to `until - since`.
    ///
    /// The walk begins with the segment of index `from` ([`Self::newest`] for a stretch that ends now) and
    /// returns where it ended: an older stretch of the same wait can go on there.
    #[inline(always)]
    pub fn walk(&self, since: u64, until: u64, from: u64, mut piece: impl FnMut(Holder, u64)) -> u64 {
        // `steps` is the only number here that the verifier may know: with a second one it would have to
        // follow every combination of the two. Hence the end is found by index.
        let mut until = until;
        let mut at = from as usize & (SEGMENTS - 1);
        let mut steps = 0;
        while steps < SEGMENTS {
            steps += 1;
            let begin = self.begin_of(at);
            if begin < until {
                let begin = if begin > since { begin } else { since };
                piece(self.segments[at].holder, until - begin);
                until = begin;
            }
            if until <= since {
                return at as u64;
            }
            let older = (at + SEGMENTS - 1) & (SEGMENTS - 1);
            // The beginning of the oldest segment has been overwritten: it is not used.
            if (older + SEGMENTS - 1) & (SEGMENTS - 1) == self.newest as usize & (SEGMENTS - 1) {
                break;
            }
            at = older;
        }
        piece(Holder::NOBODY, until - since);
        at as u64
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: Timeline = Timeline {
        segments: [Segment { end_ns: 0, holder: Holder::NOBODY }; SEGMENTS],
        newest: 0,
        current: Holder::NOBODY,
    };

    /// Plays switches `(ns since the last one, next holder)` and returns the timeline, who held each ns from 0
    /// on, and the moment of the last switch.
    fn play(switches: &[(u64, u64)]) -> (Timeline, Vec<Holder>, u64) {
        let mut timeline = EMPTY;
        let mut truth = Vec::new();
        let mut now = 0;
        for &(after, next) in switches {
            truth.extend(std::iter::repeat_n(timeline.current, after as usize));
            now += after;
            timeline.switch(now, holder(next));
        }
        (timeline, truth, now)
    }

    fn holder(of: u64) -> Holder {
        if of == 0 { Holder::IDLE } else { Holder::cgroup(of, 7) }
    }

    fn pieces(timeline: &Timeline, since: u64, until: u64, from: u64) -> (Vec<(Holder, u64)>, u64) {
        let mut pieces = Vec::new();
        let end = timeline.walk(since, until, from, |holder, ns| pieces.push((holder, ns)));
        (pieces, end)
    }

    /// Who held the CPU in each ns of `(since, until]`, newest first.
    fn spread(pieces: &[(Holder, u64)]) -> Vec<Holder> {
        pieces.iter().flat_map(|&(holder, ns)| std::iter::repeat_n(holder, ns as usize)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn every_remembered_ns_goes_to_who_held_the_cpu(
            switches in prop::collection::vec((1u64..20, 0u64..6), 1..150), since in 0.0f64..1.0
        ) {
            let (timeline, truth, now) = play(&switches);
            let since = (since * now as f64) as u64;
            let got = spread(&pieces(&timeline, since, now, timeline.newest).0);
            let want: Vec<_> = truth[since as usize..].iter().rev().copied().collect();
            prop_assert_eq!(got.len(), want.len(), "the lengths add up");
            let remembered = got.iter().position(|&holder| holder == Holder::NOBODY).unwrap_or(got.len());
            prop_assert_eq!(&got[..remembered], &want[..remembered]);
            prop_assert!(got[remembered..].iter().all(|&holder| holder == Holder::NOBODY));
            let changes = want.windows(2).filter(|pair| pair[0] != pair[1]).count();
            if changes < SEGMENTS - 2 {
                prop_assert_eq!(got, want, "nothing is forgotten below 62 changes of holder");
            }
        }

        #[test]
        fn a_walk_in_two_stretches_is_one_walk(
            switches in prop::collection::vec((1u64..20, 0u64..6), 1..150),
            since in 0.0f64..1.0, middle in 0.0f64..1.0
        ) {
            let (timeline, _, now) = play(&switches);
            let since = (since * now as f64) as u64;
            let middle = since + (middle * (now - since) as f64) as u64;
            let (newer, from) = pieces(&timeline, middle, now, timeline.newest);
            let (older, _) = pieces(&timeline, since, middle, from);
            let whole = pieces(&timeline, since, now, timeline.newest).0;
            prop_assert_eq!(spread(&[newer, older].concat()), spread(&whole));
        }

        #[test]
        fn a_sole_holder_is_what_the_walk_finds(
            switches in prop::collection::vec((1u64..20, 0u64..6), 1..150), back in 0u64..40
        ) {
            let (timeline, _, now) = play(&switches);
            let since = now.saturating_sub(back);
            if let Some(sole) = timeline.sole_holder(since) {
                let whole = pieces(&timeline, since, now, timeline.newest).0;
                prop_assert!(whole.iter().all(|&(holder, ns)| holder == sole || ns == 0));
            }
        }
    }

    #[test]
    fn the_newest_segments_began_where_the_one_before_them_ended() {
        let switches: Vec<_> = (0..100).map(|i| (5, i % 2 + 1)).collect();
        let (timeline, _, now) = play(&switches);
        assert_eq!(timeline.recent_ns(1), now - 5);
        assert_eq!(timeline.recent_ns(8), now - 40);
    }

    #[test]
    fn threads_of_one_holder_take_one_segment() {
        let switches: Vec<_> = (0..1000).map(|i| (5, if i < 10 { i % 2 + 1 } else { 3 })).collect();
        let (timeline, _, now) = play(&switches);
        assert_eq!(timeline.sole_holder(now - 4900), Some(Holder::cgroup(3, 7)));
    }
}
