//! What of the past counts, and how much of it is asked for: properties 12 and 14, over containers with a past of their own.

use controller::decide::duration::Seconds;
use controller::decide::history::History;
use controller::decide::history::memory::MemoryHistory;
use controller::decide::observation::{ContainerKind, ContainerStatus, Reading};
use controller::decide::policy::{ControlledValues, HistorySettings, Percentile};
use controller::decide::record::Mark;
use controller::decide::share::PerMille;
use controller::decide::sizes::Resource;
use controller::decide::target::{cpu, memory};
use controller::decide::units::Bytes;

use super::*;

/// What is read now is this old.
const READ_AGO: u64 = 15;

/// The first pod, alone on a node that has hardly more than it holds, with containers that used so much until now, the oldest first,
/// each for so many seconds.
fn with_past(cluster: Cluster, settings: &HistorySettings, every: u64, past: &[(f64, Bytes)]) -> Cluster {
    let mut cluster = crowded(cluster);
    cluster.observation.policies.iter_mut().for_each(|object| {
        object.policy.history = settings.clone();
        // The limit's own steps and the recent peak's headroom are not what is looked at.
        object.policy.objectives.memory_headroom = PerMille(0);
        object.policy.controlled_values = ControlledValues::RequestsOnly;
    });
    let first = cluster.observation.pods.keys().next().cloned();
    cluster.observation.pods.retain(|uid, _| Some(uid) == first.as_ref());
    cluster.state.pods.retain(|uid, _| Some(uid) == first.as_ref());
    let Some(((_, pod), (cores, bytes))) = cluster.observation.pods.iter_mut().next().zip(past.last()) else {
        return cluster;
    };
    let until = Timestamp(NOW.0 - READ_AGO);
    for (name, container) in &mut pod.containers {
        (container.kind, container.oom_killed) = (ContainerKind::App, None);
        container.status = ContainerStatus::Running { since: Timestamp(NOW.0 - 90 * 86_400) };
        container.readings = vec![Reading::Usage { until, cores: *cores, memory: Some(*bytes) }];
        let of = cluster.state.pods.values_mut().next().and_then(|pod| pod.get_mut(name));
        let Some(of) = of else { continue };
        let from = Timestamp(until.0 - every * (past.len() as u64 - 1));
        of.history = History::new(from, settings.window);
        of.memory = MemoryHistory::new(from, settings.window);
        for (number, (cores, bytes)) in past.iter().take(past.len() - 1).enumerate() {
            let at = Timestamp(from.0 + every * number as u64);
            of.history.observe(at, *cores);
            of.memory.observe(at, *bytes);
            of.read_until = Some(at);
        }
        of.signal = None;
    }
    cluster
}

/// What the first step of sizing came to.
fn by_use(record: &DecisionRecord, resource: Resource) -> Option<&Mark> {
    let of_use = |mark: &&Mark| match (&mark.reason, resource) {
        (Reason::CpuTarget(reason), Resource::Cpu) => {
            matches!(reason, cpu::Reason::UsesMore | cpu::Reason::UsesLess)
        }
        (Reason::MemoryTarget(reason), Resource::Memory) => {
            matches!(reason, memory::Reason::PeaksHigher | memory::Reason::PeaksLower)
        }
        _ => false,
    };
    record.marks.iter().find(of_use)
}

prop_compose! {
    fn settings()(
        percentile in 50..=100u8, margin in 0..2000u32, window in 3600..2 * 86_400u64
    ) -> HistorySettings {
        HistorySettings {
            percentile: Percentile::new(percentile),
            margin: PerMille(margin),
            window: Seconds(window),
            // What is old counts as much as what is new.
            half_life: Seconds(u64::from(u32::MAX)),
            ..Policy::default().history
        }
    }
}

fn uses() -> impl Strategy<Value = (f64, Bytes)> {
    (0.02..8.0f64, (40..4096u64).prop_map(|mebibytes| Bytes(mebibytes << 20)))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn p12_only_what_lies_within_the_window_counts(
        cluster in cluster(), settings in settings(), before in uses(), within in uses()
    ) {
        // Of memory the last day counts in any case, and three hours more at most.
        let every = 1800;
        let known = settings.window.0.max(27 * 3600).div_ceil(every) as usize + 1;
        let short = vec![within; known];
        let long = [vec![before; 12], short.clone()].concat();
        let [with, without] = [long, short].map(|past| decided(&with_past(cluster.clone(), &settings, every, &past)));
        for (with, without) in with.records.iter().zip(&without.records) {
            prop_assert_eq!(with.target, without.target, "{}\n{}", with, without);
            prop_assert_eq!(with.result, without.result, "{}\n{}", with, without);
        }
    }

    #[test]
    fn p14_a_target_is_the_percentile_and_its_margin(
        cluster in cluster(), settings in settings(), uses in prop::collection::vec(uses(), 2..12)
    ) {
        // A day, so that it is not taken for a cold start; all of it within the window.
        let settings = HistorySettings { window: Seconds(4 * 86_400), ..settings };
        let past: Vec<_> = uses.iter().copied().cycle().take(300).collect();
        let margin = 1.0 + f64::from(settings.margin.0) / 1000.0;
        let mut cores: Vec<f64> = past.iter().map(|(cores, _)| *cores).collect();
        cores.sort_by(f64::total_cmp);
        let q = settings.percentile.map_or(f64::NAN, Percentile::fraction);
        // A day's samples count very little more than those of the day before: as much as one rank.
        let rank = (q * cores.len() as f64 - 1e-6).ceil() as usize - 1;
        let (least, most) = (cores[rank.saturating_sub(1)] * margin, cores[(rank + 1).min(cores.len() - 1)] * margin);
        // Each hour saw all of it, so that any percentile of the hours' peaks is the highest.
        let peak = past.iter().map(|(_, bytes)| bytes.0).max().unwrap_or_default() as f64;
        let cluster = with_past(cluster, &settings, 300, &past);
        let measured = |record: &&DecisionRecord| {
            let of = cluster.state.pods.get(&record.container.uid);
            of.and_then(|pod| pod.get(&record.container.container)).is_some()
        };
        let outcome = decided(&cluster);
        let mut looked_at = 0;
        for record in outcome.records.iter().filter(measured) {
            let container = &cluster.observation.pods[&record.container.uid].containers[&record.container.container];
            if let Some(mark) = by_use(record, Resource::Cpu) {
                let found = mark.after.cpu().cores();
                prop_assert!(found >= least && found <= most * 1.0906 + 0.001, "{least} to {most}: {record}");
                looked_at += 1;
            }
            if let Some(mark) = by_use(record, Resource::Memory) {
                let most = container.desired.memory_limit.map_or(f64::INFINITY, |limit| limit.0 as f64);
                let (found, exact) = (mark.after.memory().0 as f64, peak * margin);
                let above = exact * 1.0596 + (1 << 20) as f64;
                prop_assert!(found >= exact.min(most) && found <= above, "{exact}: {record}");
                looked_at += 1;
            }
        }
        prop_assume!(looked_at > 0);
    }
}
