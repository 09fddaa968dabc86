//! QEMU: the host's own if it is new enough, else Debian's, unpacked into the cache with everything that it needs.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::{
    cache::Cache,
    debian::{Apt, Suite, find_program},
    step,
};

/// Under the emulation of QEMU 7.2, Linux 6.12 dies before init in half of the boots; 9 and later are good.
const OLDEST: u32 = 9;

/// A QEMU that can be started.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: Vec<OsString>,
    modules: Option<PathBuf>,
}

impl Qemu {
    /// Finds one, or unpacks one.
    pub fn find(cache: &Cache) -> Result<Self> {
        if let Some(path) = find_program("qemu-system-x86_64") {
            let says = step::ask(Command::new(&path).arg("--version"), Duration::from_secs(20));
            if says.as_deref().and_then(major).is_some_and(|major| major >= OLDEST) {
                return Ok(Self { program: vec![path.into()], modules: None });
            }
        }
        let root = cache.entry("qemu", |dir| {
            let wanted = format!("qemu-system-x86_64, version {OLDEST} or later");
            let apt = Apt::open(cache, Suite::Bookworm, &wanted)?;
            let packages = apt.closure(&["qemu-system-x86"], Some("bookworm-backports"))?;
            apt.fetch("QEMU 10 and its libraries", &packages, dir)
        })?;
        Ok(Self::unpacked(&root))
    }

    /// One that is started through the dynamic loader that was unpacked with it: the host's libraries may be older or
    /// newer than it can bear.
    fn unpacked(root: &Path) -> Self {
        let mut program = loader(root);
        program.push(root.join("usr/bin/qemu-system-x86_64").into());
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            program.extend(["-L".into(), root.join(data).into()]);
        }
        Self { program, modules: Some(root.join("usr/lib/x86_64-linux-gnu/qemu")) }
    }

    /// The command, for the caller to add a machine to.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }
}

/// How to start a program of an unpacked tree: its loader and where its libraries are.
pub fn loader(root: &Path) -> Vec<OsString> {
    let mut libraries = Vec::new();
    for dir in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
        let dir = root.join(dir);
        // Some libraries live in a directory of their own (libpulse's).
        let below = fs::read_dir(&dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        libraries.push(dir.clone());
        libraries.extend(below.filter(|path| path.is_dir() && holds_library(path)));
    }
    let libraries: Vec<_> = libraries.iter().map(|dir| dir.as_os_str()).collect();
    vec![
        root.join("lib64/ld-linux-x86-64.so.2").into(),
        "--library-path".into(),
        libraries.join(std::ffi::OsStr::new(":")),
    ]
}

fn holds_library(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
    names.into_iter().any(|name| {
        let name = name.to_string_lossy();
        name.starts_with("lib") && name.contains(".so")
    })
}

/// The major version in `QEMU emulator version 10.0.2 (Debian …)`.
fn major(says: &str) -> Option<u32> {
    says.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some(10));
        assert_eq!(major("QEMU emulator version 7.2.1"), Some(7));
        assert_eq!(major("something else"), None);
    }
}
