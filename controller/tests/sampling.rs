//! However often a container is sampled, it is sized: by samples of a minute, of an hour, and with gaps in between.

use controller::api::policy::parse;
use controller::decide::scope::PolicyObject;
use controller::decide::units::Timestamp;
use controller::simulate::baseline::Vpa;
use controller::simulate::score::{self, Score, Terms};
use controller::simulate::trace::Trace;
use controller::simulate::traced::replay;

const START: u64 = 1_700_006_400;

fn policy() -> PolicyObject {
    let kind = "apiVersion: loadline.dev/v1alpha1\nkind: ClusterAllocationPolicy\nmetadata: {name: p}";
    parse(&format!("{kind}\nspec: {{mode: Apply}}")).expect("a policy")
}

/// Use in the minute before: busy by day, with noise of a fifth and a peak at each half hour.
fn used(minute: u64) -> f64 {
    let day = if (480..1200).contains(&(minute % 1440)) { 2.0 } else { 0.5 };
    let noise = (minute * 7919 % 1009) as f64 / 1009.0;
    let peak = if minute % 30 < 3 { 0.3 } else { 0.0 };
    day * (1.0 + 0.2 * noise + peak)
}

fn trace(samples: impl Iterator<Item = (u64, f64)>) -> Trace {
    let samples = samples.map(|(minute, cores)| (Timestamp(START + 60 * minute), cores)).collect();
    Trace { name: "web".into(), samples }
}

/// The means of so many minutes each, over so many days.
fn every(minutes: u64, days: u64) -> Trace {
    let mean = |end: u64| (end - minutes + 1..=end).map(used).sum::<f64>() / minutes as f64;
    trace((1..=days * 1440 / minutes).map(|bin| (bin * minutes, mean(bin * minutes))))
}

/// A sample a minute, where there is one.
fn where_known(is_known: impl Fn(u64) -> bool) -> Trace {
    trace((1..=6 * 1440).filter(|minute| is_known(*minute)).map(|minute| (minute, used(minute))))
}

/// How ours did, and VPA.
fn scores(trace: &Trace) -> [Score; 2] {
    let vpa = score::replay(trace, Terms::of_trace(trace), &mut Vpa::new());
    [replay(trace, policy()).expect("safe plans").score, vpa.score]
}

#[test]
fn samples_of_five_minutes_to_an_hour_are_sized_by() {
    // Rare samples take more days to learn from.
    for (minutes, days, share) in
        [(1, 6, 0.75), (5, 6, 0.75), (6, 6, 0.75), (10, 6, 0.75), (15, 6, 0.75), (60, 14, 0.9)]
    {
        let [ours, vpa] = scores(&every(minutes, days));
        assert!(ours.slack < share * vpa.slack, "{minutes}: {ours:?} {vpa:?}");
        assert!(ours.under < 0.03 && ours.unmet < 0.01, "{minutes}: {ours:?}");
    }
}

#[test]
fn gaps_are_no_reason_never_to_learn() {
    // Eleven minutes of each hour; ten minutes now and then.
    let now_and_then = |minute: u64| minute / 10 * 7919 % 1009 >= 168;
    for trace in [where_known(|minute| minute % 60 >= 11), where_known(now_and_then)] {
        let [ours, vpa] = scores(&trace);
        assert!(ours.slack < 0.75 * vpa.slack, "{ours:?} {vpa:?}");
        assert!(ours.under < 0.03 && ours.unmet < 0.01, "{ours:?}");
    }
}

#[test]
fn what_cannot_be_forecast_is_sized_nevertheless() {
    // Samples further apart than any forecast reaches; a quarter of each hour.
    for trace in [every(120, 6), where_known(|minute| minute % 60 < 15)] {
        let [ours, vpa] = scores(&trace);
        assert!(ours.slack < 1.3 * vpa.slack, "{ours:?} {vpa:?}");
        assert!(ours.under < 0.03 && ours.unmet < 0.01, "{ours:?}");
    }
}
