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
use controller::simulate::recorded::{Decision, Usual, replay, usual};
use sampler_common::demand::Bottleneck;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn decisions(policy: &str) -> Vec<Decision> {
    let file = BufReader::new(File::open(fixture("demo.recording")).unwrap());
    replay(file, parse(policy).unwrap(), MilliCpu(500)).unwrap()
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
