// SPDX-License-Identifier: GPL-2.0-only

//! Memory that is held so that the rest of memory lies in single pages.

use anyhow::Result;
use nix::sys::mman::MmapAdvise;

use crate::mapping::{Mapping, PAGE};

/// Every other page of a mapping.
pub struct Scattered(Mapping);

impl Scattered {
    /// Takes `bytes` bytes and gives every other page back.
    pub fn new(bytes: u64) -> Result<Self> {
        let mapping = Mapping::new(bytes)?;
        mapping.advise(0, mapping.length(), MmapAdvise::MADV_NOHUGEPAGE)?;
        mapping.write();
        for offset in (0..mapping.length()).step_by(2 * PAGE) {
            mapping.advise(offset, PAGE, MmapAdvise::MADV_DONTNEED)?;
        }
        Ok(Self(mapping))
    }

    /// Fails unless the pages held are as they were written; frees them.
    pub fn verify(self) -> Result<()> {
        self.0.verify(1, 2)
    }
}
