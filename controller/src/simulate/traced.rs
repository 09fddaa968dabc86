//! A trace of usage through the whole pipeline: one container on an unbounded node, which uses what the trace says and gets what
//! is decided.
//!
//! The figures and `--explain` come from the same decisions. A trace says nothing of labels or namespaces: the
//! policy acts on it whatever it selects.

use super::one_node::{Name, OneNode};
use super::score::{Run, Terms};
use super::trace::Trace;
use crate::decide::check::Unsafe;
use crate::decide::observation::Reading;
use crate::decide::policy::MemoryBounds;
use crate::decide::record::DecisionRecord;
use crate::decide::scope::{NamespaceScope, PolicyObject, WorkloadSelector};
use crate::decide::sizes::Sizes;
use crate::decide::units::{MilliCpu, Timestamp};

/// More than any trace uses.
const CPUS: u32 = 1 << 20;

/// The container.
struct Traced {
    node: OneNode,
    name: Name,
    /// What it has; more after each decision that gives it more.
    sizes: Sizes,
}

impl Traced {
    fn new(trace: &Trace, policy: PolicyObject) -> Self {
        let everything = PolicyObject {
            namespaces: NamespaceScope::default(),
            selector: WorkloadSelector::default(),
            ..policy
        };
        let [namespace, pod, container] = ["default", &trace.name, "main"].map(str::to_owned);
        let sizes = Sizes {
            cpu_request: Some(Terms::of_trace(trace).first_request),
            memory_request: Some(MemoryBounds::LEAST),
            ..Sizes::default()
        };
        Self {
            node: OneNode::new(CPUS, MilliCpu(u64::from(CPUS) * 1000), everything),
            name: Name { namespace, pod, container },
            sizes,
        }
    }

    /// Decides after a sample, and does at once what is decided.
    fn decide(&mut self, until: Timestamp, cores: f64) -> Result<Option<DecisionRecord>, Unsafe> {
        self.node.read(&self.name, self.sizes, Reading::Usage { until, cores, memory: None });
        let decided = self.node.decide(until)?;
        self.node.apply(&decided.plan);
        self.sizes = self.node.sizes(&self.name).unwrap_or(self.sizes);
        Ok(decided.records.into_iter().next())
    }
}

/// Replays a trace under a policy.
///
/// # Errors
///
/// A plan was not safe.
pub fn replay(trace: &Trace, policy: PolicyObject) -> Result<Run, Unsafe> {
    let mut traced = Traced::new(trace, policy);
    let mut allocated = Vec::with_capacity(trace.samples.len());
    for &(until, cores) in &trace.samples {
        allocated.push(traced.sizes.cpu());
        traced.decide(until, cores)?;
    }
    Ok(Run::of(trace, Terms::of_trace(trace), allocated))
}

/// The last decision up to a moment; `None` where the trace begins later.
///
/// # Errors
///
/// A plan was not safe.
pub fn decision(
    trace: &Trace,
    at: Timestamp,
    policy: PolicyObject,
) -> Result<Option<DecisionRecord>, Unsafe> {
    let mut traced = Traced::new(trace, policy);
    let mut last = None;
    for &(until, cores) in trace.samples.iter().take_while(|(until, _)| *until <= at) {
        last = traced.decide(until, cores)?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::policy::parse;

    /// Two days, a sample a minute: busy by day, hardly by night.
    fn trace() -> Trace {
        let cores = |minute: u64| if (480..1200).contains(&(minute % 1440)) { 2.0 } else { 0.3 };
        let at = |minute: u64| Timestamp(1_700_006_400 + 60 * minute);
        let samples = (0..2 * 1440).map(|minute| (at(minute), cores(minute))).collect();
        Trace { name: "web".into(), samples }
    }

    fn policy(spec: &str) -> PolicyObject {
        let kind =
            "apiVersion: loadline.dev/v1alpha1\nkind: AllocationPolicy\nmetadata: {name: p, namespace: shop}";
        parse(&format!("{kind}\nspec: {spec}")).unwrap()
    }

    fn requests(spec: &str) -> Vec<MilliCpu> {
        replay(&trace(), policy(spec)).unwrap().allocated
    }

    #[test]
    fn an_explanation_is_the_decision_that_the_figures_are_of() {
        let (trace, run) = (trace(), requests("{mode: Apply}"));
        // Before and after each change, and now and then.
        let changed = (1..run.len()).filter(|index| run[*index] != run[index - 1]);
        let looked_at: Vec<usize> = changed.flat_map(|index| [index - 1, index]).chain([1, 700]).collect();
        assert!(looked_at.len() > 6, "{looked_at:?}");
        for index in looked_at.into_iter().filter(|index| index + 1 < run.len()) {
            let record = decision(&trace, trace.samples[index].0, policy("{mode: Apply}")).unwrap().unwrap();
            assert_eq!(record.at, trace.samples[index].0);
            assert_eq!((record.current.cpu(), record.result.cpu()), (run[index], run[index + 1]), "{record}");
        }
    }

    #[test]
    fn bounds_steps_cooldown_and_mode_of_the_policy_act() {
        let free = requests("{mode: Apply}");
        let bounded = requests("{mode: Apply, cpu: {minAllowed: 900m, maxAllowed: 1500m}}");
        assert!(free.iter().any(|cpu| cpu.0 > 1500) && free[600..].iter().any(|cpu| cpu.0 < 900));
        assert!(bounded[60..].iter().all(|cpu| (900..=1500).contains(&cpu.0)));
        let largest_step = |requests: &[MilliCpu]| {
            let steps = requests.windows(2).map(|pair| pair[1].0 as f64 / pair[0].0 as f64);
            steps.fold(1.0, f64::max)
        };
        let small = requests("{mode: Apply, resize: {maxStepUp: 20%}}");
        assert!(largest_step(&free) > 1.5 && largest_step(&small) < 1.21, "{}", largest_step(&small));
        let changes = |requests: &[MilliCpu]| requests.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let slow = requests("{mode: Apply, resize: {cooldown: 12h, changesPerHour: 1}}");
        assert!(changes(&slow) < changes(&free), "{} of {}", changes(&slow), changes(&free));
        for mode in ["Recommend", "Observe", "Disabled"] {
            assert_eq!(changes(&requests(&format!("{{mode: {mode}}}"))), 0, "{mode}");
        }
    }
}
