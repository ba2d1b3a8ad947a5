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
    virtqueue::Virtqueue, //
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The most PFNs in a message. C: `VIRTIO_BALLOON_ARRAY_PFNS_MAX`.
const MAX_PFNS: usize = 256;

/// The length of a PFN in a message.
const PFN_LEN: usize = 4;

/// How many messages go out under one notification.
const MESSAGES: usize = 16;

/// The messages to send PFNs in.
pub(crate) struct PfnArrays {
    idle: KVec<KBox<Message>>,
    order: ByteOrder,
}

impl PfnArrays {
    /// Allocates all messages.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(order: ByteOrder, flags: Flags) -> Result<Self> {
        let mut idle = KVec::with_capacity(MESSAGES, flags)?;
        for _ in 0..MESSAGES {
            let message = Message::new(MAX_PFNS * PFN_LEN, flags)?;
            idle.push_within_capacity(message).map_err(|_| ENOMEM)?;
        }
        Ok(Self { idle, order })
    }

    /// Sends the PFNs, and waits until the device has used the last of them.
    ///
    /// # Errors
    ///
    /// ERANGE for a PFN of more than 32 bits, and those of the queue.
    pub(crate) fn tell(
        &mut self,
        queue: &mut Virtqueue,
        pfns: impl Iterator<Item = u64>,
        flow: &Flow,
    ) -> Result {
        let mut pfns = pfns.peekable();
        while pfns.peek().is_some() {
            let mut sent: usize = 0;
            while sent < queue.capacity() && pfns.peek().is_some() {
                let Some(mut message) = self.idle.pop() else {
                    break;
                };
                message.fill(&mut pfns, self.order)?;
                flow.bytes.add_len(message.bytes().len());
                flow.messages.inc();
                queue.add(message).map_err(|(err, _)| err)?;
                sent = sent.saturating_add(1);
            }
            if sent == 0 {
                return Err(EIO);
            }
            queue.kick();
            flow.notifications.inc();
            for _ in 0..sent {
                flow.waits.inc();
                let message = queue.wait()?.message()?;
                self.idle.push_within_capacity(message).map_err(|_| EIO)?;
            }
        }
        Ok(())
    }
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
