// SPDX-License-Identifier: GPL-2.0-only

//! A queue of messages to the device, and the buffers that they are written into.
//!
//! A buffer belongs to the device from [`MessageQueue::post`] on, until the device has used it. So
//! the next message can be written while the device still reads the last.

use crate::{
    abstractions::{
        buffer::Buffer,
        transport::{
            Patience,
            Transport, //
        },
        virtqueue::{
            Used,
            Virtqueue, //
        },
    },
    messages::counters::QueueCounters,
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// How many buffers a queue has, and of how many bytes.
#[derive(Clone, Copy)]
pub(crate) struct BufferSpec {
    /// The number of buffers.
    pub(crate) count: usize,
    /// The bytes of each.
    pub(crate) len: usize,
}

impl BufferSpec {
    /// Allocates so many of the buffers.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn allocate(self, count: usize, flags: Flags) -> Result<Buffers> {
        let mut buffers = KVec::with_capacity(self.count, flags)?;
        for _ in 0..count.min(self.count) {
            let buffer = Buffer::new(self.len, flags)?;
            buffers.push_within_capacity(buffer).map_err(|_| EIO)?;
        }
        Ok(buffers)
    }
}

/// Buffers that no device has.
pub(crate) type Buffers = KVec<KBox<Buffer>>;

/// The virtqueue of a message queue.
pub(crate) type MessageVirtqueue = Virtqueue<KBox<Buffer>>;

/// A queue, and the buffers that the device does not have.
pub(crate) struct MessageQueue {
    queue: Option<MessageVirtqueue>,
    idle: Buffers,
    spec: BufferSpec,
    /// How many messages the device has, and has not used yet.
    posted: usize,
    /// Whether it was not notified of the last of them.
    is_kick_due: bool,
}

impl MessageQueue {
    /// All buffers, and no virtqueue yet.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[inline(never)]
    pub(crate) fn new(spec: BufferSpec, flags: Flags) -> Result<Self> {
        Ok(Self {
            queue: None,
            idle: spec.allocate(spec.count, flags)?,
            spec,
            posted: 0,
            is_kick_due: false,
        })
    }

    /// How many buffers went with an earlier virtqueue.
    pub(crate) fn missing(&self) -> usize {
        self.spec.count.saturating_sub(self.idle.len())
    }

    /// The kind of buffers.
    pub(crate) fn spec(&self) -> BufferSpec {
        self.spec
    }

    /// Starts to use a virtqueue, with buffers for those that are missing. Returns what is too much, for
    /// the caller to free.
    pub(crate) fn connect(&mut self, queue: MessageVirtqueue, mut spare: Buffers) -> Buffers {
        while self.missing() > 0 {
            let Some(buffer) = spare.pop() else { break };
            if self.idle.push_within_capacity(buffer).is_err() {
                break;
            }
        }
        self.posted = 0;
        self.is_kick_due = false;
        self.queue = Some(queue);
        spare
    }

    /// Lets go of the virtqueue, which was deleted.
    pub(crate) fn disconnect(&mut self) {
        self.queue = None;
        self.posted = 0;
    }

    /// Whether there is a virtqueue.
    pub(crate) fn is_connected(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether the device has used all that was posted.
    pub(crate) fn is_idle(&self) -> bool {
        self.posted == 0
    }

    /// An empty buffer, if need be one that the device has to use before. Waits for half of them then,
    /// so that as many go out under the next notification.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::wait`] and [`Virtqueue::get`], and ENODEV without a virtqueue.
    pub(crate) fn empty_buffer(
        &mut self,
        transport: &Transport,
        patience: Patience,
        counters: &QueueCounters,
    ) -> Result<KBox<Buffer>> {
        let size = self.queue.as_ref().ok_or(ENODEV)?.size();
        if self.posted >= size || self.idle.is_empty() {
            self.kick(counters);
            let rest = self.posted / 2;
            transport.wait(patience, || {
                self.collect(counters)?;
                Ok((self.posted <= rest).then_some(()))
            })?;
        }
        self.idle.pop().ok_or(EIO)
    }

    /// Gives a message to the device, which reads it after the next [`Self::kick`] at the latest.
    ///
    /// # Errors
    ///
    /// Those of [`Virtqueue::add`].
    pub(crate) fn post(&mut self, message: KBox<Buffer>, counters: &QueueCounters) -> Result {
        let queue = self.queue.as_mut().ok_or(ENODEV)?;
        let len = message.as_slice().len();
        queue.add(message)?;
        counters.messages.inc();
        counters.bytes.add_len(len);
        self.posted = self.posted.saturating_add(1);
        self.is_kick_due = true;
        Ok(())
    }

    /// Notifies the device of what was posted.
    pub(crate) fn kick(&mut self, counters: &QueueCounters) {
        if let (Some(queue), true) = (&mut self.queue, self.is_kick_due) {
            queue.kick();
            counters.notifications.inc();
        }
        self.is_kick_due = false;
    }

    /// Takes back what the device has used.
    ///
    /// # Errors
    ///
    /// Those of [`Virtqueue::get`].
    pub(crate) fn collect(&mut self, counters: &QueueCounters) -> Result {
        while self.posted > 0 {
            let queue = self.queue.as_mut().ok_or(ENODEV)?;
            match queue.get()? {
                Some(Used::Buffer(buffer)) => {
                    self.posted = self.posted.saturating_sub(1);
                    counters.waits.inc();
                    self.idle.push_within_capacity(buffer).map_err(|_| EIO)?;
                }
                Some(Used::Memory) => {}
                None => break,
            }
        }
        Ok(())
    }
}
