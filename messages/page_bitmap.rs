// SPDX-License-Identifier: GPL-2.0-only

//! Messages for a device with VIRTIO_BALLOON_F_PAGE_BITMAP.

use crate::{
    abstractions::buffer::Buffer,
    messages::{
        counters::QueueCounters,
        message_queue::BufferSpec, //
    },
    resp_encoder::{
        response_header,
        Encoder,
        Full,
        HEAD_LEN, //
    },
};
use core::iter::Peekable;
use kernel::prelude::*;

/// One is written while the device reads the other. Each is as long as a bitmap.
pub(crate) const BUFFERS: BufferSpec = BufferSpec {
    count: 2,
    len: 32 * 1024,
};

/// Writes as many of the words into a message as it takes. They come each with the PFN of its first
/// bit.
///
/// # Errors
///
/// EINVAL for a buffer that is too short for any.
pub(crate) fn write(
    message: &mut Buffer,
    words: &mut Peekable<impl Iterator<Item = (u64, u64)>>,
    counters: &QueueCounters,
) -> Result {
    let (header, entries) = message
        .space()
        .split_first_chunk_mut::<HEAD_LEN>()
        .ok_or(EINVAL)?;

    let mut encoder = Encoder::new(entries);
    while let Some((pfn, word)) = words.peek() {
        match encoder.push(*pfn, *word) {
            Ok(()) => words.next(),
            Err(Full) => break,
        };
    }
    let encoded = encoder.finish();
    *header = response_header(u32::try_from(encoded.len)?);
    message.set_len(HEAD_LEN.saturating_add(encoded.len));

    counters.runs.add(encoded.runs);
    counters.words.add(encoded.words);
    Ok(())
}
