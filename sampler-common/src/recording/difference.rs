//! What changed from one snapshot to the next, as bytes, and the next snapshot from these bytes.
//!
//! Both directions take every struct apart by name: a field that is new does not compile until it is recorded.

use prost::Message as _;

use super::{CGROUPS, Invalid, text, wire};
use crate::abi::TOLD;
use crate::buckets::OCTAVES;
use crate::histogram::{CoarseHistogram, LatencyHistogram};
use crate::resources::{Memory, MemoryEvents, Pressure};
use crate::snapshot::{
    Causes, CgroupCounters, CgroupId, Counters, Cycles, Durations, Losses, Presence, Snapshot, Throttling,
    Unmet,
};
use crate::sparse::{Gaps, grow, growth};
use crate::throttle::DURATIONS;

/// What makes `later` of `earlier`.
pub(super) fn between(earlier: &Snapshot, later: &Snapshot) -> Vec<u8> {
    let Snapshot { epoch, since_ns, at_ns, throttle_hooks, cgroups, other, losses, switches } = later;
    let unchanged = CgroupCounters::default();
    let mut gaps = Gaps::default();
    let mut changed = Vec::new();
    for (id, cgroup) in cgroups {
        let before = earlier.cgroups.get(id);
        if before != Some(cgroup) {
            changed.push(cgroup_between(gaps.before(id.0), before.unwrap_or(&unchanged), cgroup));
        }
    }
    let mut gaps = Gaps::default();
    let left_out = earlier.cgroups.keys().filter(|id| !cgroups.contains_key(id));
    let node = wire::Node {
        epoch: epoch.wrapping_sub(earlier.epoch),
        since_ns: since_ns.wrapping_sub(earlier.since_ns),
        at_ns: at_ns.wrapping_sub(earlier.at_ns),
        throttle_hooks: *throttle_hooks,
        switches: switches.wrapping_sub(earlier.switches),
        losses: growth(&earlier.losses.parts(), &losses.parts()),
        other: counters_between(&earlier.other, other),
        left_out: left_out.map(|id| gaps.before(id.0)).collect(),
        changed: changed.len() as u32,
    };
    let mut bytes = node.encode_length_delimited_to_vec();
    for cgroup in changed {
        bytes.extend(cgroup.encode_length_delimited_to_vec());
    }
    bytes
}

/// Makes the later snapshot of the earlier one.
pub(super) fn apply(snapshot: &mut Snapshot, mut bytes: &[u8]) -> Result<(), Invalid> {
    let node = wire::Node::decode_length_delimited(&mut bytes)?;
    snapshot.epoch = snapshot.epoch.wrapping_add(node.epoch);
    snapshot.since_ns = snapshot.since_ns.wrapping_add(node.since_ns);
    snapshot.at_ns = snapshot.at_ns.wrapping_add(node.at_ns);
    snapshot.throttle_hooks = node.throttle_hooks;
    snapshot.switches = snapshot.switches.wrapping_add(node.switches);
    let mut losses = snapshot.losses.parts();
    grow(&mut losses, &node.losses)?;
    snapshot.losses = Losses::from_parts(losses);
    apply_counters(&mut snapshot.other, node.other.unwrap_or_default())?;
    let mut gaps = Gaps::default();
    for gap in node.left_out {
        let id = CgroupId(gaps.after(gap)?);
        snapshot.cgroups.remove(&id).ok_or(Invalid("a cgroup left out that was not there"))?;
    }
    let mut gaps = Gaps::default();
    for _ in 0..node.changed {
        let cgroup = wire::Cgroup::decode_length_delimited(&mut bytes)?;
        let id = CgroupId(gaps.after(cgroup.id)?);
        if snapshot.cgroups.len() == CGROUPS && !snapshot.cgroups.contains_key(&id) {
            return Err(Invalid("too many cgroups"));
        }
        apply_cgroup(snapshot.cgroups.entry(id).or_default(), cgroup)?;
    }
    if bytes.is_empty() { Ok(()) } else { Err(Invalid("bytes after the last cgroup")) }
}

fn cgroup_between(gap: u64, earlier: &CgroupCounters, later: &CgroupCounters) -> wire::Cgroup {
    let CgroupCounters { presence, since_ns, counters, identity, limits, memory } = later;
    wire::Cgroup {
        id: gap,
        removed: *presence == Presence::Removed,
        since_ns: since_ns.wrapping_sub(earlier.since_ns),
        counters: counters_between(&earlier.counters, counters),
        identity: (*identity != earlier.identity).then(|| text::identity(identity)),
        limits: (*limits != earlier.limits).then(|| text::limits(limits)),
        memory: memory_between(earlier.memory, *memory),
    }
}

fn apply_cgroup(cgroup: &mut CgroupCounters, change: wire::Cgroup) -> Result<(), Invalid> {
    let wire::Cgroup { id: _, removed, since_ns, counters, identity, limits, memory } = change;
    cgroup.presence = if removed { Presence::Removed } else { Presence::Live };
    cgroup.since_ns = cgroup.since_ns.wrapping_add(since_ns);
    apply_counters(&mut cgroup.counters, counters.unwrap_or_default())?;
    if let Some(identity) = identity {
        cgroup.identity = text::read_identity(identity)?;
    }
    if let Some(limits) = limits {
        cgroup.limits = text::read_limits(&limits)?;
    }
    if let Some(memory) = memory {
        apply_memory(&mut cgroup.memory, &memory);
    }
    Ok(())
}

fn counters_between(earlier: &Counters, later: &Counters) -> Option<wire::Counters> {
    if earlier == later {
        return None;
    }
    let Counters {
        latency,
        causes,
        unmet,
        cycles,
        coarse,
        neighbors,
        usage_ns,
        throttling,
        memory_events,
        pressure,
    } = later;
    let sum_grew = latency.sum_ns().wrapping_sub(earlier.latency.sum_ns());
    let causes_grew = total(causes).wrapping_sub(total(&earlier.causes));
    let mut changed = Vec::new();
    let mut gaps = Gaps::default();
    for (id, ns) in neighbors {
        let before = earlier.neighbors.get(id);
        if before != Some(ns) {
            changed.extend([gaps.before(id.0), ns.wrapping_sub(before.copied().unwrap_or(0))]);
        }
    }
    let mut gaps = Gaps::default();
    let forgotten = earlier.neighbors.keys().filter(|id| !neighbors.contains_key(id));
    Some(wire::Counters {
        latency: growth(earlier.latency.counts(), latency.counts()),
        sum_beside_causes_ns: sum_grew.wrapping_sub(causes_grew) as i64,
        causes: growth(&earlier.causes.parts(), &causes.parts()),
        coarse: growth(flat(&earlier.coarse).as_flattened(), flat(coarse).as_flattened()),
        neighbors: changed,
        forgotten: forgotten.map(|id| gaps.before(id.0)).collect(),
        usage_ns: usage_ns.wrapping_sub(earlier.usage_ns),
        throttling: growth(&earlier.throttling.parts(), &throttling.parts()),
        durations: known_between(counted(&earlier.throttling.durations), counted(&throttling.durations)),
        memory_events: known_between(
            earlier.memory_events.as_ref().map(MemoryEvents::parts),
            memory_events.as_ref().map(MemoryEvents::parts),
        ),
        pressure: known_between(
            earlier.pressure.as_ref().map(Pressure::parts),
            pressure.as_ref().map(Pressure::parts),
        ),
        unmet: known_between(earlier.unmet.as_ref().map(Unmet::parts), unmet.as_ref().map(Unmet::parts)),
        cycles: known_between(earlier.cycles.as_ref().map(Cycles::parts), cycles.as_ref().map(Cycles::parts)),
    })
}

fn apply_counters(counters: &mut Counters, change: wire::Counters) -> Result<(), Invalid> {
    let mut causes = counters.causes.parts();
    grow(&mut causes, &change.causes)?;
    let causes = Causes::from_parts(causes);
    let causes_grew = total(&causes).wrapping_sub(total(&counters.causes));
    let sum_grew = causes_grew.wrapping_add(change.sum_beside_causes_ns as u64);
    let mut latency = *counters.latency.counts();
    grow(&mut latency, &change.latency)?;
    counters.latency = LatencyHistogram::new(latency, counters.latency.sum_ns().wrapping_add(sum_grew));
    counters.causes = causes;
    let mut coarse = flat(&counters.coarse);
    grow(coarse.as_flattened_mut(), &change.coarse)?;
    counters.coarse = coarse.map(|counts| CoarseHistogram { counts });
    let mut gaps = Gaps::default();
    for gap in change.forgotten {
        let id = CgroupId(gaps.after(gap)?);
        counters.neighbors.remove(&id).ok_or(Invalid("a neighbour forgotten that was not there"))?;
    }
    let mut gaps = Gaps::default();
    for pair in change.neighbors.chunks(2) {
        let &[gap, grown] = pair else { return Err(Invalid("half a neighbour")) };
        let held_ns = counters.neighbors.entry(CgroupId(gaps.after(gap)?)).or_default();
        *held_ns = held_ns.wrapping_add(grown);
    }
    counters.usage_ns = counters.usage_ns.wrapping_add(change.usage_ns);
    let mut throttling = counters.throttling.parts();
    grow(&mut throttling, &change.throttling)?;
    let durations = grow_known(counted(&counters.throttling.durations), change.durations)?;
    let durations = durations.map_or(Durations::HooksUnavailable, Durations::Counted);
    counters.throttling = Throttling::from_parts(throttling, durations);
    let events = counters.memory_events.as_ref().map(MemoryEvents::parts);
    counters.memory_events = grow_known(events, change.memory_events)?.map(MemoryEvents::from_parts);
    let pressure = counters.pressure.as_ref().map(Pressure::parts);
    counters.pressure = grow_known(pressure, change.pressure)?.map(Pressure::from_parts);
    let unmet = counters.unmet.as_ref().map(Unmet::parts);
    counters.unmet = grow_known(unmet, change.unmet)?.map(Unmet::from_parts);
    let cycles = counters.cycles.as_ref().map(Cycles::parts);
    counters.cycles = grow_known(cycles, change.cycles)?.map(Cycles::from_parts);
    Ok(())
}

/// All wait, modulo 2⁶⁴ like every other difference.
fn total(causes: &Causes) -> u64 {
    causes.parts().iter().fold(0, |sum, ns| sum.wrapping_add(*ns))
}

fn flat(coarse: &[CoarseHistogram; TOLD]) -> [[u64; OCTAVES]; TOLD] {
    coarse.map(|of_cause| of_cause.counts)
}

fn counted(durations: &Durations) -> Option<[u64; DURATIONS]> {
    match durations {
        Durations::Counted(counts) => Some(*counts),
        Durations::HooksUnavailable => None,
    }
}

fn known_between<const N: usize>(earlier: Option<[u64; N]>, later: Option<[u64; N]>) -> Option<wire::Growth> {
    (earlier != later).then(|| match later {
        None => wire::Growth { unknown: true, counts: Vec::new() },
        Some(later) => wire::Growth { unknown: false, counts: growth(&earlier.unwrap_or([0; N]), &later) },
    })
}

fn grow_known<const N: usize>(
    earlier: Option<[u64; N]>,
    change: Option<wire::Growth>,
) -> Result<Option<[u64; N]>, Invalid> {
    match change {
        None => Ok(earlier),
        Some(wire::Growth { unknown: true, .. }) => Ok(None),
        Some(wire::Growth { unknown: false, counts }) => {
            let mut later = earlier.unwrap_or([0; N]);
            grow(&mut later, &counts)?;
            Ok(Some(later))
        }
    }
}

fn memory_between(earlier: Option<Memory>, later: Option<Memory>) -> Option<wire::Memory> {
    let unknown = wire::Memory { unknown: true, ..wire::Memory::default() };
    let change = |later: Memory| {
        let Memory { current_bytes, working_set_bytes, peak_bytes, read_ns } = later;
        let earlier = earlier.unwrap_or(NO_MEMORY);
        let change = |earlier: u64, later: u64| later.wrapping_sub(earlier) as i64;
        wire::Memory {
            unknown: false,
            current_bytes: change(earlier.current_bytes, current_bytes),
            working_set_bytes: change(earlier.working_set_bytes, working_set_bytes),
            peak_unknown: peak_bytes.is_none(),
            peak_bytes: peak_bytes.map_or(0, |peak| change(earlier.peak_bytes.unwrap_or(0), peak)),
            read_ns: change(earlier.read_ns, read_ns),
        }
    };
    (earlier != later).then(|| later.map_or(unknown, change))
}

fn apply_memory(memory: &mut Option<Memory>, change: &wire::Memory) {
    let earlier = memory.unwrap_or(NO_MEMORY);
    let changed = |earlier: u64, change: i64| earlier.wrapping_add(change as u64);
    *memory = (!change.unknown).then(|| Memory {
        current_bytes: changed(earlier.current_bytes, change.current_bytes),
        working_set_bytes: changed(earlier.working_set_bytes, change.working_set_bytes),
        peak_bytes: (!change.peak_unknown)
            .then(|| changed(earlier.peak_bytes.unwrap_or(0), change.peak_bytes)),
        read_ns: changed(earlier.read_ns, change.read_ns),
    });
}

/// What memory that becomes known changes from.
const NO_MEMORY: Memory = Memory { current_bytes: 0, working_set_bytes: 0, peak_bytes: None, read_ns: 0 };
