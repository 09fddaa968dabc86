//! Which HorizontalPodAutoscalers scale a pod.

use std::collections::BTreeMap;

use super::observation::{Autoscaler, MadeBy, Pod, Workload};

/// All of them, each list in the order of their names.
#[derive(Debug)]
pub struct Autoscalers<'a> {
    by_workload: BTreeMap<(&'a str, &'a Workload), Vec<&'a Autoscaler>>,
    by_namespace: BTreeMap<&'a str, Vec<&'a Autoscaler>>,
}

impl<'a> Autoscalers<'a> {
    /// These, in any order.
    pub fn of(autoscalers: &'a [Autoscaler]) -> Self {
        let mut by_name: Vec<_> = autoscalers.iter().collect();
        by_name.sort_by(|one, other| one.name.cmp(&other.name));
        let mut all = Self { by_workload: BTreeMap::new(), by_namespace: BTreeMap::new() };
        for autoscaler in by_name {
            let Autoscaler { namespace, workload, .. } = autoscaler;
            all.by_workload.entry((namespace, workload)).or_default().push(autoscaler);
            all.by_namespace.entry(namespace).or_default().push(autoscaler);
        }
        all
    }

    /// Those that scale a pod; of one of which nobody knows who made it, all that may.
    pub fn scaling<'b>(&'b self, pod: &'b Pod, made_by: MadeBy<&'b Workload>) -> &'b [&'a Autoscaler] {
        let namespace = pod.namespace.as_str();
        let scaling = match made_by {
            MadeBy::Nobody => None,
            MadeBy::Workload(workload) => self.by_workload.get(&(namespace, workload)),
            MadeBy::Unknown => self.by_namespace.get(namespace),
        };
        scaling.map_or(&[], Vec::as_slice)
    }
}
