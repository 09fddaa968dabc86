//! Progress: names each step while it runs, and on failure shows the command, how it ended and what it said last.
//!
//! On a terminal one line is redrawn with the elapsed time and the newest line of output; otherwise a step prints a
//! plain line when it starts, and one when it ends if it took a while.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, Running, Stop};

/// How many last lines of output are kept for an error message.
const TAIL: usize = 100;
/// A step quicker than this needs no closing line where lines cannot be redrawn.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// A step that is under way.
pub struct Step {
    name: String,
    start: Instant,
    live: bool,
    frame: usize,
}

impl Step {
    /// Starts a step and says so.
    pub fn start(name: impl Into<String>) -> Self {
        let mut step = Self {
            name: name.into(),
            start: Instant::now(),
            live: std::io::stderr().is_terminal(),
            frame: 0,
        };
        if step.live {
            step.draw("");
        } else {
            eprintln!("{} …", step.name);
        }
        step
    }

    /// Shows that time passes, for steps that are no command.
    pub fn tick(&mut self) {
        if self.live {
            self.draw("");
        }
    }

    fn draw(&mut self, detail: &str) {
        const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
        self.frame = (self.frame + 1) % FRAMES.len();
        let head = format!("{} {} {}s", FRAMES[self.frame], self.name, self.start.elapsed().as_secs());
        let width = usize::from(terminal_size().0);
        let room = width.saturating_sub(head.chars().count() + 3);
        let detail: String = detail.chars().filter(|c| !c.is_control()).take(room).collect();
        eprint!("\r\x1b[2K{head}  {detail}");
        let _ = std::io::stderr().flush();
    }

    /// Ends the step well.
    pub fn done(self) {
        let time = self.start.elapsed();
        if self.live {
            eprintln!("\r\x1b[2K✓ {} {:.1}s", self.name, time.as_secs_f64());
        } else if time >= WORTH_A_LINE {
            eprintln!("{}: {:.1}s", self.name, time.as_secs_f64());
        }
    }

    /// Ends the step with what went wrong in a few words; the caller has another way.
    pub fn gave_up(self, why: &str) {
        if self.live {
            eprintln!("\r\x1b[2K- {}: {why}", self.name);
        } else {
            eprintln!("{}: {why}", self.name);
        }
    }

    /// Clears the redrawn line, so that an error message starts on a clean one.
    fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[2K");
        }
    }

    /// Runs `command` as part of this step and returns what it printed (both streams). Fails with all that one needs
    /// to know.
    pub fn command(&mut self, command: &mut Command, limit: Option<Duration>) -> Result<String> {
        let result = self.watch(command, limit);
        process::pause_if_stopping();
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn watch(&mut self, command: &mut Command, limit: Option<Duration>) -> Result<String> {
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().context("making a pipe")?).stderr(writer);
        let started = Instant::now();
        let mut running = Running::start(command, Stop::KillGroup)?;
        let text = describe(command);
        // The pipe ends when its last writer does, so our own copies, held by `command`, go first.
        command.stdout(Stdio::null()).stderr(Stdio::null());

        let (lines, from_child) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if lines.send(text).is_err() {
                    return;
                }
            }
        });

        let mut all = String::new();
        let mut last = VecDeque::new();
        let mut status = None;
        loop {
            match from_child.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    all.push_str(&line);
                    all.push('\n');
                    if self.live {
                        self.draw(&line);
                    }
                    // What cargo is busy with is progress and says nothing about a failure.
                    if !["   Compiling ", "    Checking ", "  Downloaded "]
                        .iter()
                        .any(|busy| line.starts_with(busy))
                    {
                        if last.len() == TAIL {
                            last.pop_front();
                        }
                        last.push_back(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                // Something that the command left behind (a build daemon) may hold the pipe open: not our concern.
                Err(RecvTimeoutError::Timeout) if status.is_some() => break,
                Err(RecvTimeoutError::Timeout) => {
                    status = running.finished()?;
                    if self.live {
                        self.draw(all.lines().next_back().unwrap_or_default());
                    }
                }
            }
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                drop(running);
                let limit = limit.unwrap_or_default().as_secs();
                bail!(failure(&self.name, &format!("no end after {limit} s"), &text, &last));
            }
        }
        let status = match status {
            Some(status) => status,
            None => running.wait()?,
        };
        if !status.success() {
            bail!(failure(&self.name, &status.to_string(), &text, &last));
        }
        Ok(all)
    }
}

/// Runs a command that prints to the terminal itself.
pub fn run_shown(name: &str, command: &mut Command) -> Result<()> {
    eprintln!("{name} …");
    let status = Running::start(command.stdin(Stdio::null()), Stop::KillGroup)?.wait()?;
    process::pause_if_stopping();
    if !status.success() {
        bail!(failure(name, &status.to_string(), &describe(command), &VecDeque::new()));
    }
    Ok(())
}

/// A quick look at something: runs a command quietly and returns its standard output, if it succeeds in time.
pub fn ask(command: &mut Command, limit: Duration) -> Option<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running::start(command, Stop::KillGroup).ok()?;
    let mut stdout = running.child().stdout.take()?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stdout, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let status = running.wait_at_most(limit).ok()?;
    let output = reader.join().ok()?;
    status.success().then_some(output)
}

/// Columns and rows of the terminal, or a usual size where there is none.
pub fn terminal_size() -> (u16, u16) {
    nix::ioctl_read_bad!(get_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl writes one `winsize` to the address, which is one of ours and lives long enough.
    let answer = unsafe { get_size(2, &raw mut size) };
    match answer {
        Ok(_) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}

/// The command as one could type it, with the variables that we set for it.
fn describe(command: &Command) -> String {
    let mut text = String::new();
    if let Some(dir) = command.get_current_dir() {
        let _ = write!(text, "cd {} && ", dir.display());
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let value = value.to_string_lossy().replace('\x1f', " ");
            let _ = write!(text, "{}={} ", name.display(), quote(&value));
        }
    }
    let _ = write!(text, "{}", command.get_program().display());
    for arg in command.get_args() {
        let _ = write!(text, " {}", quote(&arg.to_string_lossy()));
    }
    text
}

/// Quotes a word for a POSIX shell where it needs it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn failure(name: &str, how: &str, command: &str, last: &VecDeque<String>) -> String {
    let mut text = format!("{name} failed: {how}\n  command: {command}");
    if !last.is_empty() {
        text.push_str("\n  it said last:");
        for line in last {
            let _ = write!(text, "\n    {line}");
        }
    }
    if let Some(hint) = hint(last) {
        let _ = write!(text, "\n  {hint}");
    }
    text
}

/// What commonly lies behind a failure, told by what a command said.
fn hint(last: &VecDeque<String>) -> Option<&'static str> {
    if last.iter().any(|line| line.contains("No space left on device")) {
        Some("the disk is full: make room and run the command again; what is complete in the cache is kept")
    } else if last.iter().any(|line| is_of_network(line)) {
        Some(
            "the network could not be reached: run the command again when it can; what is complete in the cache is kept",
        )
    } else {
        None
    }
}

/// Whether what was said is about a network that cannot be reached, or does not answer in time.
pub fn is_of_network(said: &str) -> bool {
    const SIGNS: [&str; 17] = [
        "Could not resolve",
        "Temporary failure resolving",
        "Could not connect",
        "Connection timed out",
        "Unable to connect",
        "Network is unreachable",
        "Failed to fetch",
        // curl: no host, no connection, too late, no TLS, no answer, broken off.
        "curl: (6)",
        "curl: (7)",
        "curl: (28)",
        "curl: (35)",
        "curl: (52)",
        "curl: (56)",
        // rustup
        "could not download file",
        "error sending request",
        // Go
        "no such host",
        "i/o timeout",
    ];
    SIGNS.iter().any(|sign| said.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, command: &mut Command, limit: Option<Duration>) -> Result<String> {
        Step::start(name).command(command, limit)
    }

    #[test]
    fn output_of_both_streams_is_returned() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2"]);
        assert_eq!(run("test", &mut command, None).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_failure_names_command_status_and_last_words() {
        let mut command = Command::new("sh");
        command.env("A", "b c").args(["-c", "echo No space left on device; exit 3"]);
        let error = run("Testing", &mut command, None).unwrap_err().to_string();
        assert!(error.contains("Testing failed: exit status: 3"), "{error}");
        assert!(error.contains("A='b c' sh -c 'echo No space"), "{error}");
        assert!(error.contains("    No space left on device"), "{error}");
        assert!(error.contains("the disk is full"), "{error}");
    }

    #[test]
    fn a_limit_ends_the_command_with_what_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]);
        let start = Instant::now();
        let error = run("Waiting", &mut command, Some(Duration::from_millis(300))).unwrap_err();
        assert!(error.to_string().contains("no end after"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn ask_is_none_on_failure() {
        let limit = Duration::from_secs(5);
        assert_eq!(ask(Command::new("echo").arg("x"), limit).as_deref(), Some("x\n"));
        assert_eq!(ask(&mut Command::new("false"), limit), None);
        assert_eq!(ask(&mut Command::new("/does/not/exist"), limit), None);
    }
}
