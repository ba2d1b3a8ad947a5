// SPDX-License-Identifier: GPL-2.0-only

//! Anonymous memory.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{ensure, Context, Result};
use guest_tests::PAGE_SIZE;
use nix::sys::mman::{madvise, mmap_anonymous, munmap, MapFlags, MmapAdvise, ProtFlags};

pub const PAGE: usize = PAGE_SIZE as usize;
const FILL: u8 = 0xb5;

/// A mapping of whole pages.
pub struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    /// Maps `bytes` bytes, and does not touch them.
    pub fn new(bytes: u64) -> Result<Self> {
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

    /// Its size in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Writes to each page.
    pub fn write(&self) {
        for offset in (0..self.length).step_by(PAGE) {
            // SAFETY: Within the mapping, which is writable and which nothing else refers to.
            unsafe { self.start.cast::<u8>().add(offset).write_volatile(FILL) };
        }
    }

    /// Fails unless each `step`th page from `first` on is as [`Self::write`] left it.
    pub fn verify(&self, first: usize, step: usize) -> Result<()> {
        for offset in (first * PAGE..self.length).step_by(step * PAGE) {
            // SAFETY: Within the mapping, which is readable.
            let byte = unsafe { self.start.cast::<u8>().add(offset).read_volatile() };
            ensure!(byte == FILL, "the page at {offset:#x} has changed");
        }
        Ok(())
    }

    /// Tells the kernel what to do with a part of it.
    pub fn advise(&self, offset: usize, length: usize, advice: MmapAdvise) -> Result<()> {
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
