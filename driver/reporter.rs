// SPDX-License-Identifier: GPL-2.0

//! Tells the host which pages it is given, and which are taken back.

use crate::{
    bitmap::PfnRange,
    bitmap_message::BitmapMessages,
    counters::Counters,
    pfn_array::PfnArrays,
    virtqueue::Virtqueue, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The reporter of a device.
///
/// The lock is held while the device is waited for, but never across an allocation.
pub(crate) type SharedReporter = Mutex<Reporter>;

/// The inflate and the deflate queue.
pub(crate) type Queues = [Virtqueue; 2];

/// Which way pages go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The host is given pages.
    Inflate,
    /// The host gives pages back.
    Deflate,
}

/// Proof that the host holds what it was told, and nothing else.
#[must_use]
pub(crate) struct Acknowledged(());

/// How pages are put into messages.
pub(crate) enum Encoding {
    /// Arrays of PFNs, as every balloon device reads them.
    Pfns(PfnArrays),
    /// Page bitmaps, for a device that has VIRTIO_BALLOON_F_PAGE_BITMAP.
    Bitmaps(KBox<BitmapMessages>),
}

/// What it takes to tell the host about pages.
pub(crate) struct Reporter {
    encoding: Encoding,
    queues: Option<Queues>,
    failed: bool,
    counters: Arc<Counters>,
}

impl Reporter {
    /// A reporter that is not connected to its device yet.
    pub(crate) fn new(encoding: Encoding, counters: Arc<Counters>) -> Self {
        Self {
            encoding,
            queues: None,
            failed: false,
            counters,
        }
    }

    /// How pages are put into messages.
    pub(crate) fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// What was done.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Starts to use the queues of the device.
    pub(crate) fn connect(&mut self, queues: Queues) {
        self.queues = Some(queues);
        self.failed = false;
    }

    /// Resets the device, after which it holds no pages, whatever it was told before.
    pub(crate) fn disconnect(&mut self) -> Acknowledged {
        self.queues = None;
        Acknowledged(())
    }

    /// Whether there is a device, and it has always answered.
    pub(crate) fn is_live(&self) -> bool {
        self.queues.is_some() && !self.failed
    }

    /// Tells the host about the pages at `pfns`, in units of 4 KiB, and waits until it has read
    /// the message.
    ///
    /// # Errors
    ///
    /// ENODEV without a device that works; EIO or ETIMEDOUT if it stops working now, when it may
    /// or may not have read the message. All further calls fail until [`Self::disconnect`].
    pub(crate) fn tell(
        &mut self,
        direction: Direction,
        pfns: impl Iterator<Item = u64> + Clone,
    ) -> Result<Acknowledged> {
        if self.failed {
            return Err(ENODEV);
        }
        let [inflate, deflate] = self.queues.as_mut().ok_or(ENODEV)?;
        let (queue, flow) = match direction {
            Direction::Inflate => (inflate, &self.counters.inflate),
            Direction::Deflate => (deflate, &self.counters.deflate),
        };
        let told = match &mut self.encoding {
            Encoding::Pfns(arrays) => arrays.tell(queue, pfns, flow),
            Encoding::Bitmaps(messages) => messages.tell(queue, pfns, flow),
        };
        self.failed = told.is_err();
        told.map(|()| Acknowledged(()))
    }

    /// How many bitmaps more could be used for pages of a range.
    pub(crate) fn missing_bitmaps(&self, range: PfnRange) -> usize {
        match &self.encoding {
            Encoding::Pfns(_) => 0,
            Encoding::Bitmaps(messages) => messages.missing(range),
        }
    }

    /// Adds a bitmap, which must be zeroed.
    pub(crate) fn add_bitmap(&mut self, bitmap: KVec<u64>) {
        if let Encoding::Bitmaps(messages) = &mut self.encoding {
            messages.add(bitmap);
        }
    }

    /// Gives back the memory that only large windows need.
    pub(crate) fn shrink(&mut self) {
        if let Encoding::Bitmaps(messages) = &mut self.encoding {
            messages.shrink();
        }
    }
}
