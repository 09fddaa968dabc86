//! `sampler top` in a terminal of its own: what it leaves behind, however it ends.
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use sampler_common::recording::{Header, Writer};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Snapshot};

const SECOND: u64 = 1_000_000_000;
/// When the recording began, in tens of seconds since 1970.
const STARTED: u64 = 179_000_000;
/// What takes the terminal, and what gives it back: another screen, and no cursor on it.
const TAKE: &str = "\x1b[?1049h";
const GIVE_BACK: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// Nothing here takes this long; a machine may.
const PATIENCE: Duration = Duration::from_secs(60);

/// A recording of one cgroup that waits 5 ms a second.
fn recording(dir: &tempfile::TempDir, seconds: u64) -> std::path::PathBuf {
    let path = dir.path().join("recording");
    let header =
        Header { cpus: 2, interval_ns: SECOND, started_unix_ns: STARTED * 10 * SECOND, ..Header::default() };
    let mut writer = Writer::create(File::create(&path).unwrap(), header).unwrap();
    for second in 0..seconds {
        let mut cgroup = CgroupCounters::default();
        cgroup.identity.path = "work".into();
        (0..=second).for_each(|_| cgroup.counters.latency.record(5_000_000));
        let snapshot = Snapshot {
            epoch: 1,
            since_ns: SECOND,
            at_ns: (second + 2) * SECOND,
            throttle_hooks: true,
            cgroups: [(CgroupId(7), cgroup)].into(),
            other: Default::default(),
            losses: Default::default(),
            switches: 0,
        };
        writer.append(&snapshot).unwrap();
    }
    path
}

/// A terminal in which `sampler top` shows a recording.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    before: Termios,
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(recording: &std::path::Path) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_sampler"))
            .args(["top", "--replay"])
            .arg(recording)
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let ours = File::from(pty.master);
        let (sender, output) = mpsc::channel();
        let mut reader = ours.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of a terminal is an error.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { ours, theirs: pty.slave, before, child, output, seen: String::new() }
    }

    /// Waits until the program has written this, and forgets what came before.
    #[track_caller]
    fn see(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let more = self.output.recv_timeout(PATIENCE);
            let more = more.unwrap_or_else(|_| panic!("{text:?} did not come, but {:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&more);
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }

    fn press(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    /// Its exit code, when it has ended and left the terminal as it was.
    #[track_caller]
    fn ends_well(mut self) -> Option<i32> {
        self.see(SHOW_CURSOR);
        self.see(GIVE_BACK);
        let code = self.child.wait().unwrap().code();
        assert_eq!(tcgetattr(self.theirs.as_fd()).unwrap(), self.before, "echo and line editing");
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal with the first window in it.
fn showing(dir: &tempfile::TempDir) -> Terminal {
    let mut terminal = Terminal::start(&recording(dir, 100));
    terminal.see(TAKE);
    // What is between is not drawn where it was blank before.
    terminal.see("4.85");
    assert_ne!(tcgetattr(terminal.theirs.as_fd()).unwrap(), terminal.before, "keys come one by one");
    terminal
}

#[test]
fn q_leaves_the_terminal_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = showing(&dir);
    terminal.press("q");
    assert_eq!(terminal.ends_well(), Some(0));
}

#[test]
fn control_c_leaves_the_terminal_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = showing(&dir);
    terminal.press("?\x03");
    assert_eq!(terminal.ends_well(), Some(0));
}

#[test]
fn signals_leave_the_terminal_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let terminal = showing(&dir);
        kill(Pid::from_raw(terminal.child.id() as i32), signal).unwrap();
        assert_eq!(terminal.ends_well(), Some(0), "{signal}");
    }
}

#[test]
fn a_broken_recording_leaves_the_terminal_as_it_was_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = recording(&dir, 3);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let mut terminal = Terminal::start(&path);
    terminal.see("4.85");
    terminal.see("ENDED");
    terminal.press("q");
    assert_eq!(terminal.ends_well(), Some(0));
}

#[test]
fn who_is_asked_to_stop_ends_the_line_and_has_not_failed() {
    let dir = tempfile::tempdir().unwrap();
    let recording = recording(&dir, 100);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sampler"));
        command.args(["top", "-o", "json", "--replay"]).arg(&recording);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        for line in [first.as_str()].into_iter().chain(rest.split_inclusive('\n')) {
            assert!(line.starts_with('{') && line.ends_with("}\n"), "{line}");
        }
        // On the calendar's clock: the second snapshot is 2 s after the recording's beginning.
        assert!(first.contains(&format!("\"at_seconds\":{STARTED}3.0,")), "{first}");
    }
}

#[test]
fn once_needs_no_terminal_and_everything_else_says_what_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = recording(&dir, 4);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sampler"));
        let output = command.args(["top", "--replay"]).arg(&path).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, table, _) = run(&["--once"]);
    assert_eq!((code, table.contains("4.85"), table.contains('\x1b')), (Some(0), true, false));
    let (code, json, _) = run(&["--once", "-o", "json"]);
    assert_eq!((code, json.lines().count()), (Some(0), 1));
    let (code, json, _) = run(&["-o", "json"]);
    assert_eq!((code, json.lines().count()), (Some(0), 3), "a line a window");
    let (code, nothing, why) = run(&[]);
    assert_eq!((code, nothing.as_str()), (Some(1), ""));
    assert!(why.contains("--once"), "{why}");
}
