//! A BPF array mapped into memory: reading it costs no system call.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use aya::maps::{MapData, MapError};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;

/// Why a map cannot be read as an array of a type.
#[derive(Debug, Error)]
pub enum MappedError {
    /// The kernel does not describe it.
    #[error("the kernel does not say how large its values are")]
    Info(#[source] MapError),
    /// The object in this binary was built from other sources than the binary.
    #[error(
        "its values have {found} bytes and not {wanted}: the BPF programs in this build are of another version; run \
         `cargo xtask build-ebpf`, then build again"
    )]
    OtherVersion {
        /// Bytes of a value as the programs have it.
        found: u32,
        /// Bytes of a value as this binary has it.
        wanted: usize,
    },
    /// It has no place in memory.
    #[error("it cannot be mapped into memory")]
    Map(#[source] nix::Error),
}

/// Types that any bytes are a value of, so that they can be read while the kernel writes them.
///
/// # Safety
///
/// The type holds integers only, and is laid out as the kernel side declares it.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: all are repr(C) structures of integers from `sampler_common::abi`, shared with the BPF side.
unsafe impl Plain for sampler_common::abi::Row {}
// SAFETY: as above.
unsafe impl Plain for sampler_common::abi::Cpu {}
// SAFETY: as above.
unsafe impl Plain for sampler_common::abi::Baseline {}
// SAFETY: as above.
unsafe impl Plain for sampler_common::abi::CssEntry {}
// SAFETY: as above.
unsafe impl Plain for sampler_common::abi::CycleSums {}
// SAFETY: as above.
unsafe impl Plain for sampler_common::abi::SlotRecord {}
// SAFETY: as above.
unsafe impl Plain for sampler_common::throttle::Throttle {}

/// A mapped array of `T`. The mapping outlives the programs; the map lives as long as it.
pub struct Mapped<T: Plain> {
    base: NonNull<T>,
    entries: usize,
    bytes: NonZeroUsize,
    _map: MapData,
    _values: PhantomData<T>,
}

// SAFETY: it is a range of shared memory, read and written with volatile accesses only.
unsafe impl<T: Plain> Send for Mapped<T> {}
// SAFETY: as above; the kernel writes it meanwhile anyway.
unsafe impl<T: Plain> Sync for Mapped<T> {}

impl<T: Plain> Mapped<T> {
    /// Maps a BPF array that was made with `BPF_F_MMAPABLE` and has `entries` values of type `T`.
    pub fn new(map: MapData, entries: usize) -> Result<Self, MappedError> {
        let (found, wanted) = (map.info().map_err(MappedError::Info)?.value_size(), size_of::<T>());
        if found as usize != wanted {
            return Err(MappedError::OtherVersion { found, wanted });
        }
        let page = page_bytes();
        let bytes = entries.saturating_mul(wanted).next_multiple_of(page);
        let bytes = NonZeroUsize::new(bytes).ok_or(MappedError::Map(nix::Error::EINVAL))?;
        // SAFETY: a new mapping at an address of the kernel's choice. The kernel checks that the map is at
        // least so large.
        let base = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map.fd(), 0)
        };
        let base = base.map_err(MappedError::Map)?;
        Ok(Self { base: base.cast(), entries, bytes, _map: map, _values: PhantomData })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// A pointer to a value, for volatile access to one of its words.
    pub fn at(&self, index: usize) -> *mut T {
        assert!(index < self.entries, "index {index} of a map of {} entries", self.entries);
        // SAFETY: inside the mapping.
        unsafe { self.base.as_ptr().add(index) }
    }

    /// A copy of a value, which the kernel may be changing meanwhile.
    pub fn read(&self, index: usize) -> T {
        // SAFETY: a value inside the mapping, of a type that any bytes are a value of.
        unsafe { self.at(index).read_volatile() }
    }
}

impl<T: Plain> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing points into it any more.
        // An error would mean that it is not there: there is nothing to be done.
        let _ = unsafe { munmap(self.base.cast(), self.bytes.get()) };
    }
}

fn page_bytes() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(4096)
}
