// SPDX-License-Identifier: GPL-2.0

//! Messages for a device with VIRTIO_BALLOON_F_PAGE_BITMAP.

use crate::{
    counters::Flow,
    outbox::{
        Outbox,
        Stationery, //
    },
    resp_encoder::{
        response_header,
        Encoder,
        Full,
        HEAD_LEN, //
    },
};
use kernel::prelude::*;

/// One is written while the device reads the other. Each is as long as a bitmap.
pub(crate) const STATIONERY: Stationery = Stationery {
    count: 2,
    len: 32 * 1024,
};

/// Posts the pages whose bits are set in `words`, which come each with the PFN of its first bit.
///
/// # Errors
///
/// Those of [`Outbox::blank`] and [`Outbox::post`].
pub(crate) fn post(
    outbox: &mut Outbox,
    words: impl Iterator<Item = (u64, u64)>,
    flow: &Flow,
) -> Result {
    let mut words = words.peekable();
    while words.peek().is_some() {
        let mut message = outbox.blank(flow)?;
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

        flow.runs.add(encoded.runs);
        flow.words.add(encoded.words);
        outbox.post(message, flow)?;
        outbox.kick(flow);
    }
    Ok(())
}
