// SPDX-License-Identifier: GPL-2.0

//! Tells the host which pages it is given, and which are taken back.

use crate::{
    bitmap::{
        PageBitmaps,
        PfnRange,
        WORDS_PER_BITMAP, //
    },
    bitmap_message,
    compat,
    counters::Counters,
    fault,
    message::ByteOrder,
    outbox::{
        Outbox,
        Stationery, //
    },
    pfn_array,
    virtqueue::Virtqueue, //
};
use kernel::{
    alloc::Flags,
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

/// Which way pages go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The host is given pages.
    Inflate,
    /// The host gives pages back.
    Deflate,
}

/// Pages that the host is told of at once.
pub(crate) struct Report<I> {
    ranges: I,
    span: Option<PfnRange>,
}

impl<I: Iterator<Item = PfnRange> + Clone> Report<I> {
    /// Pages may come in any order.
    pub(crate) fn new(ranges: I) -> Self {
        let span = PfnRange::of(ranges.clone());
        Self { ranges, span }
    }
}

/// Proof that pages may be used which the host held.
#[must_use]
pub(crate) struct Released(());

/// How pages are put into messages.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    /// Arrays of PFNs, as every balloon device reads them.
    PfnArrays(ByteOrder),
    /// Page bitmaps, for a device that has VIRTIO_BALLOON_F_PAGE_BITMAP.
    PageBitmaps,
}

impl Format {
    fn stationery(self) -> Stationery {
        match self {
            Self::PfnArrays(_) => pfn_array::STATIONERY,
            Self::PageBitmaps => bitmap_message::STATIONERY,
        }
    }
}

/// What it takes to tell the host about pages.
pub(crate) struct Reporter {
    format: Format,
    /// Sorts pages. PFN arrays do without where there was no memory for it.
    bitmaps: Option<KBox<PageBitmaps<KVec<u64>>>>,
    inflate: Outbox,
    deflate: Outbox,
    /// Whether pages must not be used before the device has read that they are taken back.
    must_tell_host: bool,
    failed: bool,
    counters: Arc<Counters>,
}

impl Reporter {
    /// A reporter that is not connected to its device yet.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(
        format: Format,
        must_tell_host: bool,
        counters: Arc<Counters>,
        flags: Flags,
    ) -> Result<Self> {
        let bitmaps = match (first_bitmap(flags), format) {
            (Ok(bitmaps), _) => Some(bitmaps),
            (Err(_), Format::PfnArrays(_)) => None,
            (Err(err), Format::PageBitmaps) => return Err(err),
        };
        Ok(Self {
            format,
            bitmaps,
            inflate: Outbox::new(format.stationery(), flags)?,
            deflate: Outbox::new(format.stationery(), flags)?,
            must_tell_host,
            failed: false,
            counters,
        })
    }

    /// How pages are put into messages.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// What was done.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Starts to use the queues of the device.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn connect(&mut self, inflate: Virtqueue, deflate: Virtqueue) -> Result {
        self.inflate.connect(inflate)?;
        self.deflate.connect(deflate)?;
        self.failed = false;
        Ok(())
    }

    /// Resets the device, after which it holds no pages, whatever it was told before.
    pub(crate) fn disconnect(&mut self) -> Released {
        self.inflate.disconnect();
        self.deflate.disconnect();
        Released(())
    }

    /// Whether there is a device, and it has always answered.
    pub(crate) fn is_live(&self) -> bool {
        self.inflate.is_connected() && self.deflate.is_connected() && !self.failed
    }

    /// Sends the host word of pages, without waiting until it has read it.
    ///
    /// Pages that are taken back may be used at once if this returns proof of it.
    ///
    /// # Errors
    ///
    /// ENODEV without a device that works; EIO or ETIMEDOUT if it stops working now, when it may
    /// or may not have read the message. All further calls fail until [`Self::disconnect`].
    pub(crate) fn send(
        &mut self,
        direction: Direction,
        report: &Report<impl Iterator<Item = PfnRange> + Clone>,
    ) -> Result<Option<Released>> {
        if !self.is_live() {
            return Err(ENODEV);
        }
        let sent = self.post(direction, report);
        self.failed = sent.is_err();
        sent.map(|()| {
            (direction == Direction::Deflate && !self.must_tell_host).then_some(Released(()))
        })
    }

    /// Waits until the host has read all that was sent.
    ///
    /// # Errors
    ///
    /// Those of [`Self::send`].
    pub(crate) fn flush(&mut self) -> Result<Released> {
        if !self.is_live() {
            return Err(ENODEV);
        }
        let flushed = self
            .inflate
            .flush(&self.counters.inflate)
            .and_then(|()| self.deflate.flush(&self.counters.deflate));
        self.failed = flushed.is_err();
        flushed.map(|()| Released(()))
    }

    /// [`Self::send`], and [`Self::flush`].
    ///
    /// # Errors
    ///
    /// Those of [`Self::send`].
    pub(crate) fn tell(
        &mut self,
        direction: Direction,
        report: &Report<impl Iterator<Item = PfnRange> + Clone>,
    ) -> Result<Released> {
        let _ = self.send(direction, report)?;
        self.flush()
    }

    fn post(
        &mut self,
        direction: Direction,
        report: &Report<impl Iterator<Item = PfnRange> + Clone>,
    ) -> Result {
        let (outbox, flow) = match direction {
            Direction::Inflate => {
                // Or the device might read that it gets a page before it reads that it gave the
                // page back.
                self.deflate.flush(&self.counters.deflate)?;
                (&mut self.inflate, &self.counters.inflate)
            }
            Direction::Deflate => (&mut self.deflate, &self.counters.deflate),
        };
        let Some(bitmaps) = &mut self.bitmaps else {
            let pfns = report.ranges.clone().flat_map(PfnRange::pfns);
            return match self.format {
                Format::PfnArrays(order) => pfn_array::post(outbox, pfns, order, flow),
                Format::PageBitmaps => Err(EINVAL),
            };
        };
        let mut pass = report.span.map(|span| span.min);
        while let Some(start) = pass {
            pass = bitmaps.mark(start, report.ranges.clone());
            match self.format {
                Format::PfnArrays(order) => pfn_array::post(outbox, bitmaps.pfns(), order, flow)?,
                Format::PageBitmaps => bitmap_message::post(outbox, bitmaps.words(), flow)?,
            }
        }
        Ok(())
    }

    /// How many bitmaps more could be used for a report.
    pub(crate) fn missing_bitmaps<I>(&self, report: &Report<I>) -> usize {
        let of_use = report.span.map_or(0, |span| span.bitmaps());
        let missing = |bitmaps: &KBox<PageBitmaps<_>>| of_use.saturating_sub(bitmaps.len());
        self.bitmaps.as_ref().map_or(0, missing)
    }

    /// Adds a bitmap, which must be zeroed.
    pub(crate) fn add_bitmap(&mut self, bitmap: KVec<u64>) {
        if let Some(bitmaps) = &mut self.bitmaps {
            if let Err(surplus) = bitmaps.add(bitmap) {
                drop(surplus);
            }
        }
    }

    /// Gives back the memory that only large windows need.
    pub(crate) fn shrink(&mut self) {
        if let Some(bitmaps) = &mut self.bitmaps {
            bitmaps.shrink();
        }
    }
}

fn first_bitmap(flags: Flags) -> Result<KBox<PageBitmaps<KVec<u64>>>> {
    if fault::FIRST_BITMAP {
        return Err(ENOMEM);
    }
    let bitmap = compat::zeroed(WORDS_PER_BITMAP, flags)?;
    Ok(KBox::new(PageBitmaps::new(bitmap), flags)?)
}
