//! Does nothing at each context switch: the floor that `cargo xtask bench` holds the sampler against.
//!
//! What this costs is the kernel's price for any program at that hook: the trampoline, and its bookkeeping.
#![no_std]
#![no_main]

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

/// A CPU switches threads.
#[btf_tracepoint(function = "sched_switch")]
pub fn noop(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// As that of the sampler.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 7] = *b"GPL v2\0";

/// There is nothing to unwind and nobody to tell: the verifier accepts no program that can panic.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
