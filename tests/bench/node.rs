//! A node that does not exist: containers that wait, run, are throttled and use memory about as often as real ones, so
//! that what is recorded of them takes as much room.
//!
//! Four in ten hardly run (0.2 to 5 switch-ins a second), four serve some requests (20 to 320), two are busy (1,000 to
//! 6,000), one of which is throttled. Delays are log-normal around a scale for each cause, counts Poisson.

use std::collections::BTreeMap;

use anyhow::Result;
use fastrand::Rng;
use sampler_common::abi::{CAUSES, Cause, TOLD};
use sampler_common::buckets::{BUCKETS, OCTAVES, bucket, octave};
use sampler_common::identity::{Container, Identity, Names, Owner, Pod, QosClass, Runtime};
use sampler_common::pace::UNIT_LOG2_NS;
use sampler_common::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Counters, Durations, Snapshot, Throttling};
use sampler_common::throttle::DURATIONS;

const SECOND: u64 = 1_000_000_000;
const STARTED_NS: u64 = 90 * SECOND;
/// Memory files are read this often.
const MEMORY_EVERY_NS: u64 = 14 * SECOND;
const PAGE_LOG2: u32 = 12;
/// Delays that a container's habit is made of.
const TYPICAL: u32 = 4_000;

/// How often a container waits, and how.
struct Habit {
    switch_ins_per_second: f64,
    throttled: bool,
    delays: Vec<Delays>,
    neighbors: Vec<CgroupId>,
}

/// Its delays in one bucket for one cause.
struct Delays {
    bucket: u32,
    cause: Cause,
    /// Of all its delays, in 0..=1.
    share: f64,
    mean_ns: u64,
}

/// The node.
pub struct Node {
    random: Rng,
    habits: BTreeMap<CgroupId, Habit>,
    /// Its state now.
    pub snapshot: Snapshot,
}

impl Node {
    /// With so many containers; always the same.
    pub fn new(containers: usize) -> Result<Self> {
        let mut random = Rng::with_seed(4);
        let ids: Vec<_> = (0..containers as u64).map(|number| CgroupId(4_000 + number * 37)).collect();
        let mut habits = BTreeMap::new();
        let mut snapshot = Snapshot {
            epoch: random.u64(..),
            since_ns: STARTED_NS,
            at_ns: STARTED_NS,
            throttle_hooks: true,
            ..Snapshot::default()
        };
        for (number, id) in ids.iter().enumerate() {
            let habit = Habit::new(&mut random, number, &ids);
            snapshot.cgroups.insert(*id, container(&mut random, number, habit.throttled)?);
            habits.insert(*id, habit);
        }
        Ok(Self { random, habits, snapshot })
    }

    /// Lets time pass.
    pub fn run(&mut self, seconds: f64) {
        let late_ns = self.random.u64(..2_000_000);
        self.snapshot.at_ns += (seconds * SECOND as f64) as u64 + late_ns;
        for (id, cgroup) in &mut self.snapshot.cgroups {
            let habit = &self.habits[id];
            let ran = habit.wait(&mut self.random, seconds, &mut cgroup.counters);
            self.snapshot.switches += ran;
            if ran != 0 {
                habit.use_up(&mut self.random, seconds, ran, &mut cgroup.counters);
                if let Some(memory) = &mut cgroup.memory {
                    read_memory(&mut self.random, self.snapshot.at_ns, memory);
                }
            }
        }
    }
}

impl Habit {
    fn new(random: &mut Rng, number: usize, all: &[CgroupId]) -> Self {
        let switch_ins_per_second = match number % 10 {
            0..4 => 0.2 + 5.0 * random.f64(),
            4..8 => 20.0 + 300.0 * random.f64(),
            _ => 1_000.0 + 5_000.0 * random.f64(),
        };
        let throttled = number % 10 == 9;
        let mut delays = BTreeMap::<_, (u32, u64)>::new();
        for _ in 0..TYPICAL {
            let (cause, ns) = delay(random, throttled);
            let (count, sum_ns) = delays.entry((bucket(ns), cause as usize)).or_default();
            *count += 1;
            *sum_ns += ns;
        }
        let delays = delays.into_iter().map(|((bucket, cause), (count, sum_ns))| Delays {
            bucket,
            cause: Cause::ALL[cause],
            share: f64::from(count) / f64::from(TYPICAL),
            mean_ns: sum_ns / u64::from(count),
        });
        let delays = delays.collect();
        let neighbors = random.choose_multiple(all.iter().copied(), 6);
        Self { switch_ins_per_second, throttled, delays, neighbors }
    }

    /// Waits; says how often it was switched in.
    fn wait(&self, random: &mut Rng, seconds: f64, counters: &mut Counters) -> u64 {
        let mut switch_ins = 0;
        for delays in &self.delays {
            let count = poisson(random, self.switch_ins_per_second * seconds * delays.share);
            if count == 0 {
                continue;
            }
            let sum_ns = delays.mean_ns * u64::from(count) - random.u64(..=delays.mean_ns / 8);
            let (mut latency, mut wait_ns) = ([0; BUCKETS], [0; CAUSES]);
            let mut coarse = [[0; OCTAVES]; TOLD];
            latency[delays.bucket as usize] = count;
            wait_ns[delays.cause as usize] = sum_ns;
            coarse[delays.cause as usize][octave(delays.bucket) as usize] = count;
            // Half of what is waited would have been used.
            let unmet = [(sum_ns >> (UNIT_LOG2_NS + 1)) as u32, 0];
            counters.add_row(&latency, &wait_ns, &coarse, &unmet);
            if delays.cause == Cause::Neighbor
                && let Some(neighbor) = random.choice(&self.neighbors)
            {
                counters.add_neighbor(*neighbor, sum_ns - sum_ns / 9);
            }
            switch_ins += u64::from(count);
        }
        switch_ins
    }

    /// Uses CPU, and is throttled and stalled for it. The files have µs.
    fn use_up(&self, random: &mut Rng, seconds: f64, ran: u64, counters: &mut Counters) {
        counters.usage_ns += ran * random.u64(40..400) * 1_000;
        if self.throttled {
            let throttled_periods = u64::from(poisson(random, seconds * 2.0));
            let mut durations = [0; DURATIONS];
            for _ in 0..throttled_periods {
                durations[random.usize(6..11)] += 1;
            }
            counters.throttling.merge(&Throttling {
                periods: (seconds * 10.0) as u64,
                throttled_periods,
                throttled_ns: throttled_periods * random.u64(5_000..80_000) * 1_000,
                ancestors_throttled_periods: 0,
                durations: Durations::Counted(durations),
            });
        }
        if let Some(pressure) = &mut counters.pressure {
            pressure.cpu_some_ns += ran * random.u64(2..40) * 1_000;
            pressure.cpu_full_ns += ran * random.u64(2..20) * 1_000;
        }
    }
}

/// A delay in ns and its cause.
fn delay(random: &mut Rng, throttled: bool) -> (Cause, u64) {
    if throttled && random.u8(..100) < 3 {
        return (Cause::Quota, random.u64(5_000_000..90_000_000));
    }
    let (cause, scale_ns, spread) = match random.u8(..100) {
        0..15 => (Cause::Neighbor, 200_000.0, 1.4),
        15..20 => (Cause::Own, 100_000.0, 1.2),
        20..25 => (Cause::System, 40_000.0, 1.0),
        _ => (Cause::Idle, 6_000.0, 0.8),
    };
    (cause, (scale_ns * (spread * normal(random)).exp()) as u64)
}

fn read_memory(random: &mut Rng, at_ns: u64, memory: &mut Memory) {
    if at_ns - memory.read_ns < MEMORY_EVERY_NS {
        return;
    }
    memory.read_ns = at_ns;
    memory.current_bytes = memory.current_bytes.saturating_add_signed(random.i64(-200..220) << PAGE_LOG2);
    memory.working_set_bytes = memory.current_bytes / 4 * 3;
    memory.peak_bytes = memory.peak_bytes.max(Some(memory.current_bytes));
}

/// Standard normal, near enough: Irwin and Hall's sum.
fn normal(random: &mut Rng) -> f64 {
    (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
}

fn poisson(random: &mut Rng, mean: f64) -> u32 {
    if mean > 30.0 {
        return (mean + normal(random) * mean.sqrt()).round().max(0.0) as u32;
    }
    // Knuth's.
    let (limit, mut product, mut count) = ((-mean).exp(), random.f64(), 0);
    while product > limit {
        product *= random.f64();
        count += 1;
    }
    count
}

fn container(random: &mut Rng, number: usize, throttled: bool) -> Result<CgroupCounters> {
    let id = hex(random, 64);
    let uid = [8, 4, 4, 4, 12].map(|digits| hex(random, digits)).join("-");
    let path = format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
        uid.replace('-', "_")
    );
    let pod = format!("service-{}-{}-{}", number / 3, hex(random, 9), hex(random, 5));
    let names = Names { namespace: format!("team-{}", number % 12), pod, container: Some("app".to_owned()) };
    let container = Container {
        id: id.try_into()?,
        runtime: Some(Runtime::Containerd),
        pod: Some(Pod { uid: uid.try_into()?, qos: Some(QosClass::Burstable) }),
        names: Some(names),
    };
    let current_bytes = random.u64(1_000..300_000) << PAGE_LOG2;
    let cpu = CpuLimit { quota_us: 50_000, period_us: 100_000, of: LimitOf::Own };
    Ok(CgroupCounters {
        since_ns: STARTED_NS,
        identity: Identity { path, owner: Owner::Container(Box::new(container)) },
        limits: Limits {
            cpu: throttled.then_some(cpu),
            cpu_weight: Some(20),
            memory_max_bytes: Some(512 << 20),
            memory_high_bytes: None,
        },
        memory: Some(Memory {
            current_bytes,
            working_set_bytes: current_bytes / 2,
            peak_bytes: Some(current_bytes),
            read_ns: STARTED_NS,
        }),
        counters: Counters {
            memory_events: Some(MemoryEvents::default()),
            pressure: Some(Pressure::default()),
            ..Counters::default()
        },
        ..CgroupCounters::default()
    })
}

fn hex(random: &mut Rng, digits: usize) -> String {
    (0..digits).map(|_| format!("{:x}", random.u8(..16))).collect()
}
