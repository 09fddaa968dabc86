//! One node with containers whose readings come from elsewhere (a recording, a trace), under the whole pipeline.

use std::collections::{BTreeMap, BTreeSet};

use crate::decide::check::{Unsafe, check};
use crate::decide::observation::{
    Container, ContainerKind, ContainerStatus, MadeBy, Node, Observation, Phase, Pod, PodUid, Priority, Qos,
    Reading, ResizePolicy, ResizeState, ResizeSupport, Workload,
};
use crate::decide::pipeline::decide;
use crate::decide::plan::Plan;
use crate::decide::policy::Mode;
use crate::decide::record::DecisionRecord;
use crate::decide::scope::{PolicyObject, WorkloadKind};
use crate::decide::sizes::Sizes;
use crate::decide::state::State;
use crate::decide::units::{Bytes, MilliCpu, Timestamp};

const NODE: &str = "node";

/// The node, what is on it, and what is remembered.
pub struct OneNode {
    observation: Observation,
    state: State,
    versions: u64,
}

/// What to call a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

impl Name {
    fn uid(&self) -> PodUid {
        PodUid(format!("{}/{}", self.namespace, self.pod))
    }
}

impl OneNode {
    /// An empty node of so many CPUs, of which pods may request so much.
    pub fn new(cpus: u32, cpu: MilliCpu, policy: PolicyObject) -> Self {
        let node = Node {
            cpu,
            memory: Bytes::MAX,
            cpus,
            ready: true,
            pressure: BTreeSet::new(),
            resize: ResizeSupport::Full,
        };
        let observation = Observation {
            nodes: BTreeMap::from([(NODE.to_owned(), node)]),
            policies: vec![policy],
            ..Observation::default()
        };
        Self { observation, state: State::default(), versions: 0 }
    }

    /// A reading of a container. One that is not there yet has `sizes`, and has been running for as long as anybody knows.
    pub fn read(&mut self, name: &Name, sizes: Sizes, reading: Reading) {
        let pod = self.observation.pods.entry(name.uid()).or_insert_with(|| Pod {
            namespace: name.namespace.clone(),
            name: name.pod.clone(),
            resource_version: "0".into(),
            node: Some(NODE.into()),
            made_by: MadeBy::Workload(Workload { kind: WorkloadKind::Deployment, name: name.pod.clone() }),
            labels: BTreeMap::new(),
            qos: Qos::Burstable,
            phase: Phase::Running,
            terminating: false,
            is_static: false,
            ready: true,
            priority: Priority::default(),
            has_deadline: false,
            affinity_across_namespaces: false,
            overhead: Sizes::default(),
            resources: Sizes::default(),
            resize: ResizeState::Settled,
            containers: BTreeMap::new(),
        });
        let container = pod.containers.entry(name.container.clone()).or_insert_with(|| Container {
            kind: ContainerKind::App,
            desired: sizes,
            allocated: Some(sizes),
            actual: Some(sizes),
            resize_policy: ResizePolicy::default(),
            status: ContainerStatus::Running { since: Timestamp::default() },
            ready: true,
            restarts: 0,
            oom_killed: None,
            readings: Vec::new(),
        });
        container.readings = vec![reading];
    }

    /// What the policy does from now on.
    pub fn set_mode(&mut self, mode: Mode) {
        self.observation.policies.iter_mut().for_each(|object| object.policy.mode = mode);
    }

    /// Pods without one of these containers are gone.
    pub fn keep(&mut self, present: &BTreeSet<Name>) {
        let uids: BTreeSet<PodUid> = present.iter().map(Name::uid).collect();
        self.observation.pods.retain(|uid, _| uids.contains(uid));
    }

    /// What a container has, if it is there.
    pub fn sizes(&self, name: &Name) -> Option<Sizes> {
        Some(self.observation.pods.get(&name.uid())?.containers.get(&name.container)?.desired)
    }

    /// Decides; the records say what and why.
    ///
    /// # Errors
    ///
    /// The plan is not safe.
    pub fn decide(&mut self, now: Timestamp) -> Result<Decided, Unsafe> {
        let outcome = decide(&self.observation, std::mem::take(&mut self.state), now);
        self.state = outcome.state;
        let checked = check(&self.observation, &self.state, outcome.plan, now)?;
        Ok(Decided { plan: checked.plan().clone(), records: outcome.records })
    }

    /// Does at once what a plan says.
    pub fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.versions += 1;
            let Some(pod) = self.observation.pods.get_mut(&action.uid) else { continue };
            pod.resource_version = self.versions.to_string();
            for (name, change) in &action.containers {
                if let Some(container) = pod.containers.get_mut(name) {
                    container.desired = change.to;
                    (container.allocated, container.actual) = (Some(change.to), Some(change.to));
                }
            }
        }
    }
}

/// A safe plan, and the record of every container.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What is to be done.
    pub plan: Plan,
    /// Why.
    pub records: Vec<DecisionRecord>,
}
