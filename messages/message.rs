// SPDX-License-Identifier: GPL-2.0

//! A message to the device, in memory that the device can read.

use crate::compat;
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The byte order of a device's messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// A device with VIRTIO_F_VERSION_1.
    Little,
    /// A legacy device: that of the guest.
    Guest,
}

impl ByteOrder {
    /// That of a device with or without VIRTIO_F_VERSION_1.
    pub(crate) fn of_version_1(modern: bool) -> Self {
        if modern {
            Self::Little
        } else {
            Self::Guest
        }
    }

    /// A number as the device reads it.
    pub(crate) fn bytes(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Guest => value.to_ne_bytes(),
        }
    }
}

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
            buf: compat::zeroed(capacity, flags)?,
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
