// SPDX-License-Identifier: GPL-2.0-only

//! Memory of the driver that a device reads.

use crate::abstractions::compat;
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// A buffer of fixed capacity, of which some bytes from the start are in use.
///
/// # Invariants
///
/// `len` is at most the length of `bytes`, and `bytes` lies in the linear map.
pub(crate) struct Buffer {
    bytes: KVec<u8>,
    len: usize,
}

impl Buffer {
    /// An empty buffer of `capacity` bytes.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(capacity: usize, flags: Flags) -> Result<KBox<Self>> {
        // INVARIANT: A `KVec` comes from kmalloc, so from the linear map; no byte is in use.
        let buffer = Self {
            bytes: compat::zeroed(capacity, flags)?,
            len: 0,
        };
        Ok(KBox::new(buffer, flags)?)
    }

    /// All that can be written.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Sets how many bytes from the start are in use.
    pub(crate) fn set_len(&mut self, len: usize) {
        // INVARIANT: This is the bound of the type.
        self.len = len.min(self.bytes.len());
    }

    /// The bytes in use.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
