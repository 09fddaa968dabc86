//! Debian packages without root: resolved and downloaded with an apt of our own in the cache, unpacked with `dpkg -x`.
//!
//! Nothing is installed and the system's apt is not touched. For what runs in or around virtual machines the set of
//! installed packages is taken to be empty, so that the unpacked tree has everything down to the dynamic loader and
//! works the same on any distribution. For what is linked on the host, the host's own sources and packages count.

use std::{
    env, fs, iter,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cache::Cache,
    step::{self, Step},
};

/// Package lists older than this are fetched again before they are used.
const LISTS_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Fetching anything takes at most this long, so that a dead network is an error and not a wait.
const FETCH_LIMIT: Duration = Duration::from_secs(20 * 60);
const KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// Which packages apt may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12 with security updates and backports: what our virtual machines are made of.
    Bookworm,
    /// Debian 13's backports alone: newer kernels and Rust sources.
    TrixieBackports,
    /// Debian's development suite alone: Rust sources newer still.
    Sid,
    /// Whatever the host's own sources offer, on top of what the host has installed.
    Host,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "apt-bookworm",
            Self::TrixieBackports => "apt-trixie-backports",
            Self::Sid => "apt-sid",
            Self::Host => "apt-host",
        }
    }
}

/// One package at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// Names of the packages that it depends on; alternatives and version bounds are left out.
    pub depends: Vec<String>,
}

/// An apt of our own for one suite.
pub struct Apt<'a> {
    cache: &'a Cache,
    suite: Suite,
    dir: PathBuf,
}

impl<'a> Apt<'a> {
    /// Sets up the apt for `suite`, with package lists that are fresh enough. `wanted` is what one must install by
    /// hand where there is no apt.
    pub fn open(cache: &'a Cache, suite: Suite, wanted: &str) -> Result<Self> {
        if let Some(tool) = missing_tool() {
            bail!("there is no {tool} here to fetch it with; please install by hand: {wanted}");
        }
        let dir = cache.workshop(suite.name())?;
        let apt = Self { cache, suite, dir };
        let _lock = cache.lock(suite.name())?;
        apt.configure()?;
        if cache.noted(&apt.fresh(), LISTS_AGE).is_none() {
            apt.update()?;
        }
        Ok(apt)
    }

    fn fresh(&self) -> String {
        format!("{}.fresh", self.suite.name())
    }

    fn configure(&self) -> Result<()> {
        let dir = self.dir.display();
        // "#clear": hooks of the host's apt are for the host's own lists and packages.
        let mut conf = format!(
            "#clear APT::Update;\n#clear DPkg;\n\
             Dir::State::Lists \"{dir}/lists\";\n\
             Dir::Cache \"{dir}\";\n\
             Dir::Cache::archives \"{dir}/archives\";\n\
             Debug::NoLocking \"1\";\n\
             APT::Sandbox::User \"root\";\n\
             APT::Get::List-Cleanup \"1\";\n\
             APT::Update::Error-Mode \"any\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"2\";\n\
             Acquire::http::Timeout \"20\";\n\
             Acquire::https::Timeout \"20\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
        );
        if self.suite != Suite::Host {
            let keyring = self.keyring()?;
            let mirrors = mirrors();
            let from = |mirror: &str, suite: &str| {
                format!("deb [arch=amd64 signed-by={}] {mirror} {suite} main\n", keyring.display())
            };
            let sources = match self.suite {
                Suite::Bookworm => [
                    from(&mirrors.main, "bookworm"),
                    from(&mirrors.main, "bookworm-backports"),
                    from(&mirrors.security, "bookworm-security"),
                ]
                .concat(),
                Suite::TrixieBackports => from(&mirrors.main, "trixie-backports"),
                Suite::Sid => from(&mirrors.main, "sid"),
                Suite::Host => String::new(),
            };
            conf += &format!(
                "Dir::Etc::SourceList \"{dir}/sources.list\";\n\
                 Dir::Etc::SourceParts \"/dev/null\";\n\
                 Dir::Etc::Preferences \"/dev/null\";\n\
                 Dir::Etc::PreferencesParts \"/dev/null\";\n\
                 Dir::State::status \"{dir}/status\";\n\
                 APT::Architecture \"amd64\";\n"
            );
            write(&self.dir.join("sources.list"), &sources)?;
            write(&self.dir.join("status"), "")?;
        }
        for sub in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(self.dir.join(sub))
                .with_context(|| format!("cannot make {}", self.dir.join(sub).display()))?;
        }
        write(&self.dir.join("apt.conf"), &conf)
    }

    /// Debian's archive keys: the host's, or on a relative of Debian from its package.
    fn keyring(&self) -> Result<PathBuf> {
        let on_host = Path::new("/").join(KEYRING);
        if on_host.exists() {
            return Ok(on_host);
        }
        let entry = self.cache.entry("debian-archive-keyring", |dir| {
            let host = Apt::open(self.cache, Suite::Host, "debian-archive-keyring")?;
            host.fetch("Debian's archive keys", &["debian-archive-keyring".into()], dir)
        })?;
        Ok(entry.join(KEYRING))
    }

    /// Fetches the package lists. Without the error mode that `configure` sets, apt calls a dead network a warning.
    fn update(&self) -> Result<()> {
        let name = format!("Fetching package lists ({})", self.suite.name());
        let mut step = Step::start(name);
        let updated = step.command(self.get().arg("update"), Some(FETCH_LIMIT));
        // One of the host's own sources may be out of reach while the one that we need is not; then the lists are
        // good enough, and if not, the search in them fails with its own message.
        if let Err(error) = updated {
            if self.suite != Suite::Host {
                return Err(error);
            }
            step.gave_up("not all of the host's sources answered");
            return Ok(());
        }
        step.done();
        self.cache.note(&self.fresh(), "")
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("-c").arg(self.dir.join("apt.conf")).env("LC_ALL", "C");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Every version of a package that is offered, newest first.
    pub fn versions(&self, package: &str) -> Vec<Package> {
        parse_stanzas(&self.ask(&["show", package]))
    }

    /// Every version of every package whose whole name matches a regular expression.
    pub fn matching(&self, pattern: &str) -> Vec<Package> {
        let found = self.ask(&["search", "--names-only", &format!("^{pattern}$")]);
        let names = found.lines().filter_map(|line| line.split_whitespace().next());
        let show: Vec<_> = iter::once("show").chain(names).collect();
        if show.len() == 1 { Vec::new() } else { parse_stanzas(&self.ask(&show)) }
    }

    fn ask(&self, of_cache: &[&str]) -> String {
        let mut command = Command::new("apt-cache");
        command.arg("-c").arg(self.dir.join("apt.conf")).env("LC_ALL", "C").args(of_cache);
        step::ask(&mut command, Duration::from_secs(60)).unwrap_or_default()
    }

    /// The packages named and all that they need and that is not installed, as apt would choose them.
    pub fn closure(&self, packages: &[&str], target: Option<&str>) -> Result<Vec<String>> {
        let mut command = self.get();
        if let Some(target) = target {
            command.args(["--target-release", target]);
        }
        command.args(["install", "--yes", "--no-install-recommends", "--print-uris"]).args(packages);
        let mut step = Step::start(format!("Resolving {}", packages.join(", ")));
        let output = step.command(&mut command, Some(Duration::from_secs(120)))?;
        step.done();
        Ok(parse_uris(&output))
    }

    /// Downloads packages (`name` or `name=version`) and unpacks them into `into`.
    pub fn fetch(&self, what: &str, packages: &[String], into: &Path) -> Result<()> {
        if packages.is_empty() {
            // Everything is installed.
            return Ok(());
        }
        let mut step = Step::start(format!("Downloading {what}"));
        // Beside what is unpacked, so that a disk that is full is full for both, and gone with it.
        let debs = into.join(".debs");
        fs::create_dir_all(&debs).with_context(|| format!("cannot make {}", debs.display()))?;
        let mut download = self.get();
        download.arg("download").args(packages).current_dir(&debs);
        if step.command(&mut download, Some(FETCH_LIMIT)).is_err() {
            // Lists that are older than the archive name packages that are gone by now.
            let _lock = self.cache.lock(self.suite.name())?;
            step.gave_up("failed; once more with new package lists");
            self.update()?;
            step = Step::start(format!("Downloading {what}"));
            step.command(&mut download, Some(FETCH_LIMIT))?;
        }
        step.done();
        let mut step = Step::start(format!("Unpacking {what}"));
        let mut files: Vec<_> = fs::read_dir(&debs)?.collect::<std::io::Result<_>>()?;
        files.sort_by_key(fs::DirEntry::file_name);
        for deb in files {
            step.command(Command::new("dpkg").arg("-x").arg(deb.path()).arg(into), None)?;
        }
        fs::remove_dir_all(&debs).with_context(|| format!("cannot remove {}", debs.display()))?;
        step.done();
        Ok(())
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// The full path of a program on PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The first of apt's tools that this host lacks.
pub fn missing_tool() -> Option<&'static str> {
    ["apt-get", "apt-cache", "dpkg"].into_iter().find(|tool| find_program(tool).is_none())
}

struct Mirrors {
    main: String,
    security: String,
}

/// The mirrors of Debian that the host uses, or the official address.
fn mirrors() -> Mirrors {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)"]);
    let uris = step::ask(&mut command, Duration::from_secs(20)).unwrap_or_default();
    let ending = |end: &str| {
        let mut found = uris.lines().map(str::trim);
        found.find(|uri| uri.trim_end_matches('/').ends_with(end)).map(str::to_owned)
    };
    Mirrors {
        main: ending("/debian").unwrap_or_else(|| "http://deb.debian.org/debian".into()),
        security: ending("/debian-security")
            .unwrap_or_else(|| "http://deb.debian.org/debian-security".into()),
    }
}

/// Packages from `apt-cache show`.
fn parse_stanzas(text: &str) -> Vec<Package> {
    let field = |stanza: &str, name: &str| {
        let line = stanza.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    text.split("\n\n")
        .filter_map(|stanza| {
            Some(Package {
                name: field(stanza, "Package:")?,
                version: field(stanza, "Version:")?,
                depends: field(stanza, "Depends:")
                    .unwrap_or_default()
                    .split(',')
                    .filter_map(|one| one.split_whitespace().next())
                    .map(|one| one.split(':').next().unwrap_or(one).to_owned())
                    .collect(),
            })
        })
        .collect()
}

/// `name=version` of each package in the output of `apt-get --print-uris`:
/// `'URI' name_version_arch.deb SIZE HASH`, colons in the version written as `%3a`.
fn parse_uris(output: &str) -> Vec<String> {
    let lines = output.lines().filter(|line| line.starts_with('\''));
    let files = lines.filter_map(|line| line.split_whitespace().nth(1));
    files
        .filter_map(|file| {
            let (name, rest) = file.split_once('_')?;
            let (version, _arch) = rest.rsplit_once('_')?;
            Some(format!("{name}={}", version.replace("%3a", ":")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_apt_is_understood() {
        let output = "Reading package lists...\nThe following NEW packages will be installed:\n  zlib1g\n\
            'http://mirror/debian/pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_amd64.deb' zlib1g_1%3a1.2.13.dfsg-1_amd64.deb 86684 MD5Sum:0\n\
            'http://mirror/debian/pool/main/s/seabios/seabios_1.16.3-2_all.deb' seabios_1.16.3-2~bpo12+1_all.deb 164452 \n";
        assert_eq!(parse_uris(output), ["zlib1g=1:1.2.13.dfsg-1", "seabios=1.16.3-2~bpo12+1"]);
    }

    #[test]
    fn nothing_to_fetch_is_nothing() {
        assert!(parse_uris("0 upgraded, 0 newly installed\n").is_empty());
    }

    #[test]
    fn versions_and_dependencies_are_read() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 7.2.12-1~bpo13+1\n\
            Depends: linux-base-cloud-amd64 (= 7.2.12-1~bpo13+1), linux-image-7.2.12+deb13-cloud-amd64 (= 7.2.12-1)\n\
            Description: x\n more\n\nPackage: linux-image-cloud-amd64\nVersion: 6.1.176-1\n\n";
        let packages = parse_stanzas(shown);
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0].depends, ["linux-base-cloud-amd64", "linux-image-7.2.12+deb13-cloud-amd64"]);
        assert_eq!(packages[1].version, "6.1.176-1");
        assert!(packages[1].depends.is_empty());
    }
}
