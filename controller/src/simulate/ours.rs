//! A service sized by the controller's own decisions: all of the pipeline, by what the service waited for.

use sampler_common::window::Window;

use super::one_node::{Name, OneNode};
use super::service::{Allocation, Sizing};
use crate::decide::check::Unsafe;
use crate::decide::observation::Reading;
use crate::decide::policy::{MemoryBounds, Mode};
use crate::decide::scope::{NamespaceScope, PolicyObject, WorkloadSelector};
use crate::decide::sizes::Sizes;
use crate::decide::units::{MilliCpu, Timestamp};

/// The service's container on a node of its own.
pub struct Ours {
    node: OneNode,
    name: Name,
    mode: Mode,
}

impl Ours {
    /// Nothing known yet of a service on a machine of so many CPUs. The policy acts on it whatever it selects.
    pub fn new(cpus: u32, policy: PolicyObject) -> Self {
        let mode = policy.policy.mode;
        let policy = PolicyObject {
            namespaces: NamespaceScope::default(),
            selector: WorkloadSelector::default(),
            ..policy
        };
        let [namespace, pod, container] = ["default", "service", "main"].map(str::to_owned);
        let node = OneNode::new(cpus, MilliCpu(u64::from(cpus) * 1000), policy);
        Self { node, name: Name { namespace, pod, container }, mode }
    }

    fn read(&mut self, reading: Reading, current: Allocation) {
        let sizes = Sizes {
            cpu_request: Some(current.request),
            cpu_limit: current.limit,
            memory_request: Some(MemoryBounds::LEAST),
            memory_limit: None,
        };
        self.node.read(&self.name, sizes, reading);
    }
}

impl Sizing for Ours {
    fn learn(&mut self, at: Timestamp, cores: f64, current: Allocation) -> Result<(), Unsafe> {
        self.read(Reading::Usage { until: at, cores, memory: None }, current);
        self.node.set_mode(self.mode.min(Mode::Observe));
        self.node.decide(at).map(drop)
    }

    fn next(&mut self, at: Timestamp, window: &Window, current: Allocation) -> Result<Allocation, Unsafe> {
        self.read(Reading::Window { until: at, window: Box::new(window.clone()) }, current);
        self.node.set_mode(self.mode);
        let decided = self.node.decide(at)?;
        self.node.apply(&decided.plan);
        Ok(self
            .node
            .sizes(&self.name)
            .map_or(current, |sizes| Allocation { request: sizes.cpu(), limit: sizes.cpu_limit }))
    }
}
