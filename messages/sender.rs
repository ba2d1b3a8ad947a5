// SPDX-License-Identifier: GPL-2.0-only

//! Tells the host which pages it is given, and which are taken back.

use crate::{
    abstractions::{
        page_block::KeptPage,
        page_list::PageList,
        transport::{
            Patience,
            Reset,
            Transport, //
        },
    },
    bitmap::{
        PageBitmaps,
        PfnRange,
        Rest,
        WORDS_PER_BITMAP, //
    },
    messages::{
        byte_order::ByteOrder,
        counters::{
            Counters,
            QueueCounters, //
        },
        fault,
        host::{
            Direction,
            Host,
            Idle, //
        },
        message_queue::{
            BufferSpec,
            Buffers,
            MessageQueue,
            MessageVirtqueue, //
        },
        page_bitmap,
        pages::Released,
        pfn_array,
        pfns::{
            ranges,
            units, //
        },
    },
};
use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    alloc::{
        flags::{
            GFP_NOWAIT,
            __GFP_NOWARN, //
        },
        Flags,
    },
    prelude::*,
    sync::Arc, //
};

/// How pages are put into messages.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    /// Arrays of PFNs, as every balloon device reads them.
    PfnArrays(ByteOrder),
    /// Page bitmaps, for a device that has VIRTIO_BALLOON_F_PAGE_BITMAP.
    PageBitmaps,
}

impl Format {
    fn buffers(self) -> BufferSpec {
        match self {
            Self::PfnArrays(_) => pfn_array::BUFFERS,
            Self::PageBitmaps => page_bitmap::BUFFERS,
        }
    }

    /// The highest PFN, in units of 4 KiB, that can be sent.
    pub(crate) fn max_pfn(self) -> u64 {
        match self {
            Self::PfnArrays(_) => pfn_array::MAX_PFN,
            Self::PageBitmaps => u64::MAX,
        }
    }
}

/// A bitmap. That there may be many is why each is on its own, and their table no larger than it is.
struct Bitmap(KBox<[u64; WORDS_PER_BITMAP]>);

impl Bitmap {
    /// No bit is set.
    fn new(flags: Flags) -> Result<Self> {
        Ok(Self(KBox::init(pin_init::init_zeroed(), flags)?))
    }
}

impl Deref for Bitmap {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &*self.0
    }
}

impl DerefMut for Bitmap {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut *self.0
    }
}

type Bitmaps = PageBitmaps<Bitmap>;

/// What it takes to tell the host about pages.
pub(crate) struct Sender {
    format: Format,
    /// Sorts pages. PFN arrays do without where there was no memory for it.
    bitmaps: Option<KBox<Bitmaps>>,
    inflate: MessageQueue,
    deflate: MessageQueue,
    transport: Transport,
    /// Whether pages must not be used before the device has read that they are taken back.
    must_tell_host: bool,
    /// Whether the device may not know what it was told: then it is told no more until it is reset.
    failed: bool,
    /// A page from which compaction has moved, while the device may not know that it was taken back.
    kept: Option<KeptPage>,
    counters: Arc<Counters>,
}

impl Sender {
    /// A sender without queues yet. What it needs is allocated here.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[inline(never)]
    pub(crate) fn new(
        format: Format,
        must_tell_host: bool,
        transport: Transport,
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
            inflate: MessageQueue::new(format.buffers(), flags)?,
            deflate: MessageQueue::new(format.buffers(), flags)?,
            transport,
            must_tell_host,
            failed: false,
            kept: None,
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

    /// The kind of buffers of the queues, and how many each of them lacks.
    pub(crate) fn missing_buffers(&self) -> (BufferSpec, [usize; 2]) {
        (
            self.inflate.spec(),
            [self.inflate.missing(), self.deflate.missing()],
        )
    }

    /// Starts to use the queues of the device, with buffers for those that are missing. Returns what is
    /// too much, for the caller to free.
    pub(crate) fn connect(
        &mut self,
        queues: [MessageVirtqueue; 2],
        spare: [Buffers; 2],
    ) -> [Buffers; 2] {
        let [inflate, deflate] = queues;
        let [for_inflate, for_deflate] = spare;
        self.failed = false;
        [
            self.inflate.connect(inflate, for_inflate),
            self.deflate.connect(deflate, for_deflate),
        ]
    }

    /// Lets go of the queues of a device that was reset: it holds no pages.
    pub(crate) fn disconnect(&mut self, _: Reset) -> Released {
        self.inflate.disconnect();
        self.deflate.disconnect();
        self.kept = None;
        Released::new()
    }

    /// Tells the host of a single page, if there is a buffer for that.
    ///
    /// # Errors
    ///
    /// Where it was not told.
    pub(crate) fn send_page(&mut self, direction: Direction, page: PfnRange) -> Result {
        if !self.is_ready(direction) {
            return Err(ENODEV);
        }
        let patience = Patience::for_ms(0);
        let sent = self.post_span(direction, page, core::iter::once(page), patience);
        self.note(sent, patience)
    }

    /// Keeps a page allocated until the device has read all that it was told, or is reset.
    pub(crate) fn keep(&mut self, page: KeptPage) {
        self.kept = Some(page);
    }

    /// Whether a page is kept.
    pub(crate) fn keeps_page(&self) -> bool {
        self.kept.is_some()
    }

    /// Calls [`Host::poll`] until the device has used all that was posted.
    ///
    /// # Errors
    ///
    /// Those of [`Host::poll`], and ETIMEDOUT.
    pub(crate) fn flush(&mut self, patience: Patience) -> Result {
        let transport = self.transport.clone();
        transport.wait(patience, || {
            let idle = self.poll()?;
            Ok((idle.inflate && idle.deflate).then_some(()))
        })
    }

    /// A device that breaks, or that the driver does not wait for any more, fails. One for which only
    /// this caller does not wait any more does not.
    fn note(&mut self, result: Result, patience: Patience) -> Result {
        match (&result, patience) {
            (Ok(()), _) => {}
            (Err(err), Patience::Limited(..)) if *err == ETIMEDOUT => {}
            (Err(_), _) => self.failed = true,
        }
        result
    }

    /// Posts pages that ascend, for the most part, and that bitmaps do not cover at once.
    fn post_in_order(
        &mut self,
        direction: Direction,
        ranges: impl Iterator<Item = PfnRange>,
        patience: Patience,
    ) -> Result {
        let mut bitmaps = self.bitmaps.take().ok_or(EINVAL)?;
        let mut rest = Rest::new(ranges);
        let mut posted = Ok(());
        while posted.is_ok() && bitmaps.fill(&mut rest) {
            posted = self.post_marked(direction, &bitmaps, patience);
        }
        self.bitmaps = Some(bitmaps);
        posted
    }

    /// Posts pages that bitmaps cover at once, or that are not put in order.
    fn post_span(
        &mut self,
        direction: Direction,
        span: PfnRange,
        ranges: impl Iterator<Item = PfnRange>,
        patience: Patience,
    ) -> Result {
        match (self.bitmaps.take(), self.format) {
            (Some(mut bitmaps), _) => {
                bitmaps.mark(span, ranges);
                let posted = self.post_marked(direction, &bitmaps, patience);
                self.bitmaps = Some(bitmaps);
                posted
            }
            (None, Format::PfnArrays(order)) => {
                self.post_pfns(direction, ranges.flat_map(PfnRange::pfns), order, patience)
            }
            (None, Format::PageBitmaps) => Err(EINVAL),
        }
    }

    fn post_marked(
        &mut self,
        direction: Direction,
        bitmaps: &Bitmaps,
        patience: Patience,
    ) -> Result {
        match self.format {
            Format::PfnArrays(order) => self.post_pfns(direction, bitmaps.pfns(), order, patience),
            Format::PageBitmaps => self.post_words(direction, bitmaps.words(), patience),
        }
    }

    fn post_pfns(
        &mut self,
        direction: Direction,
        pfns: impl Iterator<Item = u64>,
        order: ByteOrder,
        patience: Patience,
    ) -> Result {
        let (queue, counters, transport) = self.queue(direction);
        let mut pfns = pfns.peekable();
        while pfns.peek().is_some() {
            let mut message = queue.empty_buffer(transport, patience, counters)?;
            pfn_array::write(&mut message, &mut pfns, order)?;
            queue.post(message, counters)?;
        }
        queue.kick(counters);
        Ok(())
    }

    fn post_words(
        &mut self,
        direction: Direction,
        words: impl Iterator<Item = (u64, u64)>,
        patience: Patience,
    ) -> Result {
        let (queue, counters, transport) = self.queue(direction);
        let mut words = words.peekable();
        while words.peek().is_some() {
            let mut message = queue.empty_buffer(transport, patience, counters)?;
            page_bitmap::write(&mut message, &mut words, counters)?;
            queue.post(message, counters)?;
            queue.kick(counters);
        }
        Ok(())
    }

    fn queue(&mut self, direction: Direction) -> (&mut MessageQueue, &QueueCounters, &Transport) {
        match direction {
            Direction::Inflate => (&mut self.inflate, &self.counters.inflate, &self.transport),
            Direction::Deflate => (&mut self.deflate, &self.counters.deflate, &self.transport),
        }
    }

    /// Gets the bitmaps that cover these pages at once. With fewer, pages are put in order.
    fn extend_bitmaps(&mut self, span: PfnRange) {
        let Some(bitmaps) = &mut self.bitmaps else {
            return;
        };
        for _ in bitmaps.len()..span.bitmaps() {
            if fault::MORE_BITMAPS {
                break;
            }
            // Without reclaim, which might wait for who waits for us.
            let bitmap = Bitmap::new(GFP_NOWAIT | __GFP_NOWARN);
            let Some(Ok(())) = bitmap.ok().map(|bitmap| bitmaps.add(bitmap)) else {
                break;
            };
        }
    }

    /// Gives back the memory that only large windows need.
    pub(crate) fn shrink(&mut self) {
        if let Some(bitmaps) = &mut self.bitmaps {
            bitmaps.shrink();
        }
    }
}

impl Host for Sender {
    type List = PageList;
    type Patience = Patience;
    type Error = Error;

    fn is_live(&self) -> bool {
        self.inflate.is_connected() && self.deflate.is_connected() && !self.failed
    }

    fn is_ready(&self, direction: Direction) -> bool {
        self.is_live() && (direction == Direction::Deflate || self.deflate.is_idle())
    }

    fn fail(&mut self) {
        self.failed = true;
    }

    fn released(&self) -> Option<Released> {
        (!self.must_tell_host || self.deflate.is_idle()).then(Released::new)
    }

    fn send(&mut self, direction: Direction, pages: &mut PageList, patience: Patience) -> Result {
        if !self.is_ready(direction) {
            return Err(ENODEV);
        }
        let span = PfnRange::of(ranges(pages)).ok_or(EINVAL)?;
        self.extend_bitmaps(span);
        let sent = match &self.bitmaps {
            Some(bitmaps) if !bitmaps.cover(span) => {
                pages.sort();
                self.post_in_order(direction, ranges(pages), patience)
            }
            _ => self.post_span(direction, span, ranges(pages), patience),
        };
        self.note(sent, patience)?;
        match direction {
            Direction::Inflate => self.counters.inflate.count(pages),
            Direction::Deflate => self.counters.deflate.count(pages),
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Idle> {
        if !self.is_live() {
            return Err(ENODEV);
        }
        let polled = self
            .inflate
            .collect(&self.counters.inflate)
            .and_then(|()| self.deflate.collect(&self.counters.deflate));
        self.note(polled, Patience::Device)?;
        let idle = Idle {
            inflate: self.inflate.is_idle(),
            deflate: self.deflate.is_idle(),
        };
        if idle.deflate {
            self.kept = None;
        }
        Ok(idle)
    }
}

/// The PFNs of a single page of the guest, in units of 4 KiB.
pub(crate) fn page_range(pfn: usize) -> PfnRange {
    PfnRange::block(units(pfn), units(1))
}

fn first_bitmap(flags: Flags) -> Result<KBox<Bitmaps>> {
    if fault::FIRST_BITMAP {
        return Err(ENOMEM);
    }
    Ok(KBox::new(PageBitmaps::new(Bitmap::new(flags)?), flags)?)
}
