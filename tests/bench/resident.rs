//! The real daemon with everything on: 500 containers that run, with memory, stalls, limits and names, scraped in both
//! formats. What it takes of memory and of CPU time.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use loadline_tests::daemon::{Daemon, get};

use crate::containers::{Containers, NAMESPACE, NODE};

/// A window.
pub const WINDOW: Duration = Duration::from_secs(1);
/// Prometheus' default is a scrape a minute; this is often.
pub const SCRAPE_EVERY: u32 = 15;
const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

/// The daemon, and where it was told whom to ask.
pub struct Full {
    daemon: Daemon,
    containers: usize,
    _dir: tempfile::TempDir,
}

impl Full {
    /// Starts it, and makes sure that everything is on.
    pub fn start(containers: &Containers) -> Result<Self> {
        let dir = tempfile::tempdir().context("a directory for the kubeconfig")?;
        let kubeconfig = containers.api_server(dir.path())?;
        // SAFETY: no other thread looks at the environment: those of the API server write to their sockets.
        unsafe { std::env::set_var("KUBECONFIG", kubeconfig) };
        let daemon = Daemon::start(&["--interval", "1s", "--node-name", NODE], || Ok(()))?;
        let daemon = daemon.map_err(|ended| anyhow::anyhow!("the sampler has ended: {ended:?}"))?;
        let full = Self { daemon, containers: containers.paths().len(), _dir: dir };
        full.check()?;
        Ok(full)
    }

    /// That all containers have a name, and every kind of figure.
    fn check(&self) -> Result<()> {
        let limit = Duration::from_secs(60);
        for name in [
            "runq_latency_seconds_count",
            "cpu_usage_seconds_total",
            "cpu_limit_cores",
            "memory_limit_bytes",
            "memory_working_set_bytes",
            "pressure_cpu_waiting_seconds_total",
            "pressure_memory_stalled_seconds_total",
        ] {
            let series = format!("loadline_container_{name}{{");
            let namespace = format!("namespace=\"{NAMESPACE}\"");
            self.daemon.scrape_until(name, limit, |scrape| {
                let names = scrape.samples().keys();
                let named = names.filter(|sample| sample.starts_with(&series) && sample.contains(&namespace));
                named.count() >= self.containers
            })?;
        }
        Ok(())
    }

    /// Scrapes it in both formats, and returns how many bytes each has.
    pub fn scrape(&self) -> Result<[usize; 2]> {
        let mut bytes = [0; 2];
        for (accept, bytes) in ["*/*", PROTOBUF].into_iter().zip(&mut bytes) {
            let answer = get(self.daemon.address(), "/metrics", accept).context("a scrape")?;
            if answer.status != 200 {
                bail!("a scrape is answered with {}: {}", answer.status, answer.text());
            }
            *bytes = answer.body.len();
        }
        Ok(bytes)
    }

    /// Of its resident memory: all, what is anonymous, and what is of files and maps, in MiB.
    pub fn resident(&self) -> Result<[f64; 3]> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid()))?;
        let mib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            Ok(kib.with_context(|| format!("no {name}"))?.parse::<f64>()? / 1024.0)
        };
        Ok([mib("VmRSS:")?, mib("RssAnon:")?, mib("RssFile:")? + mib("RssShmem:")?])
    }

    /// CPU time of all its threads so far, of those too that have ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        /// Of `/proc/PID/stat`, on every machine that Linux runs on.
        const TICKS_PER_SECOND: f64 = 100.0;
        let text = fs::read_to_string(format!("/proc/{}/stat", self.daemon.pid()))?;
        let (_, fields) = text.rsplit_once(')').context("a line of /proc/PID/stat")?;
        // utime and stime: the 14th and 15th of all, two of which are before.
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(Duration::from_secs_f64(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND))
    }
}
