//! Anonymous memory: written to once, or held so that the rest of memory lies in single pages.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{ensure, Context, Result};
use guest_tests::PAGE_SIZE;
use nix::sys::mman::{madvise, mmap_anonymous, munmap, MapFlags, MmapAdvise, ProtFlags};

const PAGE: usize = PAGE_SIZE as usize;
const FILL: u8 = 0xb5;

/// Writes to every page of `bytes` bytes and frees them.
pub fn touch(bytes: u64) -> Result<()> {
    Mapping::new(bytes)?.write();
    Ok(())
}

/// Every other page of a mapping.
pub struct Scattered(Mapping);

impl Scattered {
    /// Takes `bytes` bytes and gives every other page back.
    pub fn new(bytes: u64) -> Result<Self> {
        let mapping = Mapping::new(bytes)?;
        mapping.advise(0, mapping.length, MmapAdvise::MADV_NOHUGEPAGE)?;
        mapping.write();
        for offset in (0..mapping.length).step_by(2 * PAGE) {
            mapping.advise(offset, PAGE, MmapAdvise::MADV_DONTNEED)?;
        }
        Ok(Self(mapping))
    }

    /// Fails unless the pages held are as they were written; frees them.
    pub fn verify(self) -> Result<()> {
        for offset in (PAGE..self.0.length).step_by(2 * PAGE) {
            // SAFETY: Within the mapping, which is readable.
            let byte = unsafe { self.0.start.cast::<u8>().add(offset).read_volatile() };
            ensure!(
                byte == FILL,
                "the page at {offset:#x} of those held has changed"
            );
        }
        Ok(())
    }
}

struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    fn new(bytes: u64) -> Result<Self> {
        let length = usize::try_from(bytes)?.next_multiple_of(PAGE);
        let size = NonZeroUsize::new(length).context("no bytes")?;
        // SAFETY: A new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            )
        }
        .context("mmap")?;
        Ok(Self { start, length })
    }

    fn write(&self) {
        for offset in (0..self.length).step_by(PAGE) {
            // SAFETY: Within the mapping, which is writable and which nothing else refers to.
            unsafe { self.start.cast::<u8>().add(offset).write_volatile(FILL) };
        }
    }

    fn advise(&self, offset: usize, length: usize, advice: MmapAdvise) -> Result<()> {
        // SAFETY: Within the mapping, whose contents nobody relies on.
        unsafe { madvise(self.start.byte_add(offset), length, advice) }.context("madvise")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The whole mapping, to which no reference is left.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
