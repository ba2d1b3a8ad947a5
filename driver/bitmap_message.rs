// SPDX-License-Identifier: GPL-2.0

//! Messages for a device with VIRTIO_BALLOON_F_PAGE_BITMAP.

use crate::{
    bitmap::{
        PageBitmaps,
        PfnRange,
        WORDS_PER_BITMAP, //
    },
    compat,
    counters::Flow,
    fault,
    message::Message,
    resp_encoder::{
        response_header,
        Encoder,
        Full,
        HEAD_LEN, //
    },
    virtqueue::Virtqueue, //
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The length of the response buffer: that of a bitmap.
const RESPONSE_LEN: usize = WORDS_PER_BITMAP * 8;

/// The bitmaps, and the response buffer.
pub(crate) struct BitmapMessages {
    bitmaps: PageBitmaps<KVec<u64>>,
    /// `None` only when it was lost in a queue that failed.
    response: Option<KBox<Message>>,
}

impl BitmapMessages {
    /// Allocates the first bitmap and the response buffer.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(flags: Flags) -> Result<KBox<Self>> {
        if fault::FIRST_BITMAP {
            return Err(ENOMEM);
        }
        let messages = Self {
            bitmaps: PageBitmaps::new(compat::zeroed(WORDS_PER_BITMAP, flags)?),
            response: Some(Message::new(RESPONSE_LEN, flags)?),
        };
        Ok(KBox::new(messages, flags)?)
    }

    /// How many bitmaps more could be used for pages of a range.
    pub(crate) fn missing(&self, range: PfnRange) -> usize {
        range.bitmaps().saturating_sub(self.bitmaps.len())
    }

    /// Adds a zeroed bitmap.
    pub(crate) fn add(&mut self, bitmap: KVec<u64>) {
        if let Err(surplus) = self.bitmaps.add(bitmap) {
            drop(surplus);
        }
    }

    /// Gives back all bitmaps but the first.
    pub(crate) fn shrink(&mut self) {
        self.bitmaps.shrink();
    }

    /// Sends the pages at `pfns`, and waits until the device has used the last message.
    ///
    /// # Errors
    ///
    /// Those of the queue.
    pub(crate) fn tell(
        &mut self,
        queue: &mut Virtqueue,
        pfns: impl Iterator<Item = u64> + Clone,
        flow: &Flow,
    ) -> Result {
        let mut pass = PfnRange::of(pfns.clone()).map(|range| range.min);
        while let Some(start) = pass {
            pass = self.bitmaps.mark(start, pfns.clone());
            self.send_marked(queue, flow)?;
        }
        Ok(())
    }

    fn send_marked(&mut self, queue: &mut Virtqueue, flow: &Flow) -> Result {
        let mut words = self.bitmaps.words().peekable();
        while words.peek().is_some() {
            let mut response = self.response.take().ok_or(EIO)?;
            let (header, entries) = response
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
            response.set_len(HEAD_LEN.saturating_add(encoded.len));

            flow.runs.add(encoded.runs);
            flow.words.add(encoded.words);
            flow.bytes.add_len(response.bytes().len());
            flow.messages.inc();
            flow.notifications.inc();
            flow.waits.inc();
            self.response = Some(queue.send(response)?);
        }
        Ok(())
    }
}
