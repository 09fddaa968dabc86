//! What a policy, the container's own limits and the namespace's LimitRanges allow.
//!
//! Each bound is a function of a proposal: what is left of it, and the reason where that is not all.
//!
//! # Invariants
//!
//! * `request ≤ limit`, and a limit is never below what the kernel enforces.
//! * What was not set stays so: Kubernetes lets no request or limit be taken away, and a new one could change the class.

use super::observation::{LimitRange, Pod, Qos};
use super::policy::{ControlledValues, CpuBounds, Policy};
use super::reason::Reason;
use super::sizes::{Resource, Sizes};
use super::units::Bytes;

/// What a bound leaves of a proposal, and why it is not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// What is left.
    pub sizes: Sizes,
    /// Why.
    pub reason: Reason,
}

/// `minAllowed` and `maxAllowed`, of the requests, and of limits that rise: one that was set above `maxAllowed` stays. Limits of a
/// Guaranteed pod are its requests.
pub fn allowed(pod: &Pod, policy: &Policy, current: Sizes, proposal: Sizes) -> Vec<Bounded> {
    let mut sizes = proposal;
    let mut bounded = Vec::new();
    let mut bound = |sizes: Sizes, reason| bounded.push(Bounded { sizes, reason });
    if let Some(cpu) = sizes.cpu_request {
        let allowed = cpu.clamp(policy.cpu.min_allowed, policy.cpu.max_allowed);
        if allowed != cpu {
            sizes.cpu_request = Some(allowed);
            sizes = equal_limits(pod, sizes);
            bound(sizes, side(Resource::Cpu, allowed > cpu));
        }
    }
    if let Some(memory) = sizes.memory_request {
        let allowed = memory.clamp(policy.memory.min_allowed, policy.memory.max_allowed);
        if allowed != memory {
            sizes.memory_request = Some(allowed);
            sizes = equal_limits(pod, sizes);
            bound(sizes, side(Resource::Memory, allowed > memory));
        }
    }
    if let Some(limit) = sizes.cpu_limit {
        let most = policy.cpu.max_allowed.max(current.cpu_limit.unwrap_or_default());
        if limit > most {
            sizes.cpu_limit = Some(most);
            bound(sizes, Reason::MaxAllowed(Resource::Cpu));
        }
    }
    if let Some(limit) = sizes.memory_limit {
        let most = policy.memory.max_allowed.max(current.memory_limit.unwrap_or_default());
        if limit > most {
            sizes.memory_limit = Some(most);
            bound(sizes, Reason::MaxAllowed(Resource::Memory));
        }
    }
    bounded
}

fn side(resource: Resource, raised: bool) -> Reason {
    if raised { Reason::MinAllowed(resource) } else { Reason::MaxAllowed(resource) }
}

/// In a Guaranteed pod limits are requests.
pub fn equal_limits(pod: &Pod, sizes: Sizes) -> Sizes {
    if pod.qos != Qos::Guaranteed {
        return sizes;
    }
    Sizes {
        cpu_limit: sizes.cpu_limit.and(sizes.cpu_request),
        memory_limit: sizes.memory_limit.and(sizes.memory_request),
        ..sizes
    }
}

/// Requests stay below limits: by raising the limit where limits move, by staying below it where they do not.
pub fn within_limits(policy: &Policy, proposal: Sizes) -> Vec<Bounded> {
    let mut sizes = proposal;
    let mut bounded = Vec::new();
    let moves = policy.controlled_values == ControlledValues::RequestsAndLimits;
    if let (Some(request), Some(limit)) = (sizes.cpu_request, sizes.cpu_limit)
        && request > limit
    {
        let to = if moves { request } else { limit };
        (sizes.cpu_request, sizes.cpu_limit) = (Some(to), Some(to));
        bounded.push(Bounded { sizes, reason: Reason::LimitBinds(Resource::Cpu) });
    }
    if let (Some(request), Some(limit)) = (sizes.memory_request, sizes.memory_limit)
        && request > limit
    {
        let to = if moves { request } else { limit };
        (sizes.memory_request, sizes.memory_limit) = (Some(to), Some(to));
        bounded.push(Bounded { sizes, reason: Reason::LimitBinds(Resource::Memory) });
    }
    if moves && sizes.cpu_limit.is_some_and(|limit| limit < CpuBounds::LEAST) {
        sizes.cpu_limit = Some(CpuBounds::LEAST);
        bounded.push(Bounded { sizes, reason: Reason::MinAllowed(Resource::Cpu) });
    }
    bounded
}

/// The namespace's LimitRanges, of type Container. What breaks one already is brought nearer or left as it is; where the policy
/// and the LimitRange leave nothing between them, it stays as it is.
pub fn limit_range(
    pod: &Pod,
    policy: &Policy,
    range: &LimitRange,
    current: Sizes,
    proposal: Sizes,
) -> Option<Bounded> {
    let mut sizes = proposal;
    for resource in Resource::ALL {
        let (had, (asked, asked_limit)) = (current.pair(resource), proposal.pair(resource));
        if had == (asked, asked_limit) {
            continue;
        }
        let (min, max, ratio) = range.container.of(resource);
        let (least, most) = (min.unwrap_or(0), max.unwrap_or(u64::MAX));
        // A limit that does not move is not moved by a LimitRange either.
        let limit =
            if asked_limit == had.1 { had.1 } else { asked_limit.map(|limit| limit.max(least).min(most)) };
        // A request that shrinks under a limit that stays stops at limit ÷ ratio.
        let gentle = limit.zip(ratio).map(|(limit, ratio)| Bytes(limit).scale_up(1000, ratio).0);
        let request = asked.map(|request| request.max(gentle.unwrap_or(0)).max(least).min(most));
        let allowed = match resource {
            Resource::Cpu => (policy.cpu.min_allowed.0, policy.cpu.max_allowed.0),
            Resource::Memory => (policy.memory.min_allowed.0, policy.memory.max_allowed.0),
        };
        let holds = nearer(had.0, request, allowed) && respects(range, resource, had, (request, limit));
        sizes = sizes.with_pair(resource, if holds { (request, limit) } else { had });
    }
    let sizes = equal_limits(pod, sizes);
    (sizes != proposal).then(|| Bounded { sizes, reason: Reason::LimitRange(range.name.clone()) })
}

/// Whether a container's request and limit lie within a LimitRange, or nearer to it than those that it had.
pub fn respects(
    range: &LimitRange,
    resource: Resource,
    had: (Option<u64>, Option<u64>),
    (request, limit): (Option<u64>, Option<u64>),
) -> bool {
    let (min, max, ratio) = range.container.of(resource);
    let between = (min.unwrap_or(0), max.unwrap_or(u64::MAX));
    let gentle = limit.zip(ratio).map(|(limit, ratio)| Bytes(limit).scale_up(1000, ratio).0);
    nearer(had.0, request, between)
        && nearer(had.1, limit, between)
        && (request >= gentle || request >= had.0 && limit <= had.1)
}

/// Whether a size lies between two bounds, or nearer to them than the one before.
fn nearer(from: Option<u64>, to: Option<u64>, (least, most): (u64, u64)) -> bool {
    let Some(to) = to else { return true };
    let from = from.unwrap_or(0);
    if to < least { to >= from } else { to <= most || to <= from }
}
