// SPDX-License-Identifier: GPL-2.0-only

//! When the balloon may grow.
//!
//! After the guest ran out of memory the balloon does not grow for 5 s, and for twice as long each time
//! that it happens again before the balloon has reached its target, up to 80 s.
//!
//! To take the last page is to look for it by reclaim, for as long as that takes. So while the guest has
//! too few pages they are only tried for when there seem to be some, or else seldom: what reclaim can
//! find does not show in any count.

use crate::{
    abstractions::memory_info,
    balloon::reserve, //
};
use kernel::time::Msecs;

const SHORTEST_PAUSE_MS: Msecs = 5_000;
const LONGEST_PAUSE_MS: Msecs = 80_000;

/// How many looks at a guest that seems to have nothing go before a try.
const LOOKS_PER_TRY: u32 = 50;

/// What the size worker alone knows of it.
pub(crate) struct Growth {
    /// How long the last pause was, since the balloon had its size; 0: there was none.
    last_pause_ms: Msecs,
    /// How often the guest was looked at since it had too few pages; 0: it has not.
    looks: u32,
}

impl Growth {
    /// It may grow.
    pub(crate) const fn new() -> Self {
        Self {
            last_pause_ms: 0,
            looks: 0,
        }
    }

    /// How long the balloon does not grow from now on, as memory has run out: in a pause for as long as
    /// at its beginning.
    pub(crate) fn pause_ms(&mut self, is_paused: bool) -> Msecs {
        if !is_paused || self.last_pause_ms == 0 {
            self.last_pause_ms = self
                .last_pause_ms
                .saturating_mul(2)
                .clamp(SHORTEST_PAUSE_MS, LONGEST_PAUSE_MS);
        }
        self.last_pause_ms
    }

    /// Whether to try for pages now.
    pub(crate) fn is_worth_a_try(&mut self) -> bool {
        if self.looks == 0 {
            return true;
        }
        self.looks = self.looks.checked_add(1).unwrap_or(1);
        self.looks % LOOKS_PER_TRY == 0 || memory_info::available_pages() >= 2 * reserve::PAGES
    }

    /// There were too few pages. Returns whether that is new.
    pub(crate) fn fell_short(&mut self) -> bool {
        let is_new = self.looks == 0;
        self.looks = self.looks.max(1);
        is_new
    }

    /// There were enough pages.
    pub(crate) fn had_enough(&mut self) {
        self.looks = 0;
    }

    /// The balloon has its size.
    pub(crate) fn reset(&mut self) {
        self.looks = 0;
        self.last_pause_ms = 0;
    }
}
