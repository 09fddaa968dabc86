//! First pass of the replay: events → who held each CPU when, when each cgroup was throttled where, and every wait.
//!
//! Nothing is judged here. A wait is kept with the cgroup that its thread was in when it was switched in, because that
//! is the row it is charged to, and cut by cause in the second pass, when the whole timeline of its CPUs is known.

use std::collections::{BTreeMap, HashMap};

use super::replay::SetAside;
use super::trace::{CgroupId, Cpu, Event, Left, Tid, Trace, What};

/// Who held a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Idle,
    Of(CgroupId),
}

/// A CPU is held by `holder` from `from_ns` until the next segment of that CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub from_ns: u64,
    pub holder: Holder,
}

/// A stretch of time, its end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub from_ns: u64,
    pub to_ns: u64,
}

/// The piece of a wait that was queued on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub cpu: Cpu,
    pub span: Interval,
}

/// A wait that began and ended inside the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub thread: Tid,
    pub cgroup: CgroupId,
    pub parts: Vec<Part>,
}

/// The trace, put in order by CPU, by cgroup and by wait.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub holders: HashMap<Cpu, Vec<Segment>>,
    pub throttled: HashMap<(CgroupId, Cpu), Vec<Interval>>,
    pub waits: Vec<Queued>,
    pub set_aside: SetAside,
}

/// Puts a trace in order.
pub(super) fn arrange(trace: &Trace) -> Timeline {
    let mut pass = Pass::default();
    for (&thread, start) in &trace.threads {
        pass.threads
            .insert(thread, Thread { process: start.process, cgroup: start.cgroup, state: State::Unseen });
    }
    for event in &trace.events {
        pass.take(event);
    }
    pass.finish(trace.events.last().map_or(0, |event| event.at_ns))
}

#[derive(Debug)]
enum State {
    /// Nothing was seen of it yet: it may run, wait or sleep.
    Unseen,
    Running(Cpu),
    /// The parts that are over, and where and since when it is queued now.
    Queued {
        parts: Vec<Part>,
        cpu: Cpu,
        from_ns: u64,
    },
    /// Where and when it left its CPU.
    Asleep {
        cpu: Cpu,
        from_ns: u64,
    },
}

impl State {
    fn queued(cpu: Cpu, from_ns: u64) -> Self {
        Self::Queued { parts: Vec::new(), cpu, from_ns }
    }
}

#[derive(Debug)]
struct Thread {
    process: Tid,
    cgroup: CgroupId,
    state: State,
}

#[derive(Default)]
struct Pass {
    threads: HashMap<Tid, Thread>,
    /// Who was last switched in on each CPU.
    current: HashMap<Cpu, Tid>,
    throttles: BTreeMap<(CgroupId, Cpu), Vec<(u64, Step)>>,
    timeline: Timeline,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Down,
    Up,
}

impl Pass {
    fn take(&mut self, event: &Event) {
        let at_ns = event.at_ns;
        match event.what {
            What::Switch { cpu, prev, left, next } => {
                self.expect_on(cpu, prev, next);
                self.switch_out(at_ns, cpu, prev, left);
                self.switch_in(at_ns, cpu, next);
            }
            What::Wakeup { thread, cpu, first } => {
                let state = &mut self.thread(thread).state;
                // The kernel also reports the wakeup of a thread that has not slept yet; that begins no wait.
                if first || matches!(state, State::Unseen | State::Asleep { .. }) {
                    *state = State::queued(cpu, at_ns);
                }
            }
            What::Migrate { thread, to } => {
                // Of a sleeping thread it is only the choice of a CPU, which the wakeup repeats.
                if let State::Queued { parts, cpu, from_ns } = &mut self.thread(thread).state {
                    parts.push(Part { cpu: *cpu, span: Interval { from_ns: *from_ns, to_ns: at_ns } });
                    (*cpu, *from_ns) = (to, at_ns);
                }
            }
            What::NewThread { maker, thread, same_process } => {
                let Thread { process, cgroup, .. } = *self.thread(maker);
                let process = if same_process { process } else { thread };
                self.threads.insert(thread, Thread { process, cgroup, state: State::Unseen });
            }
            What::Join { thread, cgroup } => self.join(at_ns, thread, cgroup),
            What::Attach { thread, cgroup } => self.attach(at_ns, thread, cgroup),
            What::Throttle { cgroup, cpu } => self.throttle(at_ns, cgroup, cpu, Step::Down),
            What::Unthrottle { cgroup, cpu } => self.throttle(at_ns, cgroup, cpu, Step::Up),
            What::Mark(_) => {}
        }
    }

    /// A thread that nobody told of is taken as one of the root's, and counted.
    fn thread(&mut self, thread: Tid) -> &mut Thread {
        let strangers = &mut self.timeline.set_aside.strangers;
        self.threads.entry(thread).or_insert_with(|| {
            *strangers += u64::from(thread != Tid::IDLE);
            Thread { process: thread, cgroup: CgroupId::ROOT, state: State::Unseen }
        })
    }

    /// Who leaves a CPU must be who was switched in there before. Where another leaves, the trace lacks a switch: then
    /// nothing is known of the one that should have left, and the turn that was not seen counts for neither.
    fn expect_on(&mut self, cpu: Cpu, leaving: Tid, next: Tid) {
        let Some(expected) = self.current.insert(cpu, next).filter(|expected| *expected != leaving) else {
            return;
        };
        self.timeline.set_aside.contradictions += 1;
        if let Some(thread) = self.threads.get_mut(&expected) {
            thread.state = State::Unseen;
        }
    }

    fn switch_out(&mut self, at_ns: u64, cpu: Cpu, thread: Tid, left: Left) {
        let holder = self.holder(thread);
        // Whoever leaves first has held the CPU since before the trace.
        let holders = self.timeline.holders.entry(cpu);
        holders.or_insert_with(|| vec![Segment { from_ns: 0, holder }]);
        if thread == Tid::IDLE {
            return;
        }
        match left {
            Left::Runnable => self.thread(thread).state = State::queued(cpu, at_ns),
            Left::Blocked => self.thread(thread).state = State::Asleep { cpu, from_ns: at_ns },
            Left::Dead => drop(self.threads.remove(&thread)),
        }
    }

    fn switch_in(&mut self, at_ns: u64, cpu: Cpu, thread: Tid) {
        let holder = self.holder(thread);
        self.hold(at_ns, cpu, holder);
        if thread == Tid::IDLE {
            return;
        }
        let known = self.thread(thread);
        let cgroup = known.cgroup;
        let (mut parts, last_cpu, from_ns) = match std::mem::replace(&mut known.state, State::Running(cpu)) {
            State::Queued { parts, cpu, from_ns } => (parts, cpu, from_ns),
            // Up to 6.13 the tracepoint says "asleep" of a thread that a pending signal keeps runnable (kernel commit
            // 8feb053d5319): no wakeup follows, and it has waited since it left.
            State::Asleep { cpu, from_ns } => {
                self.timeline.set_aside.wakeups_unseen += 1;
                (Vec::new(), cpu, from_ns)
            }
            State::Unseen => {
                self.timeline.set_aside.begun_before += 1;
                return;
            }
            // It left a CPU unseen, which is counted where that CPU is next switched.
            State::Running(_) => return,
        };
        self.timeline.set_aside.contradictions += u64::from(last_cpu != cpu);
        parts.push(Part { cpu: last_cpu, span: Interval { from_ns, to_ns: at_ns } });
        self.timeline.waits.push(Queued { thread, cgroup, parts });
    }

    fn attach(&mut self, at_ns: u64, moved: Tid, cgroup: CgroupId) {
        self.thread(moved);
        let all = self.threads.iter().filter(|(tid, thread)| **tid == moved || thread.process == moved);
        let all: Vec<Tid> = all.map(|(tid, _)| *tid).collect();
        for thread in all {
            self.join(at_ns, thread, cgroup);
        }
    }

    fn join(&mut self, at_ns: u64, thread: Tid, cgroup: CgroupId) {
        let new = Thread { process: thread, cgroup, state: State::Unseen };
        let known = self.threads.entry(thread).or_insert(new);
        known.cgroup = cgroup;
        if let State::Running(cpu) = known.state {
            self.hold(at_ns, cpu, Holder::Of(cgroup));
        }
    }

    fn throttle(&mut self, at_ns: u64, cgroup: CgroupId, cpu: Cpu, step: Step) {
        self.throttles.entry((cgroup, cpu)).or_default().push((at_ns, step));
    }

    fn holder(&mut self, thread: Tid) -> Holder {
        if thread == Tid::IDLE { Holder::Idle } else { Holder::Of(self.thread(thread).cgroup) }
    }

    fn hold(&mut self, at_ns: u64, cpu: Cpu, holder: Holder) {
        self.timeline.holders.entry(cpu).or_default().push(Segment { from_ns: at_ns, holder });
    }

    fn finish(self, end_ns: u64) -> Timeline {
        let Self { threads, throttles, mut timeline, .. } = self;
        for thread in threads.into_values() {
            if let State::Queued { parts, from_ns, .. } = thread.state {
                timeline.set_aside.unfinished += 1;
                timeline.set_aside.unfinished_ns +=
                    end_ns - parts.first().map_or(from_ns, |part| part.span.from_ns);
            }
        }
        timeline.throttled = throttles
            .into_iter()
            .map(|(place, steps)| (place, throttled_intervals(&steps, end_ns)))
            .collect();
        timeline
    }
}

/// The stretches in which at least one throttle held, from the steps down and up in the order of time.
///
/// A step up that no step down came before ends a throttle that was there when the trace started, or that a new cgroup
/// took over from its parent: so the depth at the start is what keeps it from ever going below zero.
fn throttled_intervals(steps: &[(u64, Step)], end_ns: u64) -> Vec<Interval> {
    let depths = steps.iter().scan(0_i64, |depth, (_, step)| {
        *depth += if *step == Step::Down { 1 } else { -1 };
        Some(*depth)
    });
    let mut depth = depths.min().map_or(0, |lowest| -lowest.min(0));
    let mut since = (depth > 0).then_some(0);
    let mut intervals = Vec::new();
    for &(at_ns, step) in steps {
        depth += if step == Step::Down { 1 } else { -1 };
        match (depth, since) {
            (0, Some(from_ns)) => {
                intervals.push(Interval { from_ns, to_ns: at_ns });
                since = None;
            }
            (1.., None) => since = Some(at_ns),
            _ => {}
        }
    }
    intervals.extend(since.map(|from_ns| Interval { from_ns, to_ns: end_ns }));
    intervals
}

#[cfg(test)]
mod tests {
    use super::Step::{Down, Up};
    use super::*;

    #[track_caller]
    fn check(steps: &[(u64, Step)], expected: &[(u64, u64)]) {
        let got: Vec<_> = throttled_intervals(steps, 100)
            .iter()
            .map(|interval| (interval.from_ns, interval.to_ns))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn throttles_nest_and_may_be_open_at_both_ends() {
        check(&[], &[]);
        check(&[(10, Down), (20, Up), (30, Down), (40, Up)], &[(10, 20), (30, 40)]);
        // Own throttle from 10 to 30, the parent's from 20 to 40.
        check(&[(10, Down), (20, Down), (30, Up), (40, Up)], &[(10, 40)]);
        // Throttled since before the trace, twice over.
        check(&[(10, Up), (20, Up), (30, Down)], &[(0, 20), (30, 100)]);
        check(&[(10, Down), (20, Up), (30, Up)], &[(0, 30)]);
    }
}
