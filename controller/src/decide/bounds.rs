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
use super::units::{Bytes, MilliCpu};

/// What a bound leaves of a proposal, and why it is not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// What is left.
    pub sizes: Sizes,
    /// Why.
    pub reason: Reason,
}

/// `minAllowed` and `maxAllowed`, of the requests. Limits of a Guaranteed pod are its requests.
pub fn allowed(pod: &Pod, policy: &Policy, proposal: Sizes) -> Vec<Bounded> {
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

/// The namespace's LimitRanges, of type Container. What breaks one already is left as it is: Kubernetes looks at it only
/// when it changes.
pub fn limit_range(pod: &Pod, range: &LimitRange, current: Sizes, proposal: Sizes) -> Option<Bounded> {
    let of = &range.container;
    let mut sizes = proposal;
    sizes.cpu_request = one(sizes.cpu_request, of.min.cpu, of.max.cpu);
    sizes.memory_request = one(sizes.memory_request, of.min.memory, of.max.memory);
    sizes.cpu_limit = one(sizes.cpu_limit, of.min.cpu, of.max.cpu);
    sizes.memory_limit = one(sizes.memory_limit, of.min.memory, of.max.memory);
    // Limit ÷ request ≤ ratio: a request that shrinks under a limit that stays stops at limit ÷ ratio.
    if let (Some(request), Some(limit), Some(ratio)) =
        (sizes.cpu_request, sizes.cpu_limit, of.max_limit_request_ratio.cpu)
    {
        sizes.cpu_request = Some(request.max(MilliCpu(limit.0).scale_up(1000, ratio)));
    }
    if let (Some(request), Some(limit), Some(ratio)) =
        (sizes.memory_request, sizes.memory_limit, of.max_limit_request_ratio.memory)
    {
        sizes.memory_request = Some(request.max(Bytes(limit.0).scale_up(1000, ratio)));
    }
    // A resource that was not to move is not moved by a LimitRange either.
    for resource in [Resource::Cpu, Resource::Memory] {
        if proposal.same(resource, &current) {
            sizes = sizes.with(resource, &current);
        }
    }
    let sizes = equal_limits(pod, sizes);
    (sizes != proposal).then(|| Bounded { sizes, reason: Reason::LimitRange(range.name.clone()) })
}

/// Within a range; what is not set stays so. A maximum below the minimum wins: it is what admission refuses.
fn one<Size: Ord + Copy>(size: Option<Size>, min: Option<Size>, max: Option<Size>) -> Option<Size> {
    let raised = size?.max(min.unwrap_or(size?));
    Some(raised.min(max.unwrap_or(raised)))
}
