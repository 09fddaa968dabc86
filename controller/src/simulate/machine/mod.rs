//! A model of a machine's CPUs under Linux: run queues, groups with weights and quotas, and threads that need CPU time
//! and wait for it. What each group waits for, and why, comes out as the [`Window`] that the sampler would have measured.
//!
//! ```text
//! work ─▶ threads ─▶ run queue of a CPU: groups, in them threads (eevdf.rs) ─▶ who runs
//!                      │                        ▲
//!                      │                        └ quota of the group (bandwidth.rs)
//!                      └▶ delays by cause (account.rs) ─▶ window
//! ```
//!
//! It is the kernel's fair class at what matters to waits: a tick of 4 ms ends slices, a thread that wakes goes to an
//! idle CPU if there is one, a CPU that becomes idle takes a thread that waits elsewhere, and a quota is handed to CPUs
//! 5 ms at a time. It has no interrupts, no caches and no cost of a switch.
//!
//! # Invariants
//!
//! * The same machine with the same work does the same, to the nanosecond: time is counted in whole ns, and the only random
//!   numbers are those of the arrivals that it is given.
//! * A CPU runs one thread at a time, and none stays idle while a thread that may run there waits longer than a tick.
//! * What a thread waited is the sum of its waits by cause.

pub mod account;
pub mod bandwidth;
pub mod eevdf;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use sampler_common::snapshot::{Cause, CgroupId};
use sampler_common::window::Window;

use self::account::{Account, Waited};
use self::bandwidth::{Bandwidth, PERIOD_NS, SLICE_NS};
use self::eevdf::{Entity, WEIGHT};

/// From one tick of a CPU to the next: `CONFIG_HZ=250`, as distributions have it.
const TICK_NS: u64 = 4_000_000;
/// How long a thread that wakes on an idle CPU waits for it.
const WAKE_UP_NS: u64 = 500;

/// A group of threads: a container, or a process outside any.
#[derive(Clone, Debug)]
pub struct Group {
    /// `cpu.weight`: 100 is what a group has that nobody gave another.
    pub weight: f64,
    /// Whether it is a process outside any container: others wait for the system, then.
    pub outside: bool,
    /// Run time for each 100 ms, in ns.
    pub quota_ns: Option<u64>,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Runs all the time.
    Spin,
    /// At each multiple of `period_ns` runs until it has used `run_ns`, then sleeps; what is late by whole periods is left
    /// out.
    Duty {
        /// CPU time of each piece of work.
        run_ns: u64,
        /// From the beginning of one piece to that of the next.
        period_ns: u64,
    },
    /// Takes one request after the other from the queue that all of these share.
    Serve,
}

/// A request: when it arrives, and the CPU time that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrives, in ns.
    pub at_ns: u64,
    /// CPU time that it needs, in ns.
    pub needs_ns: u64,
}

/// A thread's state.
#[derive(Clone, Debug)]
struct Thread {
    group: usize,
    work: Work,
    /// The only CPU that it may run on.
    pinned: Option<usize>,
    /// The CPU that it runs or waits on, or did last.
    cpu: usize,
    entity: Entity,
    /// CPU time until it has done what it does, in ns.
    needs_ns: u64,
    /// When the request that it serves arrived.
    arrived_ns: u64,
    /// What it has waited since it was queued.
    waited: Waited,
}

/// A group on one CPU.
#[derive(Clone, Debug, Default)]
struct Local {
    entity: Entity,
    /// Its threads that run or wait here.
    threads: Vec<usize>,
    /// Since when its quota holds it up.
    throttled_since_ns: Option<u64>,
    /// What it has of the quota, in ns; below 0 it has overrun it.
    runtime_ns: i64,
}

/// One CPU.
#[derive(Clone, Debug)]
struct Cpu {
    /// By group.
    locals: Vec<Local>,
    current: Option<usize>,
    /// Everything is accounted for until then.
    settled_ns: u64,
    tick_ns: u64,
}

/// The machine.
pub struct Machine {
    now_ns: u64,
    slice_ns: u64,
    cpus: Vec<Cpu>,
    groups: Vec<Group>,
    bandwidths: Vec<Bandwidth>,
    accounts: Vec<Account>,
    threads: Vec<Thread>,
    sleepers: BinaryHeap<Reverse<(u64, usize)>>,
    arrivals: Box<dyn Iterator<Item = Request>>,
    next_arrival: Option<Request>,
    backlog: VecDeque<Request>,
    /// Workers without work.
    idle: Vec<usize>,
    /// Of each request that was served, in ns.
    latencies_ns: Vec<u64>,
}

impl Machine {
    /// A machine of so many CPUs with these groups and nothing in them.
    pub fn new(cpus: usize, groups: Vec<Group>) -> Self {
        // sysctl_sched_base_slice: 0.75 ms × (1 + log₂ of the CPUs, at most 8).
        let slice_ns = 750_000 * (1 + u64::from(cpus.clamp(1, 8).ilog2()));
        let cpu = |index: usize| Cpu {
            locals: vec![Local::default(); groups.len()],
            current: None,
            settled_ns: 0,
            // CPUs do not tick at one moment.
            tick_ns: TICK_NS + index as u64 * 50_000,
        };
        let bandwidths = groups.iter().map(|group| {
            let mut bandwidth = Bandwidth::default();
            bandwidth.set(group.quota_ns, 0);
            bandwidth
        });
        Self {
            now_ns: 0,
            slice_ns,
            cpus: (0..cpus).map(cpu).collect(),
            bandwidths: bandwidths.collect(),
            accounts: groups.iter().map(|_| Account::default()).collect(),
            groups,
            threads: Vec::new(),
            sleepers: BinaryHeap::new(),
            arrivals: Box::new(std::iter::empty()),
            next_arrival: None,
            backlog: VecDeque::new(),
            idle: Vec::new(),
            latencies_ns: Vec::new(),
        }
    }

    /// Adds a thread to a group, perhaps on one CPU only, and starts it.
    pub fn start(&mut self, group: usize, work: Work, pinned: Option<usize>) {
        let thread = self.threads.len();
        self.threads.push(Thread {
            group,
            work,
            pinned,
            cpu: pinned.unwrap_or(thread % self.cpus.len()),
            entity: Entity::default(),
            needs_ns: match work {
                Work::Spin => u64::MAX,
                Work::Duty { run_ns, .. } => run_ns,
                Work::Serve => 0,
            },
            arrived_ns: 0,
            waited: Waited::new(self.groups.len()),
        });
        match work {
            Work::Serve => self.idle.push(thread),
            Work::Spin | Work::Duty { .. } => self.wake(thread),
        }
    }

    /// Where the requests come from that are served; in the order of their arrival.
    pub fn arrivals(&mut self, mut arrivals: Box<dyn Iterator<Item = Request>>) {
        self.next_arrival = arrivals.next();
        self.arrivals = arrivals;
    }

    /// Sets a group's weight.
    pub fn set_weight(&mut self, group: usize, weight: f64) {
        self.settle_all();
        self.groups[group].weight = weight;
    }

    /// Sets a group's quota for each 100 ms, in ns, as a resize does.
    pub fn set_quota(&mut self, group: usize, quota_ns: Option<u64>) {
        self.settle_all();
        self.bandwidths[group].set(quota_ns, self.now_ns);
        for cpu in 0..self.cpus.len() {
            self.cpus[cpu].locals[group].runtime_ns = 0;
            self.release(cpu, group);
        }
    }

    /// Goes on until `to_ns`.
    pub fn run_until(&mut self, to_ns: u64) {
        while let Some((at_ns, event)) = self.next_event().filter(|(at_ns, _)| *at_ns <= to_ns) {
            self.now_ns = at_ns;
            match event {
                Event::Cpu(cpu) => self.on_cpu(cpu),
                Event::Arrival => self.on_arrival(),
                Event::Wake => {
                    if let Some(Reverse((_, thread))) = self.sleepers.pop() {
                        self.wake(thread);
                    }
                }
                Event::Refill(group) => {
                    let throttled = self.throttled(group);
                    self.bandwidths[group].refill(at_ns, throttled);
                    self.distribute(group);
                }
                Event::Slack(group) => {
                    self.bandwidths[group].slack_at_ns = None;
                    self.distribute(group);
                }
            }
        }
        self.now_ns = to_ns;
        self.settle_all();
    }

    /// What a group has used and waited since this was last asked, as the sampler would have measured it.
    pub fn window(&mut self, group: usize) -> Window {
        self.settle_all();
        let Bandwidth { quota_ns, periods, throttled_periods, .. } = self.bandwidths[group];
        let limit = quota_ns.map(|quota_ns| (quota_ns / 1000, PERIOD_NS / 1000));
        self.accounts[group].window(
            self.now_ns,
            limit,
            self.groups[group].weight,
            (periods, throttled_periods),
        )
    }

    /// How long each request took from its arrival until it was done, in ns. Those that are not done yet count with their
    /// age: a queue that grows must not look well.
    pub fn latencies_ns(&self) -> Vec<u64> {
        let served = self.threads.iter().filter(|thread| thread.work == Work::Serve && thread.needs_ns > 0);
        let ages =
            served.map(|thread| thread.arrived_ns).chain(self.backlog.iter().map(|request| request.at_ns));
        self.latencies_ns.iter().copied().chain(ages.map(|at_ns| self.now_ns - at_ns)).collect()
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A CPU ticks, or its thread has done what it does.
    Cpu(usize),
    Arrival,
    Wake,
    Refill(usize),
    Slack(usize),
}

impl Machine {
    fn next_event(&self) -> Option<(u64, Event)> {
        let cpus = self.cpus.iter().enumerate().filter_map(|(index, cpu)| {
            let thread = cpu.current?;
            let done_ns = cpu.settled_ns.saturating_add(self.threads[thread].needs_ns);
            Some((done_ns.min(cpu.tick_ns), Event::Cpu(index)))
        });
        let arrival = self.next_arrival.map(|request| (request.at_ns, Event::Arrival));
        let wake = self.sleepers.peek().map(|Reverse((at_ns, _))| (*at_ns, Event::Wake));
        let groups = self.bandwidths.iter().enumerate();
        let timers = groups.flat_map(|(group, bandwidth)| {
            let refill = bandwidth.refill_at_ns.map(|at_ns| (at_ns, Event::Refill(group)));
            let slack = bandwidth.slack_at_ns.map(|at_ns| (at_ns, Event::Slack(group)));
            [refill, slack].into_iter().flatten()
        });
        cpus.chain(arrival).chain(wake).chain(timers).min_by_key(|(at_ns, _)| *at_ns)
    }

    fn on_cpu(&mut self, cpu: usize) {
        let mut again = self.settle(cpu);
        if let Some(thread) = self.cpus[cpu].current.filter(|thread| self.threads[*thread].needs_ns == 0)
            && !self.goes_on(thread)
        {
            self.leave(cpu, thread);
            again = true;
        }
        if self.now_ns >= self.cpus[cpu].tick_ns {
            let late = (self.now_ns - self.cpus[cpu].tick_ns) / TICK_NS;
            self.cpus[cpu].tick_ns += (late + 1) * TICK_NS;
            self.balance(cpu);
        }
        if again {
            self.reschedule(cpu);
        }
    }

    /// A thread has done what it does: whether it has more to do at once. If not it knows when to wake.
    fn goes_on(&mut self, thread: usize) -> bool {
        let now = self.now_ns;
        match self.threads[thread].work {
            Work::Spin => true,
            Work::Duty { run_ns, period_ns } => {
                self.threads[thread].needs_ns = run_ns;
                self.sleepers.push(Reverse(((now / period_ns + 1) * period_ns, thread)));
                false
            }
            Work::Serve => {
                self.latencies_ns.push(now - self.threads[thread].arrived_ns);
                match self.backlog.pop_front() {
                    Some(request) => {
                        self.serve(thread, request);
                        true
                    }
                    None => {
                        self.idle.push(thread);
                        false
                    }
                }
            }
        }
    }

    fn serve(&mut self, thread: usize, request: Request) {
        let thread = &mut self.threads[thread];
        (thread.needs_ns, thread.arrived_ns) = (request.needs_ns.max(1), request.at_ns);
    }

    fn on_arrival(&mut self) {
        let Some(request) = self.next_arrival.take() else { return };
        self.next_arrival = self.arrivals.next();
        match self.idle.pop() {
            Some(thread) => {
                self.serve(thread, request);
                self.wake(thread);
            }
            None => self.backlog.push_back(request),
        }
    }

    /// A thread that slept is queued: on an idle CPU, the one where it was before if that is one; else there.
    fn wake(&mut self, thread: usize) {
        let before = self.threads[thread].cpu;
        let count = self.cpus.len();
        let cpu = self.threads[thread].pinned.unwrap_or_else(|| {
            let mut idle = (0..count).map(|step| (before + step) % count);
            idle.find(|cpu| self.cpus[*cpu].current.is_none()).unwrap_or(before)
        });
        self.threads[thread].waited.clear();
        self.queue(cpu, thread);
    }

    /// Puts a thread into a CPU's queue, and on the CPU if it goes first.
    fn queue(&mut self, cpu: usize, thread: usize) {
        let mut again = self.settle(cpu);
        let group = self.threads[thread].group;
        let slice_ns = self.slice_ns;
        self.threads[thread].cpu = cpu;
        let local = &self.cpus[cpu].locals[group];
        let first = local.threads.is_empty();
        let average =
            eevdf::average(local.threads.iter().map(|other| (&self.threads[*other].entity, WEIGHT)));
        self.threads[thread].entity.place(average, WEIGHT, slice_ns);
        if first {
            self.place_group(cpu, group);
        }
        self.cpus[cpu].locals[group].threads.push(thread);
        if first {
            self.afford(cpu, group);
        }
        let idle = self.cpus[cpu].current.is_none();
        again |= idle || self.pick(cpu).is_some_and(|next| next == thread);
        if again {
            self.reschedule(cpu);
        }
    }

    fn place_group(&mut self, cpu: usize, group: usize) {
        let weight = self.weight(cpu, group, 1);
        let average = self.average(cpu);
        self.cpus[cpu].locals[group].entity.place(average, weight, self.slice_ns);
    }

    /// Takes a thread out of a CPU's queue.
    fn leave(&mut self, cpu: usize, thread: usize) {
        let group = self.threads[thread].group;
        let slice_ns = self.slice_ns;
        let (average, weight) = (self.average(cpu), self.weight(cpu, group, 0));
        let local = &self.cpus[cpu].locals[group];
        let own = eevdf::average(local.threads.iter().map(|other| (&self.threads[*other].entity, WEIGHT)));
        self.threads[thread].entity.leave(own, WEIGHT, slice_ns);
        let this = &mut self.cpus[cpu];
        if this.current == Some(thread) {
            this.current = None;
        }
        let local = &mut this.locals[group];
        local.threads.retain(|other| *other != thread);
        if local.threads.is_empty() {
            local.entity.leave(average, weight, slice_ns);
            self.bandwidths[group].give_back(&mut local.runtime_ns, self.now_ns);
        }
    }

    /// What a group weighs on a CPU: its weight in proportion to its threads there, `more` of which are about to come.
    fn weight(&self, cpu: usize, group: usize, more: usize) -> f64 {
        let here = self.cpus[cpu].locals[group].threads.len() + more;
        let all: usize = self.cpus.iter().map(|cpu| cpu.locals[group].threads.len()).sum::<usize>() + more;
        let weight = self.groups[group].weight / 100.0 * WEIGHT;
        // The kernel's least share.
        (weight * here as f64 / all.max(1) as f64).max(2.0)
    }

    /// Groups of a CPU that may run: number, entity, weight.
    fn runnable(&self, cpu: usize) -> impl Iterator<Item = (usize, &Entity, f64)> + Clone {
        let locals = self.cpus[cpu].locals.iter().enumerate();
        locals
            .filter(|(_, local)| !local.threads.is_empty() && local.throttled_since_ns.is_none())
            .map(move |(group, local)| (group, &local.entity, self.weight(cpu, group, 0)))
    }

    fn average(&self, cpu: usize) -> f64 {
        eevdf::average(self.runnable(cpu).map(|(_, entity, weight)| (entity, weight)))
    }

    /// The thread that should run on a CPU.
    fn pick(&self, cpu: usize) -> Option<usize> {
        let this = &self.cpus[cpu];
        let current = this.current.map(|thread| self.threads[thread].group);
        let group = eevdf::pick(self.runnable(cpu), current)?;
        let threads = this.locals[group].threads.iter();
        eevdf::pick(threads.map(|thread| (*thread, &self.threads[*thread].entity, WEIGHT)), this.current)
    }

    /// Lets the thread run that should, on a CPU that is settled.
    fn reschedule(&mut self, cpu: usize) {
        let mut next = self.pick(cpu);
        if next.is_none() {
            self.cpus[cpu].current = None;
            self.pull(cpu);
            next = self.pick(cpu);
        }
        let before = self.cpus[cpu].current;
        if next == before {
            return;
        }
        if let Some(thread) = before {
            self.threads[thread].waited.clear();
        }
        let was_idle = before.is_none();
        self.cpus[cpu].current = next;
        let Some(thread) = next else { return };
        let group = self.threads[thread].group;
        self.threads[thread].entity.picked();
        self.cpus[cpu].locals[group].entity.picked();
        let waited = &mut self.threads[thread].waited;
        if was_idle && waited.total_ns() == 0 {
            waited.add(Cause::Idle, WAKE_UP_NS);
        }
        self.accounts[group].switched_in(waited);
        waited.clear();
        // It did not tick while it was idle.
        let this = &mut self.cpus[cpu];
        if self.now_ns >= this.tick_ns {
            this.tick_ns += ((self.now_ns - this.tick_ns) / TICK_NS + 1) * TICK_NS;
        }
    }

    fn settle_all(&mut self) {
        for cpu in 0..self.cpus.len() {
            if self.settle(cpu) {
                self.reschedule(cpu);
            }
        }
    }

    /// Accounts for the time until now on a CPU; whether another thread should run from now on.
    fn settle(&mut self, cpu: usize) -> bool {
        let now = self.now_ns;
        let this = &mut self.cpus[cpu];
        let ns = now - this.settled_ns;
        this.settled_ns = now;
        if ns == 0 {
            return false;
        }
        let holder = this.current.map(|thread| self.threads[thread].group);
        for (group, local) in this.locals.iter().enumerate() {
            let cause = match holder {
                _ if local.throttled_since_ns.is_some() => Cause::Quota,
                None => Cause::Idle,
                Some(holder) if holder == group => Cause::Own,
                Some(holder) if self.groups[holder].outside => Cause::System,
                Some(_) => Cause::Neighbor,
            };
            for thread in local.threads.iter().filter(|thread| this.current != Some(**thread)) {
                self.threads[*thread].waited.add(cause, ns);
                if let (Cause::Neighbor, Some(holder)) = (cause, holder) {
                    self.threads[*thread].waited.add_neighbor(holder, ns);
                }
            }
        }
        let (Some(thread), Some(group)) = (this.current, holder) else { return false };
        self.accounts[group].usage_ns += ns;
        let slice_ns = self.slice_ns;
        let weight = self.weight(cpu, group, 0);
        let alone = self.runnable(cpu).count() == 1;
        let running = &mut self.threads[thread];
        if running.work != Work::Spin {
            running.needs_ns = running.needs_ns.saturating_sub(ns);
        }
        let thread_over = running.entity.ran(ns, WEIGHT, slice_ns);
        let local = &mut self.cpus[cpu].locals[group];
        let group_over = local.entity.ran(ns, weight, slice_ns);
        let again = thread_over && local.threads.len() > 1 || group_over && !alone;
        if self.bandwidths[group].quota_ns.is_some() {
            local.runtime_ns -= ns as i64;
            if local.runtime_ns <= 0 {
                return !self.afford(cpu, group) || again;
            }
        }
        again
    }

    /// Gets a group more of its quota where it has none on a CPU; throttles it there where there is none. Whether it may
    /// run.
    fn afford(&mut self, cpu: usize, group: usize) -> bool {
        let now = self.now_ns;
        let local = &mut self.cpus[cpu].locals[group];
        let bandwidth = &mut self.bandwidths[group];
        if local.throttled_since_ns.is_some() {
            return false;
        }
        if bandwidth.quota_ns.is_none() || local.runtime_ns > 0 {
            return true;
        }
        bandwidth.take(&mut local.runtime_ns, SLICE_NS, now);
        if local.runtime_ns > 0 {
            return true;
        }
        local.throttled_since_ns = Some(now);
        false
    }

    /// Ends a throttle, if there is one.
    fn release(&mut self, cpu: usize, group: usize) {
        let mut again = self.settle(cpu);
        let Some(since_ns) = self.cpus[cpu].locals[group].throttled_since_ns.take() else {
            if again {
                self.reschedule(cpu);
            }
            return;
        };
        self.accounts[group].throttled(self.now_ns - since_ns);
        if !self.cpus[cpu].locals[group].threads.is_empty() {
            // Out of its own average.
            self.cpus[cpu].locals[group].throttled_since_ns = Some(since_ns);
            self.place_group(cpu, group);
            self.cpus[cpu].locals[group].throttled_since_ns = None;
            again |= self.cpus[cpu].current.is_none();
        }
        if again {
            self.reschedule(cpu);
        }
    }

    fn throttled(&self, group: usize) -> bool {
        self.cpus.iter().any(|cpu| cpu.locals[group].throttled_since_ns.is_some())
    }

    /// Gives what is left of a quota to the CPUs that are throttled for want of it: what each has overrun, and 1 ns.
    fn distribute(&mut self, group: usize) {
        for cpu in 0..self.cpus.len() {
            let local = &mut self.cpus[cpu].locals[group];
            if local.throttled_since_ns.is_some() {
                self.bandwidths[group].take(&mut local.runtime_ns, 1, self.now_ns);
                if local.runtime_ns > 0 {
                    self.release(cpu, group);
                }
            }
        }
    }

    /// Threads of a CPU that run or may.
    fn load(&self, cpu: usize) -> usize {
        let locals = self.cpus[cpu].locals.iter();
        locals.filter(|local| local.throttled_since_ns.is_none()).map(|local| local.threads.len()).sum()
    }

    /// A CPU that has become idle takes a thread that waits elsewhere.
    fn pull(&mut self, to: usize) {
        let busiest = (0..self.cpus.len()).max_by_key(|cpu| (self.load(*cpu), Reverse(*cpu)));
        if let Some(from) = busiest.filter(|from| self.load(*from) >= 2) {
            self.move_one(from, to);
        }
    }

    /// At a tick: an idle CPU, or this one, takes a thread from the one with most of them.
    fn balance(&mut self, cpu: usize) {
        let idle = (0..self.cpus.len()).find(|cpu| self.cpus[*cpu].current.is_none());
        if let Some(to) = idle.filter(|_| self.load(cpu) >= 2) {
            self.move_one(cpu, to);
            return;
        }
        let busiest = (0..self.cpus.len()).max_by_key(|cpu| (self.load(*cpu), Reverse(*cpu)));
        if let Some(from) = busiest.filter(|from| self.load(*from) >= self.load(cpu) + 2) {
            self.move_one(from, cpu);
        }
    }

    /// Moves a thread that waits, if there is one that may move and is not throttled on either side.
    fn move_one(&mut self, from: usize, to: usize) {
        let current = self.cpus[from].current;
        let locals = self.cpus[from].locals.iter().zip(&self.cpus[to].locals);
        let open =
            locals.filter(|(here, there)| here.throttled_since_ns.or(there.throttled_since_ns).is_none());
        let mut waiting = open.flat_map(|(here, _)| &here.threads).copied();
        let Some(thread) =
            waiting.find(|thread| Some(*thread) != current && self.threads[*thread].pinned.is_none())
        else {
            return;
        };
        let again = self.settle(from);
        self.leave(from, thread);
        self.queue(to, thread);
        if again {
            self.reschedule(from);
        }
    }

    /// The id by which windows name a group.
    pub fn id(group: usize) -> CgroupId {
        CgroupId(group as u64 + 1)
    }
}
