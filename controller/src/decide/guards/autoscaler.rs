//! Workloads whose replicas HorizontalPodAutoscalers set.

use std::collections::BTreeSet;

use super::{Facts, Ruling};
use crate::decide::observation::MadeBy;
use crate::decide::policy::HpaPods;
use crate::decide::reason::{ByOwner, Reason};
use crate::decide::sizes::{Resource, Sizes};

/// Holds the request on whose utilisation an autoscaler scales: it adds replicas at request × target utilisation, and a request
/// that moved would move that point. A limit may move, as long as the request fits below it. Where there are several, each holds
/// what it scales on; where nobody knows whose replica it is, each in the namespace may scale it.
pub fn autoscaler(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let utilisation_of: BTreeSet<Resource> =
        facts.autoscalers.iter().flat_map(|autoscaler| autoscaler.utilisation_of.iter().copied()).collect();
    if utilisation_of.is_empty() {
        return Ruling::pass(proposal);
    }
    let reason = |scales: &dyn Fn(Resource) -> bool| {
        let scaling = facts.autoscalers.iter().filter(|of| of.utilisation_of.iter().copied().any(scales));
        let names = scaling.map(|autoscaler| autoscaler.name.as_str()).collect::<Vec<_>>().join(", ");
        match facts.made_by {
            MadeBy::Unknown => Reason::OwnerUnknown(ByOwner::Autoscalers(names)),
            MadeBy::Nobody | MadeBy::Workload(_) => Reason::HpaManaged(names),
        }
    };
    let current = facts.current();
    let guaranteed = facts.pod.qos == crate::decide::observation::Qos::Guaranteed;
    let mut left = proposal;
    match facts.policy.hpa_pods {
        HpaPods::Ignore => return Ruling::pass(proposal),
        HpaPods::RecommendOnly => {
            return Ruling::hold(facts, proposal, reason(&|_| true));
        }
        HpaPods::HoldRequest if guaranteed => {
            for resource in &utilisation_of {
                left = left.with(*resource, &current);
            }
        }
        HpaPods::HoldRequest => {
            if utilisation_of.contains(&Resource::Cpu) {
                left.cpu_request = current.cpu_request;
                left.cpu_limit = left.cpu_limit.max(left.cpu_limit.and(current.cpu_request));
            }
            if utilisation_of.contains(&Resource::Memory) {
                left.memory_request = current.memory_request;
                left.memory_limit = left.memory_limit.max(left.memory_limit.and(current.memory_request));
            }
        }
    }
    let held = |resource| !left.same(resource, &proposal);
    Ruling::leave(proposal, left, reason(&held))
}
