//! One view after the other, each when it is due: live at the end of every interval, and from a recording at the pace
//! at which it was made.

use std::time::{Duration, Instant};

use sampler_common::snapshot::Snapshot;
use sampler_common::window::Windows;

use super::TopError;
use super::model::View;
use crate::source::{Source, SourceError};

/// Where snapshots come from.
pub trait Snapshots {
    /// CPUs of the machine that they are of.
    fn cpus(&self) -> u32;

    /// Whether they are of the moment at which they are asked for.
    fn is_live(&self) -> bool;

    /// When one was taken that has this on its clock, in ns since 1970.
    fn unix_ns(&self, at_ns: u64) -> u64;

    /// How long after the last one the next is due; `None` where there is none.
    fn due(&mut self) -> Result<Option<Duration>, SourceError>;

    /// The next one; `None` after the last.
    fn next(&mut self) -> Result<Option<Snapshot>, SourceError>;
}

impl Snapshots for Source {
    fn cpus(&self) -> u32 {
        Source::cpus(self)
    }

    fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    fn unix_ns(&self, at_ns: u64) -> u64 {
        Source::unix_ns(self, at_ns)
    }

    fn due(&mut self) -> Result<Option<Duration>, SourceError> {
        Source::due(self)
    }

    fn next(&mut self) -> Result<Option<Snapshot>, SourceError> {
        Source::next(self)
    }
}

/// Views, one for each window.
pub struct Feed<S> {
    source: S,
    earlier: Snapshot,
    due: Option<Instant>,
}

impl<S: Snapshots> Feed<S> {
    /// Takes the first snapshot, with which the first window begins.
    pub fn begin(mut source: S, now: Instant) -> Result<Self, TopError> {
        let earlier = source.next()?.ok_or(TopError::NoWindow)?;
        let due = source.due()?.map(|wait| now + wait);
        Ok(Self { source, earlier, due })
    }

    /// When the next window ends; `None` where there is none.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The window that ends now; `None` after the last.
    pub fn take(&mut self, now: Instant) -> Result<Option<View>, TopError> {
        let Some(later) = self.source.next()? else {
            self.due = None;
            return Ok(None);
        };
        let windows = Windows::between(&self.earlier, &later)?;
        let view = View::new(&windows, &later, self.source.unix_ns(later.at_ns), self.source.cpus());
        self.earlier = later;
        self.wait_for_next(now)?;
        Ok(Some(view))
    }

    /// One window: the one that is due, after `sleep` until then, and of a recording the last, at once.
    pub fn only(&mut self, sleep: impl FnOnce(Instant)) -> Result<View, TopError> {
        let mut last = None;
        if let (true, Some(due)) = (self.source.is_live(), self.due) {
            sleep(due);
            last = self.take(due)?;
        }
        while let (false, Some(due)) = (self.source.is_live(), self.due) {
            last = self.take(due)?.or(last);
        }
        last.ok_or(TopError::NoWindow)
    }

    /// Lets the window that is due go on, which a recording does by standing still. Live, the kernel's events are taken
    /// in nevertheless: their buffer is small.
    pub fn pass(&mut self, now: Instant) -> Result<(), TopError> {
        if self.source.is_live() {
            self.source.next()?;
            self.wait_for_next(now)?;
        } else {
            self.due = Some(now);
        }
        Ok(())
    }

    /// After a time in which nobody could look (a stopped process) the pace is taken up again, and not made up for.
    fn wait_for_next(&mut self, now: Instant) -> Result<(), TopError> {
        let last = self.due.unwrap_or(now);
        self.due = self.source.due()?.map(|wait| (last + wait).max(now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    /// Snapshots a second apart.
    struct Given {
        snapshots: std::vec::IntoIter<Snapshot>,
        live: bool,
    }

    impl Snapshots for Given {
        fn cpus(&self) -> u32 {
            2
        }

        fn is_live(&self) -> bool {
            self.live
        }

        fn unix_ns(&self, at_ns: u64) -> u64 {
            at_ns + 1_790_000_000 * fixture::SECOND
        }

        fn due(&mut self) -> Result<Option<Duration>, SourceError> {
            Ok((!self.snapshots.as_slice().is_empty()).then_some(Duration::from_secs(1)))
        }

        fn next(&mut self) -> Result<Option<Snapshot>, SourceError> {
            Ok(self.snapshots.next())
        }
    }

    fn given(count: usize, live: bool) -> Given {
        let snapshots: Vec<_> = fixture::snapshots().into_iter().take(count).collect();
        Given { snapshots: snapshots.into_iter(), live }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_window_ends_a_second_after_the_one_before_until_there_is_none() {
        let begun = Instant::now();
        let mut feed = Feed::begin(given(3, false), begun).unwrap();
        assert_eq!(feed.due(), Some(begun + SECOND));
        let late = begun + SECOND + Duration::from_millis(100);
        assert_eq!(feed.take(late).unwrap().unwrap().length_ns, fixture::SECOND);
        assert_eq!(feed.due(), Some(begun + 2 * SECOND), "late once is not late for ever");
        assert!(feed.take(begun + 2 * SECOND).unwrap().is_some());
        assert_eq!(feed.due(), None);
        assert!(feed.take(begun + 3 * SECOND).unwrap().is_none());
    }

    #[test]
    fn a_time_in_which_nobody_looked_is_not_made_up_for() {
        let begun = Instant::now();
        let mut feed = Feed::begin(given(3, true), begun).unwrap();
        feed.take(begun + 60 * SECOND).unwrap();
        assert_eq!(feed.due(), Some(begun + 60 * SECOND));
    }

    #[test]
    fn what_happens_in_a_pause_is_in_the_next_window_live_and_later_in_a_recording() {
        for (live, seconds) in [(true, 3), (false, 1)] {
            let begun = Instant::now();
            let mut feed = Feed::begin(given(9, live), begun).unwrap();
            for second in 1..=2 {
                feed.pass(begun + second * SECOND).unwrap();
            }
            let view = feed.take(begun + 3 * SECOND).unwrap().unwrap();
            assert_eq!(view.length_ns, seconds * fixture::SECOND, "live: {live}");
        }
    }

    #[test]
    fn once_is_the_first_window_live_and_the_last_of_a_recording() {
        let begun = Instant::now();
        let first = fixture::snapshots()[0].at_ns;
        for (live, windows, slept) in [(true, 1, true), (false, 4, false)] {
            let mut feed = Feed::begin(given(5, live), begun).unwrap();
            let mut until = None;
            let view = feed.only(|due| until = Some(due)).unwrap();
            let windows = windows + 1_790_000_000;
            assert_eq!(view.ended_unix_ns, first + windows * fixture::SECOND, "on the calendar's clock");
            assert_eq!(until, slept.then_some(begun + SECOND));
        }
    }

    #[test]
    fn one_snapshot_is_no_window() {
        let mut feed = Feed::begin(given(1, false), Instant::now()).unwrap();
        assert!(matches!(feed.only(|_| ()), Err(TopError::NoWindow)));
        assert!(matches!(Feed::begin(given(0, false), Instant::now()), Err(TopError::NoWindow)));
    }
}
