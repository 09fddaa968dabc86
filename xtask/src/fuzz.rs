//! The fuzz targets (`tests/fuzz`): libFuzzer tries inputs on each parser for a while, and what breaks one is kept.
//!
//! Nothing is written to the checkout: what libFuzzer found worth keeping is in `target/fuzz/corpus`, so that the next run
//! goes on from there; inputs that break something are in `target/fuzz/crashes`; what was said is in `target/fuzz/log`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    cache::Cache,
    cxx,
    process::{self, Running, Stop},
    step::{Step, quote},
    suite::{Listener, Outcome},
    workspace::Workspace,
};

/// What the suite is called.
pub const NAME: &str = "fuzz";
/// How long all targets are fuzzed together, each for its share.
pub const USUAL: Duration = Duration::from_secs(60);

/// No input takes longer than this, however busy the host.
const LONGEST_INPUT: Duration = Duration::from_secs(25);
/// No target takes more memory than this, in MiB.
const MEMORY_MIB: u32 = 1024;
/// What a target takes beyond its share: to read what earlier runs found, and to end.
const GRACE: Duration = Duration::from_secs(120);

/// Fuzzes the targets whose names contain the filter, for `time` together.
pub fn run(cache: &Cache, workspace: &Workspace, time: Duration, filter: Option<&str>) -> Result<Outcome> {
    let sources = workspace.root.join("tests/fuzz");
    let mut names = targets(&sources)?;
    names.retain(|name| filter.is_none_or(|filter| name.contains(filter)));
    let mut listener = Listener::new(NAME);
    let mut failed = 0;
    if let Some(count) = u32::try_from(names.len()).ok().filter(|count| *count > 0) {
        build(cache, workspace, &sources)?;
        for name in &names {
            let target = Target { name, dir: &workspace.target.join("fuzz"), sources: &sources };
            let start = Instant::now();
            let verdict = match target.fuzz(time / count)? {
                Ok(figures) => format!("ok ({} s)\n     {figures}\n", start.elapsed().as_secs()),
                Err(why) => {
                    failed += 1;
                    format!("FAILED ({} s): {}\n", start.elapsed().as_secs(), why.join("\n     "))
                }
            };
            listener.hear(format!("test {name} ... {verdict}").as_bytes());
        }
    }
    listener.hear(format!("{} passed, {failed} failed\n", names.len() - failed).as_bytes());
    Ok(listener.end(i32::from(failed > 0)))
}

/// The names of all targets.
fn targets(sources: &Path) -> Result<Vec<String>> {
    let dir = sources.join("targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        names.push(stem.with_context(|| format!("{} has no name", path.display()))?.to_owned());
    }
    names.sort();
    Ok(names)
}

fn build(cache: &Cache, workspace: &Workspace, sources: &Path) -> Result<()> {
    let mut command = workspace.cargo();
    // There, because cargo takes the flags from a file beside the sources, and only where no variable has others.
    command.current_dir(sources).args(["build", "--release", "--bins"]);
    command.env("CARGO_TARGET_DIR", workspace.target.join("fuzz"));
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.envs(cxx::environment(cache).context("libFuzzer is C++")?);
    let mut step = Step::start("Building the fuzz targets");
    step.command(&mut command, None)?;
    step.done();
    Ok(())
}

/// One target, its program built.
struct Target<'a> {
    name: &'a str,
    /// Where all that comes of it goes.
    dir: &'a Path,
    sources: &'a Path,
}

impl Target<'_> {
    /// Fuzzes it and returns its figures, or the lines that say what went wrong.
    fn fuzz(&self, time: Duration) -> Result<Result<String, Vec<String>>> {
        let found = self.made("corpus")?;
        let crashes = self.made("crashes")?;
        let log = self.dir.join("log").join(self.name);
        fs::create_dir_all(self.dir.join("log")).context("making a directory")?;
        let said = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(self.program());
        command.arg(format!("-max_total_time={}", time.as_secs().max(1)));
        command.arg(format!("-timeout={}", LONGEST_INPUT.as_secs()));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        command.arg("-print_final_stats=1").arg(found);
        // Only the first directory is written to.
        let seeds = self.sources.join("corpus").join(self.name);
        command.args(Some(seeds).filter(|seeds| seeds.is_dir()));
        command.env_remove("RUST_BACKTRACE").stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let running = Running::start(&mut command, Stop::KillGroup)?;
        let ended = running.wait_at_most(time + GRACE);
        process::pause_if_stopping();
        let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let said = String::from_utf8_lossy(&said);
        Ok(match ended {
            Ok(status) if status.success() => Ok(figures(&said)
                .with_context(|| format!("libFuzzer gave no figures: see {}", log.display()))?),
            Ok(status) => Err(self.failure(&said, &status.to_string(), &log)),
            Err(error) => Err(self.failure(&said, &error.to_string(), &log)),
        })
    }

    fn made(&self, kind: &str) -> Result<PathBuf> {
        let dir = self.dir.join(kind).join(self.name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }

    fn program(&self) -> PathBuf {
        self.dir.join("x86_64-unknown-linux-gnu/release").join(self.name)
    }

    /// What went wrong, which input does it, and how to see it again.
    fn failure(&self, said: &str, status: &str, log: &Path) -> Vec<String> {
        let mut lines = vec![reason(said).unwrap_or_else(|| format!("{status}: see {}", log.display()))];
        if let Some(input) = said.lines().find_map(|line| line.split_once("Test unit written to ")) {
            let again = [&*self.program().to_string_lossy(), input.1].map(quote).join(" ");
            lines.push(format!("the input: {}", input.1));
            lines.push(format!("once more: {again}"));
            let seeds = self.sources.join("corpus").join(self.name);
            lines.push(format!("once mended, keep the input in {}", seeds.display()));
        }
        lines
    }
}

/// What a panic said, or else libFuzzer.
fn reason(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.contains(" panicked at "));
    if let Some(first) = lines.next() {
        let (_, place) = first.split_once(" panicked at ")?;
        let what: Vec<_> = lines.take_while(|line| !line.starts_with("note: ")).map(str::trim).collect();
        return Some(format!("{place} {}", what.join("; ")));
    }
    said.lines().find_map(|line| line.split_once("ERROR: libFuzzer: ")).map(|(_, what)| what.to_owned())
}

/// What libFuzzer says of a run at its end: inputs tried, how many of them in a second, edges of the code reached, and
/// inputs that are kept for having reached something.
fn figures(said: &str) -> Option<String> {
    let number = |name: &str| -> Option<u64> {
        let value = said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    let done = said.lines().rev().find(|line| line.contains("\tDONE "))?;
    let mut words = done.split_ascii_whitespace().skip_while(|word| *word != "cov:");
    let edges: u64 = words.nth(1)?.parse().ok()?;
    let mut words = words.skip_while(|word| *word != "corp:");
    let kept: u64 = words.nth(1)?.split('/').next()?.parse().ok()?;
    let (tried, rate) = (number("number_of_executed_units:")?, number("average_exec_per_sec:")?);
    Some(format!("{tried} inputs, {rate} a second; {edges} edges reached by {kept} inputs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_end() {
        let said = "#4\tINITED cov: 10 ft: 11 corp: 2/5b exec/s: 0 rss: 26Mb\n\
                    #90\tDONE   cov: 312 ft: 1405 corp: 231/12Kb lim: 4096 exec/s: 15 rss: 28Mb\nDone 90 runs in 6 second(s)\n\
                    stat::number_of_executed_units: 90\nstat::average_exec_per_sec:     15\n";
        let expected = "90 inputs, 15 a second; 312 edges reached by 231 inputs";
        assert_eq!(figures(said).as_deref(), Some(expected));
        assert_eq!(figures(&said.replace("DONE", "pulse")), None);
    }

    #[test]
    fn a_failure_says_why_and_how_to_see_it_again() {
        let target = Target { name: "one", dir: Path::new("/t/fuzz"), sources: Path::new("/s") };
        let said = "thread '<unnamed>' (7) panicked at targets/one.rs:3:5:\nassertion failed\n  left: 1\nnote: run with\n\
                    ==7== ERROR: libFuzzer: deadly signal\nartifact_prefix='/t/'; Test unit written to /t/crash-1\n";
        let expected = [
            "targets/one.rs:3:5: assertion failed; left: 1",
            "the input: /t/crash-1",
            "once more: /t/fuzz/x86_64-unknown-linux-gnu/release/one /t/crash-1",
            "once mended, keep the input in /s/corpus/one",
        ];
        assert_eq!(target.failure(said, "exit status: 77", Path::new("/t/log")), expected);
        let slow = "==7== ERROR: libFuzzer: timeout after 25 seconds\n";
        assert_eq!(
            target.failure(slow, "exit status: 70", Path::new("/t/log")),
            ["timeout after 25 seconds"]
        );
        assert_eq!(target.failure("", "signal: 9", Path::new("/t/log")), ["signal: 9: see /t/log"]);
    }

    #[test]
    fn every_target_is_built_and_has_its_seeds() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
        let manifest = fs::read_to_string(sources.join("Cargo.toml")).unwrap();
        for name in targets(&sources).unwrap() {
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
            assert!(sources.join("corpus").join(&name).is_dir(), "{name}");
        }
    }
}
