//! The demo: containers that wait for a CPU, each for one reason, and the sampler that tells which.
//!
//! ```text
//! kernel events → histogram → window → demand → allocation → resize → outcome
//! ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
//! of workloads    this program shows what the sampler counts
//! that we start
//! ```
//!
//! Where a workload did not wait for what it was made to wait for, because the machine has other work, it says so and all
//! the same exits with 0: `cargo xtask test --demo` is what judges.

mod live;
mod probe;
mod recording;
mod run;
mod workloads;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::run::{DemoError, Settings, Show};
use crate::workloads::PHASES;

/// Exit code of `--probe` where the demo cannot run.
const CANNOT: i32 = 3;

/// Shows who waits for a CPU, and what for.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// Only say what this machine lacks for the demo, a line each; the exit code is 3 if it lacks anything.
    #[arg(long)]
    probe: bool,
    /// Draw the table on the terminal while the workloads run.
    #[arg(long)]
    live: bool,
    /// Width of the terminal [default: $COLUMNS or 80].
    #[arg(long)]
    columns: Option<usize>,
    /// Height of the terminal [default: $LINES or 24].
    #[arg(long)]
    rows: Option<usize>,
    /// For how long the workloads run, all parts together.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(6..=3600))]
    seconds: u64,
    /// Keep a recording of it in this new file.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Make the workloads real containers of containerd, from this archive of an image.
    #[arg(long)]
    image: Option<PathBuf>,
}

fn main() {
    loadline_tests::guest::run(|arguments| {
        let arguments = std::iter::once("demo".to_owned()).chain(arguments);
        match Options::try_parse_from(arguments) {
            Ok(options) => demo(&options),
            Err(error) => {
                // Help is an error too, and printed where it belongs.
                let _ = error.print();
                error.exit_code()
            }
        }
    })
}

/// Runs it, and returns the exit code.
fn demo(options: &Options) -> i32 {
    if options.probe {
        let missing = probe::missing();
        missing.iter().for_each(|one| println!("{one}"));
        return if missing.is_empty() { 0 } else { CANNOT };
    }
    let columns = options.columns.or_else(|| size("COLUMNS")).unwrap_or(80);
    let rows = options.rows.or_else(|| size("LINES")).unwrap_or(24);
    let show = Show { live: options.live, columns, rows };
    let settings = Settings {
        length: Duration::from_secs(options.seconds),
        show,
        image: options.image.as_deref(),
        record: options.record.as_deref(),
    };
    match run::run(settings).and_then(|outcomes| hand_over(options.record.as_deref()).map(|()| outcomes)) {
        Ok(outcomes) => {
            let mut report = run::report(&outcomes, columns);
            let surprises: Vec<_> = (0..PHASES).flat_map(|phase| run::surprises(&outcomes, phase)).collect();
            if surprises.is_empty() {
                report += "Each waited for what it was made to wait for.\n";
            }
            // The reader of a pipe may have seen enough.
            let _ = std::io::stdout().write_all(report.as_bytes());
            if !surprises.is_empty() {
                eprintln!(
                    "Not each waited for what it was made to wait for, as happens beside other work on this machine:"
                );
                surprises.iter().for_each(|surprise| eprintln!("  {surprise}"));
            }
            0
        }
        Err(DemoError::Stopped(signal)) => {
            eprintln!("Stopped; its workloads and cgroups are gone.");
            128 + signal as i32
        }
        Err(error) => {
            eprintln!("error: {}", probe::chain(&error));
            1
        }
    }
}

fn hand_over(recording: Option<&Path>) -> Result<(), DemoError> {
    let handed = recording.map(loadline_tests::guest::hand_over_file).transpose();
    handed.map(drop).map_err(|error| DemoError::Recording(error.into()))
}

/// A number of columns or rows from the environment.
fn size(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok().filter(|size| *size > 0)
}
