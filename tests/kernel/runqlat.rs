//! libbpf-tools' `runqlat`, run beside ours.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loadline_tests::load::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = "/usr/sbin/runqlat";

/// It, while it counts one process.
pub struct Runqlat(Child);

impl Runqlat {
    /// Returns when it is attached.
    pub fn start(process: Pid) -> Self {
        let child = Command::new(PROGRAM)
            .args(["-p", &process.to_string(), "1000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{PROGRAM} cannot be started, and there is nothing to compare with: {error}")
            });
        let mut runqlat = Self(child);
        until("runqlat with its three hooks", Duration::from_secs(60), || {
            if let Some(status) = runqlat.0.try_wait()? {
                return Err(std::io::Error::other(format!("runqlat ended with {status}")));
            }
            let files = std::fs::read_dir(format!("/proc/{}/fd", runqlat.0.id()))?;
            let is_link = |file: &std::fs::DirEntry| {
                std::fs::read_link(file.path()).is_ok_and(|link| {
                    let link = link.to_string_lossy();
                    link.contains("bpf_link") || link.contains("bpf-link") || link.contains("raw-tracepoint")
                })
            };
            Ok(files.flatten().filter(is_link).count() >= 3)
        })
        .unwrap();
        runqlat
    }

    /// Ends it and returns its counts: those of index `i` are from 2^i to 2^(i+1) µs, and from 0 for the first.
    pub fn finish(mut self) -> Vec<u64> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        let counts: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let (range, rest) = line.split_once(':')?;
                range.split_once("->")?;
                rest.split_whitespace().next()?.parse().ok()
            })
            .collect();
        assert!(!counts.is_empty(), "runqlat said nothing of use:\n{text}");
        counts
    }
}

impl Drop for Runqlat {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
