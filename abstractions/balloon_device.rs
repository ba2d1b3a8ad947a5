// SPDX-License-Identifier: GPL-2.0-only

//! The single pages of a balloon, which `mm/balloon.c` keeps, and compaction may move.
//!
//! C header: [`include/linux/balloon.h`](srctree/include/linux/balloon.h)

use crate::abstractions::{
    bindings,
    page_block::{
        BlockRef,
        Order, //
    },
    page_list::PageList,
    page_ring::PageRing, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};

/// How many pages go in or out under one hold of the lock of all balloons, which is taken with
/// interrupts off.
const PAGES_PER_LOCK: usize = 256;

/// Moves a page of a balloon.
pub(crate) trait Migrate: Send + Sync {
    /// The page at `new` is to take the place of the one at `old`. Called by whoever compacts memory,
    /// with both pages locked, and may be called by whoever allocates any.
    ///
    /// # Errors
    ///
    /// EAGAIN if it cannot be done now. `new` is free then, and `old` stays.
    fn migrate(&self, new: BlockRef<'_>, old: BlockRef<'_>) -> Result;
}

/// The single pages of a balloon.
#[pin_data]
pub(crate) struct BalloonDevice<M> {
    #[pin]
    info: Opaque<bindings::balloon_dev_info>,
    /// Pages that went in and did not come out. Some of them may be isolated for compaction.
    len: Atomic<usize>,
    migrate: M,
}

// SAFETY: `info` is only used through functions that take the lock of all balloons.
unsafe impl<M: Migrate> Send for BalloonDevice<M> {}

// SAFETY: As above.
unsafe impl<M: Migrate> Sync for BalloonDevice<M> {}

impl<M: Migrate> BalloonDevice<M> {
    /// An empty balloon. It must be empty again when it is dropped.
    pub(crate) fn new(migrate: M) -> impl PinInit<Self> {
        pin_init!(Self {
            info <- Opaque::ffi_init(|slot: *mut bindings::balloon_dev_info| {
                // SAFETY: `slot` is valid for writes and stays pinned, as its list requires.
                unsafe {
                    bindings::INIT_LIST_HEAD(&raw mut (*slot).pages);
                    (*slot).isolated_pages = 0;
                    // Not NULL, even where there is no compaction: the core does not look.
                    (*slot).migratepage = Some(Self::migrate_callback);
                    // Once a page this costs more than all the rest: `page_counts` does it once a zone.
                    (*slot).adjust_managed_page_count = false;
                }
            }),
            len: Atomic::new(0),
            migrate,
        })
    }

    /// The number of pages, those that are isolated for compaction included.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Puts the single pages of the list into the balloon.
    pub(crate) fn enqueue(&self, pages: &mut PageList) {
        let Some(ring) = pages.singles() else { return };
        self.len.add(ring.len(), Relaxed);
        while ring.len() > 0 {
            let mut chunk = ring.split(PAGES_PER_LOCK);
            let len = chunk.len();
            let enqueue = |head| {
                // SAFETY: `head` is a list of pages that are ours, which the balloon takes over.
                let taken = unsafe { bindings::balloon_page_list_enqueue(self.info.get(), head) };
                len.saturating_sub(taken)
            };
            // SAFETY: The balloon takes pages off the list, and says how many.
            unsafe { chunk.with_list(enqueue) };
        }
    }

    /// Takes up to `want` pages out of the balloon, and adds them to the list. Returns how many: fewer
    /// while compaction has some of them.
    pub(crate) fn dequeue(&self, pages: &mut PageList, want: usize) -> usize {
        let Some(ring) = pages.singles() else {
            return 0;
        };
        let mut left = want;
        while left > 0 {
            let mut chunk = PageRing::new();
            // SAFETY: `head` is an empty list, to which as many pages are added as this returns. They are
            // ours from then on.
            unsafe {
                chunk.with_list(|head| {
                    bindings::balloon_page_list_dequeue(
                        self.info.get(),
                        head,
                        left.min(PAGES_PER_LOCK),
                    )
                })
            };
            if chunk.len() == 0 {
                break;
            }
            left = left.saturating_sub(chunk.len());
            ring.append(chunk);
        }
        let taken = want.saturating_sub(left);
        self.len.fetch_sub(taken, Relaxed);
        taken
    }

    extern "C" fn migrate_callback(
        info: *mut bindings::balloon_dev_info,
        newpage: *mut bindings::page,
        page: *mut bindings::page,
        _mode: bindings::migrate_mode,
    ) -> kernel::ffi::c_int {
        // SAFETY: The pages of a balloon keep it alive: it goes only once they have left it.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(info), Self, info) };
        kernel::error::from_result(|| {
            let new = NonNull::new(newpage).ok_or(EINVAL)?;
            let old = NonNull::new(page).ok_or(EINVAL)?;
            // SAFETY: Both are single pages, which the core has for as long as this runs.
            let (new, old) = unsafe {
                (
                    BlockRef::new(new, Order::PAGE),
                    BlockRef::new(old, Order::PAGE),
                )
            };
            this.migrate.migrate(new, old).map(|()| 0)
        })
    }
}
