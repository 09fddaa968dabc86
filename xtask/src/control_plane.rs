//! A real control plane for the tests: etcd and kube-apiserver.
//!
//! `$KUBEBUILDER_ASSETS` if it is set, as every tool of Kubernetes' own takes it; else the binaries that Kubernetes
//! releases for such tests, with their checksum; where they cannot be reached, built from the Go module proxy.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    cache::Cache,
    download::{self, Digest},
    go,
    step::Step,
    workspace::Workspace,
};

/// The release that is fetched. What is built is pinned by `xtask/go/kubernetes/go.mod`, of the same minor version.
const RELEASED: &str = "1.36.2";
/// As in `envtest-releases.yaml` of kubernetes-sigs/controller-tools.
const RELEASED_SHA512: &str = "ea743186c8a799f5cf8faf16969f86189d003cb7d130e0ac4b58789f1e5748dc\
                               f30ebe91c837a10d5ac415383da3e10b9e64d65785c938c23e739781cfb76f08";
/// Where the released binaries could not be had is remembered for a day.
const UNREACHABLE: &str = "control-plane-release-unreachable";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Without this the API server calls itself v0.0.0, which clients may refuse.
const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

/// The programs.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// `etcd`.
    pub etcd: PathBuf,
    /// `kube-apiserver`.
    pub kube_apiserver: PathBuf,
}

impl ControlPlane {
    /// Finds, fetches or builds them.
    pub fn prepare(cache: &Cache, workspace: &Workspace) -> Result<Self> {
        if let Some(dir) = env::var_os("KUBEBUILDER_ASSETS").filter(|dir| !dir.is_empty()) {
            return Self::given(Path::new(&dir));
        }
        if let Some(released) = released(cache) {
            return Ok(released);
        }
        built(cache, workspace)
    }

    /// The variables by which the tests find them: those of Kubernetes' own envtest.
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("TEST_ASSET_ETCD", &self.etcd), ("TEST_ASSET_KUBE_APISERVER", &self.kube_apiserver)]
    }

    fn at(dir: &Path) -> Self {
        Self { etcd: dir.join("etcd"), kube_apiserver: dir.join("kube-apiserver") }
    }

    fn given(dir: &Path) -> Result<Self> {
        let found = Self::at(dir);
        for program in [&found.etcd, &found.kube_apiserver] {
            if !program.is_file() {
                bail!(
                    "KUBEBUILDER_ASSETS is set, but there is no {}: unset it, and they are fetched or built",
                    program.display()
                );
            }
        }
        Ok(found)
    }
}

fn released(cache: &Cache) -> Option<ControlPlane> {
    let name = format!("control-plane-{RELEASED}");
    if let Some(dir) = cache.existing(&name) {
        return Some(ControlPlane::at(&dir));
    }
    if cache.noted(UNREACHABLE, DAY).is_some() {
        return None;
    }
    let mut step = Step::start(format!("Downloading kube-apiserver {RELEASED} and etcd (50 MB)"));
    match cache.entry(&name, |dir| fetch(dir, &mut step)) {
        Ok(dir) => {
            step.done();
            Some(ControlPlane::at(&dir))
        }
        Err(why) => {
            // The whole story is in the note, for whoever wonders.
            let _ = cache.note(UNREACHABLE, &format!("{why:#}\n"));
            step.gave_up("not to be had; building them (no second try for a day)");
            None
        }
    }
}

fn fetch(dir: &Path, step: &mut Step) -> Result<()> {
    let archive = dir.join("archive.tar.gz");
    let url = format!(
        "https://github.com/kubernetes-sigs/controller-tools/releases/download/\
         envtest-v{RELEASED}/envtest-v{RELEASED}-linux-amd64.tar.gz"
    );
    download::https(step, &url, &archive, Duration::from_secs(10 * 60))?;
    download::check(step, &archive, Digest::Sha512, RELEASED_SHA512)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(&archive).arg("-C").arg(dir).arg("--strip-components=2");
    step.command(unpack.args(["--wildcards", "*/etcd", "*/kube-apiserver"]), None)?;
    std::fs::remove_file(&archive)?;
    let programs = ControlPlane::at(dir);
    for program in [&programs.etcd, &programs.kube_apiserver] {
        step.command(Command::new(program).arg("--version"), Some(Duration::from_secs(20)))?;
    }
    Ok(())
}

fn built(cache: &Cache, workspace: &Workspace) -> Result<ControlPlane> {
    let etcd = go::Program {
        name: "etcd",
        module: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        ..go::Program::default()
    };
    let kube_apiserver = go::Program {
        name: "kube-apiserver",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        ldflags: KUBERNETES_VERSION,
        ..go::Program::default()
    };
    Ok(ControlPlane {
        etcd: go::build(cache, workspace, &etcd)?,
        kube_apiserver: go::build(cache, workspace, &kube_apiserver)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_the_programs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("etcd"), "").unwrap();
        let error = ControlPlane::given(dir.path()).unwrap_err().to_string();
        assert!(error.contains("kube-apiserver: unset it"), "{error}");
        std::fs::write(dir.path().join("kube-apiserver"), "").unwrap();
        assert_eq!(ControlPlane::given(dir.path()).unwrap().etcd, dir.path().join("etcd"));
    }

    #[test]
    fn the_version_that_is_built_is_the_one_it_says() {
        let module = concat!(env!("CARGO_MANIFEST_DIR"), "/go/kubernetes/go.mod");
        let text = std::fs::read_to_string(module).unwrap();
        let required = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
        let version = required.unwrap().split(' ').next().unwrap();
        assert!(KUBERNETES_VERSION.contains(&format!("gitVersion=v{version} ")), "{version}");
        let (minor, _patch) = version.rsplit_once('.').unwrap();
        assert!(RELEASED.starts_with(minor), "{RELEASED} and {version} differ in more than the patch");
    }
}
