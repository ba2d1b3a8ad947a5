// SPDX-License-Identifier: GPL-2.0-only

//! Messages for every balloon device: arrays of up to 256 PFNs of 32 bits.
//!
//! Devices disagree about longer arrays and about chains of descriptors, so there is one array in
//! a descriptor, and many of them under one notification.

use crate::{
    abstractions::buffer::Buffer,
    messages::{
        byte_order::ByteOrder,
        message_queue::BufferSpec, //
    },
};
use core::iter::Peekable;
use kernel::prelude::*;

/// The most PFNs in a message. C: `VIRTIO_BALLOON_ARRAY_PFNS_MAX`.
const MAX_PFNS: usize = 256;

/// The length of a PFN in a message.
const PFN_LEN: usize = 4;

/// The highest PFN that an array can have.
pub(crate) const MAX_PFN: u64 = 0xffff_ffff;

/// As many as go out under one notification.
pub(crate) const BUFFERS: BufferSpec = BufferSpec {
    count: 64,
    len: MAX_PFNS * PFN_LEN,
};

/// Writes as many PFNs into a message as it takes.
///
/// # Errors
///
/// ERANGE for one above [`MAX_PFN`].
pub(crate) fn write(
    message: &mut Buffer,
    pfns: &mut Peekable<impl Iterator<Item = u64>>,
    order: ByteOrder,
) -> Result {
    let mut space = message.space();
    let mut len: usize = 0;
    while let Some((slot, rest)) = space.split_first_chunk_mut::<PFN_LEN>() {
        let Some(pfn) = pfns.next() else { break };
        *slot = order.u32(u32::try_from(pfn).map_err(|_| ERANGE)?);
        len = len.saturating_add(PFN_LEN);
        space = rest;
    }
    message.set_len(len);
    Ok(())
}
