//! A real container runtime for virtual machines, and an image that it can run: containerd with its shim, `ctr`, and
//! runc, each one static program.
//!
//! Beside them Debian's podman, which has other cgroups.
//!
//! The machine needs no more than its root in memory: containerd's "native" snapshotter copies an image's files, and
//! so asks for no module of the kernel. Pods' networks (CNI) are not here.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    cache::Cache,
    debian::{Apt, Suite, find_program},
    files, go,
    initramfs::Initramfs,
    oci, programs,
    workspace::Workspace,
};

/// What the image is called.
pub const IMAGE: &str = "loadline.dev/load:1";
/// Where a guest finds the image's archive.
pub const IMAGE_IN_GUEST: &str = "/images/load.tar";
/// The program that the image is made for; it makes load of a known shape.
pub const LOAD: &str = "load";

const CONTAINERD: &str = "github.com/containerd/containerd/v2/cmd";
/// Leaves out what asks for C libraries: snapshotters of file systems that are not there either.
const CONTAINERD_TAGS: &str = "netgo,osusergo,static_build,no_btrfs,no_zfs,no_devmapper,no_aufs";

/// The programs of the runtime, each by the name that the others look for.
fn runtime(cache: &Cache, workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut built = Vec::new();
    for name in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        let program = go::Program {
            name,
            module: "containerd",
            package: &format!("{CONTAINERD}/{name}"),
            tags: CONTAINERD_TAGS,
            ..Default::default()
        };
        built.push((name, go::build(cache, workspace, &program)?));
    }
    built.push(("runc", runc(cache, workspace)?));
    Ok(built)
}

/// runc, which has a part in C: it enters namespaces before Go starts any thread.
fn runc(cache: &Cache, workspace: &Workspace) -> Result<PathBuf> {
    const BY_HAND: &str = "a C compiler, pkg-config and libseccomp's headers and static library";
    for tool in ["cc", "pkg-config"] {
        if find_program(tool).is_none() {
            bail!(
                "there is no {tool}, and runc is built with {BY_HAND} (Debian: apt-get install gcc libc6-dev pkg-config)"
            );
        }
    }
    // Of one suite and not the host's: it is linked statically, and a version that is the same everywhere is built
    // once. Without it a kubelet's containers are refused, which ask for a seccomp profile.
    let libseccomp = cache.entry("libseccomp-dev", |dir| {
        let apt = Apt::open(cache, Suite::Bookworm, BY_HAND)?;
        apt.fetch("libseccomp", &["libseccomp-dev".into()], dir)
    })?;
    let root = libseccomp.to_str().context("the cache's path is no text")?;
    let environment = [
        ("PKG_CONFIG_LIBDIR", format!("{root}/usr/lib/x86_64-linux-gnu/pkgconfig")),
        ("PKG_CONFIG_SYSROOT_DIR", root.to_owned()),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let program = go::Program {
        name: "runc",
        module: "runc",
        package: "github.com/opencontainers/runc",
        cgo: true,
        tags: "netgo,osusergo,seccomp",
        ldflags: "-extldflags=-static",
        environment: &environment,
    };
    go::build(cache, workspace, &program)
}

/// The archive of the image: the program that makes load, and a shell. On the host, for a runtime there.
pub fn image(cache: &Cache, workspace: &Workspace) -> Result<PathBuf> {
    let load = match &programs::build(workspace, &[LOAD])?[..] {
        [load] => load.clone(),
        _ => bail!("no program {LOAD}"),
    };
    let busybox = programs::busybox(cache)?;
    let archive = oci::archive(IMAGE, &[("bin/load", &load), ("bin/busybox", &busybox)])?;
    let path = workspace.target.join("image").join("load.tar");
    files::write(&path, &archive)?;
    Ok(path)
}

/// Another runtime: Debian's podman, with the programs that it calls. Its packages' own dependencies are for networks and
/// signatures, of which nothing is used; only what the programs are linked with is taken.
fn add_podman(cache: &Cache, root: &mut Initramfs) -> Result<()> {
    let packages = cache.entry("podman", |dir| {
        let apt = Apt::open(cache, Suite::Bookworm, "apt (for Debian's podman)")?;
        let packages = apt.closure(&["podman", "crun"], None)?;
        apt.fetch("podman", &packages, dir)
    })?;
    for program in ["usr/bin/podman", "usr/bin/crun", "usr/bin/conmon"] {
        programs::add_unpacked(&packages, program, root)?;
    }
    // Which images may be run: all.
    root.program("/etc/containers/policy.json", br#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#);
    Ok(())
}

/// What the tests with containers need: runtimes, an image, and the sampler.
pub fn add(cache: &Cache, workspace: &Workspace, root: &mut Initramfs) -> Result<()> {
    add_containerd(cache, workspace, root)?;
    add_podman(cache, root)?;
    for sampler in programs::build(workspace, &[programs::SAMPLER])? {
        root.host_program("/usr/bin/sampler", &sampler);
    }
    Ok(())
}

/// Puts containerd and the image into a guest.
pub fn add_containerd(cache: &Cache, workspace: &Workspace, root: &mut Initramfs) -> Result<()> {
    for (name, program) in runtime(cache, workspace)? {
        root.host_program(&format!("/usr/bin/{name}"), &program);
    }
    let image: &Path = &image(cache, workspace)?;
    root.host_program(IMAGE_IN_GUEST, image);
    Ok(())
}
