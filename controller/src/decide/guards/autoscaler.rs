//! Workloads whose replicas a HorizontalPodAutoscaler sets.

use super::{Facts, Ruling};
use crate::decide::policy::HpaPods;
use crate::decide::reason::Reason;
use crate::decide::sizes::{Resource, Sizes};

/// Holds the request on whose utilisation the autoscaler scales: it adds replicas at request × target utilisation, and a request
/// that moved would move that point. A limit may move, as long as the request fits below it.
pub fn autoscaler(facts: &Facts<'_>, proposal: Sizes) -> Ruling {
    let Some(autoscaler) = facts.autoscaler else { return Ruling::pass(proposal) };
    let reason = Reason::HpaManaged(autoscaler.name.clone());
    let current = facts.current();
    let guaranteed = facts.pod.qos == crate::decide::observation::Qos::Guaranteed;
    let mut left = proposal;
    match facts.policy.hpa_pods {
        HpaPods::Ignore => return Ruling::pass(proposal),
        HpaPods::RecommendOnly => return Ruling::hold(facts, proposal, reason),
        HpaPods::HoldRequest if guaranteed => {
            for resource in &autoscaler.utilisation_of {
                left = left.with(*resource, &current);
            }
        }
        HpaPods::HoldRequest => {
            if autoscaler.utilisation_of.contains(&Resource::Cpu) {
                left.cpu_request = current.cpu_request;
                left.cpu_limit = left.cpu_limit.max(left.cpu_limit.and(current.cpu_request));
            }
            if autoscaler.utilisation_of.contains(&Resource::Memory) {
                left.memory_request = current.memory_request;
                left.memory_limit = left.memory_limit.max(left.memory_limit.and(current.memory_request));
            }
        }
    }
    Ruling::leave(proposal, left, reason)
}
