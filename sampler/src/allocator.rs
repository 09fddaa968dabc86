//! What the C library's allocator is told of this process, which is there for months and is to stay small.
//!
//! Left alone, glibc keeps what was needed once. Reading the kernel's types at start takes some 30 MB for a moment; a
//! scrape of 500 containers takes a body of 4 MB, which lies in an arena of the thread that encoded it and moves the limit
//! above which memory is given back (`mallopt(3)`: the threshold is dynamic); each thread has an arena, with holes of its
//! own. All of it together was twice what is in use.

#[cfg(target_env = "gnu")]
use nix::libc;

/// One arena for all threads, and what is large in a mapping of its own. To be called before there are threads.
#[cfg(target_env = "gnu")]
pub fn keep_small() {
    /// Bytes: glibc's own value at first, now for good.
    const LARGE: libc::c_int = 128 << 10;
    for (parameter, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)]
    {
        // SAFETY: numbers. What is refused stays as it is.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what is free, also between what is in use. Takes some ms.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: takes a number, and locks what it walks through.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries keep less.
#[cfg(not(target_env = "gnu"))]
pub fn keep_small() {}

/// Other C libraries keep less.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
