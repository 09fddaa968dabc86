//! Compilers for the BPF programs: chooses one and installs what it lacks.
//!
//! rustc hands bpf-linker LLVM bitcode, which only an LLVM as new as rustc's own can be relied on to read, and `core`
//! is compiled from the sources of exactly the compiler's version. So there are two complete sets, never mixed:
//! - the usual one: rustup's nightly with `rust-src` and `clippy`, and a bpf-linker that is installed or was released,
//!   where the nightly is new enough, the linker's LLVM no older than the nightly's, and a trial of the two goes well
//!   (`usual.rs`);
//! - Debian's: the host's own rustc, `core` from Debian's `rust-src` of its version, and a bpf-linker built here with
//!   Debian's LLVM of rustc's version.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cache::Cache,
    debian::{Apt, Suite, find_program},
    step::{self, Step},
    usual,
};

/// What the BPF programs are built for.
pub const TARGET: &str = "bpfel-unknown-none";

/// The bpf-linker that we get; an older one makes no BTF that we can use.
pub const BPF_LINKER: &str = "0.13.0";
/// What makes us need none of Debian's packages.
const BY_HAND: &str =
    "rustup's nightly with its components rust-src and clippy, and bpf-linker 0.13 or later";
/// A quick question to a tool.
pub const QUICK: Duration = Duration::from_secs(20);

/// How to build for the BPF target.
#[derive(Debug)]
pub struct Toolchain {
    /// Where it comes from, in words.
    pub name: String,
    /// The bpf-linker to link with.
    pub linker: PathBuf,
    /// `cargo` and its leading arguments.
    pub cargo: Vec<OsString>,
    /// Variables that the build needs.
    pub variables: Vec<(&'static str, OsString)>,
}

impl Toolchain {
    /// A cargo command of this toolchain that builds (or checks) for the BPF target, without the settings that the running
    /// cargo gave us for its own toolchain.
    pub fn cargo(&self, verb: &str) -> Command {
        let flags = [
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            // aya-ebpf's register layouts depend on the machine that the programs will run on.
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            format!("-Clinker={}", self.linker.display()),
        ];
        let mut command = Command::new(&self.cargo[0]);
        command.args(&self.cargo[1..]);
        without_inherited(&mut command);
        command.args([verb, "--release", "--target", TARGET, "-Z", "build-std=core"]);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Takes away what the running cargo set for its own toolchain.
pub fn without_inherited(command: &mut Command) {
    for inherited in [
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        command.env_remove(inherited);
    }
}

/// Finds a complete toolchain, or makes one.
pub fn bpf(cache: &Cache) -> Result<Toolchain> {
    if find_program("cc").is_none() {
        bail!("there is no C compiler: cargo links with `cc` (Debian: apt-get install gcc libc6-dev)");
    }
    if let Some(toolchain) = usual::find(cache) {
        return Ok(toolchain);
    }
    debian(cache)
}

/// What `rustc -vV` says of the active compiler.
#[derive(Debug, PartialEq, Eq)]
pub struct Rustc {
    /// Its version.
    pub release: String,
    /// What it was built from.
    pub commit: String,
    /// The major version of its LLVM.
    pub llvm: u32,
}

/// Reads the answer to `rustc -vV`.
pub fn parse_rustc(verbose: &str) -> Option<Rustc> {
    let field = |name| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(Rustc {
        release: field("release:")?.to_owned(),
        commit: field("commit-hash:").unwrap_or("unknown").to_owned(),
        llvm: field("LLVM version:")?.split('.').next()?.parse().ok()?,
    })
}

/// Debian's set.
fn debian(cache: &Cache) -> Result<Toolchain> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let verbose = step::ask(Command::new(&rustc).arg("-vV"), QUICK).context("rustc does not run")?;
    let rustc = parse_rustc(&verbose).context("rustc -vV says no version")?;
    let sources = rust_src(cache, &rustc.release)?;
    let linker = built_linker(cache, rustc.llvm, &cargo)?;
    Ok(Toolchain {
        name: format!("rustc {} with Debian's rust-src and LLVM {}", rustc.release, rustc.llvm),
        linker,
        cargo: vec![cargo],
        variables: vec![
            // A released compiler builds `core` for the BPF target only with the unstable features open, …
            ("RUSTC_BOOTSTRAP", "1".into()),
            // … and finds the sources where cargo's own tests point it: without changing the toolchain.
            ("__CARGO_TESTS_ONLY_SRC_ROOT", sources.into()),
        ],
    })
}

/// The sources of `core` for exactly this release.
fn rust_src(cache: &Cache, release: &str) -> Result<PathBuf> {
    let entry = cache.entry(&format!("rust-src-{release}"), |dir| {
        for suite in [Suite::TrixieBackports, Suite::Sid] {
            let apt = Apt::open(cache, suite, BY_HAND)?;
            let offered = apt.versions("rust-src");
            let wanted = format!("{release}+");
            if let Some(found) = offered.iter().find(|package| package.version.starts_with(&wanted)) {
                let package = format!("rust-src={}", found.version);
                apt.fetch(&format!("rust-src {release}"), &[package], dir)?;
                return keep_library(dir);
            }
        }
        bail!(
            "Debian has no rust-src of exactly {release}, the version of your rustc: install rustup's nightly with \
             rust-src (rustup toolchain install nightly --component rust-src --component clippy) and a released \
             bpf-linker, or use Rust 1.95"
        )
    })?;
    library(&entry)
}

/// The directory that holds the standard library's sources in an unpacked rust-src.
fn library(dir: &Path) -> Result<PathBuf> {
    fs::read_dir(dir.join("usr/src"))
        .context("rust-src holds no usr/src")?
        .filter_map(|entry| Some(entry.ok()?.path().join("library")))
        .find(|library| library.join("core").is_dir())
        .context("rust-src holds no library/core")
}

/// Removes what is not the standard library: five sixths of the package.
fn keep_library(dir: &Path) -> Result<()> {
    let library = library(dir)?;
    for beside in library.parent().context("rust-src is empty")?.read_dir()? {
        let path = beside?.path();
        if path != library && path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// A bpf-linker built with Debian's LLVM of rustc's version. It finds the libraries that it needs beside itself.
fn built_linker(cache: &Cache, llvm: u32, cargo: &OsStr) -> Result<PathBuf> {
    let entry = cache.entry(&format!("bpf-linker-{BPF_LINKER}-llvm-{llvm}"), |dir| {
        let root = dir.join("llvm");
        let names = ["llvm", "libclang", "libpolly"].map(|name| format!("{name}-{llvm}-dev"));
        let apt = Apt::open(cache, Suite::Host, BY_HAND)?;
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let packages = apt
            .closure(&names, None)
            .with_context(|| format!("this host's package sources lack {}", names.join(" ")))?;
        apt.fetch(&format!("LLVM {llvm}"), &packages, &root)?;
        // They may all be installed already; then there was nothing to unpack.
        let prefix = Some(root.join(format!("usr/lib/llvm-{llvm}")))
            .filter(|prefix| prefix.join("lib").is_dir())
            .unwrap_or_else(|| format!("/usr/lib/llvm-{llvm}").into());
        let libraries = env::join_paths([root.join("usr/lib/x86_64-linux-gnu"), prefix.join("lib")])
            .context("the cache's path has a colon in it")?;

        let mut install = Command::new(cargo);
        install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
        install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
        install.arg("--root").arg(dir);
        install.env("CARGO_TARGET_DIR", dir.join("target")).env("LLVM_PREFIX", &prefix);
        install.env("LD_LIBRARY_PATH", &libraries);
        // The old kind of run path, which holds for the libraries of libraries too.
        let flags = ["-Clink-arg=-Wl,--disable-new-dtags", "-Clink-arg=-Wl,-rpath,$ORIGIN/../lib"];
        install.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        // The build runs outside the checkout, so that no setting of the workspace applies to it.
        install.current_dir(dir);
        let mut step = Step::start(format!("Building bpf-linker {BPF_LINKER} (once; a minute or two)"));
        step.command(&mut install, Some(Duration::from_secs(30 * 60)))?;

        // Of the gigabyte of LLVM only the libraries that the linker runs with are kept.
        let linker = dir.join("bin/bpf-linker");
        let listed =
            step.command(Command::new("ldd").arg(&linker).env("LD_LIBRARY_PATH", &libraries), None)?;
        fs::create_dir(dir.join("lib")).context("making a directory")?;
        for library in listed.lines().filter_map(|line| line.split_once("=> ")?.1.split(" (").next()) {
            let library = Path::new(library);
            if let (true, Some(name)) = (library.starts_with(&root), library.file_name()) {
                fs::copy(library, dir.join("lib").join(name))
                    .with_context(|| format!("copying {}", library.display()))?;
            }
        }
        for done_with in ["llvm", "target"] {
            let path = dir.join(done_with);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        step.command(Command::new(&linker).arg("--version"), Some(QUICK))?;
        step.done();
        Ok(())
    })?;
    Ok(entry.join("bin/bpf-linker"))
}

/// Major and minor of a version such as `0.13.0`.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_recognised() {
        let verbose = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
            commit-hash: 59807616e1\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        let expected = Rustc { release: "1.95.0".into(), commit: "59807616e1".into(), llvm: 22 };
        assert_eq!(parse_rustc(verbose), Some(expected));
        assert_eq!(parse_rustc("no rustc"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version("0.13.0") >= Some((0, 13)));
        assert!(version("0.9.14") < Some((0, 13)));
        assert_eq!(version("new"), None);
    }
}
