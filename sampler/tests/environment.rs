//! What the environment says to `sampler`. It is set for whatever is run in it, a replay too, to which it says nothing
//! of this machine.
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

use std::process::Command;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/demo.recording");

/// The exit code, and what was said.
fn run(line: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sampler"));
    let output = command.args(line.split(' ')).envs(variables.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_is_said_of_this_machine_does_not_keep_a_recording_from_being_shown() {
    let machine = [
        ("LOADLINE_SLOTS", "64"),
        ("LOADLINE_KEY", "pids"),
        ("LOADLINE_CGROUP_ROOT", "/host"),
        ("LOADLINE_CGROUP_VERSION", "v1"),
    ];
    let line = format!("top --once --replay {RECORDING}");
    assert_eq!(run(&line, &machine).0, Some(0));
    let (code, why) = run(&line, &[("LOADLINE_SLOTS", "63")]);
    assert_eq!(code, Some(2), "it is read nevertheless: {why}");
}

#[test]
fn a_switch_is_on_by_any_word_for_it() {
    for (word, code) in [("1", 1), ("0", 1), ("true", 1), ("no", 1), ("2", 2)] {
        let (ended, why) =
            run("serve --listen 127.0.0.1:0 --replay /nowhere", &[("LOADLINE_BPF_STATS", word)]);
        assert_eq!(ended, Some(code), "{word}: {why}");
        assert_eq!(why.contains("/nowhere"), code == 1, "{word}: {why}");
    }
}

#[test]
fn a_kubeconfig_that_is_named_and_cannot_be_read_ends_the_start_before_anything_else() {
    let line = "serve --listen 127.0.0.1:0 --node-name node-1";
    let (ended, why) = run(line, &[("KUBECONFIG", "/nowhere/config")]);
    assert_eq!(ended, Some(1), "{why}");
    assert!(why.contains("cannot ask the API server") && why.contains("kubeconfig /nowhere/config"), "{why}");
    assert!(why.contains("No such file"), "{why}");
}
