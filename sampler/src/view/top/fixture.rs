//! A node with four CPUs and a little of everything, made by rule: the same snapshots each time.

use sampler_common::abi::{CAUSES, Cause};
use sampler_common::buckets::{bucket, octave};
use sampler_common::demand::Demand;
use sampler_common::identity::{Container, Identity, Names, Owner, Pod, QosClass, Runtime};
use sampler_common::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use sampler_common::snapshot::{Causes, CgroupCounters, CgroupId, Counters, Durations, Presence, Snapshot};
use sampler_common::throttle::{DURATIONS, duration_bucket};
use sampler_common::window::{Window, Windows};

use super::super::table::wait_per_second;
use super::model::View;
use super::state::State;

pub const SECOND: u64 = 1_000_000_000;
/// Snapshots, a second apart.
const SNAPSHOTS: u64 = 61;
/// CPUs of the node.
pub const CPUS: u32 = 4;
const MS: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

/// What becomes of one cgroup in a second.
struct Load {
    id: u64,
    owner: Owner,
    limits: Limits,
    working_set_mib: u64,
    used_ms: u64,
    /// Delays a second: how many, how long at most (µs), and why.
    delays: &'static [(u64, u64, Cause)],
    /// Which neighbours held the CPU, and for how many parts in ten of the wait for neighbours.
    held_by: &'static [(u64, u64)],
    /// Throttled periods of ten.
    throttled: u64,
    /// In which seconds it is there.
    seconds: std::ops::Range<u64>,
}

/// Every snapshot.
pub fn snapshots() -> Vec<Snapshot> {
    let loads = loads();
    let mut random = 1;
    let mut counted: Vec<Counters> = loads.iter().map(|_| Counters::default()).collect();
    let mut snapshots = Vec::new();
    for second in 0..SNAPSHOTS {
        let at_ns = 100 * SECOND + second * SECOND;
        let mut snapshot = Snapshot {
            epoch: 1,
            since_ns: 90 * SECOND,
            at_ns,
            throttle_hooks: true,
            cgroups: Default::default(),
            other: Counters::default(),
            losses: Default::default(),
            switches: second * 10_000,
        };
        for (load, counters) in loads.iter().zip(&mut counted) {
            if load.seconds.contains(&second) {
                load.count(second, counters, &mut random);
            }
            if load.seconds.start <= second && second <= load.seconds.end {
                let presence = if second == load.seconds.end { Presence::Removed } else { Presence::Live };
                snapshot.cgroups.insert(CgroupId(load.id), load.at(at_ns, presence, counters));
            }
        }
        snapshots.push(snapshot);
    }
    snapshots
}

/// The state after all windows.
pub fn state() -> State {
    let mut state = State::default();
    for pair in snapshots().windows(2) {
        let windows = Windows::between(&pair[0], &pair[1]).unwrap();
        let mut view = View::new(&windows, &pair[1], pair[1].at_ns, CPUS);
        view.rows
            .iter_mut()
            .for_each(|row| row.demand = row.demand.map(|demand| of_rule(demand, &row.window)));
        state.show(view);
    }
    state
}

/// A demand by rule, so that the pictures do not change with the model.
fn of_rule(demand: Demand, window: &Window) -> Demand {
    let lower = window.used_cores().unwrap_or_default();
    let hurt = wait_per_second(window).unwrap_or_default()
        * (1.0 - window.share(sampler_common::snapshot::Cause::Idle).unwrap_or_default());
    Demand { point: lower + hurt / 8.0, lower, upper: lower + hurt / 2.0, confidence: 0.5, ..demand }
}

impl Load {
    fn count(&self, second: u64, counters: &mut Counters, random: &mut u64) {
        // Busier and less busy times.
        let busy = if second % 30 < 20 { 10 } else { 4 };
        for (count, longest_us, cause) in self.delays {
            for _ in 0..(count * busy / 10).max(1) {
                *random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let part = (*random >> 33) % 1000;
                // Most are much shorter than the longest.
                let ns = longest_us * (20 + part * part / 1000 * 98 / 100);
                count_delay(counters, ns, *cause);
                if *cause == Cause::Neighbor {
                    for (who, tenths) in self.held_by {
                        counters.add_neighbor(CgroupId(*who), ns * tenths / 10);
                    }
                }
            }
        }
        counters.usage_ns += self.used_ms * MS;
        if self.limits.cpu.is_some_and(|limit| limit.of == LimitOf::Own) {
            let throttled = self.throttled * busy / 10;
            counters.throttling.periods += 10;
            counters.throttling.throttled_periods += throttled;
            counters.throttling.throttled_ns += throttled * 60 * MS;
            let mut durations = [0; DURATIONS];
            durations[duration_bucket(60 * MS) as usize] = throttled;
            counters.throttling.durations.merge(&Durations::Counted(durations));
        }
        let pressure = counters.pressure.get_or_insert_default();
        pressure.merge(&Pressure {
            cpu_some_ns: self.used_ms * MS / 4,
            cpu_full_ns: self.throttled * busy * 6 * MS / 10,
            ..Pressure::default()
        });
        counters.memory_events.get_or_insert_default().merge(&MemoryEvents {
            oom_kill: u64::from(self.id == 14 && second == 40),
            ..MemoryEvents::default()
        });
    }

    fn at(&self, read_ns: u64, presence: Presence, counters: &Counters) -> CgroupCounters {
        let bytes = self.working_set_mib * MIB;
        CgroupCounters {
            presence,
            since_ns: 90 * SECOND,
            counters: counters.clone(),
            identity: Identity { path: path(self.id, &self.owner), owner: self.owner.clone() },
            limits: self.limits,
            memory: (bytes != 0).then_some(Memory {
                current_bytes: bytes + 16 * MIB,
                working_set_bytes: bytes,
                peak_bytes: Some(bytes + 32 * MIB),
                read_ns,
            }),
        }
    }
}

fn count_delay(counters: &mut Counters, ns: u64, cause: Cause) {
    let mut wait_ns = [0; CAUSES];
    wait_ns[cause as usize] = ns;
    counters.latency.record(ns);
    counters.causes.merge(&Causes::from_row(&wait_ns));
    if let Some(coarse) = counters.coarse.get_mut(cause as usize) {
        coarse.counts[octave(bucket(ns)) as usize] += 1;
    }
}

fn path(id: u64, owner: &Owner) -> String {
    match owner {
        Owner::Container(container) => {
            format!("kubepods.slice/kubepods-pod{id}.slice/cri-containerd-{}.scope", container.id.as_str())
        }
        Owner::Unit { name } => format!("system.slice/{name}"),
        Owner::Outside if id == 1 => String::new(),
        Owner::Outside => "kubepods.slice".into(),
    }
}

fn container(id: u64, names: Option<[&str; 3]>) -> Owner {
    let hex = format!("{:016x}", id.wrapping_mul(0x9E37_79B9_7F4A_7C15)).repeat(4);
    let uid = format!("3c1a5f0e-8d2b-4c7a-9e6f-{id:012x}");
    Owner::Container(Box::new(Container {
        id: hex.try_into().unwrap(),
        runtime: Some(Runtime::Containerd),
        pod: Some(Pod { uid: uid.try_into().unwrap(), qos: Some(QosClass::Burstable) }),
        names: names.map(|[namespace, pod, container]| Names {
            namespace: namespace.into(),
            pod: pod.into(),
            container: Some(container.into()),
        }),
    }))
}

fn limits(cpu_quota_us: Option<u64>, memory_max_mib: Option<u64>) -> Limits {
    Limits {
        cpu: cpu_quota_us.map(|quota_us| CpuLimit { quota_us, period_us: 100_000, of: LimitOf::Own }),
        cpu_weight: Some(39),
        memory_max_bytes: memory_max_mib.map(|mib| mib * MIB),
        memory_high_bytes: None,
    }
}

fn loads() -> Vec<Load> {
    let always = 0..u64::MAX;
    let quiet = |id, owner, used_ms, delays| Load {
        id,
        owner,
        limits: Limits { cpu_weight: Some(100), ..Limits::default() },
        working_set_mib: 40,
        used_ms,
        delays,
        held_by: &[],
        throttled: 0,
        seconds: 0..u64::MAX,
    };
    let unit = |name: &str| Owner::Unit { name: name.into() };
    vec![
        Load {
            limits: limits(Some(50_000), Some(256)),
            working_set_mib: 120,
            throttled: 9,
            delays: &[(60, 82_000, Cause::Quota), (300, 900, Cause::Idle), (40, 4_000, Cause::Own)],
            ..quiet(10, container(10, Some(["shop", "checkout-7d9f8b6c5d-x2x9z", "checkout"])), 480, &[])
        },
        Load {
            limits: limits(None, Some(512)),
            working_set_mib: 310,
            delays: &[(400, 5_000, Cause::Neighbor), (900, 60, Cause::Idle), (30, 3_000, Cause::System)],
            held_by: &[(12, 8), (13, 1)],
            ..quiet(11, container(11, Some(["shop", "web-6c8d54f7b9-k4q8n", "nginx"])), 640, &[])
        },
        Load {
            limits: limits(None, None),
            working_set_mib: 1_800,
            delays: &[(700, 6_000, Cause::Own), (60, 3_000, Cause::Neighbor)],
            held_by: &[(11, 6)],
            ..quiet(12, container(12, Some(["batch", "report-29384756-tq7wl", "report"])), 1_900, &[])
        },
        Load {
            limits: limits(Some(200_000), Some(128)),
            working_set_mib: 90,
            delays: &[(120, 9_000, Cause::System), (500, 40, Cause::Idle)],
            ..quiet(13, container(13, Some(["shop", "cart-84b9f6d5c7-m2v5d", "cart"])), 150, &[])
        },
        Load {
            limits: limits(Some(100_000), Some(64)),
            working_set_mib: 60,
            delays: &[(20, 15_000, Cause::Beyond), (20, 700, Cause::Idle)],
            ..quiet(14, container(14, None), 60, &[])
        },
        Load {
            delays: &[(80, 30, Cause::Idle)],
            ..quiet(15, container(15, Some(["kube-system", "kube-proxy-abcde", "kube-proxy"])), 8, &[])
        },
        Load {
            delays: &[(200, 25, Cause::Idle), (2, 800, Cause::System)],
            seconds: 45..u64::MAX,
            ..quiet(16, container(16, Some(["kube-system", "coredns-5d78c9869d-8sn4v", "coredns"])), 15, &[])
        },
        Load {
            delays: &[(30, 2_000, Cause::Own)],
            seconds: 0..60,
            ..quiet(17, container(17, Some(["batch", "migrate-x8k2p", "migrate"])), 300, &[])
        },
        quiet(20, unit("kubelet.service"), 55, &[(150, 400, Cause::Neighbor), (400, 30, Cause::Idle)]),
        quiet(21, unit("containerd.service"), 30, &[(250, 28, Cause::Idle)]),
        quiet(22, unit("systemd-journald.service"), 0, &[]),
        quiet(1, Owner::Outside, 4_000, &[(500, 20, Cause::Idle)]),
        Load { seconds: always, ..quiet(30, Owner::Outside, 3_000, &[]) },
    ]
}
