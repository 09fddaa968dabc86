//! Go programs, each built once from the module proxy and kept in the cache.
//!
//! `xtask/go/NAME/go.mod` and its `go.sum` pin the version and the checksum of every module. The Go that builds is the
//! one on PATH where it is new enough, else Debian's. Downloaded modules and compiled packages are kept between runs,
//! so that a build that was stopped half-way goes on where it was, and programs that share packages share the work.

use std::{
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    cache::Cache,
    debian::{Apt, Suite, find_program},
    step::{self, Step},
    workspace::Workspace,
};

/// The oldest Go that may build: the newest `go` line of our modules.
const OLDEST: (u32, u32) = (1, 26);
/// Debian's Go, for where there is none or an older one. It is static, so that it runs on any distribution.
const DEBIAN: [&str; 2] = ["golang-1.26-go", "golang-1.26-src"];
const BY_HAND: &str = "Go 1.26 or later (https://go.dev/dl), on PATH";
/// All modules of one program are downloaded in this time, and none is compiled longer.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// A program to build.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub struct Program<'a> {
    /// What the program is called.
    pub name: &'a str,
    /// The directory below `xtask/go` that has its `go.mod` and `go.sum`.
    pub module: &'a str,
    /// The import path of its main package.
    pub package: &'a str,
    /// Whether C is compiled in; then a C compiler is needed.
    pub cgo: bool,
    /// Build tags, with commas between them.
    pub tags: &'a str,
    /// Flags for the linker; symbols are always left out.
    pub ldflags: &'a str,
    /// More variables for the build: where C libraries are.
    pub environment: &'a [(&'a str, &'a str)],
}

/// The program, built if the cache has none of exactly these sources and settings.
pub fn build(cache: &Cache, workspace: &Workspace, program: &Program<'_>) -> Result<PathBuf> {
    let module = workspace.root.join("xtask/go").join(program.module);
    let entry =
        cache.entry(&format!("go-{}-{:016x}", program.name, fingerprint(&module, program)?), |dir| {
            let go = Go::find(cache)?;
            let mut step = Step::start(format!("Downloading Go modules for {}", program.name));
            // Names the packages that are compiled, and downloads no module that has none of them.
            step.command(
                go.command(&module, program, "list").arg("-deps").arg(program.package),
                Some(LIMIT),
            )?;
            step.done();
            let mut step = Step::start(format!("Building {} (once; up to some minutes)", program.name));
            let mut build = go.command(&module, program, "build");
            build.args(["-trimpath", "-ldflags", format!("-s -w {}", program.ldflags).trim_end()]);
            build.arg("-o").arg(dir.join(program.name)).arg(program.package);
            step.command(&mut build, Some(LIMIT))?;
            step.done();
            Ok(())
        })?;
    Ok(entry.join(program.name))
}

/// Tells apart what would be built differently.
fn fingerprint(module: &Path, program: &Program<'_>) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    program.hash(&mut hasher);
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// A Go toolchain.
struct Go {
    program: PathBuf,
    /// Where modules and compiled packages are kept.
    kept: PathBuf,
}

impl Go {
    /// The one on PATH, or Debian's.
    fn find(cache: &Cache) -> Result<Self> {
        let kept = cache.workshop("go")?;
        let on_path = find_program("go").filter(|program| {
            let mut ask = Command::new(program);
            ask.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local");
            step::ask(&mut ask, Duration::from_secs(20))
                .is_some_and(|said| version(&said).is_some_and(|found| found >= OLDEST))
        });
        if let Some(program) = on_path {
            return Ok(Self { program, kept });
        }
        let entry = cache.entry(DEBIAN[0], |dir| {
            let apt = Apt::open(cache, Suite::TrixieBackports, BY_HAND)?;
            apt.fetch("Go", &DEBIAN.map(str::to_owned), dir).with_context(|| format!("needed: {BY_HAND}"))
        })?;
        Ok(Self { program: entry.join("usr/lib/go-1.26/bin/go"), kept })
    }

    /// `go VERB` in a module, without the settings of whoever runs us that would change what is built. Those that
    /// say where modules come from are kept.
    fn command(&self, module: &Path, program: &Program<'_>, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(module).arg(verb);
        command.args(["-mod=readonly", "-modcacherw", "-buildvcs=false", "-tags", program.tags]);
        for inherited in ["GOROOT", "GOOS", "GOARCH", "GOEXPERIMENT", "GODEBUG"] {
            command.env_remove(inherited);
        }
        let settings = [
            ("GOTOOLCHAIN", OsString::from("local")),
            ("GOFLAGS", OsString::new()),
            ("GOWORK", "off".into()),
            ("GOMODCACHE", self.kept.join("mod").into()),
            ("GOCACHE", self.kept.join("build").into()),
            ("CGO_ENABLED", if program.cgo { "1" } else { "0" }.into()),
        ];
        command.envs(settings).envs(program.environment.iter().copied());
        command
    }
}

/// Major and minor of what `go env GOVERSION` says: `go1.26.8`, or `go1.27rc1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix("go")?.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_compare_by_number() {
        assert_eq!(version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("go1.9"), Some((1, 9)));
        assert!(version("go1.9") < Some(OLDEST));
        assert_eq!(version("devel +abc"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn another_tag_or_checksum_is_another_build() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["go.mod", "go.sum"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let program = Program { name: "runc", ..Program::default() };
        let plain = fingerprint(dir.path(), &program).unwrap();
        assert_eq!(fingerprint(dir.path(), &program).unwrap(), plain);
        assert_ne!(fingerprint(dir.path(), &Program { tags: "seccomp", ..program }).unwrap(), plain);
        fs::write(dir.path().join("go.sum"), "changed").unwrap();
        assert_ne!(fingerprint(dir.path(), &program).unwrap(), plain);
    }

    #[test]
    fn the_modules_of_the_tree_ask_for_no_newer_go() {
        let modules = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/go"));
        for module in fs::read_dir(modules).unwrap() {
            let text = fs::read_to_string(module.unwrap().path().join("go.mod")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("go ")).unwrap();
            assert!(version(&format!("go{line}")).unwrap() <= OLDEST, "{line}");
        }
    }
}
