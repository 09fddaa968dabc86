//! The usual set of compilers for the BPF programs: rustup's nightly with `rust-src` and `clippy`, and a bpf-linker.
//!
//! Whatever it lacks is installed, and a pair that was never used before is tried: bpf-linker may have another LLVM than the
//! compiler, and a nightly may be broken. Where it cannot be had or is no use there is another set, so that nothing here is
//! an error.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    bitcode,
    cache::Cache,
    debian::{find_program, missing_tool},
    download::{self, Digest},
    step::{self, Step},
    toolchain::{BPF_LINKER, QUICK, Rustc, TARGET, Toolchain, parse_rustc, version, without_inherited},
};

/// bpf-linker's release page has one static binary for each target.
const BPF_LINKER_RELEASE: &str = "https://github.com/aya-rs/bpf-linker/releases/download/v0.13.0/";
const BPF_LINKER_ASSET: &str = "bpf-linker-x86_64-unknown-linux-musl.tar.zst";
/// What GitHub says of the release. Its project publishes neither checksums nor signatures, so GitHub's digest is what there
/// is: it tells a file that came damaged or from elsewhere, not a release that was replaced.
const BPF_LINKER_DIGESTS: &str = "https://api.github.com/repos/aya-rs/bpf-linker/releases/tags/v0.13.0";
/// The oldest Rust that the programs are written for.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");
/// Where the network did not let us have the usual set is remembered for a day.
const UNREACHABLE: &str = "usual-toolchain-unreachable";
/// What became of the trial of the usual set, with what it was tried.
const TRIAL: &str = "usual-toolchain-trial";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The usual set, if it is there or can be installed, and is good.
pub fn find(cache: &Cache) -> Option<Toolchain> {
    find_program("rustup")?;
    if Nightly::installed().is_none() || linker_at_hand(cache).is_none() {
        // Where there is no other way, it is tried again.
        if cache.noted(UNREACHABLE, DAY).is_some() && missing_tool().is_none() {
            return None;
        }
        let mut step = Step::start("Installing rustup's nightly, rust-src and bpf-linker (the usual way)");
        if let Err(why) = install_usual(cache, &mut step) {
            let whole = format!("{why:#}\n");
            if is_of_network(&whole) {
                // The whole story is in the note, for whoever wonders.
                let _ = cache.note(UNREACHABLE, &whole);
                step.gave_up("not reachable; using Debian's packages (for a day)");
            } else {
                step.gave_up(&format!("{}; using Debian's packages", in_a_line(&whole)));
            }
            return None;
        }
        step.done();
    }
    let (nightly, linker) = (Nightly::installed()?, linker_at_hand(cache)?);
    let toolchain = Toolchain {
        name: "rustup's nightly".into(),
        linker,
        cargo: ["rustup", "run", "nightly", "cargo"].map(OsString::from).into(),
        variables: vec![("RUSTUP_AUTO_INSTALL", "0".into())],
    };
    match tried(cache, &nightly, &toolchain) {
        Ok(()) => Some(toolchain),
        Err(why) => {
            let (linker, why) = (toolchain.linker.display(), format!("{why:#}"));
            let why = in_a_line(&why);
            eprintln!("rustup's nightly is no use with {linker}: {why}; using Debian's packages");
            None
        }
    }
}

/// Whether the network is to blame: something that was given up for taking too long was waiting for it.
fn is_of_network(why: &str) -> bool {
    step::is_of_network(why) || why.contains("no end after")
}

/// The most telling line of an error: the last that a command said, or else the first.
fn in_a_line(why: &str) -> &str {
    let said = why.lines().rfind(|line| line.starts_with("    "));
    said.or_else(|| why.lines().next()).unwrap_or_default().trim()
}

/// A nightly that is installed with all that we need.
struct Nightly {
    rustc: Rustc,
}

impl Nightly {
    /// Asks no network.
    fn installed() -> Option<Self> {
        let sysroot = step::ask(&mut Self::rustc(&["--print", "sysroot"]), QUICK)?;
        let sysroot = Path::new(sysroot.trim());
        let whole = sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
            && sysroot.join("bin/cargo-clippy").exists();
        Self::version().filter(|rustc| whole && is_new_enough(&rustc.release)).map(|rustc| Self { rustc })
    }

    fn version() -> Option<Rustc> {
        parse_rustc(&step::ask(&mut Self::rustc(&["-vV"]), QUICK)?)
    }

    fn rustc(arguments: &[&str]) -> Command {
        let mut command = Command::new("rustup");
        // Never let a question install something.
        command.args(["run", "nightly", "rustc"]).args(arguments).env("RUSTUP_AUTO_INSTALL", "0");
        without_inherited(&mut command);
        command
    }
}

/// Whether a compiler is as new as the programs ask for.
fn is_new_enough(release: &str) -> bool {
    version(release).is_some_and(|found| Some(found) >= version(RUST_VERSION))
}

/// Whether this set can build, by the trial of an earlier run or by one now.
fn tried(cache: &Cache, nightly: &Nightly, toolchain: &Toolchain) -> Result<()> {
    let linker = fs::metadata(&toolchain.linker).context("looking at the linker")?;
    let changed = linker.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let set = format!(
        "{} of {}, {} of {} bytes and {} s",
        nightly.rustc.release,
        nightly.rustc.commit,
        toolchain.linker.display(),
        linker.len(),
        changed.unwrap_or_default().as_secs(),
    );
    let noted = cache.noted(TRIAL, Duration::MAX);
    if let Some(verdict) = noted.as_deref().and_then(|noted| noted.strip_prefix(&set)) {
        return match verdict.trim() {
            "" => Ok(()),
            why => Err(anyhow!("{why}")),
        };
    }
    let mut step = Step::start("Trying rustup's nightly and bpf-linker (once)");
    let result = trial(cache, toolchain, &mut step);
    match &result {
        Ok(()) => step.done(),
        Err(_) => step.gave_up("they do not go together"),
    }
    let verdict = result.as_ref().err().map_or(String::new(), |why| format!("{why:#}"));
    // One that took too long says more of the host than of the set.
    if !is_of_network(&verdict) {
        cache.note(TRIAL, &format!("{set}\n{verdict}\n"))?;
    }
    result
}

/// Builds the smallest program.
fn trial(cache: &Cache, toolchain: &Toolchain, step: &mut Step) -> Result<()> {
    const MANIFEST: &str =
        "[package]\nname = \"trial\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n";
    const PROGRAM: &str = "#![no_std]\n#![no_main]\n\n\
        #[unsafe(no_mangle)]\n#[unsafe(link_section = \"socket\")]\n\
        pub extern \"C\" fn trial(context: *const u32) -> u64 {\n\
            \x20   let numbers = unsafe { core::slice::from_raw_parts(context, 4) };\n\
            \x20   numbers.iter().map(|number| u64::from(*number)).sum()\n}\n\n\
        #[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! {\n    loop {}\n}\n";
    let dir = cache.workshop("trial")?;
    let _lock = cache.lock("trial")?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("empty.rs", "#![feature(no_core)]\n#![no_core]\n")?;
    let mut compile = Nightly::rustc(&["--crate-type=lib", "--target", TARGET, "--emit=llvm-bc"]);
    step.command(compile.args(["-o", "compiled.bc", "empty.rs"]).current_dir(&dir), Some(QUICK))?;
    let mut link = Command::new(&toolchain.linker);
    step.command(
        link.args(["--emit=llvm-bc", "-o", "linked.bc", "compiled.bc"]).current_dir(&dir),
        Some(QUICK),
    )?;
    let llvm_of = |name: &str| {
        let bytes = fs::read(dir.join(name)).with_context(|| format!("there is no {name}"))?;
        bitcode::written_by(&bytes).with_context(|| format!("{name} does not say which LLVM wrote it"))
    };
    let (compilers, linkers) = (llvm_of("compiled.bc")?, llvm_of("linked.bc")?);
    if linkers < compilers {
        bail!(
            "the linker has LLVM {linkers}, and the compiler {compilers}, which it cannot be relied on to read"
        );
    }
    fs::create_dir_all(dir.join("src")).context("making a directory")?;
    write("Cargo.toml", MANIFEST)?;
    write("src/main.rs", PROGRAM)?;
    let mut build = toolchain.cargo("build");
    build.current_dir(&dir).env("CARGO_TARGET_DIR", dir.join("target"));
    step.command(&mut build, Some(Duration::from_secs(15 * 60)))?;
    fs::remove_dir_all(dir.join("target")).context("removing what was built")
}

/// A bpf-linker on PATH or released and cached, new enough for the BTF that we need.
fn linker_at_hand(cache: &Cache) -> Option<PathBuf> {
    let cached = cache.existing(&released_linker()).map(|dir| dir.join("bpf-linker"));
    let mut candidates = find_program("bpf-linker").into_iter().chain(cached);
    candidates.find(|path| {
        step::ask(Command::new(path).arg("--version"), QUICK)
            .and_then(|text| version(text.trim().rsplit(' ').next()?))
            .is_some_and(|found| found >= (0, 13))
    })
}

fn released_linker() -> String {
    format!("bpf-linker-{BPF_LINKER}-released")
}

fn install_usual(cache: &Cache, step: &mut Step) -> Result<()> {
    let old = Nightly::version().filter(|rustc| !is_new_enough(&rustc.release));
    if let Some(Rustc { release, .. }) = old {
        // It is the user's, and stays as it is.
        bail!(
            "the nightly that is installed is {release}, older than {RUST_VERSION} (rustup update nightly)"
        );
    }
    // The linker first: it goes into our cache, so that where it cannot be had rustup's toolchains stay as they are.
    if linker_at_hand(cache).is_none() {
        cache.entry(&released_linker(), |dir| fetch_linker(step, dir))?;
        if linker_at_hand(cache).is_none() {
            bail!("the released bpf-linker does not run here");
        }
    }
    if Nightly::installed().is_none() {
        let mut command = Command::new("rustup");
        if has_nightly() {
            // Not `toolchain install`: that would replace the user's nightly by today's.
            command.args(["component", "add", "--toolchain", "nightly", "rust-src", "clippy"]);
        } else {
            command.args(["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"]);
            command.args(["--component", "rust-src", "--component", "clippy"]);
        }
        command.env("RUSTUP_MAX_RETRIES", "0");
        step.command(&mut command, Some(Duration::from_secs(300)))?;
        if Nightly::installed().is_none() {
            bail!("rustup's nightly has no rust-src or clippy, or is older than {RUST_VERSION}");
        }
    }
    Ok(())
}

/// Nothing of what was released is run before its digest is what GitHub says that it is.
fn fetch_linker(step: &mut Step, dir: &Path) -> Result<()> {
    let digests = dir.join("release.json");
    download::https(step, BPF_LINKER_DIGESTS, &digests, Duration::from_secs(60))?;
    let release = fs::read(&digests).context("reading what GitHub says of the release")?;
    let digest =
        released_digest(&release).with_context(|| format!("GitHub says no digest of {BPF_LINKER_ASSET}"))?;
    let archive = dir.join(BPF_LINKER_ASSET);
    let url = format!("{BPF_LINKER_RELEASE}{BPF_LINKER_ASSET}");
    download::https(step, &url, &archive, Duration::from_secs(120))?;
    download::check(step, &archive, Digest::Sha256, &digest)?;
    let mut unpack = Command::new("tar");
    unpack.arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(dir);
    step.command(&mut unpack, None)?;
    if !dir.join("bpf-linker").is_file() {
        bail!("the released archive of bpf-linker holds no bpf-linker");
    }
    [digests, archive].iter().try_for_each(fs::remove_file).context("removing the archive")
}

/// The SHA-256 of our asset in GitHub's description of a release.
/// <https://docs.github.com/en/rest/releases/releases#get-a-release-by-tag-name>
fn released_digest(release: &[u8]) -> Option<String> {
    let release: serde_json::Value = serde_json::from_slice(release).ok()?;
    let mut assets = release["assets"].as_array()?.iter();
    let asset = assets.find(|asset| asset["name"] == BPF_LINKER_ASSET)?;
    asset["digest"].as_str()?.strip_prefix("sha256:").map(str::to_owned)
}

fn has_nightly() -> bool {
    let listed = step::ask(Command::new("rustup").args(["toolchain", "list"]), QUICK);
    listed.is_some_and(|listed| listed.lines().any(|line| line.starts_with("nightly-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_nightly_is_not_good() {
        assert!(is_new_enough("1.95.0-nightly") && is_new_enough("2.0.0"));
        assert!(!is_new_enough("1.94.0-nightly") && !is_new_enough("1.9.0") && !is_new_enough("dev"));
    }

    #[test]
    fn only_the_digest_of_our_asset_counts() {
        let of = |name: &str, digest: &str| {
            let asset = serde_json::json!({ "name": name, "digest": digest });
            released_digest(serde_json::json!({ "assets": [{ "name": "x" }, asset] }).to_string().as_bytes())
        };
        assert_eq!(of(BPF_LINKER_ASSET, "sha256:0123"), Some("0123".into()));
        assert_eq!(of(BPF_LINKER_ASSET, "md5:0123"), None);
        assert_eq!(of("another", "sha256:0123"), None);
        assert_eq!(released_digest(b"<html>"), None);
    }

    #[test]
    fn a_reason_is_told_in_a_line_and_the_network_is_blamed_only_where_it_was() {
        let network = "making x: Installing failed: exit status: 6\n  command: curl x\n  it said last:\n    \
            curl: (6) Could not resolve host: github.com\n  the network could not be reached\n";
        assert_eq!(in_a_line(network), "curl: (6) Could not resolve host: github.com");
        let none = "curl could not be started: No such file or directory (os error 2)";
        assert_eq!(in_a_line(none), none);
        assert!(is_of_network(network) && is_of_network("Installing failed: no end after 120 s"));
        let disk = "tar failed\n    tar: write: No space left on device\n";
        assert!(!is_of_network(none) && !is_of_network(disk) && !is_of_network("curl: (22) error: 404"));
    }
}
