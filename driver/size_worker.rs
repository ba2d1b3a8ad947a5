// SPDX-License-Identifier: GPL-2.0

//! Takes the balloon towards its target, one bounded window of pages at a time.
//!
//! Inflate: allocate -> tell -> (acknowledged) -> enqueue -> account.
//! Deflate: dequeue -> tell -> (acknowledged) -> free -> account.

use crate::{
    balloon::{
        Balloon,
        SIZE_WORK, //
    },
    bitmap::{
        PfnRange,
        WORDS_PER_BITMAP, //
    },
    compat,
    cushion::Cushion,
    fault, memory_info,
    pages::{
        Allocated,
        PageList,
        UNITS_PER_PAGE, //
    },
    param,
    reporter::Direction,
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

/// The most pages of the guest in a window: 64 MiB with pages of 4 KiB.
///
/// This bounds by how much the host's memory may rise while the balloon grows, as pages may be
/// written to when they are allocated, and how late a newer target is seen.
const WINDOW: usize = 16384;

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

impl WorkItem<SIZE_WORK> for Balloon {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.wakeup.begin(Event::Adjust);
        match this.step() {
            Ok(Next::Continue) => return work::start::<Self, SIZE_WORK>(&this),
            Ok(Next::Later(ms)) => {
                work::start_later::<Self, SIZE_WORK>(&this, msecs_to_jiffies(ms))
            }
            Ok(Next::Done) => {
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
        let held = self.held.load(Relaxed);

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
        } else if self.held.load(Relaxed) == target {
            Next::Done
        } else {
            Next::Continue
        })
    }

    /// Gives up to `wanted` pages to the host, and returns how many.
    ///
    /// # Errors
    ///
    /// Those of [`crate::reporter::Reporter::tell`].
    fn fill(&self, wanted: usize) -> Result<usize> {
        if !self.shortage.is_worth_a_try() {
            return Ok(0);
        }
        let cushion = Cushion::take();
        let pages = PageList::allocate(wanted, || !self.back_off.is_due());
        drop(cushion);
        if self.back_off.is_due() {
            // The guest needs them more.
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
        if got == 0 {
            return Ok(0);
        }
        self.extend_bitmaps(&pages);

        let told = self.reporter.lock().tell(Direction::Inflate, pages.pfns());
        // Also when the host did not answer: what it may have read counts as given.
        self.pages.enqueue(pages.given());
        self.held.add(units(got), Relaxed);
        self.counters.inflate.pages.add_len(got);
        self.window(wanted, got).inflate();
        told.map(|_| got)
    }

    /// Takes up to `wanted` pages back from the host, and returns how many.
    ///
    /// # Errors
    ///
    /// Those of [`crate::reporter::Reporter::tell`]. The pages stay in the balloon then.
    fn leak(&self, wanted: usize) -> Result<usize> {
        let pages = self.pages.dequeue(wanted);
        let got = pages.len();
        if got == 0 {
            return Ok(0);
        }
        let told = self.reporter.lock().tell(Direction::Deflate, pages.pfns());
        match told {
            Ok(ack) => {
                drop(pages.returned(ack));
                self.held.fetch_sub(units(got), Relaxed);
                self.counters.deflate.pages.add_len(got);
                self.window(wanted, got).deflate();
                Ok(got)
            }
            Err(err) => {
                self.pages.enqueue(pages);
                Err(err)
            }
        }
    }

    /// Gives up to `wanted` pages to a guest that has run out of memory, and returns how many.
    ///
    /// This allocates nothing, and the reporter's lock is never held across an allocation.
    pub(crate) fn relieve(&self, wanted: usize) -> usize {
        self.back_off.ran_out();
        let freed = self.leak(wanted).unwrap_or(0);
        self.write_actual();
        self.counters.oom_calls.inc();
        self.counters.oom_pages.add_len(freed);
        self.window(wanted, freed).oom();
        freed
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
        while self.held.load(Relaxed) > 0 {
            match self.leak(WINDOW) {
                // All that is left is isolated by compaction, which does not keep it for long.
                Ok(0) => fsleep(ISOLATED),
                Ok(_) => {}
                // It is reset below: it holds nothing then.
                Err(_) => break,
            }
        }
        self.write_actual();

        let reset = self.reporter.lock().disconnect();
        let mut rest = PageList::new();
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
    fn extend_bitmaps(&self, pages: &PageList<Allocated>) {
        let Some(range) = PfnRange::of(pages.pfns()) else {
            return;
        };
        let missing = self.reporter.lock().missing_bitmaps(range);
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

/// Pages of the guest, in units of 4 KiB.
fn units(pages: usize) -> u64 {
    // CAST: `usize` has at most 64 bits.
    (pages as u64).saturating_mul(u64::from(UNITS_PER_PAGE))
}
