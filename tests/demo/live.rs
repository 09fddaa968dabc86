//! The terminal while the demo runs, and the signals that end it early.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A full screen that is drawn over and over. Dropping it gives the terminal back as it was.
pub struct Screen {
    columns: usize,
    rows: usize,
}

impl Screen {
    const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
    const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

    /// Takes the terminal, which has so many columns and rows.
    pub fn new(columns: usize, rows: usize) -> io::Result<Self> {
        let screen = Self { columns, rows };
        write(Self::ENTER)?;
        Ok(screen)
    }

    /// Shows a text instead of the one before; what does not fit is left out.
    pub fn draw(&self, text: &str) -> io::Result<()> {
        // Over the old text, not after clearing it: that would flicker.
        let line = |line: &str| line.chars().take(self.columns).chain("\x1b[K".chars()).collect::<String>();
        let lines: Vec<_> = text.lines().take(self.rows).map(line).collect();
        write(&format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Without a terminal there is nothing to give back.
        let _ = write(Self::LEAVE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The signals that ask the demo to end. They no longer end the process: it looks for them.
pub struct Stop {
    signals: SignalFd,
}

impl Stop {
    /// From now on.
    pub fn new() -> io::Result<Self> {
        let mut asked = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            asked.add(signal);
        }
        asked.thread_block()?;
        let signals = SignalFd::with_flags(&asked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { signals })
    }

    /// Waits until `deadline`, or for a signal, which is returned.
    pub fn wait_until(&self, deadline: Instant) -> io::Result<Option<Signal>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut asked = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut asked, timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(signal) = self.signals.read_signal()? {
                return Ok(Signal::try_from(signal.ssi_signo as i32).ok());
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}
