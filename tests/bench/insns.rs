//! How large the programs are.

use aya::programs::{ProgramInfo, loaded_programs};

use crate::designs::Designs;
use crate::machine;
use crate::report::Report;

/// Reports `sched_switch`, and in the note all programs that the kernel loaded.
pub fn run(designs: &Designs, report: &mut Report) {
    let Some(info) = designs.loadline.switch_info() else {
        eprintln!("insns: the kernel does not describe its programs");
        return;
    };
    let kernel = machine::kernel();
    let ours = info.map_ids().ok().flatten().unwrap_or_default();
    // Ours are those that share a map with `sched_switch`, or that were loaded with it under these names.
    let mut others = Vec::new();
    for program in loaded_programs().flatten() {
        let Some(name) = program.name_as_str().map(str::to_owned) else { continue };
        let shares =
            program.map_ids().ok().flatten().is_some_and(|ids| ids.iter().any(|id| ours.contains(id)));
        if program.id() != info.id() && (shares || designs.loaded.contains(&name)) {
            let verified = program.verified_instruction_count().map_or("?".into(), |count| count.to_string());
            others.push(format!("{name} {verified}"));
        }
    }
    if let Some(verified) = info.verified_instruction_count() {
        let note = format!("sched_switch; the verifier's limit is 1,000,000; others: {}", others.join(", "));
        report.exact(format!("insns.verified.{kernel}"), "instructions", f64::from(verified), note);
    }
    let translated = |info: &ProgramInfo| info.size_translated().map_or(0, |bytes| bytes / 8);
    let noop = designs.noop_info();
    let noop = noop.map_or(String::new(), |noop| format!("; a no-op: {} bytes", noop.size_jitted()));
    let note = format!("sched_switch, x86-64; {} BPF instructions{noop}", translated(&info));
    report.exact(format!("insns.jited.{kernel}"), "bytes", f64::from(info.size_jitted()), note);
}
