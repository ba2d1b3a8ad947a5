// SPDX-License-Identifier: GPL-2.0

//! How long the balloon does not grow after the guest ran out of memory.
//!
//! The first time it is 5 s, and twice as long each time that it happens again before the balloon
//! has reached its target, up to 80 s.

use kernel::{
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed,
        Release, //
    },
    time::{
        delay::fsleep,
        Delta,
        Msecs, //
    },
};

const SHORTEST_MS: Msecs = 5_000;
const LONGEST_MS: Msecs = 80_000;

/// How often, and how long at a time, the OOM notifier waits for the size worker.
const LOOKS: usize = 1000;
const LOOK: Delta = Delta::from_millis(1);

/// What the OOM notifier and the size worker know of each other.
pub(crate) struct BackOff {
    /// The guest ran out of memory, and the size worker does not know yet.
    news: Atomic<bool>,
    /// The size worker has pages of its own, which are neither free nor in the balloon.
    gathering: Atomic<bool>,
    /// How many of them it let go because the guest ran out of memory, ever.
    called_off: Atomic<usize>,
    /// The last pause, or 0. Of the size worker alone.
    pause_ms: Atomic<u32>,
}

/// As long as this lives, the size worker has pages of its own.
pub(crate) struct Gathering<'a>(&'a BackOff);

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.0.gathering.store(false, Release);
    }
}

impl BackOff {
    /// The guest has not run out of memory.
    pub(crate) const fn new() -> Self {
        Self {
            news: Atomic::new(false),
            gathering: Atomic::new(false),
            called_off: Atomic::new(0),
            pause_ms: Atomic::new(0),
        }
    }

    /// The guest has run out of memory.
    pub(crate) fn ran_out(&self) {
        self.news.store(true, Relaxed);
    }

    /// Whether there is a pause to be made. Asked for each page that is allocated.
    pub(crate) fn is_due(&self) -> bool {
        self.news.load(Relaxed)
    }

    /// The size worker begins to allocate.
    pub(crate) fn gather(&self) -> Gathering<'_> {
        self.gathering.store(true, Relaxed);
        Gathering(self)
    }

    /// The size worker has let go of pages because the guest ran out of memory.
    pub(crate) fn call_off(&self, pages: usize) {
        let before = self.called_off.load(Relaxed);
        // The size worker alone counts here.
        self.called_off.store(before.wrapping_add(pages), Relaxed);
    }

    /// How many pages the size worker has let go, ever.
    pub(crate) fn called_off(&self) -> usize {
        self.called_off.load(Relaxed)
    }

    /// Waits until the size worker has no pages of its own: it gives them to the host, or lets them
    /// go as soon as it sees that the guest ran out of memory. If it does not, it is not waited for.
    pub(crate) fn await_gathered(&self) {
        for _ in 0..LOOKS {
            if !self.gathering.load(Acquire) {
                break;
            }
            fsleep(LOOK);
        }
    }

    /// How long the pause is that begins now, if there is one to be made.
    pub(crate) fn begin(&self) -> Option<Msecs> {
        if !self.news.xchg(false, Full) {
            return None;
        }
        let last = self.pause_ms.load(Relaxed);
        let pause = last.saturating_mul(2).clamp(SHORTEST_MS, LONGEST_MS);
        self.pause_ms.store(pause, Relaxed);
        Some(pause)
    }

    /// The balloon has reached its target.
    pub(crate) fn reset(&self) {
        self.pause_ms.store(0, Relaxed);
    }
}
