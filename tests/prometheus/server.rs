//! A Prometheus server that scrapes one sampler, and its HTTP API.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loadline_tests::daemon::get;
use serde_json::Value;

/// How long it may take to start, scrape and answer, on a loaded host.
const LIMIT: Duration = Duration::from_secs(60);

/// What it asks the sampler for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histograms {
    /// Text.
    Classic,
    /// Protobuf.
    Native,
}

/// A running server; dropping it ends it and removes its data.
pub struct Server {
    process: Child,
    address: SocketAddr,
    dir: PathBuf,
}

impl Server {
    /// Starts the program that this variable names.
    pub fn start(variable: &str, target: SocketAddr, histograms: Histograms) -> Self {
        let program = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set"));
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let dir = std::env::temp_dir().join(format!("prometheus-{}-{}", std::process::id(), address.port()));
        fs::create_dir_all(&dir).unwrap();
        let configuration = dir.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: sampler, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        fs::write(&configuration, text).unwrap();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        if histograms == Histograms::Native {
            command.arg("--enable-feature=native-histograms");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(dir.join("log")).unwrap());
        Self { process: command.spawn().unwrap(), address, dir }
    }

    /// The samples that a query has now: labels and value. None while it is not ready.
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let samples = self.result(query).into_iter();
        let number = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok());
        samples.filter_map(|sample| Some((sample["metric"].clone(), number(&sample)?))).collect()
    }

    /// The value of a query with one sample.
    pub fn value(&self, query: &str) -> Option<f64> {
        match &self.query(query)[..] {
            [] => None,
            [(_, value)] => Some(*value),
            several => panic!("{query} has {} samples", several.len()),
        }
    }

    /// The value of a query, once it is such.
    pub fn value_once(&self, query: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let until = Instant::now() + LIMIT;
        loop {
            match self.value(query) {
                Some(value) if wanted(value) => return value,
                value if Instant::now() > until => {
                    let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                    panic!("{query} is {value:?} after {LIMIT:?}; the server says: {log}");
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Upper edges and counts of a native histogram, in ascending order.
    pub fn native_buckets(&self, query: &str) -> Vec<(f64, f64)> {
        let result = self.result(query);
        let [sample] = &result[..] else { panic!("{query} has {} samples", result.len()) };
        let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
        let buckets = sample["histogram"][1]["buckets"].as_array().unwrap();
        buckets.iter().map(|bucket| (number(&bucket[2]), number(&bucket[3]))).collect()
    }

    /// What it calls itself.
    pub fn version(&self) -> String {
        let answer = get(self.address, "/api/v1/status/buildinfo", "*/*").unwrap();
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        format!("Prometheus {}", answer["data"]["version"].as_str().unwrap())
    }

    /// The same of one that may still be starting.
    pub fn version_once(&self) -> String {
        self.value_once("vector(1)", |one| one == 1.0);
        self.version()
    }

    fn result(&self, query: &str) -> Vec<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let Ok(answer) = get(self.address, &format!("/api/v1/query?query={escaped}"), "*/*") else {
            return Vec::new();
        };
        // While it starts: 503.
        if answer.status == 503 {
            return Vec::new();
        }
        let parsed: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(parsed["status"], "success", "{query}: {}", answer.text());
        parsed["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
