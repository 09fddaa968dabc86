//! How much a container's gain counts when its node's CPU is divided.
//!
//! Weight = request × policy's weight × a factor of its PriorityClass. The request comes first because it is what
//! the scheduler already promised and what the kernel divides a busy CPU by (`cpu.weight`); it is the request that the
//! pod was created with, not the one that we gave it, lest every raise be an argument for the next.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::units::MilliCpu;

/// A policy's weight in percent: 100 changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyWeight(pub NonZeroU32);

impl Default for PolicyWeight {
    fn default() -> Self {
        const NEUTRAL: NonZeroU32 = NonZeroU32::new(100).unwrap();
        Self(NEUTRAL)
    }
}

/// The weight of a container.
///
/// A priority counts by its order of magnitude: 0 to 8 once, 1,000 four times, 10⁹ ten times, less than 0 half. Priorities
/// are ranks, not amounts: in proportion, one class of 10⁹ would leave nothing for anybody. A container without
/// a request counts as one of 1 m, as it does in the kernel.
pub fn weight(request: MilliCpu, policy: PolicyWeight, priority: i32) -> NonZeroU32 {
    let halves: u64 = match u32::try_from(priority) {
        Err(_) => 1,
        Ok(priority) => 2 * (1 + u64::from((priority + 1).ilog10())),
    };
    let product = u128::from(request.0.max(1)) * u128::from(policy.0.get()) * u128::from(halves);
    let product = u32::try_from(product).unwrap_or(u32::MAX);
    NonZeroU32::new(product).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(request: u64, policy: u32, priority: i32) -> u32 {
        weight(MilliCpu(request), PolicyWeight(NonZeroU32::new(policy).unwrap()), priority).get()
    }

    #[test]
    fn weight_is_request_times_policy_times_priority() {
        let plain = of(500, 100, 0);
        assert_eq!(of(1000, 100, 0), 2 * plain);
        assert_eq!(of(500, 300, 0), 3 * plain);
        assert_eq!(of(500, 100, 8), plain);
        assert_eq!(of(500, 100, 1_000), 4 * plain);
        assert_eq!(of(500, 100, 1_000_000_000), 10 * plain);
        assert_eq!(of(500, 100, -1), plain / 2);
        assert_eq!(of(0, 100, 0), of(1, 100, 0));
        assert_eq!(of(u64::MAX, u32::MAX, i32::MAX), u32::MAX);
        assert_eq!(PolicyWeight::default().0.get(), 100);
    }

    proptest! {
        #[test]
        fn weight_grows_with_each_of_its_factors(
            request in 0..100_000u64, policy in 1..10_000u32, priority in any::<i32>(),
            more in 0..1000u32
        ) {
            let plain = of(request, policy, priority);
            prop_assert!(of(request + u64::from(more), policy, priority) >= plain);
            prop_assert!(of(request, policy + more, priority) >= plain);
            prop_assert!(of(request, policy, priority.saturating_add(more as i32)) >= plain);
        }
    }
}
