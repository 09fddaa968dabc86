//! How our programs run: as init of a virtual machine that has nothing else, or as any other program.
//!
//! As init ([`run`]) a program mounts what the others expect, does its work in a child, so that a crash is
//! told and not a kernel panic, and powers the machine off. The host follows the console: lines that begin
//! with `loadline-guest: ` are for it, everything else is output. A machine has one console, so what is said on the
//! standard error is such a line too: `note` and the text. At the end init says what the program has `left`.

use std::fs;
use std::io::{self, ErrorKind, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, fork};

use crate::cgroup;

/// Whether this process descends from our own init.
static GUEST: AtomicBool = AtomicBool::new(false);

/// What a program finds mounted: type, place, and whether the machine is of no use without.
const MOUNTS: [(&str, &str, bool); 7] = [
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("cgroup2", "/sys/fs/cgroup", true),
    ("tracefs", "/sys/kernel/tracing", false),
    ("bpf", "/sys/fs/bpf", false),
    ("tmpfs", "/tmp", true),
];

/// Runs `main` with the program's arguments (without its name) and exits with its result; as init of a
/// virtual machine, with all that has to be done around it.
pub fn run(main: impl FnOnce(Vec<String>) -> i32) -> ! {
    let arguments = std::env::args().skip(1).collect();
    if std::process::id() != 1 {
        std::process::exit(main(arguments));
    }
    GUEST.store(true, Ordering::Relaxed);
    controlling_terminal();
    let code = match prepare() {
        Ok(()) => {
            say("up");
            in_child(|| main(arguments))
        }
        Err(error) => {
            say("up");
            say(&format!("note the machine cannot be set up: {error}"));
            125
        }
    };
    say(&format!("left {}", left()));
    say(&format!("exit {code}"));
    power_off()
}

/// Hands a text file to whoever started us: through the console in a guest, where only the last part of
/// `path` counts, and else as the file `path`.
pub fn hand_over(path: &str, text: &str) -> io::Result<()> {
    if !GUEST.load(Ordering::Relaxed) {
        return fs::write(path, text);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut console = io::stdout().lock();
    write!(console, "\nloadline-guest: file {name} BEGIN\n{text}{end}loadline-guest: file {name} END\n")?;
    console.flush()
}

/// Hands a file of any content to whoever started us: in a guest through the console, as hex digits. Elsewhere it is
/// where it should be.
pub fn hand_over_file(path: &Path) -> io::Result<()> {
    const BYTES_A_LINE: usize = 60;
    if !GUEST.load(Ordering::Relaxed) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut text = String::new();
    for bytes in fs::read(path)?.chunks(BYTES_A_LINE) {
        text.extend(bytes.iter().map(|byte| format!("{byte:02x}")));
        text.push('\n');
    }
    hand_over(&name, &text)
}

fn say(what: &str) {
    let mut console = io::stdout().lock();
    // With nobody to listen there is nobody to tell that nobody listens.
    let _ = writeln!(console, "loadline-guest: {what}").and_then(|()| console.flush());
}

fn prepare() -> io::Result<()> {
    movable_root()?;
    for (kind, place, needed) in MOUNTS {
        // Those inside other mounts (tracing, bpf) are made by the kernel, and only if it knows them.
        let _ = fs::create_dir_all(place);
        let mounted = mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>);
        if let Err(error) = mounted
            && needed
            // The kernel may have mounted it before us.
            && error != nix::Error::EBUSY
        {
            return Err(io::Error::other(format!("{place} ({kind}): {error}")));
        }
    }
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
    for controller in controllers.split_whitespace() {
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"))?;
    }
    // SAFETY: there is one thread, and no other reads the environment meanwhile.
    unsafe {
        std::env::set_var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        std::env::set_var("HOME", "/");
    }
    Ok(())
}

/// The first root is what the kernel unpacked, and a container runtime cannot put another in its place
/// (pivot_root(2)): so the same files are mounted once more, over themselves.
fn movable_root() -> io::Result<()> {
    const AGAIN: &str = "/again";
    fs::create_dir_all(AGAIN)?;
    mount(Some("/"), AGAIN, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    std::env::set_current_dir(AGAIN)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Runs `main` in a child and returns its exit code as a shell would say it. Meanwhile it takes over orphans,
/// as init has to, and marks what the child and its children say on the standard error.
fn in_child(main: impl FnOnce() -> i32) -> i32 {
    let made = io::pipe().and_then(|(said, says)| {
        // SAFETY: there is one thread, so the child may do everything.
        let forked = unsafe { fork() }?;
        Ok((forked, said, says))
    });
    let watched = match made {
        Ok((ForkResult::Parent { child }, said, says)) => {
            drop(says);
            watch(child, said)
        }
        Ok((ForkResult::Child, said, says)) => {
            drop(said);
            // Without it the console is where it goes, unmarked.
            let _ = dup2_stderr(&says);
            drop(says);
            to_the_foreground();
            std::process::exit(main())
        }
        Err(error) => Err(error),
    };
    watched.unwrap_or_else(|error| {
        say(&format!("note the program cannot be run or watched: {error}"));
        125
    })
}

/// Waits for the end of `child`, and passes on as notes what is read from `said`.
fn watch(child: Pid, said: PipeReader) -> io::Result<i32> {
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    // From here on one that ends wakes us; those that have ended before are asked for below.
    ended.thread_block()?;
    let ended = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    fcntl(&said, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut notes = Notes { said: Some(said), line: Vec::new() };
    loop {
        let code = reap(child)?;
        // What it said before it ended is in the pipe by now.
        notes.pass_on()?;
        if let Some(code) = code {
            notes.end_line();
            return Ok(code);
        }
        let mut wakes = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        wakes.extend(notes.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut wakes, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while ended.read_signal()?.is_some() {}
    }
}

/// Takes in all who have ended; the exit code of `child` if it is among them.
fn reap(child: Pid) -> io::Result<Option<i32>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, its)) if pid == child => code = Some(its),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                say(&format!("note killed by {signal}"));
                code = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(code),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lines on their way from a pipe to the console.
struct Notes {
    /// `None` when nobody can write to it any more.
    said: Option<PipeReader>,
    line: Vec<u8>,
}

impl Notes {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.said.as_ref().map(|said| said.as_fd())
    }

    /// Says all whole lines that are there.
    fn pass_on(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        while let Some(said) = &mut self.said {
            match said.read(&mut bytes) {
                Ok(0) => self.said = None,
                Ok(count) => {
                    for &byte in &bytes[..count] {
                        if byte == b'\n' {
                            self.end_line();
                        } else {
                            self.line.push(byte);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            say(&format!("note {}", String::from_utf8_lossy(&self.line)));
            self.line.clear();
        }
    }
}

/// What a program has left: cgroups right below the root, and processes beside init, by their names; or `nothing`.
fn left() -> String {
    let mut left = Vec::new();
    if let Ok(entries) = cgroup::root().and_then(fs::read_dir) {
        let cgroups = entries.flatten().filter(|entry| entry.path().is_dir());
        left.extend(cgroups.map(|entry| format!("cgroup:{}", entry.file_name().display())));
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid: Option<u32> = process.file_name().to_str().and_then(|name| name.parse().ok());
        // Threads of the kernel, and what has ended, have no program.
        if pid.is_some_and(|pid| pid != 1)
            && let Ok(program) = fs::read_link(process.path().join("exe"))
        {
            left.push(format!("process:{}", program.display()));
        }
    }
    if left.is_empty() { "nothing".into() } else { left.join(" ") }
}

/// Makes the console the terminal of a session of our own, so that Ctrl-C reaches the program. Init leads the session:
/// when a leader ends, what the terminal has not sent yet is thrown away. Where it cannot be, nothing else is lost.
fn controlling_terminal() {
    let _ = nix::unistd::setsid();
    // SAFETY: an ioctl on an open file descriptor with an integer argument.
    unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
    // Whoever types Ctrl-C on the console does not want it among what the program prints.
    // SAFETY: zeroes are a valid `termios`, which is ours and only read where the kernel has filled it in.
    unsafe {
        let mut terminal: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(libc::STDIN_FILENO, &raw mut terminal) == 0 {
            terminal.c_lflag &= !libc::ECHO;
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const terminal);
        }
    }
}

/// Makes the calling process the one that Ctrl-C reaches.
fn to_the_foreground() {
    // SAFETY: takes numbers only. A process in the background is stopped by the last call unless it ignores that.
    unsafe {
        libc::setpgid(0, 0);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpgrp());
        libc::signal(libc::SIGTTOU, libc::SIG_DFL);
    }
}

fn power_off() -> ! {
    // What is still on its way to the serial line would be lost.
    // SAFETY: takes a file descriptor only.
    unsafe { libc::tcdrain(libc::STDOUT_FILENO) };
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    say(&format!("note cannot power off: {error}"));
    loop {
        nix::unistd::pause();
    }
}
