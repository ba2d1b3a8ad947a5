// SPDX-License-Identifier: GPL-2.0-only

//! Free page reporting: the host may have pages that are free until the kernel uses them again.
//!
//! VIRTIO 1.3, 5.5.6.7.

use crate::abstractions::{
    buffer::Buffer,
    page_reporting::Report,
    transport::{
        Patience,
        Transport, //
    },
    virtqueue::{
        LentPages,
        RawQueue,
        Virtqueue, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// The queue on which free pages are reported.
#[pin_data]
pub(crate) struct Reporting {
    transport: Transport,
    #[pin]
    queue: Mutex<Option<Virtqueue<KBox<Buffer>>>>,
}

impl Reporting {
    /// No queue yet.
    pub(crate) fn new(transport: Transport) -> impl PinInit<Self> {
        pin_init!(Self {
            transport,
            queue <- new_mutex!(None),
        })
    }

    /// Takes the queue to report on.
    pub(crate) fn connect(&self, queue: RawQueue) {
        *self.queue.lock() = Some(queue.of());
    }

    /// Lets go of the queue.
    pub(crate) fn disconnect(&self) {
        *self.queue.lock() = None;
    }

    /// How many ranges can be reported at a time, if there is a queue.
    pub(crate) fn capacity(&self) -> Option<usize> {
        self.queue.lock().as_ref().map(Virtqueue::size)
    }
}

impl Report for Reporting {
    fn report(&self, pages: LentPages<'_>) -> Result {
        match &mut *self.queue.lock() {
            Some(queue) => self.transport.lend(queue, pages, Patience::Device),
            None => Err(ENODEV),
        }
    }
}
