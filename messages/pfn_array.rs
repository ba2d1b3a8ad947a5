// SPDX-License-Identifier: GPL-2.0

//! Messages for every balloon device: arrays of up to 256 PFNs of 32 bits.
//!
//! Devices disagree about longer arrays and about chains of descriptors, so there is one array in
//! a descriptor, and many of them under one notification.

use crate::{
    counters::Flow,
    message::{
        ByteOrder,
        Message, //
    },
    outbox::{
        Outbox,
        Stationery, //
    },
};
use kernel::prelude::*;

/// The most PFNs in a message. C: `VIRTIO_BALLOON_ARRAY_PFNS_MAX`.
const MAX_PFNS: usize = 256;

/// The length of a PFN in a message.
const PFN_LEN: usize = 4;

/// As many as go out under one notification.
pub(crate) const STATIONERY: Stationery = Stationery {
    count: 64,
    len: MAX_PFNS * PFN_LEN,
};

/// Posts the pages at `pfns`.
///
/// # Errors
///
/// ERANGE for a PFN of more than 32 bits, and those of [`Outbox::blank`] and [`Outbox::post`].
pub(crate) fn post(
    outbox: &mut Outbox,
    pfns: impl Iterator<Item = u64>,
    order: ByteOrder,
    flow: &Flow,
) -> Result {
    let mut pfns = pfns.peekable();
    while pfns.peek().is_some() {
        let mut message = outbox.blank(flow)?;
        message.fill(&mut pfns, order)?;
        outbox.post(message, flow)?;
    }
    outbox.kick(flow);
    Ok(())
}

impl Message {
    /// Fills the message with PFNs, as many as it takes.
    fn fill(&mut self, pfns: &mut impl Iterator<Item = u64>, order: ByteOrder) -> Result {
        let mut space = self.space();
        let mut len: usize = 0;
        while let Some((slot, rest)) = space.split_first_chunk_mut::<PFN_LEN>() {
            let Some(pfn) = pfns.next() else { break };
            let pfn = u32::try_from(pfn).map_err(|_| ERANGE)?;
            *slot = order.bytes(pfn);
            len = len.saturating_add(PFN_LEN);
            space = rest;
        }
        self.set_len(len);
        Ok(())
    }
}
