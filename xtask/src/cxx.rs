//! A C++ compiler for what cargo builds of C++: the host's, or Debian's unpacked beside the host's C compiler.

use std::{env, ffi::OsString, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    cache::Cache,
    debian::{Apt, Suite, find_program},
    step,
};

/// Variables by which a build finds the compiler; none where the host has one.
pub fn environment(cache: &Cache) -> Result<Vec<(&'static str, OsString)>> {
    // The names by which the crate `cc` looks for one.
    if env::var_os("CXX").is_some() || find_program("c++").is_some() {
        return Ok(Vec::new());
    }
    let root = cache.entry("g++", |dir| {
        let apt = Apt::open(cache, Suite::Host, "a C++ compiler (Debian: apt-get install g++)")?;
        let packages = apt.closure(&["g++"], None).context("this host's package sources lack g++")?;
        apt.fetch("a C++ compiler (g++)", &packages, dir)
    })?;
    // It finds its own headers by where it is itself, but not those of the C compiler; the linker not its library.
    let mut ask = Command::new("cc");
    let headers = step::ask(ask.arg("-print-file-name=include"), Duration::from_secs(20));
    let headers = headers.context("the C compiler, cc, does not run")?;
    let versions = root.join("usr/lib/gcc/x86_64-linux-gnu");
    let version = fs::read_dir(&versions).ok().and_then(|mut all| all.next()?.ok());
    let version = version.with_context(|| {
        format!("{} holds no compiler; please install g++ (Debian: apt-get install g++)", root.display())
    })?;
    Ok(vec![
        ("CXX", root.join("usr/bin/g++").into()),
        ("CPLUS_INCLUDE_PATH", headers.trim().into()),
        ("LIBRARY_PATH", version.path().into()),
    ])
}
