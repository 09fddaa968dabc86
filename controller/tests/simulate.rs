//! `loadline simulate` as a user runs it.

use std::path::Path;
use std::process::{Command, Output};
use std::{fs, io};

use serde_json::Value;

fn simulate(arguments: &[&str]) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_loadline")).arg("simulate").args(arguments).output()
}

/// Four days, a sample a minute: busy by day, with a short peak in each hour.
fn write_trace(path: &Path) -> io::Result<()> {
    let mut csv = String::from("ts,value\n");
    for minute in 0..4 * 1440u64 {
        let day = if (480..1200).contains(&(minute % 1440)) { 2.0 } else { 0.4 };
        let peak = if minute % 60 < 3 { 1.5 } else { 1.0 };
        csv += &format!("{},{}\n", 1_700_006_400 + 60 * minute, day * peak);
    }
    fs::write(path, csv)
}

#[test]
fn traces_become_figures_a_report_and_a_plot_and_the_same_ones_twice() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [trace, tiny, json, plot] =
        ["shop.csv", "tiny.csv", "out.json", "out.svg"].map(|name| dir.join(name));
    write_trace(&trace).unwrap();
    fs::write(&tiny, "0,0.01\n60,0.01\n").unwrap();
    let paths = [&trace, &tiny, &json, &plot].map(|path| path.to_str().unwrap());
    let arguments =
        ["--trace", paths[0], paths[1], "--baseline", "vpa", "--json", paths[2], "--plot", paths[3]];

    let first = simulate(&arguments).unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(first.stderr.is_empty(), "progress is for terminals");
    let table = String::from_utf8(first.stdout.clone()).unwrap();
    assert!(
        table.contains("\nshop ") && table.contains("(excluded: ") && table.contains("\nmean "),
        "{table}"
    );

    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let [shop, tiny] = [0, 1].map(|index| &report["series"][index]);
    assert_eq!((&shop["name"], &shop["excluded"]), (&"shop".into(), &false.into()));
    assert_eq!((&tiny["name"], &tiny["excluded"]), (&"tiny".into(), &true.into()));
    assert_eq!(
        (&report["total"]["policy"], &report["total"]["baseline"]),
        (&shop["policy"], &shop["baseline"])
    );
    let figure = |of: &str, name: &str| report["total"][of][name].as_f64().unwrap();
    // A container that works by the clock: little more than half of VPA's slack, and hardly ever under.
    assert!(figure("policy", "slack") < 0.6 * figure("baseline", "slack"), "{report}");
    assert!(figure("policy", "under") < 0.02 && figure("policy", "unmet") < 0.01, "{report}");
    assert!(figure("policy", "changes_per_day") < 48.0, "{report}");
    assert!(fs::read_to_string(&plot).unwrap().contains("shop: used"));

    let before = fs::read(&json).unwrap();
    assert_eq!(simulate(&arguments).unwrap().stdout, first.stdout);
    assert_eq!(fs::read(&json).unwrap(), before);
}

#[test]
fn a_policy_decides_what_the_figures_are_of() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [trace, rates, policy, json] =
        ["bounded.csv", "bounded.txt", "bounded.yaml", "bounded.json"].map(|name| dir.join(name));
    write_trace(&trace).unwrap();
    write_rates(&rates).unwrap();
    let [trace, rates, given, out] = [&trace, &rates, &policy, &json].map(|path| path.to_str().unwrap());
    let run = |spec: &str, what: &[&str]| {
        let kind = "{apiVersion: loadline.dev/v1alpha1, kind: ClusterAllocationPolicy, metadata: {name: p}";
        fs::write(&policy, format!("{kind}, spec: {spec}}}")).unwrap();
        let output = simulate(&[what, &["--policy", given, "--json", out]].concat()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        (String::from_utf8(output.stdout).unwrap(), report)
    };
    let traced = |spec: &str| run(spec, &["--trace", trace]);
    let (_, free) = traced("{mode: Apply}");
    let (_, bounded) = traced("{mode: Apply, cpu: {maxAllowed: 500m}}");
    let under = |report: &Value| report["total"]["policy"]["under"].as_f64().unwrap();
    // It is busy for half of the time, and then needs four times as much as it may get.
    assert!(under(&free) < 0.02 && (0.5..0.6).contains(&under(&bounded)), "{free}{bounded}");
    // What is only recommended is judged as if it were followed; where nothing is recommended there is nothing to judge.
    let (shown, recommended) = traced("{mode: Recommend}");
    assert!(
        shown
            .starts_with("ClusterAllocationPolicy p has mode Recommend: what it recommends is taken as done"),
        "{shown}"
    );
    assert_eq!(recommended, free);
    let (shown, report) = traced("{mode: Observe}");
    assert!(
        shown.starts_with("ClusterAllocationPolicy p has mode Observe, in which nothing is changed"),
        "{shown}"
    );
    assert_eq!(report["total"]["policy"]["changes_per_day"], 0.0);

    let looped = |spec: &str| run(spec, &["loop", "--start", "0.5", "--rps", rates]);
    let (_, free) = looped("{mode: Apply, controlledValues: RequestsAndLimits}");
    let (_, held) = looped("{mode: Apply}");
    let figure = |report: &Value, name: &str| report["series"][0]["ours"][name].as_f64().unwrap();
    // Where limits stay, the first one goes on throttling it.
    assert_eq!(figure(&held, "cores_limit"), 1.6);
    assert!(figure(&free, "cores_limit") > 2.0, "{free}");
    assert!(figure(&held, "throttled_share") > 2.0 * figure(&free, "throttled_share"), "{held}{free}");
}

#[test]
fn what_cannot_be_read_is_named_and_ends_with_failure() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let broken = dir.join("broken.csv");
    fs::write(&broken, "0,1\n60,lots\n").unwrap();
    for (path, said) in [
        (broken.to_str().unwrap(), "broken.csv, line 2: the value is not a number"),
        ("/nowhere.csv", "cannot read /nowhere.csv: No such file"),
    ] {
        let output = simulate(&["--trace", path]).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.starts_with("loadline: ") && stderr.contains(said), "{stderr}");
    }
}

/// Two minutes of a service that gets busier, and a policy.
fn write_rates(path: &Path) -> io::Result<()> {
    let rates: String = (0..120).map(|second| if second < 60 { "100\n" } else { "220\n" }).collect();
    fs::write(path, rates)
}

#[test]
fn a_loop_sets_ours_beside_vpa_a_manifest_and_no_limits_and_is_the_same_twice() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [rates, json, plot] = ["busier.txt", "loop.json", "loop.svg"].map(|name| dir.join(name));
    write_rates(&rates).unwrap();
    let paths = [&rates, &json, &plot].map(|path| path.to_str().unwrap());
    let arguments = ["loop", "--rps", paths[0], "--start", "0.5", "--json", paths[1], "--plot", paths[2]];
    let first = simulate(&arguments).unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(first.stderr.is_empty(), "progress is for terminals");
    let table = String::from_utf8(first.stdout.clone()).unwrap();
    assert!(table.contains("busier: needs 1.60 cores on average, starts with 0.5 × that"), "{table}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let figure = |who: &str, name: &str| report["series"][0][who][name].as_f64().unwrap();
    // The manifest's limit equals what is needed on average: it queues. Ours is raised with its first window.
    assert!(figure("static", "p99_ms") > 20.0 * figure("no_limits", "p99_ms"), "{report}");
    assert!(figure("ours", "p50_ms") < 1.5 * figure("no_limits", "p50_ms"), "{report}");
    assert!(figure("ours", "p99_ms") < figure("static", "p99_ms"), "{report}");
    assert_eq!(figure("no_limits", "throttled_share"), 0.0);
    assert!(figure("static", "throttled_share") > figure("ours", "throttled_share"));
    assert!((figure("static", "cores_reserved") - 0.8).abs() < 0.001);
    assert!(fs::read_to_string(&plot).unwrap().contains("busier from 0.5"));
    assert_eq!(simulate(&arguments).unwrap().stdout, first.stdout);
}

#[test]
fn a_cluster_lives_under_checked_plans() {
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster.json");
    let path = json.to_str().unwrap();
    let arguments =
        ["cluster", "--nodes", "3", "--containers", "60", "--seed", "7", "--hours", "1", "--json", path];
    let output = simulate(&arguments).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read(&json).unwrap();
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&report["plans_checked"], &report["violations"]), (&60.into(), &0.into()));
    assert!(report["actions"].as_u64().unwrap() > 10, "{report}");
    assert!(report["reasons"].as_array().unwrap().len() > 5, "{report}");
    assert!(report["unmet"].as_f64() < report["untouched"]["unmet"].as_f64(), "{report}");
    simulate(&arguments).unwrap();
    assert_eq!(fs::read(&json).unwrap(), text, "the same seed is the same cluster");
}

#[test]
fn usage_errors_end_with_2_and_say_what_would_do() {
    for (arguments, said) in [
        (&[][..], "simulate cluster"),
        (&["loop"], "--rps"),
        (&["cluster", "--nodes", "0"], "--nodes"),
        (&["loop", "--rps", "a", "--limit", "0.5"], "not from 1 to 100"),
        (&["--trace", "a.csv", "--plot", "a.png"], "must end in .svg"),
    ] {
        let output = simulate(arguments).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("error: ") && stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn who_stops_reading_ends_the_printing_and_nothing_else() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [trace, json] = ["unread.csv", "unread.json"].map(|name| dir.join(name));
    fs::write(&trace, "0,1\n60,1\n").unwrap();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let arguments = ["simulate", "--trace", trace.to_str().unwrap(), "--json", json.to_str().unwrap()];
    let status =
        Command::new(env!("CARGO_BIN_EXE_loadline")).args(arguments).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(fs::read_to_string(&json).unwrap().contains("unread"));
}

#[test]
fn an_explanation_that_is_not_found_names_those_there_are() {
    let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("named.csv");
    fs::write(&trace, "0,1\n60,1\n").unwrap();
    let output = simulate(&["--trace", trace.to_str().unwrap(), "--explain", "foo@1"]).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("no trace is called foo; there are: named"), "{stderr}");
}
