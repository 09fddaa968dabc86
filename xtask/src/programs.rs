//! What goes into a virtual machine: our own programs, statically linked, and Debian's that we compare with.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    cache::Cache,
    debian::{Apt, Suite},
    files,
    initramfs::Initramfs,
    qemu,
    step::{self, Step},
    workspace::Workspace,
};

/// The package of the programs that run against real kernels.
pub const PACKAGE: &str = "loadline-tests";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The product, and its program.
pub const SAMPLER: &str = "sampler";

/// Builds programs of the tests package, or the sampler beside them, statically linked: in a guest there is no libc.
/// Also good on the host.
pub fn build(workspace: &Workspace, names: &[&str]) -> Result<Vec<PathBuf>> {
    // Always both: each alone would have other features of the same crates, and all would be built twice.
    build_of(workspace, &[PACKAGE, SAMPLER], names)
}

/// Builds programs of these packages, statically linked.
pub fn build_of(workspace: &Workspace, packages: &[&str], names: &[&str]) -> Result<Vec<PathBuf>> {
    let mut command = workspace.cargo();
    command.args(["build", "--release", "--target", TARGET]);
    for package in packages {
        command.args(["--package", package]);
    }
    for name in names {
        command.args(["--bin", name]);
    }
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "-C target-feature=+crt-static");
    let mut step = Step::start(format!("Building {}", names.join(", ")));
    step.command(&mut command, None)?;
    step.done();
    let dir = workspace.target.join(TARGET).join("release");
    Ok(names.iter().map(|name| dir.join(name)).collect())
}

/// The unpacked libbpf-tools with their libraries.
fn libbpf_tools(cache: &Cache) -> Result<PathBuf> {
    cache.entry("libbpf-tools", |dir| {
        let apt = Apt::open(cache, Suite::Bookworm, "apt (for Debian's libbpf-tools)")?;
        let packages = apt.closure(&["libbpf-tools"], None)?;
        apt.fetch("libbpf-tools", &packages, dir)
    })
}

/// Puts `runqlat`, the oracle of everybody, into a guest.
pub fn add_runqlat(cache: &Cache, root: &mut Initramfs) -> Result<()> {
    add_unpacked(&libbpf_tools(cache)?, "usr/sbin/runqlat", root)
}

/// Puts a program of unpacked packages into a guest, with the libraries that it needs at their usual places.
pub fn add_unpacked(packages: &Path, program: &str, root: &mut Initramfs) -> Result<()> {
    let path = packages.join(program);
    let loader = qemu::loader(packages);
    let mut list = Command::new(&loader[0]);
    list.args(&loader[1..]).arg("--list").arg(&path);
    let listed = step::ask(&mut list, Duration::from_secs(20))
        .with_context(|| format!("the libraries of {program} cannot be listed"))?;
    for library in listed.lines().filter_map(|line| line.split_once("=> ")?.1.split(" (").next()) {
        let library = Path::new(library);
        let name = library.file_name().context("a library without a name")?.to_string_lossy();
        root.host_program(&format!("/lib/x86_64-linux-gnu/{name}"), library);
    }
    root.host_program("/lib64/ld-linux-x86-64.so.2", &packages.join("lib64/ld-linux-x86-64.so.2"));
    root.host_program(&format!("/{program}"), &path);
    Ok(())
}

/// `runqlat` for the host: a script that runs the unpacked one with its own libraries.
pub fn host_runqlat(cache: &Cache, workspace: &Workspace) -> Result<PathBuf> {
    let tools = libbpf_tools(cache)?;
    let words: Vec<_> = qemu::loader(&tools)
        .iter()
        .map(|word| step::quote(&word.to_string_lossy()))
        .chain([step::quote(&tools.join("usr/sbin/runqlat").to_string_lossy())])
        .collect();
    let script = workspace.target.join("bench").join("runqlat");
    files::write_executable(&script, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")).as_bytes())?;
    Ok(script)
}

/// Debian's busybox, statically linked.
pub fn busybox(cache: &Cache) -> Result<PathBuf> {
    let entry = cache.entry("busybox", |dir| {
        let apt = Apt::open(cache, Suite::Bookworm, "apt (for Debian's busybox-static)")?;
        apt.fetch("busybox", &["busybox-static".into()], dir)
    })?;
    Ok(entry.join("bin/busybox"))
}

/// A guest with busybox whose init mounts what programs expect, runs `script`, and says how it ended.
pub fn shell_root(cache: &Cache, script: &str) -> Result<Initramfs> {
    let mut root = Initramfs::new();
    root.host_program("/bin/busybox", &busybox(cache)?);
    root.link("/bin/sh", "busybox");
    for dir in ["/proc", "/sys", "/tmp", "/run", "/root", "/usr/bin", "/usr/sbin", "/sbin"] {
        root.directory(dir);
    }
    let init = "#!/bin/sh\n\
         export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root\n\
         /bin/busybox mount -t proc proc /proc\n\
         /bin/busybox --install -s\n\
         mount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev\n\
         mount -t tracefs tracefs /sys/kernel/tracing\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         mount -t tmpfs tmp /tmp\n\
         for one in $(cat /sys/fs/cgroup/cgroup.controllers); do\n\
         echo +$one > /sys/fs/cgroup/cgroup.subtree_control\n\
         done\n\
         cd /root\n\
         setsid -c sh /session\n";
    // The console is this session's controlling terminal, so that Ctrl-C reaches what runs in it. The session's
    // leader goes on to the end: when it exits, the kernel throws away what the terminal has not sent yet. Setting
    // an attribute waits until all is sent.
    let session = format!(
        "echo 'loadline-guest: up'\n\
         trap : INT\n\
         (\n{script}\n)\n\
         echo \"loadline-guest: exit $?\"\n\
         stty -echo\n\
         poweroff -f\n"
    );
    root.program("/session", session.as_bytes());
    root.program("/init", init.as_bytes());
    Ok(root)
}
