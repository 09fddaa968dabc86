//! A made-up cluster under the controller's decisions: every plan is checked, and counted what it came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Cluster, Shape};
use crate::decide::check::{Unsafe, safe_part};
use crate::decide::pipeline::decide;
use crate::decide::plan::Change;
use crate::decide::scope::PolicyObject;
use crate::decide::sizes::Difference;
use crate::decide::state::State;

/// Nothing is judged on the first day: everybody may learn from it.
const WARM_UP_MINUTES: u64 = 1440;
const HOUR_MINUTES: u64 = 60;
/// So many violations are told in full.
const TOLD: usize = 20;

/// What a simulation came to. Shares of 0..=1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Nodes.
    pub nodes: u32,
    /// Containers at the end.
    pub containers: usize,
    /// Simulated hours, the first day included.
    pub hours: u64,
    /// Σ max(request − wanted, 0) ÷ Σ request, after the first day.
    pub slack: f64,
    /// Part of the container-minutes that wanted more than was requested.
    pub under: f64,
    /// Σ max(wanted − request, 0) ÷ Σ wanted.
    pub unmet: f64,
    /// The same three, had nobody changed anything.
    pub untouched: Untouched,
    /// Resizes of a container a day.
    pub changes_per_day: f64,
    /// Resize actions, all in all.
    pub actions: u64,
    /// Plans that were checked.
    pub plans_checked: u64,
    /// Containers that were killed for want of memory.
    pub kills: u64,
    /// Actions that were lost on their way.
    pub lost: u64,
    /// Violations that the checker found.
    pub violations: u64,
    /// The first of them.
    pub first_violations: Vec<String>,
    /// How often each reason was given, the most frequent first.
    pub reasons: Vec<(String, u64)>,
    /// Median time of a decision about all containers, in ms.
    #[serde(skip)]
    pub decide_ms: f64,
}

/// What the manifests alone would have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Untouched {
    /// As in [`Totals`].
    pub slack: f64,
    /// As in [`Totals`].
    pub under: f64,
    /// As in [`Totals`].
    pub unmet: f64,
}

/// Sums of container-minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    minutes: u64,
    under: u64,
    requested: f64,
    wanted: f64,
    slack: f64,
    unmet: f64,
}

impl Sums {
    fn add(&mut self, cluster: &Cluster) {
        for (wanted, request) in cluster.wanted() {
            let request = request.cores();
            self.minutes += 1;
            self.under += u64::from(wanted > request);
            self.requested += request;
            self.wanted += wanted;
            self.slack += (request - wanted).max(0.0);
            self.unmet += (wanted - request).max(0.0);
        }
    }

    /// Slack, under, unmet.
    fn shares(&self) -> [f64; 3] {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        [
            share(self.slack, self.requested),
            share(self.under as f64, self.minutes as f64),
            share(self.unmet, self.wanted),
        ]
    }
}

/// Lets a cluster live for so many hours; a decision is made every minute. `told` is called every simulated hour.
pub fn run(shape: Shape, policies: Vec<PolicyObject>, hours: u64, told: &mut dyn FnMut(u64)) -> Totals {
    let mut totals = Totals { nodes: shape.nodes, hours, ..Totals::default() };
    let mut cluster = Cluster::new(shape, policies);
    // The same cluster, which nobody touches.
    let mut untouched = Cluster::new(shape, Vec::new());
    let (mut sums, mut others) = (Sums::default(), Sums::default());
    let mut state = State::default();
    let mut times: Vec<Duration> = Vec::new();
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let (mut changes, mut judged_minutes) = (0u64, 0u64);
    for minute in 0..hours * HOUR_MINUTES {
        cluster.minute();
        untouched.minute();
        let judged = minute >= WARM_UP_MINUTES.min(hours * HOUR_MINUTES / 2);
        if judged {
            sums.add(&cluster);
            others.add(&untouched);
            judged_minutes += 1;
        }
        let begun = Instant::now();
        let outcome = decide(&cluster.observation, std::mem::take(&mut state), cluster.now);
        times.push(begun.elapsed());
        for record in &outcome.records {
            *reasons.entry(record.reason.name().to_owned()).or_default() += 1;
        }
        totals.plans_checked += 1;
        totals.actions += outcome.plan.actions.len() as u64;
        let planned = outcome.plan.clone();
        let (checked, wrong) = safe_part(&cluster.observation, &outcome.state, outcome.plan, cluster.now);
        let resized = checked.plan().actions.iter().map(|action| action.containers.len() as u64).sum::<u64>();
        changes += if judged { resized } else { 0 };
        cluster.apply(checked.plan());
        for (uid, container, violation) in wrong.map(|Unsafe(found)| found).unwrap_or_default() {
            totals.violations += 1;
            if totals.first_violations.len() < TOLD {
                let change = planned.actions.iter().find(|action| action.uid == uid);
                let change = change.and_then(|action| action.containers.get(&container));
                let change = change
                    .map_or(String::new(), |Change { from, to }| format!(" ({})", Difference(from, to)));
                totals
                    .first_violations
                    .push(format!("minute {minute}, {uid} {container}{change}: {violation}"));
            }
        }
        state = outcome.state;
        if minute % HOUR_MINUTES == HOUR_MINUTES - 1 {
            told(minute / HOUR_MINUTES + 1);
        }
    }
    [totals.slack, totals.under, totals.unmet] = sums.shares();
    let [slack, under, unmet] = others.shares();
    totals.untouched = Untouched { slack, under, unmet };
    totals.containers = cluster.containers();
    (totals.kills, totals.lost) = (cluster.kills, cluster.lost);
    let container_days = sums.minutes as f64 / 1440.0;
    totals.changes_per_day =
        if judged_minutes > 0 && container_days > 0.0 { changes as f64 / container_days } else { 0.0 };
    totals.reasons = reasons.into_iter().collect();
    totals.reasons.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), name.clone()));
    times.sort_unstable();
    totals.decide_ms = times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    totals
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, containers, hours, slack, under, unmet, untouched, .. } = self;
        writeln!(f, "{nodes} nodes, {containers} containers, {hours} hours")?;
        writeln!(f, "{:18}{:>10}{:>12}", "", "decided", "untouched")?;
        let mut row = |name: &str, ours: f64, other: f64| {
            writeln!(f, "{name:18}{:>8.1} %{:>10.1} %", 100.0 * ours, 100.0 * other)
        };
        row("slack", *slack, untouched.slack)?;
        row("under", *under, untouched.under)?;
        row("unmet", *unmet, untouched.unmet)?;
        writeln!(f, "{:18}{:>10.1} a day and container", "changes", self.changes_per_day)?;
        writeln!(f, "{:18}{:>10} of which {} were lost", "resizes", self.actions, self.lost)?;
        writeln!(f, "{:18}{:>10}", "OOM kills", self.kills)?;
        writeln!(f, "{:18}{:>10} with {} violations", "plans checked", self.plans_checked, self.violations)?;
        let each_us = 1e3 * self.decide_ms / (*containers).max(1) as f64;
        writeln!(f, "{:18}{:>7.1} ms ({each_us:.1} µs a container)", "decision", self.decide_ms)?;
        let all: u64 = self.reasons.iter().map(|(_, count)| count).sum();
        let shown = self.reasons.iter().take(8);
        let shown: Vec<String> = shown
            .map(|(name, count)| format!("{name} {:.1} %", 100.0 * *count as f64 / all.max(1) as f64))
            .collect();
        writeln!(f, "{:18}{}", "reasons", shown.join(", "))?;
        for violation in &self.first_violations {
            writeln!(f, "violation: {violation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::policy::{ControlledValues, Fallback, Mode, Policy};
    use crate::decide::scope::{NamespaceScope, PolicyId, WorkloadSelector};
    use crate::decide::units::Timestamp;

    #[test]
    fn every_plan_holds_whatever_is_killed_and_lost() {
        let mut policy = Policy { mode: Mode::Apply, ..Policy::default() };
        policy.controlled_values = ControlledValues::RequestsAndLimits;
        policy.resize.fallback = Fallback::Recreate;
        let policy = PolicyObject {
            id: PolicyId { namespace: None, name: "all".into() },
            created: Timestamp(0),
            namespaces: NamespaceScope::default(),
            selector: WorkloadSelector::default(),
            policy,
        };
        let (mut kills, mut lost) = (0, 0);
        for seed in 0..4 {
            let shape = Shape { nodes: 3, containers: 30, seed };
            let totals = run(shape, vec![policy.clone()], 1, &mut |_| ());
            assert_eq!(totals.first_violations, [""; 0], "seed {seed}");
            (kills, lost) = (kills + totals.kills, lost + totals.lost);
        }
        assert!(kills >= 10 && lost >= 3, "{kills} kills and {lost} that were lost are too few to tell");
    }
}
