//! The sampler's recording of the demo through the whole pipeline: each workload gets the plan and the reason that a person
//! would expect.
//!
//! `loadline simulate --recording tests/fixtures/demo.recording --policy tests/fixtures/demo-policy.yaml` prints them.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

use controller::api::policy::parse;
use controller::decide::reason::Reason;
use controller::decide::record::{DecisionRecord, Step};
use controller::decide::target::cpu;
use controller::decide::units::MilliCpu;
use controller::simulate::recorded::{Decision, Usual, played, replay, series_names, usual};
use sampler_common::demand::Bottleneck;
use serde_json::Value;

/// What containers without a limit are taken to request, as the command does.
const REQUEST: MilliCpu = MilliCpu(500);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn decisions(policy: &str) -> Vec<Decision> {
    let file = BufReader::new(File::open(fixture("demo.recording")).unwrap());
    replay(file, parse(policy).unwrap(), REQUEST).unwrap()
}

fn policy() -> String {
    fs::read_to_string(fixture("demo-policy.yaml")).unwrap()
}

/// What was decided about a container most of the time.
fn usually<'a>(usuals: &'a [Usual<'_>], container: &str) -> &'a DecisionRecord {
    let usual = usuals.iter().find(|usual| usual.last.name.container == container).unwrap();
    println!("{}\n  so in     {} of {} decisions\n", usual.last.record, usual.times, usual.of);
    assert!(usual.times * 2 > usual.of, "{container}: {} of {}", usual.times, usual.of);
    &usual.last.record
}

fn request(record: &DecisionRecord) -> (u64, u64) {
    (record.current.cpu().0, record.result.cpu().0)
}

#[test]
fn each_workload_of_the_demo_gets_what_a_person_would_give_it() {
    let decisions = decisions(&policy());
    let usuals = usual(&decisions);

    // Busy, limited to 0.2 CPU, wants 1: in one step to what it wants and a margin.
    let throttled = usually(&usuals, "throttled");
    assert!(throttled.reason.to_string().contains("its CPU limit held it back"), "{throttled}");
    assert_eq!(throttled.current.cpu_limit, Some(MilliCpu(200)));
    assert!((900..=1300).contains(&throttled.result.cpu_limit.unwrap().0), "{throttled}");

    // Two on one CPU, and the node has not enough for both: who is not given all that he wants gets as much more as any other of
    // the same weight.
    let at = decisions.iter().rfind(|of| of.name.container == "neighbor-1").unwrap().record.at;
    let last = |container: &str| {
        let found = decisions.iter().find(|of| of.record.at == at && of.name.container == container);
        &found.unwrap().record
    };
    for record in ["neighbor-1", "neighbor-2"].map(last) {
        println!("{record}\n");
        let waits = record.inputs.waits.as_ref().unwrap();
        assert_eq!(waits.demand.bottleneck, Bottleneck::Neighbors, "{record}");
        assert!(request(record).1 > request(record).0, "{record}");
    }
    let short = last("neighbor-1");
    assert!(short.marks.iter().any(|mark| mark.step == Step::Node), "{short}");
    let more = |container| request(last(container)).1 - request(last(container)).0;
    assert!(more("neighbor-1").abs_diff(more("crowded")) <= 1, "{short}\n{}", last("crowded"));
    let sum: u64 = ["neighbor-1", "neighbor-2", "crowded"].map(|name| request(last(name)).1).iter().sum();
    assert!((1_999..=2_000).contains(&sum), "{sum}");

    // Four busy threads on one CPU: more limit would not help, and it is told why.
    let crowded = usually(&usuals, "crowded");
    let told = |record: &DecisionRecord| {
        let mut all = record.notes.iter().chain([&record.reason]);
        all.any(|reason| reason.to_string().contains("its own threads wait for each other"))
    };
    assert!(told(crowded), "{crowded}");
    // What it gets it gets since it uses it: that more would not help is no reason for more.
    let more = last("crowded");
    assert!(told(more), "{more}");
    assert_eq!(more.reason, Reason::Raised(Box::new(Reason::CpuTarget(cpu::Reason::UsesMore))), "{more}");
    assert!(request(crowded).1 <= 1_200, "{crowded}");

    // A process outside any container is what it waits for.
    let beside = usually(&usuals, "beside-host");
    assert_eq!(beside.inputs.waits.as_ref().unwrap().demand.bottleneck, Bottleneck::System, "{beside}");
    assert!(request(beside).1 > request(beside).0, "{beside}");

    // A tenth of a CPU of what it has: it shrinks, in steps, once enough is known of it; until then it only waits.
    let quiet: Vec<&Decision> = decisions.iter().filter(|of| of.name.container == "quiet").collect();
    assert!(quiet.iter().all(|of| of.record.result.cpu() <= MilliCpu(500)));
    let last = quiet.last().unwrap();
    println!("{}\n", last.record);
    assert!(last.record.reason.to_string().contains("it uses less than it has"), "{}", last.record);
    assert!(last.record.target.unwrap().cpu() < MilliCpu(150), "{}", last.record);
    assert!(last.record.result.cpu() < MilliCpu(500), "{}", last.record);
}

#[test]
fn under_the_default_policy_limits_stay_and_the_reason_says_so() {
    let default = policy().replace("controlledValues: RequestsAndLimits", "");
    let decisions = decisions(&default);
    let usuals = usual(&decisions);
    let throttled = usually(&usuals, "throttled");
    assert!(throttled.reason.to_string().contains("the policy leaves limits alone"), "{throttled}");
    assert_eq!(throttled.result.cpu_limit, throttled.current.cpu_limit);
}

/// Slack, under, unmet and changes a day, judged after its first day, or from the beginning if there is no more, of a container
/// of which was read: when (s), what it had used until then, and what had been allocated to it (cores).
fn figures(read: &[(u64, f64, f64)]) -> [f64; 4] {
    let a_day = read.partition_point(|(at, ..)| *at < read[0].0 + 86_400);
    let read = if a_day < read.len() { &read[a_day..] } else { read };
    let sum = |of: fn(f64, f64) -> f64| read.iter().map(|(_, used, has)| of(*used, *has)).sum::<f64>();
    let changes = read.windows(2).filter(|pair| pair[0].2 != pair[1].2).count() as f64;
    let seconds = (read[read.len() - 1].0 - read[0].0) as f64;
    [
        sum(|used, has| if has > used { has - used } else { 0.0 }) / sum(|_, has| has),
        sum(|used, has| if used > has { 1.0 } else { 0.0 }) / read.len() as f64,
        sum(|used, has| if used > has { used - has } else { 0.0 }) / sum(|used, _| used),
        changes * 86_400.0 / seconds,
    ]
}

#[test]
fn its_figures_are_of_what_was_decided_before_each_window() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [json, plot] = ["recording.json", "recording.svg"].map(|name| dir.join(name));
    let run = |baseline: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
        command.args(["simulate", "--baseline", baseline, "--recording"]).arg(fixture("demo.recording"));
        command.arg("--policy").arg(fixture("demo-policy.yaml"));
        let output = command.arg("--json").arg(&json).arg("--plot").arg(&plot).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        (String::from_utf8(output.stdout).unwrap(), report)
    };
    let (shown, report) = run("static");
    let series = report["series"].as_array().unwrap();
    let names: Vec<&str> = series.iter().map(|series| series["name"].as_str().unwrap()).collect();
    let containers =
        ["beside-host", "crowded", "neighbor-1", "neighbor-2", "quiet", "short-lived", "throttled"];
    assert_eq!(names, containers.map(|name| format!("{name}/{name}")));

    let said = |figures: &Value| {
        ["slack", "under", "unmet", "changes_per_day"].map(|name| figures[name].as_f64().unwrap())
    };
    let near = |said: [f64; 4], expected: [f64; 4]| {
        let alike = said.iter().zip(expected).all(|(said, expected)| (said - expected).abs() < 1e-9);
        assert!(alike, "{said:?} {expected:?}");
    };
    let decisions = decisions(&policy());
    let (mut ours, mut had) = (Vec::new(), Vec::new());
    for (series, container) in series.iter().zip(containers) {
        assert_eq!(series["excluded"], false);
        let of: Vec<&DecisionRecord> =
            decisions.iter().map(|of| &of.record).filter(|of| of.container.container == container).collect();
        let has = if container == "throttled" { 0.2 } else { 0.5 };
        let decided = of.iter().map(|record| record.result.cpu_request.unwrap().0 as f64 / 1000.0);
        let in_force = std::iter::once(has).chain(decided);
        let read = |(record, has): (&&DecisionRecord, f64)| (record.at.0, record.inputs.cores.unwrap(), has);
        ours.push(figures(&of.iter().zip(in_force).map(read).collect::<Vec<_>>()));
        had.push(figures(&of.iter().zip(std::iter::repeat(has)).map(read).collect::<Vec<_>>()));
        near(said(&series["policy"]), ours[ours.len() - 1]);
        near(said(&series["baseline"]), had[had.len() - 1]);
    }
    let mean = |all: &[[f64; 4]]| {
        [0, 1, 2, 3].map(|of| all.iter().map(|figures| figures[of]).sum::<f64>() / all.len() as f64)
    };
    near(said(&report["total"]["policy"]), mean(&ours));
    near(said(&report["total"]["baseline"]), mean(&had));

    // The decisions, and the same figures for a person to read.
    let [decided, table] = ["loadline-demo/throttled throttled on node", "\nthrottled/throttled "]
        .map(|text| shown.find(text).unwrap());
    assert!(decided < table, "{shown}");
    let row = shown[table..].lines().nth(1).unwrap();
    let slack = format!(" {:.1} % ", ours[6][0] * 100.0);
    assert!(row.contains(&slack) && row.contains(&format!(" {:.1} ", ours[6][3])), "{row}");
    assert!(shown[table..].contains("\nmean "), "{shown}");
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && names.iter().all(|name| svg.contains(&format!("{name}: used"))));

    // Another method changes its own figures and no others.
    let (_, vpa) = run("vpa");
    assert_eq!(vpa["total"]["policy"], report["total"]["policy"]);
    assert_ne!(vpa["total"]["baseline"], report["total"]["baseline"]);
}

#[test]
fn containers_of_one_name_go_by_their_namespaces_and_idle_windows_are_not_judged() {
    let mut decisions = decisions(&policy());
    decisions.retain(|of| of.name.container == "crowded");
    let mut elsewhere = decisions.clone();
    for decision in &mut elsewhere {
        decision.name.namespace = "elsewhere".into();
    }
    let idle = 3;
    elsewhere[idle].used_cores = None;
    decisions.extend(elsewhere);
    let names: Vec<String> = series_names(&decisions).into_values().collect();
    assert_eq!(names, ["elsewhere/crowded/crowded", "loadline-demo/crowded/crowded"]);
    let [elsewhere, demo] = played(&decisions).try_into().ok().unwrap();
    assert_eq!([&elsewhere, &demo].map(|played| &played.trace.name), [&names[0], &names[1]]);
    let (mut samples, mut allocated) = (demo.trace.samples.clone(), demo.run.allocated.clone());
    samples.remove(idle);
    allocated.remove(idle);
    assert_eq!((elsewhere.trace.samples, elsewhere.run.allocated), (samples, allocated));
    decisions.iter_mut().for_each(|of| of.used_cores = None);
    assert_eq!(played(&decisions).len(), 0);
}

#[test]
fn the_command_prints_them_and_explains_one_moment() {
    let [recording, policy] = ["demo.recording", "demo-policy.yaml"].map(fixture);
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
        command.args(["simulate", "--recording"]).arg(&recording).arg("--policy").arg(&policy).args(more);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, all, _) = run(&[]);
    assert_eq!(code, Some(0));
    assert!(all.contains("loadline-demo/throttled throttled on node") && all.contains("so in "), "{all}");
    let (code, one, _) = run(&["--explain", "crowded@9"]);
    assert_eq!(code, Some(0));
    assert!(
        one.starts_with("loadline-demo/crowded crowded on node") && one.contains("\n  reason    "),
        "{one}"
    );
    let (code, _, error) = run(&["--explain", "nobody@9"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("there are: beside-host/beside-host, crowded/crowded"), "{error}");
    let (code, _, error) = run(&["--explain", "crowded"]);
    assert_eq!((code, error.contains("SERIES@SECONDS")), (Some(2), true));
}
