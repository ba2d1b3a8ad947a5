// SPDX-License-Identifier: GPL-2.0

//! Takes the balloon towards its target, one bounded window of pages at a time.
//!
//! Inflate: allocate -> send -> (the host has read it) -> enqueue -> account.
//! Deflate: dequeue -> send -> (the host has read it, if it insists) -> free -> account.
//!
//! While the host works on a window, the next one is allocated, or dequeued.

use crate::{
    balloon::{
        Balloon,
        SIZE_WORK, //
    },
    bitmap::{
        PfnRange,
        WORDS_PER_BITMAP, //
    },
    blocks::Order,
    compat,
    cushion::{
        self,
        Cushion, //
    },
    fault, memory_info,
    pages::{
        units,
        Given,
        PageList,
        UNITS_PER_PAGE, //
    },
    param,
    reporter::{
        Direction,
        Released,
        Report, //
    },
    trace::Window,
    wakeup::Event,
    work,
};
use core::cmp::Ordering;
use kernel::{
    alloc::flags::{
        GFP_NOWAIT,
        __GFP_NOWARN, //
    },
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Msecs, //
    },
    workqueue::WorkItem, //
};

/// The most pages of the guest in a window: 96 MiB.
///
/// This bounds by how much the host's memory may rise while the balloon grows, as pages may be
/// written to when they are allocated, and how late a newer target is seen. There are two windows
/// at a time: one with the host, and one that is being allocated.
const WINDOW: usize = (96 << 20) >> PAGE_SHIFT;

/// How long to wait for the guest to have memory again.
const PUFF_MS: Msecs = 200;

/// How long to wait for the guest to have memory above its floor.
const FLOOR_MS: Msecs = 1000;

/// How long to wait for compaction to let go of pages.
const ISOLATED: Delta = Delta::from_millis(10);

/// What is left to do after a window.
enum Next {
    /// The balloon has its size.
    Done,
    /// There is more to do.
    Continue,
    /// What is left cannot be done for so long.
    Later(Msecs),
}

/// A window that the host may not have read about yet.
pub(crate) struct InFlight {
    direction: Direction,
    pages: PageList<Given>,
    wanted: usize,
}

impl WorkItem<SIZE_WORK> for Balloon {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.wakeup.begin(Event::Adjust);
        let next = match this.step() {
            Ok(Next::Continue) => return work::start::<Self, SIZE_WORK>(&this),
            next => this.settle().and(next),
        };
        this.write_actual();
        match next {
            Ok(Next::Later(ms)) => {
                work::start_later::<Self, SIZE_WORK>(&this, msecs_to_jiffies(ms))
            }
            Ok(Next::Done | Next::Continue) => {
                this.back_off.reset();
                this.shortage.end();
            }
            Err(err) => {
                let dev: &kernel::device::Device = this.dev.as_ref();
                dev_err!(dev, "the device does not answer: {err:?}\n");
            }
        }
        this.reporter.lock().shrink();
        this.wakeup.end();
    }
}

impl Balloon {
    /// Moves the balloon's size by at most one window.
    fn step(&self) -> Result<Next> {
        // Whole pages of the guest, so that the balloon does not go back and forth.
        let pages = u64::from(self.target()).div_ceil(u64::from(UNITS_PER_PAGE));
        let target = pages.saturating_mul(u64::from(UNITS_PER_PAGE));
        let held = self.held_soon();

        let (wanted, moved) = match target.cmp(&held) {
            Ordering::Greater => {
                if let Some(pause) = self.back_off.begin() {
                    return Ok(Next::Later(pause));
                }
                let wanted = window(target.saturating_sub(held));
                let allowed = above_floor();
                if allowed < wanted {
                    self.counters.floor_hits.inc();
                }
                if allowed == 0 {
                    return Ok(Next::Later(FLOOR_MS));
                }
                (wanted, self.fill(wanted.min(allowed)))
            }
            Ordering::Less => {
                let wanted = window(held.saturating_sub(target));
                (wanted, self.leak(wanted))
            }
            Ordering::Equal => return Ok(Next::Done),
        };
        self.write_actual();

        Ok(if moved? < wanted {
            Next::Later(PUFF_MS)
        } else {
            Next::Continue
        })
    }

    /// What the host will hold when it has read all that was sent, in units of 4 KiB.
    fn held_soon(&self) -> u64 {
        let held = self.held.load(Relaxed);
        match &*self.in_flight.lock() {
            None => held,
            Some(flight) => match flight.direction {
                Direction::Inflate => held.saturating_add(units(flight.pages.len())),
                Direction::Deflate => held.saturating_sub(units(flight.pages.len())),
            },
        }
    }

    /// Gives up to `wanted` pages to the host, and returns how many.
    ///
    /// # Errors
    ///
    /// Those of [`crate::reporter::Reporter::send`].
    fn fill(&self, wanted: usize) -> Result<usize> {
        if !self.shortage.is_worth_a_try() {
            return Ok(0);
        }
        let gathering = self.back_off.gather();
        let is_low = memory_info::free_pages_in_blocks(cushion::ORDER) < 2 * WINDOW;
        let cushion = is_low.then(Cushion::take);
        let pages = PageList::allocate(wanted, whole_blocks(), || !self.back_off.is_due());
        drop(cushion);
        if self.back_off.is_due() {
            // The guest needs them more.
            let called_off = pages.len();
            drop(pages);
            self.back_off.call_off(called_off);
            self.counters.out_of_puff.inc();
            return Ok(0);
        }

        let got = pages.len();
        if got < wanted {
            self.counters.out_of_puff.inc();
            if self.shortage.begin() {
                self.dev.out_of_puff(wanted.saturating_sub(got));
            }
        } else {
            self.shortage.end();
        }
        let report = Report::new(pages.ranges());
        self.extend_bitmaps(&report);

        self.settle()?;
        let mut in_flight = self.in_flight.lock();
        let sent = self.reporter.lock().send(Direction::Inflate, &report);
        // Also when the host does not answer: what it may have read counts as given.
        *in_flight = Some(InFlight {
            direction: Direction::Inflate,
            pages: pages.given(),
            wanted,
        });
        drop(in_flight);
        drop(gathering);
        sent.map(|_| got)
    }

    /// Takes up to `wanted` pages back from the host, and returns how many.
    ///
    /// # Errors
    ///
    /// Those of [`crate::reporter::Reporter::send`]. The pages stay in the balloon then.
    fn leak(&self, wanted: usize) -> Result<usize> {
        if self.is_inflating() {
            self.settle()?;
        }
        let pages = self.pages.dequeue(wanted);
        let got = pages.len();
        let report = Report::new(pages.ranges());
        self.extend_bitmaps(&report);

        let sent = self.settle().and_then(|()| {
            let mut reporter = self.reporter.lock();
            reporter.send(Direction::Deflate, &report)
        });
        match sent {
            Ok(Some(released)) => self.take_back(pages, wanted, released),
            Ok(None) => {
                *self.in_flight.lock() = Some(InFlight {
                    direction: Direction::Deflate,
                    pages,
                    wanted,
                });
            }
            Err(err) => {
                self.pages.enqueue(pages);
                return Err(err);
            }
        }
        Ok(got)
    }

    fn is_inflating(&self) -> bool {
        let flight = self.in_flight.lock();
        flight
            .as_ref()
            .is_some_and(|flight| flight.direction == Direction::Inflate)
    }

    /// Waits until the host has read all that was sent, and closes the account of it.
    ///
    /// # Errors
    ///
    /// Those of [`crate::reporter::Reporter::flush`].
    fn settle(&self) -> Result {
        let (flight, flushed) = {
            let mut in_flight = self.in_flight.lock();
            let flushed = self.reporter.lock().flush();
            (in_flight.take(), flushed)
        };
        let Some(InFlight {
            direction,
            pages,
            wanted,
        }) = flight
        else {
            return flushed.map(drop);
        };
        match (direction, flushed) {
            (Direction::Inflate, flushed) => {
                self.counters.inflate.count(&pages);
                let moved = pages.len();
                self.pages.enqueue(pages);
                self.held.add(units(moved), Relaxed);
                self.window(wanted, moved).inflate();
                flushed.map(drop)
            }
            (Direction::Deflate, Ok(released)) => {
                self.take_back(pages, wanted, released);
                Ok(())
            }
            (Direction::Deflate, Err(err)) => {
                self.pages.enqueue(pages);
                Err(err)
            }
        }
    }

    /// Frees pages that the host held.
    fn take_back(&self, pages: PageList<Given>, wanted: usize, released: Released) {
        self.counters.deflate.count(&pages);
        let moved = pages.len();
        drop(pages.returned(released));
        self.held.fetch_sub(units(moved), Relaxed);
        self.window(wanted, moved).deflate();
    }

    /// Gives some `wanted` pages to a guest that has run out of memory, and returns how many.
    ///
    /// This allocates nothing, and the locks that it takes are never held across an allocation.
    pub(crate) fn relieve(&self, wanted: usize) -> usize {
        let called_off = self.back_off.called_off();
        self.back_off.ran_out();
        let mut freed = self.hand_back(self.pages.dequeue_whole(wanted), wanted);
        if freed == 0 && wanted > 0 {
            // All there is may be on its way into the balloon.
            self.back_off.await_gathered();
            freed = self.back_off.called_off().wrapping_sub(called_off);
        }
        if freed == 0 && wanted > 0 && self.settle().is_ok() {
            freed = self.hand_back(self.pages.dequeue_whole(wanted), wanted);
        }
        self.counters.oom_calls.inc();
        self.counters.oom_pages.add_len(freed);
        self.window(wanted, freed).oom();
        freed
    }

    /// Has no blocks in these pages of the guest any more. Returns whether there were some.
    ///
    /// Those that the host has not read about yet stay.
    pub(crate) fn vacate(&self, range: PfnRange) -> bool {
        let pages = self.pages.dequeue_blocks_in(range);
        let wanted = pages.len();
        self.hand_back(pages, wanted) > 0
    }

    /// Frees pages on behalf of somebody else than the size worker, and returns how many.
    fn hand_back(&self, pages: PageList<Given>, wanted: usize) -> usize {
        let moved = pages.len();
        if moved == 0 {
            return 0;
        }
        let freed = match self.told_taken_back(&pages) {
            Ok(released) => {
                self.take_back(pages, wanted, released);
                moved
            }
            Err(_) => {
                self.pages.enqueue(pages);
                0
            }
        };
        self.write_actual();
        freed
    }

    fn told_taken_back(&self, pages: &PageList<Given>) -> Result<Released> {
        let mut reporter = self.reporter.lock();
        match reporter.send(Direction::Deflate, &Report::new(pages.ranges()))? {
            Some(released) => Ok(released),
            None => reporter.flush(),
        }
    }

    fn window(&self, wanted: usize, moved: usize) -> Window {
        Window {
            wanted,
            moved,
            held: self.held.load(Relaxed),
        }
    }

    /// Empties the balloon, whatever its target is, and resets the device.
    ///
    /// The size worker must be stopped.
    pub(crate) fn give_up(&self) {
        // A device that fails here holds nothing once it is reset below.
        let mut answered = self.settle();
        while answered.is_ok() && self.held.load(Relaxed) > 0 {
            answered = match self.leak(WINDOW) {
                // All that is left is isolated by compaction, which does not keep it for long.
                Ok(0) => {
                    fsleep(ISOLATED);
                    Ok(())
                }
                moved => moved.and_then(|_| self.settle()),
            };
        }
        self.write_actual();

        let reset = self.reporter.lock().disconnect();
        let mut rest = PageList::<Given>::new();
        loop {
            rest.append(self.pages.dequeue(usize::MAX));
            if units(rest.len()) >= self.held.load(Relaxed) {
                break;
            }
            fsleep(ISOLATED);
        }
        self.held.store(0, Relaxed);
        drop(rest.returned(reset));
    }

    /// Gets the bitmaps that cover these pages at once. With fewer, there are more passes.
    fn extend_bitmaps<I>(&self, report: &Report<I>) {
        let missing = self.reporter.lock().missing_bitmaps(report);
        for _ in 0..missing {
            if fault::MORE_BITMAPS {
                break;
            }
            // Without reclaim: the balloon must not take this from anybody either.
            match compat::zeroed(WORDS_PER_BITMAP, GFP_NOWAIT | __GFP_NOWARN) {
                Ok(bitmap) => self.reporter.lock().add_bitmap(bitmap),
                Err(_) => break,
            }
        }
    }
}

/// The pages of the guest that a difference of sizes comes to, as far as a window goes.
fn window(units: u64) -> usize {
    let pages = units / u64::from(UNITS_PER_PAGE);
    usize::try_from(pages).map_or(WINDOW, |pages| pages.min(WINDOW))
}

/// The pages that may be taken without going below the floor, if there is one.
fn above_floor() -> usize {
    match param::floor_pages() {
        0 => usize::MAX,
        floor => memory_info::available_pages().saturating_sub(floor),
    }
}

/// The orders of the blocks that the balloon holds as a whole.
///
/// By default these are such as do not leave the guest with holes: whoever wants contiguous memory
/// moves single pages away to get it, and blocks cannot be moved. They come from memory that the
/// kernel itself can have, and single pages, at first, from what only programs can have.
fn whole_blocks() -> impl Iterator<Item = Order> {
    let largest = if memory_info::is_kernel_short(WINDOW) {
        Order::PAGE
    } else {
        param::block_order()
    };
    largest
        .downwards()
        .take_while(|order| *order != Order::PAGE)
        .filter(move |order| *order == largest || *order >= Order::pageblock())
}
