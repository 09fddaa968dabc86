//! A real control plane, etcd and kube-apiserver, for as long as a test needs it.
//!
//! `cargo xtask test` fetches or builds the programs and says where they are. RBAC is on, and tokens of service
//! accounts are real; there is no controller manager and no kubelet, so that tests play their parts.
//!
//! # Invariants
//!
//! * Both listen on loopback alone, and end with the thread that started them, however that ends.
//! * Nothing waits without a bound.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

/// Ready takes 3 s; on a host that builds meanwhile ten times as long has been seen of other things.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// One answer takes some milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Who has this token may do everything.
const ADMIN_TOKEN: &str = "admin-of-the-tests";

/// A running control plane. Ends when it is dropped.
pub struct ControlPlane {
    // Ended before the directory that they write to goes.
    api_server: Option<Process>,
    _etcd: Process,
    etcd_url: String,
    port: u16,
    dir: TempDir,
}

impl ControlPlane {
    /// Starts one, with nothing in it, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// The programs are not there, do not start, or do not become ready in time: with what they said last.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("loadline-control-plane-").tempdir()?;
        let keys = rcgen::KeyPair::generate().context("a key for service account tokens")?;
        fs::write(dir.path().join("sa.key"), keys.serialize_pem())?;
        fs::write(dir.path().join("sa.pub"), keys.public_key_pem())?;
        fs::write(dir.path().join("tokens"), format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;

        let etcd_url = format!("http://127.0.0.1:{}", free_port()?);
        let peer_url = format!("http://127.0.0.1:{}", free_port()?);
        let mut etcd = program("TEST_ASSET_ETCD")?;
        // What it holds need not survive the host.
        etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--data-dir"]).arg(dir.path().join("etcd"));
        etcd.args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url]);
        etcd.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        etcd.args(["--initial-cluster", &format!("default={peer_url}")]);
        let etcd = Process::start(&mut etcd, &dir.path().join("etcd.log"))?;

        let mut started = Self { api_server: None, _etcd: etcd, etcd_url, port: free_port()?, dir };
        started.start_api_server().await?;
        Ok(started)
    }

    /// Starts the API server once more, at the same address and with the same content, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// As [`ControlPlane::start`].
    pub async fn start_api_server(&mut self) -> Result<()> {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let mut command = program("TEST_ASSET_KUBE_APISERVER")?;
        command.args([
            format!("--etcd-servers={}", self.etcd_url),
            format!("--secure-port={}", self.port),
            format!("--cert-dir={}", file("certificates")),
            format!("--token-auth-file={}", file("tokens")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--service-account-key-file={}", file("sa.pub")),
        ]);
        command.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            // Nobody looks it up, and an endpoint on loopback is refused.
            "--endpoint-reconciler-type=none",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
        ]);
        self.api_server = Some(Process::start(&mut command, &self.dir.path().join("api-server.log"))?);
        self.ready().await
    }

    /// Ends the API server in the middle of whatever it is doing.
    pub fn kill_api_server(&mut self) {
        self.api_server = None;
    }

    async fn ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_LIMIT;
        loop {
            let why = match self.ask_ready().await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            let api_server = self.api_server.as_mut().context("the API server was not started")?;
            if api_server.has_ended() || Instant::now() > until {
                let log = |name: &str| last_lines(&self.dir.path().join(name));
                bail!(
                    "the API server is not ready: {why:#}\n  it said last:\n{}\n  and etcd:\n{}",
                    log("api-server.log"),
                    log("etcd.log")
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask_ready(&self) -> Result<()> {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let admin = self.admin().await?;
        let answer = tokio::time::timeout(ANSWER_LIMIT, admin.request_text(request)).await;
        let answer = answer.context("no answer")??;
        if answer != "ok" {
            bail!("{answer}");
        }
        Ok(())
    }

    /// A client that may do everything.
    ///
    /// # Errors
    ///
    /// As [`ControlPlane::client`].
    pub async fn admin(&self) -> Result<Client> {
        self.client(ADMIN_TOKEN).await
    }

    /// A client with this token, made as the product makes its own.
    ///
    /// # Errors
    ///
    /// The API server has not made its certificate yet.
    pub async fn client(&self, token: &str) -> Result<Client> {
        let kubeconfig = self.kubeconfig(token)?;
        sampler::pods::connect(Some(&kubeconfig)).await?.context("a kubeconfig makes a client")
    }

    /// A kubeconfig with this token; a file that lives as long as this.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn kubeconfig(&self, token: &str) -> Result<PathBuf> {
        let path = self.dir.path().join("kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{ "name": "tests", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority": self.dir.path().join("certificates/apiserver.crt"),
            } }],
            "users": [{ "name": "tests", "user": { "token": token } }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": "tests" } }],
        });
        fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }
}

/// The program that a variable of `cargo xtask` names.
fn program(variable: &str) -> Result<Command> {
    let path = env::var_os(variable)
        .with_context(|| format!("{variable} names no program: `cargo xtask test` sets it"))?;
    Ok(Command::new(path))
}

/// A port that nobody listens on. Somebody may take it before its user does; then that one fails, and says so.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// A process that ends with this.
struct Process(Child);

impl Process {
    /// Starts a command that writes to the end of `log`.
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: between fork and exec the closure makes one prctl system call and allocates nothing.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
        let child = command
            .spawn()
            .with_context(|| format!("{} could not be started", command.get_program().display()))?;
        Ok(Self(child))
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
