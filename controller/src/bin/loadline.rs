//! `loadline`, the command line: see `loadline --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match controller::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
