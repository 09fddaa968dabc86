//! Embeds the no-op BPF program into the benchmark if `cargo xtask build-ebpf` has built it.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(noop_object)");
    println!("cargo::rerun-if-env-changed=LOADLINE_NOOP_OBJECT");
    let object = env::var_os("LOADLINE_NOOP_OBJECT").map(PathBuf::from).or_else(beside_the_build);
    let Some(object) = object else { return };
    println!("cargo::rerun-if-changed={}", object.display());
    if object.is_file() {
        println!("cargo::rustc-cfg=noop_object");
        println!("cargo::rustc-env=LOADLINE_NOOP_OBJECT={}", object.display());
    }
}

/// `bpf/noop` in the target directory: the one above OUT_DIR that cargo has marked, not the marked one inside it
/// that a build with `--target` has.
fn beside_the_build() -> Option<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR")?);
    let target = out.ancestors().filter(|dir| dir.join("CACHEDIR.TAG").is_file()).last()?;
    Some(target.join("bpf").join("noop"))
}
