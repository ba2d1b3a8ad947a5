// SPDX-License-Identifier: GPL-2.0

//! When to try for memory in a guest that has no more.
//!
//! To take the last page is to look for it by reclaim, for as long as that takes. So while a guest
//! is short the size worker only tries for pages when there seem to be some, or else seldom: what
//! reclaim can find does not show in any figure.

use crate::{
    cushion,
    memory_info, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// How many looks at a guest that seems to have nothing go before a try.
const LOOKS_PER_TRY: u32 = 50;

/// Of the size worker alone.
pub(crate) struct Shortage {
    /// How often the guest was looked at since it became short; 0 if it is not.
    looks: Atomic<u32>,
}

impl Shortage {
    /// A guest that is not short.
    pub(crate) const fn new() -> Self {
        Self {
            looks: Atomic::new(0),
        }
    }

    /// Whether to try for pages now.
    pub(crate) fn is_worth_a_try(&self) -> bool {
        let looks = self.looks.load(Relaxed);
        if looks == 0 {
            return true;
        }
        self.looks.store(looks.checked_add(1).unwrap_or(1), Relaxed);
        looks % LOOKS_PER_TRY == 0 || memory_info::available_pages() >= 2 * cushion::PAGES
    }

    /// There were not enough pages. Returns whether that is new.
    pub(crate) fn begin(&self) -> bool {
        let is_new = self.looks.load(Relaxed) == 0;
        if is_new {
            self.looks.store(1, Relaxed);
        }
        is_new
    }

    /// There were enough pages, or none are wanted.
    pub(crate) fn end(&self) {
        self.looks.store(0, Relaxed);
    }
}
