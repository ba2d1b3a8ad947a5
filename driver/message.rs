// SPDX-License-Identifier: GPL-2.0

//! A message to the device, in memory that the device can read.

use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// A buffer of fixed capacity and the length that is in use.
///
/// # Invariants
///
/// `len` is at most the length of `buf`, and `buf` lies in the linear map.
pub(crate) struct Message {
    buf: KVec<u8>,
    len: usize,
}

impl Message {
    /// An empty message of up to `capacity` bytes.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(capacity: usize, flags: Flags) -> Result<KBox<Self>> {
        // INVARIANT: A `KVec` comes from kmalloc, so from the linear map; no byte is in use.
        let message = Self {
            buf: KVec::zeroed(capacity, flags)?,
            len: 0,
        };
        Ok(KBox::new(message, flags)?)
    }

    /// All that can be written.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.buf
    }

    /// Says how many bytes from the start are to be sent.
    pub(crate) fn set_len(&mut self, len: usize) {
        // INVARIANT: This is the bound of the type.
        self.len = len.min(self.buf.len());
    }

    /// What is to be sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}
