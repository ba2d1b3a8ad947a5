// SPDX-License-Identifier: GPL-2.0

//! The statistics queue: the device asks, by using the driver's buffer, and gets a newer one.
//!
//! VIRTIO 1.3, 5.5.6.3. C header: [`include/uapi/linux/virtio_balloon.h`]
//!
//! [`include/uapi/linux/virtio_balloon.h`]: srctree/include/uapi/linux/virtio_balloon.h

use crate::{
    bindings,
    memory_info,
    message::Message,
    virtqueue::Virtqueue, //
};
use kernel::prelude::*;

/// The length of a statistic: a tag of 16 bits and a value of 64 bits, packed.
const STAT_LEN: usize = 10;

/// The number of tags.
const MAX_STATS: usize = bindings::VIRTIO_BALLOON_S_NR as usize;

/// The queue, whose one buffer the device has most of the time.
pub(crate) struct StatsQueue {
    queue: Virtqueue,
}

impl StatsQueue {
    /// Gives the device its first buffer, which it uses when it wants statistics.
    ///
    /// # Errors
    ///
    /// ENOMEM, and those of the queue.
    pub(crate) fn start(mut queue: Virtqueue) -> Result<Self> {
        let mut message = Message::new(STAT_LEN * MAX_STATS, GFP_KERNEL)?;
        message.fill_stats();
        queue.add(message).map_err(|(err, _)| err)?;
        Ok(Self { queue })
    }

    /// Notifies the device of the first buffer, once it is live.
    pub(crate) fn kick(&mut self) {
        self.queue.kick();
    }

    /// Answers the device, if it asked. Returns whether it did.
    ///
    /// # Errors
    ///
    /// Those of the queue.
    pub(crate) fn answer(&mut self) -> Result<bool> {
        let Some(used) = self.queue.take() else {
            return Ok(false);
        };
        let mut message = used.message()?;
        message.fill_stats();
        self.queue.add(message).map_err(|(err, _)| err)?;
        self.queue.kick();
        Ok(true)
    }
}

impl Message {
    fn fill_stats(&mut self) {
        let mut space = self.space();
        let mut len: usize = 0;
        for (tag, value) in memory_info::statistics() {
            let Some((slot, rest)) = space.split_first_chunk_mut::<STAT_LEN>() else {
                break;
            };
            let ([t0, t1, ..], [v0, v1, v2, v3, v4, v5, v6, v7]) =
                (tag.to_le_bytes(), value.to_le_bytes());
            *slot = [t0, t1, v0, v1, v2, v3, v4, v5, v6, v7];
            len = len.saturating_add(STAT_LEN);
            space = rest;
        }
        self.set_len(len);
    }
}
