// SPDX-License-Identifier: GPL-2.0

//! A queue to the device, and the messages that are written for it.
//!
//! A message belongs to the device from [`Outbox::post`] on, until it comes back. So the next ones
//! can be written while the device still reads the last.

use crate::{
    counters::Flow,
    message::Message,
    virtqueue::Virtqueue, //
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// How many messages there are, and of how many bytes.
#[derive(Clone, Copy)]
pub(crate) struct Stationery {
    /// The number of messages.
    pub(crate) count: usize,
    /// The bytes of each.
    pub(crate) len: usize,
}

/// Messages that go out, and those that came back.
pub(crate) struct Outbox {
    queue: Option<Virtqueue>,
    idle: KVec<KBox<Message>>,
    stationery: Stationery,
    /// How many messages the device has.
    posted: usize,
    /// Whether it was not notified of the last of them.
    is_news: bool,
}

impl Outbox {
    /// All messages, and no queue yet.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(stationery: Stationery, flags: Flags) -> Result<Self> {
        let mut outbox = Self {
            queue: None,
            idle: KVec::with_capacity(stationery.count, flags)?,
            stationery,
            posted: 0,
            is_news: false,
        };
        outbox.refill(flags)?;
        Ok(outbox)
    }

    /// Starts to use a queue.
    ///
    /// # Errors
    ///
    /// ENOMEM if messages were lost in an earlier queue.
    pub(crate) fn connect(&mut self, queue: Virtqueue) -> Result {
        self.refill(GFP_KERNEL)?;
        self.posted = 0;
        self.is_news = false;
        self.queue = Some(queue);
        Ok(())
    }

    /// Lets go of the queue, which resets the device.
    pub(crate) fn disconnect(&mut self) {
        self.queue = None;
    }

    /// Whether there is a queue.
    pub(crate) fn is_connected(&self) -> bool {
        self.queue.is_some()
    }

    /// A message to write, if need be one that the device has to read before.
    ///
    /// # Errors
    ///
    /// Those of [`Virtqueue::wait`], and ENODEV without a queue.
    pub(crate) fn blank(&mut self, flow: &Flow) -> Result<KBox<Message>> {
        let capacity = self.queue.as_ref().map_or(0, Virtqueue::capacity);
        loop {
            if self.posted < capacity {
                if let Some(message) = self.idle.pop() {
                    return Ok(message);
                }
            }
            if self.posted == 0 {
                return Err(ENODEV);
            }
            self.kick(flow);
            // Half of them, so that as many go out under the next notification.
            let rest = self.posted / 2;
            while self.posted > rest {
                self.await_one(flow)?;
            }
        }
    }

    /// Gives a message to the device, which reads it after the next [`Self::kick`] at the latest.
    ///
    /// # Errors
    ///
    /// Those of [`Virtqueue::add`].
    pub(crate) fn post(&mut self, message: KBox<Message>, flow: &Flow) -> Result {
        let queue = self.queue.as_mut().ok_or(ENODEV)?;
        let len = message.bytes().len();
        queue.add(message).map_err(|(err, _)| err)?;
        flow.messages.inc();
        flow.bytes.add_len(len);
        self.posted = self.posted.saturating_add(1);
        self.is_news = true;
        Ok(())
    }

    /// Notifies the device of what was posted.
    pub(crate) fn kick(&mut self, flow: &Flow) {
        if let (Some(queue), true) = (&mut self.queue, self.is_news) {
            queue.kick();
            flow.notifications.inc();
        }
        self.is_news = false;
    }

    /// Waits until the device has read all that was posted.
    ///
    /// # Errors
    ///
    /// Those of [`Virtqueue::wait`].
    pub(crate) fn flush(&mut self, flow: &Flow) -> Result {
        self.kick(flow);
        while self.posted > 0 {
            self.await_one(flow)?;
        }
        Ok(())
    }

    fn await_one(&mut self, flow: &Flow) -> Result {
        let queue = self.queue.as_mut().ok_or(ENODEV)?;
        flow.waits.inc();
        let message = queue.wait()?.message()?;
        self.posted = self.posted.saturating_sub(1);
        self.idle.push_within_capacity(message).map_err(|_| EIO)
    }

    fn refill(&mut self, flags: Flags) -> Result {
        while self.idle.len() < self.stationery.count {
            let message = Message::new(self.stationery.len, flags)?;
            self.idle.push_within_capacity(message).map_err(|_| EIO)?;
        }
        Ok(())
    }
}
