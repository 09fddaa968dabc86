//! ResourceQuotas: what a namespace has left for the pods that each counts, given to those who need it most.
//!
//! What shrinks frees quota only once it has happened, so nothing is counted on here that a plan is still to free.

use std::collections::BTreeMap;

use super::observation::{Pod, Quota};
use super::reason::{Missing, Reason};
use super::sizes::Sizes;
use super::units::{Bytes, MilliCpu};

/// What is left of each quota.
#[derive(Clone, Debug)]
pub struct Ledger<'a> {
    left: BTreeMap<&'a str, Vec<Left<'a>>>,
}

#[derive(Clone, Debug)]
struct Left<'a> {
    quota: &'a Quota,
    /// In the order of [`amounts`]; `None` is not looked at.
    amounts: [Option<u64>; 4],
}

/// CPU request, memory request, CPU limit, memory limit.
fn amounts(sizes: &Sizes) -> [Option<u64>; 4] {
    [
        sizes.cpu_request.map(|size| size.0),
        sizes.memory_request.map(|size| size.0),
        sizes.cpu_limit.map(|size| size.0),
        sizes.memory_limit.map(|size| size.0),
    ]
}

fn sizes([cpu_request, memory_request, cpu_limit, memory_limit]: [Option<u64>; 4]) -> Sizes {
    Sizes {
        cpu_request: cpu_request.map(MilliCpu),
        memory_request: memory_request.map(Bytes),
        cpu_limit: cpu_limit.map(MilliCpu),
        memory_limit: memory_limit.map(Bytes),
    }
}

impl<'a> Ledger<'a> {
    /// What is left now.
    pub fn new(quotas: &'a [Quota]) -> Self {
        let mut left: BTreeMap<&str, Vec<Left<'_>>> = BTreeMap::new();
        for quota in quotas {
            let (hard, used) = (amounts(&quota.hard), amounts(&quota.used));
            let amounts = std::array::from_fn(|index| {
                hard[index].map(|hard| hard.saturating_sub(used[index].unwrap_or_default()))
            });
            left.entry(&quota.namespace).or_default().push(Left { quota, amounts });
        }
        Self { left }
    }

    /// What of `proposal` the namespace can pay for, for a container of a pod that holds `held` and has `current`; and who
    /// objects.
    pub fn grant(&self, pod: &Pod, current: Sizes, held: Sizes, proposal: Sizes) -> (Sizes, Option<Reason>) {
        let (current, held) = (amounts(&current), amounts(&held));
        let mut granted = amounts(&proposal);
        let mut objection = None;
        let of_namespace = self.left.get(pod.namespace.as_str()).into_iter().flatten();
        for Left { quota, amounts: left } in of_namespace.filter(|left| left.quota.counts(pod)) {
            for index in 0..granted.len() {
                let (Some(left), Some(asked)) = (left[index], granted[index]) else { continue };
                let held = held[index].unwrap_or_default();
                let most = held.saturating_add(left).max(current[index].unwrap_or_default());
                if asked > most {
                    // What was not set stays so where nothing is left.
                    granted[index] = (most > 0 || current[index].is_some()).then_some(most);
                    let missing = asked - most;
                    let missing = if index % 2 == 0 {
                        Missing::Cpu(MilliCpu(missing))
                    } else {
                        Missing::Memory(Bytes(missing))
                    };
                    objection.get_or_insert(Reason::QuotaExceeded(quota.name.clone(), missing));
                }
            }
        }
        (sizes(granted), objection)
    }

    /// Takes what is granted.
    pub fn take(&mut self, pod: &Pod, held: Sizes, granted: Sizes) {
        let (held, granted) = (amounts(&held), amounts(&granted));
        let of_namespace = self.left.get_mut(pod.namespace.as_str()).into_iter().flatten();
        for Left { amounts: left, .. } in of_namespace.filter(|left| left.quota.counts(pod)) {
            for index in 0..granted.len() {
                let more = granted[index].unwrap_or_default().saturating_sub(held[index].unwrap_or_default());
                if let Some(left) = &mut left[index] {
                    *left = left.saturating_sub(more);
                }
            }
        }
    }
}
