//! Load of a known shape as a program of its own, for what is started by others: by a container runtime.

use clap::Parser;
use loadline_tests::load::{self, Thread};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// Runs threads of a known pattern until it is killed.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Options {
    /// Begin at the signal SIGUSR1; until then sleep.
    #[arg(long)]
    when_told: bool,
    /// What each thread does: spin, yield, sleep or duty:RUN_NS:PERIOD_NS, and behind it @CPU to stay on one CPU.
    #[arg(required = true)]
    threads: Vec<Thread>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    if options.when_told {
        let told = SigSet::from_iter([Signal::SIGUSR1]);
        told.thread_block()?;
        // Not sigwait(3), which does not show in /proc that the signal is waited for.
        SignalFd::new(&told)?.read_signal()?;
    }
    load::work(&options.threads)
}
