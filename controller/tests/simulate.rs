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
        table.contains("\nshop ") && table.contains("(excluded)") && table.contains("\nmean "),
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
