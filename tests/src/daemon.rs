//! The real `sampler serve`, started as somebody would start it, and what it answers.
//!
//! # Invariants
//!
//! * A [`Daemon`] that is dropped is killed and reaped, also by a panic.
//! * Nothing waits without a bound.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where guests have it.
const IN_GUESTS: &str = "/usr/bin/sampler";
/// How long it may take to load its programs and to have its first window, under emulation on a loaded host.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What is to be run: `$LOADLINE_SAMPLER`, or the one of guests.
pub fn program() -> PathBuf {
    std::env::var_os("LOADLINE_SAMPLER").map_or_else(|| IN_GUESTS.into(), PathBuf::from)
}

/// A running `sampler serve`.
pub struct Daemon {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

/// It ended, with that status, after saying this.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// All of its standard error.
    pub said: String,
}

impl Daemon {
    /// Starts it with more arguments, and waits until it is ready. `prepare` runs in the new process before it
    /// becomes the sampler; it must not allocate.
    pub fn start(
        arguments: &[&str],
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Result<Self, Ended>> {
        let mut daemon = Self::spawn(arguments, prepare)?;
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = daemon.process.try_wait()? {
                return Ok(Err(Ended { status, said: daemon.said()? }));
            }
            if daemon.get("/readyz").is_ok_and(|answer| answer.status == 200) {
                return Ok(Ok(daemon));
            }
            if Instant::now() > until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("not ready: {}", daemon.said()?),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it.
    pub fn spawn(
        arguments: &[&str],
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        loopback_up()?;
        // Free now; nobody else takes ports here.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = std::env::temp_dir().join(format!("sampler-{}-{}.log", std::process::id(), address.port()));
        let mut command = Command::new(program());
        command.args(["serve", "--listen", &address.to_string()]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        // SAFETY: what callers hand over makes system calls only.
        unsafe { command.pre_exec(prepare) };
        Ok(Self { process: command.spawn()?, address, log })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    /// What it has logged.
    pub fn said(&self) -> io::Result<String> {
        fs::read_to_string(&self.log)
    }

    /// Asks it something.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        get(self.address, path, "*/*")
    }

    /// What it counts.
    pub fn scrape(&self) -> io::Result<Scrape> {
        let answer = self.get("/metrics")?;
        if answer.status != 200 {
            return Err(io::Error::other(format!("{}: {}", answer.status, answer.text())));
        }
        Ok(Scrape::read(&answer.text()))
    }

    /// Scrapes until `condition` holds.
    pub fn scrape_until(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Scrape) -> bool,
    ) -> io::Result<Scrape> {
        let until = Instant::now() + limit;
        loop {
            let scrape = self.scrape()?;
            if condition(&scrape) {
                return Ok(scrape);
            }
            if Instant::now() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: not within {limit:?}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends it a signal, and waits until it has ended.
    pub fn end(mut self, signal: Signal, limit: Duration) -> io::Result<Ended> {
        kill(self.pid(), signal)?;
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(Ended { status, said: self.said()? });
            }
            if Instant::now() > until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{signal}: not ended in {limit:?}"),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// Runs the sampler to its end with these arguments.
pub fn run(
    arguments: &[&str],
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<Ended> {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: what callers hand over makes system calls only.
    unsafe { command.pre_exec(prepare) };
    let output = command.output()?;
    Ok(Ended { status: output.status, said: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Its code.
    pub status: u16,
    /// Its head.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One HTTP request, for what this accepts.
pub fn get(address: SocketAddr, path: &str, accept: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    // 1.0: the answer ends with the connection, and is in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(invalid)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
    Ok(Answer { status, head, body: answer.split_off(end + 4) })
}

/// Samples of a scrape.
#[derive(Debug, Default)]
pub struct Scrape {
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads OpenMetrics text.
    pub fn read(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self { samples: samples.collect() }
    }

    /// The sum of all samples of this name that have all of these labels; `None` where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let found: Vec<_> = self
            .samples
            .iter()
            .filter(|(sample, _)| sample.split('{').next() == Some(name))
            .filter(|(sample, _)| wanted.iter().all(|label| sample.contains(label)))
            .map(|(_, value)| *value)
            .collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// All samples, by name and labels.
    pub fn samples(&self) -> &BTreeMap<String, f64> {
        &self.samples
    }

    /// Names and labels of the counters that are smaller than in `earlier`, and of those that are gone.
    pub fn went_back(&self, earlier: &Self) -> Vec<String> {
        let counters = earlier.samples.iter().filter(|(name, _)| {
            let name = name.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
        });
        let smaller =
            counters.filter(|(name, before)| self.samples.get(*name).is_none_or(|now| now < before));
        smaller.map(|(name, _)| name.clone()).collect()
    }
}

/// A fresh guest has its loopback device switched off.
fn loopback_up() -> io::Result<()> {
    if Path::new("/sys/class/net/lo/flags").exists() {
        let flags = fs::read_to_string("/sys/class/net/lo/flags")?;
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        if flags & libc::IFF_UP as u32 != 0 {
            return Ok(());
        }
    }
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: zeros are a valid value of this structure of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request lives through the call, which reads it.
    let set = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
