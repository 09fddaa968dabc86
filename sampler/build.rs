//! Embeds the BPF object if `cargo xtask build-ebpf` has built it, and says what to run if not.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(bpf_object)");
    println!("cargo::rerun-if-env-changed=LOADLINE_BPF_OBJECT");
    let object = env::var_os("LOADLINE_BPF_OBJECT").map(PathBuf::from).or_else(beside_the_build);
    let Some(object) = object else { return };
    println!("cargo::rerun-if-changed={}", object.display());
    if object.is_file() {
        println!("cargo::rustc-cfg=bpf_object");
        println!("cargo::rustc-env=LOADLINE_BPF_OBJECT={}", object.display());
    } else {
        println!(
            "cargo::warning=no BPF object at {}: run `cargo xtask build-ebpf`, then build again. \
             Without it this build measures nothing and says so when it is started.",
            object.display()
        );
    }
}

/// `bpf/sampler-ebpf` in the target directory: the one above OUT_DIR that cargo has marked, not the marked one
/// inside it that a build with `--target` has.
fn beside_the_build() -> Option<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR")?);
    let target = out.ancestors().filter(|dir| dir.join("CACHEDIR.TAG").is_file()).last()?;
    Some(target.join("bpf").join("sampler-ebpf"))
}
