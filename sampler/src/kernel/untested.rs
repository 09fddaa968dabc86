//! What this kernel is or does that the programs were never run with. They may be right there: nobody has looked.

use std::fs;

/// Words for a person who reads the log at start; empty where nothing is known to differ from what was tested.
pub fn of_running_kernel() -> Vec<&'static str> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    untested(std::env::consts::ARCH, &read("/sys/kernel/realtime"), &read("/sys/kernel/sched_ext/state"))
}

/// The same of an architecture as Rust names it, and of what the two files say, empty where they are not there.
fn untested(architecture: &str, realtime: &str, sched_ext: &str) -> Vec<&'static str> {
    let mut untested = Vec::new();
    if architecture != "x86_64" {
        untested.push("an architecture other than x86-64");
    }
    if realtime.trim() == "1" {
        untested.push("PREEMPT_RT");
    }
    // Whichever it is on the way to: `enabling`, `enabled`, `disabling`.
    if !matches!(sched_ext.trim(), "" | "disabled") {
        untested.push("a sched_ext scheduler");
    }
    untested
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_run_is_named() {
        assert!(untested("x86_64", "", "").is_empty());
        assert!(untested("x86_64", "0\n", "disabled\n").is_empty());
        assert_eq!(
            untested("aarch64", "1\n", "enabled\n"),
            ["an architecture other than x86-64", "PREEMPT_RT", "a sched_ext scheduler"]
        );
    }
}
