// SPDX-License-Identifier: GPL-2.0-only

//! What the OOM notifier and those who move pages know of each other.

use crate::abstractions::wait::Moment;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        SpinLock, //
    },
    time::Msecs, //
};

/// Whether memory has run out, and what becomes of pages that stand in no book.
#[pin_data]
pub(crate) struct OomState {
    /// Memory has run out, and the size worker has not paused for it yet.
    pending: Atomic<bool>,
    /// How many lists of pages are neither free nor in the balloon: about to be one of the two.
    in_hand: Atomic<usize>,
    /// How many pages were freed, ever, for whatever reason.
    freed: Atomic<usize>,
    /// Since when the balloon does not grow, and for how long.
    #[pin]
    pause: SpinLock<Option<(Moment, Msecs)>>,
}

/// Pages are in somebody's hand as long as this lives.
pub(crate) struct AllocationGuard<'a>(&'a OomState);

impl Drop for AllocationGuard<'_> {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1usize, Release);
    }
}

impl OomState {
    /// Memory has not run out.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            pending: Atomic::new(false),
            in_hand: Atomic::new(0),
            freed: Atomic::new(0),
            pause <- new_spinlock!(None),
        })
    }

    /// Memory has run out.
    pub(crate) fn raise(&self) {
        self.pending.store(true, Release);
    }

    /// Whether memory has run out. Asked for each block that is allocated.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Relaxed)
    }

    /// Whether memory has run out since this was asked.
    pub(crate) fn take_pending(&self) -> bool {
        self.is_pending() && self.pending.xchg(false, Full)
    }

    /// The balloon does not grow for so long.
    pub(crate) fn pause(&self, ms: Msecs) {
        *self.pause.lock() = Some((Moment::now(), ms));
    }

    /// How long that goes on, if it does.
    pub(crate) fn pause_left_ms(&self) -> Option<Msecs> {
        let pause = *self.pause.lock();
        let (start, ms) = pause?;
        ms.checked_sub(start.elapsed_ms()).filter(|left| *left > 0)
    }

    /// Somebody is about to have pages in hand.
    pub(crate) fn hold(&self) -> AllocationGuard<'_> {
        self.in_hand.fetch_add(1usize, Acquire);
        AllocationGuard(self)
    }

    /// Whether somebody has.
    pub(crate) fn is_held(&self) -> bool {
        self.in_hand.load(Acquire) > 0
    }

    /// So many pages were freed.
    pub(crate) fn add_freed(&self, pages: usize) {
        self.freed.add(pages, Relaxed);
    }

    /// How many pages were freed, ever.
    pub(crate) fn freed(&self) -> usize {
        self.freed.load(Relaxed)
    }
}
