//! The BPF object that was built with this binary, if one was.

/// The object's bytes; `None` in a build that was made before `cargo xtask build-ebpf`.
#[cfg(bpf_object)]
pub const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("LOADLINE_BPF_OBJECT")));

/// The object's bytes; `None` in a build that was made before `cargo xtask build-ebpf`.
#[cfg(not(bpf_object))]
pub const OBJECT: Option<&[u8]> = None;
