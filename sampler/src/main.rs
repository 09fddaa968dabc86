//! The binary `sampler`: parses, wires, runs. `sampler --help` says what it can do.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use sampler::args::{self, Arguments, Command, Output};
use sampler::record::RecordError;
use sampler::serve::ServeError;
use sampler::source::{Source, SourceError};
use sampler::view::top;
use sampler::{allocator, logging, record, serve};

/// See `--help`: this kernel, or the privileges given, do not allow measuring.
const NOT_ALLOWED: u8 = 3;

fn main() -> ExitCode {
    allocator::keep_small();
    let arguments = Arguments::read();
    // A screen that is drawn on is no place for log lines.
    let is_drawn =
        matches!(&arguments.command, Command::Top(top) if !top.once && top.output == Output::Table);
    if !is_drawn || !std::io::stderr().is_terminal() {
        logging::start(&arguments.log);
    }
    let done = match &arguments.command {
        Command::Serve(arguments) => serve::run(arguments).map_err(anyhow::Error::from),
        Command::Top(arguments) => show(arguments),
        Command::Record(arguments) => record::run(arguments).map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if is_not_allowed(&error) { ExitCode::from(NOT_ALLOWED) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether it is the kernel or the privileges that do not allow it.
fn is_not_allowed(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(SourceError::is_not_allowed)
        || error.downcast_ref().is_some_and(ServeError::is_not_allowed)
        || error.downcast_ref().is_some_and(RecordError::is_not_allowed)
}

/// `sampler top`
fn show(arguments: &args::Top) -> anyhow::Result<()> {
    let options = top::Options { once: arguments.once, output: arguments.output };
    options.check()?;
    let source = Source::open(&arguments.live, &arguments.replay, false)?;
    Ok(top::run(source, options)?)
}
