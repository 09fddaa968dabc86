//! A trace of usage through the whole pipeline, for a look at single decisions.

use super::one_node::{Name, OneNode};
use super::trace::Trace;
use crate::decide::check::Unsafe;
use crate::decide::observation::Reading;
use crate::decide::policy::MemoryBounds;
use crate::decide::record::DecisionRecord;
use crate::decide::scope::PolicyObject;
use crate::decide::sizes::Sizes;
use crate::decide::units::{MilliCpu, Timestamp};

/// More than any trace uses.
const CPUS: u32 = 1 << 20;

/// The last decision up to a moment about a container that used what the trace says and got what was decided; `None` where
/// the trace begins later.
///
/// # Errors
///
/// A plan was not safe.
pub fn decision(
    trace: &Trace,
    at: Timestamp,
    policy: PolicyObject,
) -> Result<Option<DecisionRecord>, Unsafe> {
    let mut node = OneNode::new(CPUS, MilliCpu(u64::from(CPUS) * 1000), policy);
    let [namespace, pod, container] = ["default", &trace.name, "main"].map(str::to_owned);
    let name = Name { namespace, pod, container };
    let first = trace.samples.first().map_or(0.0, |(_, cores)| *cores);
    let sizes = Sizes {
        cpu_request: Some(MilliCpu::ceil_cores(2.0 * first)),
        memory_request: Some(MemoryBounds::LEAST),
        ..Sizes::default()
    };
    let mut last = None;
    for &(until, cores) in trace.samples.iter().take_while(|(until, _)| *until <= at) {
        node.read(&name, sizes, Reading::Usage { until, cores, memory: None });
        let decided = node.decide(until)?;
        node.apply(&decided.plan);
        last = decided.records.into_iter().next();
    }
    Ok(last)
}
