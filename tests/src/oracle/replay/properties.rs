//! Random but possible runs: a model of a scheduler takes random steps, writes the events that the kernel would, and
//! judges every nanosecond as it passes, where the replay cuts along a timeline afterwards.

use proptest::prelude::*;

use super::super::trace::{Event, Left, Membership, What};
use super::*;

const CPUS: u32 = 3;
const THREADS: u32 = 8;
/// Cgroup 1 is the root, 2 and 3 are containers, 4 lies below 3, 5 is a daemon's.
const PATHS: [&str; 5] = ["/", "/a", "/b", "/b/x", "/daemon"];
/// The row of each of them.
const ROWS: [&str; 5] = ["/", "/a", "/b", "/b", "/daemon"];

#[derive(Clone, Copy, PartialEq)]
enum Is {
    Asleep,
    Queued { cpu: u32, since_ns: u64 },
    On { cpu: u32 },
}

/// What a queued thread saw of its CPU for a while.
struct Seen {
    ns: u64,
    holder: Option<usize>,
    throttled: [bool; PATHS.len()],
}

struct Thread {
    is: Is,
    cgroup: usize,
    seen: Vec<Seen>,
}

struct Model {
    now_ns: u64,
    threads: Vec<Thread>,
    trace: Trace,
    /// How many throttles hold each cgroup on each CPU, also those from before the trace.
    depths: [[u8; CPUS as usize]; PATHS.len()],
    lengths: BTreeMap<Tid, Vec<u64>>,
    rows: BTreeMap<String, (CauseNs, BTreeMap<String, u64>)>,
}

fn id(cgroup: usize) -> CgroupId {
    CgroupId(cgroup as u64 + 1)
}

impl Model {
    fn new(depths: [[u8; CPUS as usize]; PATHS.len()]) -> Self {
        let cgroups =
            PATHS.iter().enumerate().map(|(cgroup, path)| (id(cgroup), (*path).to_owned())).collect();
        let threads: Vec<_> = (0..THREADS as usize)
            .map(|index| Thread { is: Is::Asleep, cgroup: index % PATHS.len(), seen: Vec::new() })
            .collect();
        let members = threads
            .iter()
            .zip(1..)
            .map(|(thread, tid)| (Tid(tid), Membership { process: Tid(tid), cgroup: id(thread.cgroup) }));
        let mut model = Self {
            now_ns: 1000,
            trace: Trace { events: Vec::new(), threads: members.collect(), cgroups },
            threads,
            depths,
            lengths: BTreeMap::new(),
            rows: BTreeMap::new(),
        };
        // Every CPU shows itself once, so that no holder is unseen.
        for cpu in 0..CPUS {
            model.log(What::Switch {
                cpu: Cpu(cpu),
                prev: Tid(90 + cpu),
                left: Left::Blocked,
                next: Tid::IDLE,
            });
        }
        model
    }

    fn log(&mut self, what: What) {
        self.trace.events.push(Event { at_ns: self.now_ns, what });
    }

    /// Nothing happens for a while: every queued thread sees who holds its CPU and which cgroups are stopped there.
    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        for index in 0..self.threads.len() {
            if let Is::Queued { cpu, .. } = self.threads[index].is {
                let holder = self.threads.iter().find(|thread| thread.is == Is::On { cpu });
                let holder = holder.map(|thread| thread.cgroup);
                let throttled = self.depths.map(|cpus| cpus[cpu as usize] > 0);
                self.threads[index].seen.push(Seen { ns, holder, throttled });
            }
        }
    }

    /// One random step: what to do, on which CPU and thread, and how much later.
    fn step(&mut self, (action, cpu, tid, later_ns): (u8, u32, u32, u64)) {
        self.pass(later_ns);
        let (now_ns, thread, to) = (self.now_ns, Tid(tid), Cpu(cpu));
        let state = &mut self.threads[tid as usize - 1];
        // Any of the cgroups, whichever the thread is in.
        let other = (tid + cpu) as usize % PATHS.len();
        match (action, state.is) {
            (0 | 1, Is::Asleep) => {
                state.is = Is::Queued { cpu, since_ns: now_ns };
                self.log(What::Wakeup { thread, cpu: to, first: action == 1 });
            }
            // Spurious: running or queued already.
            (0, _) => self.log(What::Wakeup { thread, cpu: to, first: false }),
            (2, Is::Queued { since_ns, .. }) => {
                state.is = Is::Queued { cpu, since_ns };
                self.log(What::Migrate { thread, to });
            }
            (2, Is::Asleep) => self.log(What::Migrate { thread, to }),
            (3, _) => {
                state.cgroup = other;
                let cgroup = id(other);
                let alone = tid % 2 == 0;
                self.log(if alone { What::Join { thread, cgroup } } else { What::Attach { thread, cgroup } });
            }
            (4, _) => {
                self.depths[other][cpu as usize] += 1;
                self.log(What::Throttle { cgroup: id(other), cpu: to });
            }
            (5, _) => self.unthrottle(other, cpu),
            _ => self.switch(cpu, action),
        }
    }

    fn unthrottle(&mut self, cgroup: usize, cpu: u32) {
        if self.depths[cgroup][cpu as usize] > 0 {
            self.depths[cgroup][cpu as usize] -= 1;
            self.log(What::Unthrottle { cgroup: id(cgroup), cpu: Cpu(cpu) });
        }
    }

    fn switch(&mut self, cpu: u32, action: u8) {
        let left = if action.is_multiple_of(2) { Left::Runnable } else { Left::Blocked };
        let now_ns = self.now_ns;
        let prev = self.threads.iter().position(|thread| thread.is == Is::On { cpu });
        let is_here = |thread: &Thread| matches!(thread.is, Is::Queued { cpu: there, .. } if there == cpu);
        let next = self.threads.iter().position(is_here);
        if prev.is_none() && next.is_none() {
            return;
        }
        if let Some(prev) = prev {
            let waits_again = left == Left::Runnable;
            self.threads[prev].is =
                if waits_again { Is::Queued { cpu, since_ns: now_ns } } else { Is::Asleep };
        }
        if let Some(next) = next {
            self.judge(next);
            self.threads[next].is = Is::On { cpu };
        }
        let tid = |index: Option<usize>| index.map_or(Tid::IDLE, |index| Tid(index as u32 + 1));
        self.log(What::Switch { cpu: Cpu(cpu), prev: tid(prev), left, next: tid(next) });
    }

    /// The wait of a thread that is switched in, by what it saw and the cgroup that it is in now.
    fn judge(&mut self, index: usize) {
        let Thread { is, cgroup, ref mut seen } = self.threads[index];
        let Is::Queued { since_ns, .. } = is else { return };
        let (causes, neighbors) = self.rows.entry(ROWS[cgroup].to_owned()).or_default();
        for Seen { ns, holder, throttled } in seen.drain(..) {
            // The root is above all, and /b above /b/x.
            let stopped = throttled[cgroup] || throttled[0] || (cgroup == 3 && throttled[2]);
            match holder.map(|holder| ROWS[holder]) {
                _ if stopped => causes.quota += ns,
                None => causes.idle += ns,
                Some(row) if row == ROWS[cgroup] => causes.self_ += ns,
                Some("/" | "/daemon") => causes.system += ns,
                Some(row) => {
                    causes.neighbor += ns;
                    if ns > 0 {
                        *neighbors.entry(row.to_owned()).or_default() += ns;
                    }
                }
            }
        }
        self.lengths.entry(Tid(index as u32 + 1)).or_default().push(self.now_ns - since_ns);
    }

    /// Ends every throttle: of one that is open at both ends the trace would tell nothing.
    fn finish(&mut self) {
        for cgroup in 0..PATHS.len() {
            for cpu in 0..CPUS {
                while self.depths[cgroup][cpu as usize] > 0 {
                    self.unthrottle(cgroup, cpu);
                }
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u32, u32, u64)>> {
    proptest::collection::vec((0_u8..12, 0..CPUS, 1..=THREADS, 0_u64..50), 0..300)
}

fn depths() -> impl Strategy<Value = [[u8; CPUS as usize]; PATHS.len()]> {
    // Mostly none, so that the other causes are seen too.
    let depth = prop_oneof![9 => Just(0_u8), 1 => 1_u8..3];
    proptest::array::uniform5(proptest::array::uniform3(depth))
}

proptest! {
    #[test]
    fn every_nanosecond_has_its_cause(depths in depths(), steps in steps()) {
        let mut model = Model::new(depths);
        for step in steps {
            model.step(step);
        }
        model.finish();
        let assignment = Assignment::default().container("/a").container("/b").system("/daemon");
        let replay = replay(&model.trace, &assignment, Window::WHOLE);

        for (path, row) in &replay.rows {
            prop_assert_eq!(row.causes.total(), row.lengths_ns().sum::<u64>(), "row {}", path);
            prop_assert_eq!(row.causes.neighbor, row.neighbors.values().sum::<u64>(), "row {}", path);
        }
        let rows: BTreeMap<_, _> =
            replay.rows.into_iter().map(|(path, row)| (path, (row.causes, row.neighbors))).collect();
        prop_assert_eq!(rows, model.rows);
        prop_assert_eq!(replay.threads, model.lengths);

        let since = |thread: &Thread| match thread.is { Is::Queued { since_ns, .. } => Some(since_ns), _ => None };
        let open: Vec<u64> = model.threads.iter().filter_map(since).map(|since| model.now_ns - since).collect();
        // Time may have passed since the last event, of which the trace knows nothing.
        let late_ns = model.now_ns - model.trace.events.last().unwrap().at_ns;
        let unfinished_ns: u64 = open.iter().map(|ns| ns.saturating_sub(late_ns)).sum();
        let SetAside { unfinished, begun_before, contradictions, strangers, .. } = replay.set_aside;
        prop_assert_eq!((unfinished, replay.set_aside.unfinished_ns), (open.len() as u64, unfinished_ns));
        prop_assert_eq!((begun_before, contradictions, strangers), (0, 0, 3));
    }
}
