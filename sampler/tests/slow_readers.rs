//! `sampler serve` beside clients that ask and do not read, and clients that connect and do not ask: real sockets of the
//! real program, which replays a recording. How long somebody waits for others is the server's own tests' to say, on a clock
//! that stands still meanwhile; here it is enough that everybody is answered who reads.
#![allow(clippy::unwrap_used, reason = "these are tests: what cannot be is a failure with a backtrace")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use sampler_common::recording::{Header, Writer};
use sampler_common::snapshot::{CgroupCounters, CgroupId, Snapshot};

const SECOND: u64 = 1_000_000_000;
/// Enough that no socket's buffers hold the answer: some 5 MB of text.
const CGROUPS: u64 = 1_000;
/// More than there is room for.
const SLOW: usize = 150;
/// Nothing here takes this long; a machine may.
const PATIENCE: Duration = Duration::from_secs(60);
const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

/// The daemon, which ends with this.
struct Daemon {
    process: Child,
    address: SocketAddr,
    /// Open, so that it can go on.
    _log: BufReader<ChildStderr>,
    _dir: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Daemon {
    /// Replays a recording of many cgroups, whose windows are a second long.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording");
        let header = Header { cpus: 2, interval_ns: SECOND, ..Header::default() };
        let mut writer = Writer::create(File::create(&path).unwrap(), header).unwrap();
        for turn in 0..20 {
            let cgroup = |number: u64| {
                let mut cgroup = CgroupCounters::default();
                cgroup.identity.path =
                    format!("with-a-name-as-long-as-those-of-real-ones-usually-are/{number}");
                (0..=turn).for_each(|_| cgroup.counters.latency.record(5_000_000));
                (CgroupId(number), cgroup)
            };
            let at_ns = (turn + 1) * SECOND;
            let cgroups = (1..=CGROUPS).map(cgroup).collect();
            writer.append(&Snapshot { at_ns, cgroups, ..Snapshot::default() }).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_sampler"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "text", "--replay"]).arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let said = log.by_ref().lines().map(Result::unwrap).find(|line| line.contains("serving metrics"));
        let (_, address) = said.as_deref().unwrap().rsplit_once("address=").unwrap();
        let daemon = Self { process, address: address.parse().unwrap(), _log: log, _dir: dir };
        daemon.until("ready", || daemon.answer("/readyz").is_some_and(|answer| is_good(&answer)));
        daemon
    }

    fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks for something, if it says anything.
    fn ask(&self, path: &str, accept: &str) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", self.address).ok()?;
        Some(stream)
    }

    /// The whole answer; none where the connection is refused or breaks.
    fn answer(&self, path: &str) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        self.ask(path, "*/*")?.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    /// Sockets that it has open, its listening one among them.
    fn sockets(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        let is_socket = |path: std::path::PathBuf| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        open.filter(|fd| is_socket(fd.as_ref().unwrap().path())).count()
    }
}

fn is_good(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ")
}

#[test]
fn who_does_not_read_keeps_nobody_else_waiting() {
    let daemon = Daemon::start();
    let ask = |number| daemon.ask("/metrics", if number % 2 == 0 { "*/*" } else { PROTOBUF });
    let mut slow: Vec<_> = (0..SLOW).filter_map(ask).collect();
    // These say nothing at all. Of those before them they leave who is being answered.
    slow.extend((0..SLOW).filter_map(|_| TcpStream::connect(daemon.address).ok()));
    assert!(slow.len() > SLOW, "the daemon refuses connections");
    for _ in 0..20 {
        let health = daemon.answer("/healthz").unwrap_or_default();
        assert!(is_good(&health), "{}", String::from_utf8_lossy(&health));
        assert!(daemon.sockets() < 80, "{} sockets", daemon.sockets());
    }
    // Their places are given to who reads, though none of them has gone.
    let mut body = Vec::new();
    daemon.until("a scrape", || {
        body = daemon.answer("/metrics").unwrap_or_default();
        is_good(&body)
    });
    assert!(body.ends_with(b"# EOF\n"), "the end is missing");
    assert!(body.len() > 4 << 20, "{} bytes would fit into the buffers of sockets", body.len());
    drop(slow);
}
