//! Other people's programs at a kernel function: as many as it takes.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::libc;

/// A trampoline has room for 38 (`BPF_MAX_TRAMP_LINKS`), on 7.2 for 36.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/bpf.h#L1095>
const MORE_THAN_PLACES: usize = 100;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_FENTRY: u32 = 24;

/// Attaches programs that do nothing to a function until the kernel takes no more of them. They go when the
/// result is dropped.
pub fn occupy(function: &str) -> Vec<OwnedFd> {
    let id = function_id(&fs::read("/sys/kernel/btf/vmlinux").unwrap(), function);
    let mut held = Vec::new();
    for number in 0..=MORE_THAN_PLACES {
        let program = load(id).unwrap_or_else(|error| panic!("a program for {function}: {error}"));
        match attach(&program) {
            Ok(link) => held.extend([program, link]),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                println!("     {function} has places for {number} programs");
                return held;
            }
            Err(error) => panic!("program {number} at {function}: {error}"),
        }
    }
    panic!("{function} takes more than {MORE_THAN_PLACES} programs")
}

/// The part of `union bpf_attr` that is used here for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    btf_fd: u32,
    func_info_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

fn load(function: u32) -> io::Result<OwnedFd> {
    // r0 = 0; exit
    let code: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_TRACING,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: BPF_TRACE_FENTRY,
        attach_btf_id: function,
        ..LoadAttributes::default()
    };
    bpf(BPF_PROG_LOAD, &attributes)
}

fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    // A name, which a program of this type has not, and the program.
    let attributes: [u64; 2] = [0, program.as_raw_fd() as u64];
    bpf(BPF_RAW_TRACEPOINT_OPEN, &attributes)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes live as long as the call; a good result is a file descriptor that is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>());
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Number of a function among the types.
/// <https://docs.kernel.org/bpf/btf.html#type-encoding>
fn function_id(btf: &[u8], function: &str) -> u32 {
    let word = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().unwrap()) as usize;
    let header = word(4);
    let (types, types_len, strings) = (header + word(8), word(12), header + word(16));
    let mut at = types;
    let mut id = 1;
    while at < types + types_len {
        let (name, info) = (strings + word(at), word(at + 4));
        let (kind, members) = (info >> 24 & 0x1f, info & 0xffff);
        if kind == 12 && btf[name..].starts_with(function.as_bytes()) && btf[name + function.len()] == 0 {
            return id;
        }
        let behind = match kind {
            // An integer, a variable, a declaration's tag.
            1 | 17 => 4,
            3 => 12,
            4 | 5 => 12 * members,
            6 => 8 * members,
            13 => 8 * members,
            14 => 4,
            15 => 12 * members,
            19 => 12 * members,
            _ => 0,
        };
        at += 12 + behind;
        id += 1;
    }
    panic!("the kernel has no function {function}")
}
