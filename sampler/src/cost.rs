//! What the programs cost, measured at start: how much longer a context switch takes with them than without.
//!
//! Two threads pass a byte to and fro on one CPU, so that each pass is a context switch, and the CPU time that they
//! use is divided by the passes. That is done before the programs are attached and after; the difference is theirs,
//! to some tens of ns. The kernel's own figure (`--bpf-stats`) is exact and costs more than it measures.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::kernel::self_check::{an_allowed_cpu, pin};

/// Passes to and fro of one measurement: a few ms.
const PASSES: u32 = 500;
/// Of so many measurements the least disturbed, which is the smallest, counts.
const ROUNDS: u32 = 9;

/// CPU time that a context switch between two threads takes now, with what they do to bring it about.
pub fn switch_time() -> io::Result<Duration> {
    let cpu = an_allowed_cpu()?;
    let rounds: io::Result<Vec<_>> = (0..ROUNDS).map(|_| round(cpu)).collect();
    Ok(rounds?.into_iter().min().unwrap_or_default() / (2 * PASSES))
}

fn round(cpu: usize) -> io::Result<Duration> {
    let (here, there) = (std::io::pipe()?, std::io::pipe()?);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| passes(cpu, here.0, there.1, true));
        let second = scope.spawn(|| passes(cpu, there.0, here.1, false));
        let of = |thread: ScopedJoinHandle<'_, io::Result<Duration>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        Ok(of(first)? + of(second)?)
    })
}

/// Passes a byte on as often as it comes, and returns the CPU time that this took.
fn passes(cpu: usize, mut from: PipeReader, mut to: PipeWriter, begins: bool) -> io::Result<Duration> {
    pin(cpu)?;
    let mut byte = [0];
    let begun = cpu_time()?;
    for _ in 0..PASSES {
        if begins {
            to.write_all(&byte)?;
            from.read_exact(&mut byte)?;
        } else {
            from.read_exact(&mut byte)?;
            to.write_all(&byte)?;
        }
    }
    Ok(cpu_time()? - begun)
}

fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_switch_takes_some_time() {
        let time = switch_time().unwrap();
        assert!((Duration::from_nanos(10)..Duration::from_millis(1)).contains(&time), "{time:?}");
    }
}
