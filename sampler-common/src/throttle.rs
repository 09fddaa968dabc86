//! When a task group was throttled on one CPU: its last few spans, and how long throttles lasted.
//!
//! Spans are what the scheduler's `tg_throttle_down` and `tg_unthrottle_up` say of this group on this
//! run queue, whoever's limit it was; durations are of the group's own limit, from
//! `unthrottle_cfs_rq`, and add up to its `cpu.stat` `throttled_usec`.

/// Spans that are remembered; a power of two.
pub const SPANS: usize = 8;
/// Buckets of throttle durations: an octave each, upper edges from 2⁻¹⁴ s to 2⁻² s, and the rest.
pub const DURATIONS: usize = 14;
/// Binary logarithm, in seconds, of the upper edge of the lowest duration bucket.
pub const LOWEST_DURATION_LOG2_SECONDS: i32 = -14;

/// One throttle of one group on one CPU, on that CPU's run-queue clock. Two words of 32 bits and not one
/// of 64, so that eight spans fit.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Span {
    to_low: u32,
    to_high: u32,
    /// Length in ns; one longer than 4.29 s (no quota period is longer than 1 s) is cut to that.
    length_ns: u32,
}

impl Span {
    /// The throttle of `(from, to]`.
    #[inline(always)]
    pub fn new(from_ns: u64, to_ns: u64) -> Self {
        let length = to_ns - from_ns;
        Self {
            to_low: to_ns as u32,
            to_high: (to_ns >> 32) as u32,
            length_ns: if length > u64::from(u32::MAX) { u32::MAX } else { length as u32 },
        }
    }

    /// When it ended.
    #[inline(always)]
    pub fn to_ns(self) -> u64 {
        u64::from(self.to_high) << 32 | u64::from(self.to_low)
    }

    /// When it began.
    #[inline(always)]
    pub fn from_ns(self) -> u64 {
        self.to_ns() - u64::from(self.length_ns)
    }
}

/// A stretch of a wait, as [`Throttle::cut`] hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// The group was throttled for so long.
    Throttled {
        /// Length in ns.
        ns: u64,
    },
    /// The group was not throttled during `(since, until]`.
    Other {
        /// Its beginning.
        since: u64,
        /// Its end.
        until: u64,
    },
    /// Whether it was is not remembered.
    Forgotten {
        /// Length in ns.
        ns: u64,
    },
}

/// Throttling of one task group on one CPU, direct-mapped by css id.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Throttle {
    /// `css.serial_nr` of the task group: whose entry it is; 0 while free.
    pub serial: u64,
    /// The cgroup's id: the inode number of its directory.
    pub cgroup_id: u64,
    /// Sum of the durations in ns.
    pub throttled_ns: u64,
    /// Since when it is throttled; 0 while it is not, or while nobody knows.
    pub open_since_ns: u64,
    /// The last throttles, a ring: the newest is `spans[(closed - 1) % SPANS]`.
    pub spans: [Span; SPANS],
    /// Throttles that have ended; wraps.
    pub closed: u32,
    /// How many limits, its own and ancestors', hold it up.
    pub depth: u16,
    /// Lower half of the css id: of two groups with the same one, one is gone.
    pub css_id: u16,
    /// Durations of the throttles by the group's own limit, by octave. Cumulative; wraps.
    pub durations: [u32; DURATIONS],
}

impl Throttle {
    /// A new entry, of the task group with this css serial number, css id and cgroup id.
    #[inline(always)]
    pub fn of(serial: u64, css_id: u32, cgroup_id: u64) -> Self {
        Self {
            serial,
            cgroup_id,
            throttled_ns: 0,
            open_since_ns: 0,
            spans: [Span { to_low: 0, to_high: 0, length_ns: 0 }; SPANS],
            closed: 0,
            depth: 0,
            css_id: css_id as u16,
            durations: [0; DURATIONS],
        }
    }

    /// One more limit holds the group up. Returns whether it is the first.
    ///
    /// The kernel counts the same (`cfs_rq.throttle_count`), but how to get from a group to its queue on a CPU
    /// differs between kernels.
    #[inline(always)]
    pub fn hold(&mut self, now: u64) -> bool {
        let first = self.depth == 0;
        if first {
            self.open_since_ns = now;
        }
        self.depth += 1;
        first
    }

    /// One limit less holds the group up. Returns whether it runs again.
    ///
    /// A throttle that began before the programs were attached, or before the group was made, has no
    /// beginning: it reaches back as far as a [`Span`] can. Were one of several limits that hold a group up
    /// not seen to begin, the group would seem to run too early, once.
    #[inline(always)]
    pub fn release(&mut self, now: u64) -> bool {
        if self.depth > 1 {
            self.depth -= 1;
            return false;
        }
        if self.depth == 0 && self.closed != 0 {
            return false;
        }
        self.spans[self.closed as usize & (SPANS - 1)] = Span::new(self.open_since_ns, now);
        self.closed = self.closed.wrapping_add(1);
        self.open_since_ns = 0;
        self.depth = 0;
        true
    }

    /// Counts a throttle by the group's own limit.
    #[inline(always)]
    pub fn count(&mut self, duration_ns: u64) {
        self.throttled_ns += duration_ns;
        let bucket = duration_bucket(duration_ns);
        if bucket < DURATIONS {
            self.durations[bucket] = self.durations[bucket].wrapping_add(1);
        }
    }

    /// Cuts the wait `(since, now]` into its throttled stretches and the others, newest first. What lies before
    /// the oldest throttle that is remembered, where there were more, is [`Stretch::Forgotten`]. The
    /// lengths add up to `now - since`.
    #[inline(always)]
    pub fn cut(&self, since: u64, now: u64, mut stretch: impl FnMut(Stretch)) {
        let forgotten = self.closed.saturating_sub(SPANS as u32);
        let mut number = self.closed;
        let mut until = now;
        // From 6.18 on a thread of a throttled group runs on in the kernel, and may wait for a CPU there.
        if self.depth != 0 && self.open_since_ns < until {
            until = if self.open_since_ns > since { self.open_since_ns } else { since };
            stretch(Stretch::Throttled { ns: now - until });
        }
        let mut steps = 0;
        while steps < SPANS && number != forgotten {
            steps += 1;
            let (from, to) = self.span(number);
            if to <= since || until <= since {
                break;
            }
            let to = if to < until { to } else { until };
            let from = if from > since { from } else { since };
            if to < until {
                stretch(Stretch::Other { since: to, until });
            }
            if from < to {
                stretch(Stretch::Throttled { ns: to - from });
                until = from;
            } else {
                until = to;
            }
            number -= 1;
        }
        if until > since {
            if number == forgotten && forgotten != 0 {
                stretch(Stretch::Forgotten { ns: until - since });
            } else {
                stretch(Stretch::Other { since, until });
            }
        }
    }

    /// Beginning and end of the `number`th throttle, counted from 1. Only the last [`SPANS`] are remembered.
    #[inline(always)]
    pub fn span(&self, number: u32) -> (u64, u64) {
        let span = self.spans[(number as usize).wrapping_sub(1) & (SPANS - 1)];
        (span.from_ns(), span.to_ns())
    }

    /// The same entry for another group. What has been counted stays: readers subtract.
    #[inline(always)]
    pub fn taken_over(&self, by: Self) -> Self {
        Self { throttled_ns: self.throttled_ns, durations: self.durations, ..by }
    }

    /// Whether the group with this css id may have the entry of another: it is free, the other had the same css id and
    /// so is gone, no wait of any importance still needs its spans, or
    /// its group was removed while it was held up.
    #[inline(always)]
    pub fn may_be_taken(&self, css_id: u32, now: u64) -> bool {
        const KEPT_NS: u64 = 1_000_000_000;
        // No group is held up for so long: a quota period has one second at most.
        const ABANDONED_NS: u64 = 60_000_000_000;
        let needed_until = match self.depth {
            0 => self.span(self.closed).1 + KEPT_NS,
            _ => self.open_since_ns + ABANDONED_NS,
        };
        self.serial == 0 || self.css_id == css_id as u16 || needed_until < now
    }
}

/// The bucket of a throttle's duration, in `0..DURATIONS`.
#[inline(always)]
pub fn duration_bucket(ns: u64) -> usize {
    // The octave of the latency histogram that it falls in; its lowest one ends at 2⁻¹⁹ s.
    const BELOW: u32 = (LOWEST_DURATION_LOG2_SECONDS - (crate::buckets::LOWEST_EDGE_LOG2_SECONDS + 1)) as u32;
    let octave = crate::buckets::octave(crate::buckets::bucket(ns));
    let bucket = octave.saturating_sub(BELOW) as usize;
    if bucket < DURATIONS { bucket } else { DURATIONS - 1 }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn play(spans: &[(u64, u64)]) -> (Throttle, Vec<bool>) {
        let mut throttle = Throttle::of(1, 7, 2);
        let mut truth = Vec::new();
        for &(running, throttled) in spans {
            truth.extend(std::iter::repeat_n(false, running as usize));
            throttle.hold(truth.len() as u64);
            truth.extend(std::iter::repeat_n(true, throttled as usize));
            assert!(throttle.release(truth.len() as u64));
        }
        (throttle, truth)
    }

    /// What the cut says of each ns of `(since, now]`, newest first; `None` where it is forgotten.
    fn cut(throttle: &Throttle, since: u64, now: u64) -> Vec<Option<bool>> {
        let mut said = Vec::new();
        let mut end = now;
        throttle.cut(since, now, |stretch| {
            let (what, ns) = match stretch {
                Stretch::Throttled { ns } => (Some(true), ns),
                Stretch::Forgotten { ns } => (None, ns),
                Stretch::Other { since, until } => {
                    assert_eq!(until, end, "a stretch begins where the one before it ended");
                    (Some(false), until - since)
                }
            };
            end -= ns;
            said.extend(std::iter::repeat_n(what, ns as usize));
        });
        said
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn every_remembered_ns_is_told_right(
            spans in prop::collection::vec((1u64..30, 0u64..30), 0..20),
            after in 0u64..30, open in 0u64..30, since in 0.0f64..1.0
        ) {
            let (mut throttle, mut truth) = play(&spans);
            truth.extend(std::iter::repeat_n(false, after as usize));
            if open != 0 {
                throttle.hold(truth.len() as u64);
                truth.extend(std::iter::repeat_n(true, open as usize));
            }
            let now = truth.len() as u64;
            let since = (since * now as f64) as u64;
            let said = cut(&throttle, since, now);
            prop_assert_eq!(said.len() as u64, now - since, "the lengths add up");
            for (said, truth) in said.iter().zip(truth.iter().rev()) {
                prop_assert!(said.is_none_or(|said| said == *truth));
            }
            if spans.len() <= SPANS {
                prop_assert!(said.iter().all(Option::is_some), "eight throttles are remembered");
            }
        }

        #[test]
        fn a_span_holds_what_it_was_given(from in 0u64..u64::MAX / 2, length in 0u64..u64::from(u32::MAX)) {
            let span = Span::new(from, from + length);
            prop_assert_eq!((span.from_ns(), span.to_ns()), (from, from + length));
        }

        #[test]
        fn a_duration_lies_below_the_edge_of_its_bucket_and_above_the_one_before(ns in 0u64..4_000_000_000) {
            let edge = |bucket: usize| ((bucket as f64 + f64::from(LOWEST_DURATION_LOG2_SECONDS)).exp2() * 1e9) as u64;
            let bucket = duration_bucket(ns);
            prop_assert!(bucket == DURATIONS - 1 || ns <= edge(bucket));
            prop_assert!(bucket == 0 || ns > edge(bucket - 1));
        }
    }

    #[test]
    fn a_throttle_longer_than_a_span_can_say_is_cut_at_its_beginning() {
        let span = Span::new(0, 10_000_000_000);
        assert_eq!((span.from_ns(), span.to_ns()), (10_000_000_000 - u64::from(u32::MAX), 10_000_000_000));
    }

    #[test]
    fn a_group_held_up_by_two_limits_runs_when_the_last_lets_go() {
        let mut throttle = Throttle::of(1, 7, 2);
        assert!(throttle.hold(100));
        assert!(!throttle.hold(150));
        assert!(!throttle.release(200));
        assert!(throttle.release(300));
        assert_eq!((throttle.closed, throttle.span(1)), (1, (100, 300)));
    }

    #[test]
    fn a_throttle_that_was_not_seen_to_begin_reaches_back_once() {
        let mut throttle = Throttle::of(1, 7, 2);
        assert!(throttle.release(5_000_000_000));
        assert_eq!(throttle.span(1), (5_000_000_000 - u64::from(u32::MAX), 5_000_000_000));
        assert!(!throttle.release(6_000_000_000), "the group does not seem throttled");
        assert_eq!(throttle.closed, 1);
    }

    #[test]
    fn an_entry_is_taken_over_only_when_nothing_needs_it() {
        let mut throttle = Throttle::of(1, 7, 2);
        throttle.hold(100);
        assert!(!throttle.may_be_taken(8, 60_000_000_100), "held up");
        assert!(throttle.may_be_taken(8, 60_000_000_101), "abandoned");
        assert!(throttle.release(200));
        assert!(!throttle.may_be_taken(8, 1_000_000_200), "a second ago");
        assert!(throttle.may_be_taken(8, 1_000_000_201));
        assert!(throttle.may_be_taken(7, 201), "by the one that has its id now");
    }
}
