// SPDX-License-Identifier: GPL-2.0

//! How long the balloon does not grow after the guest ran out of memory.
//!
//! The first time it is 5 s, and twice as long each time that it happens again before the balloon
//! has reached its target, up to 80 s.

use kernel::{
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    time::Msecs, //
};

const SHORTEST_MS: Msecs = 5_000;
const LONGEST_MS: Msecs = 80_000;

/// What the OOM notifier and the size worker know of each other.
pub(crate) struct BackOff {
    /// The guest ran out of memory, and the size worker does not know yet.
    news: Atomic<bool>,
    /// The last pause, or 0. Of the size worker alone.
    pause_ms: Atomic<u32>,
}

impl BackOff {
    /// The guest has not run out of memory.
    pub(crate) const fn new() -> Self {
        Self {
            news: Atomic::new(false),
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
