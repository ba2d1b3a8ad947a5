// SPDX-License-Identifier: GPL-2.0

//! The pages in the balloon, as the kernel's memory management knows them.
//!
//! Here they are marked, counted and, where the kernel supports it, movable.
//!
//! C header: [`include/linux/balloon.h`](srctree/include/linux/balloon.h)

use crate::{
    bindings,
    compaction,
    pages::{
        page_pfn,
        Given,
        PageList, //
    },
    reporter::SharedReporter, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// How many pages go in or out under one hold of the lock of all balloons, which is taken with
/// interrupts off.
const PAGES_PER_LOCK: usize = 256;

/// The set of pages that the host holds.
#[pin_data]
pub(crate) struct BalloonPages {
    #[pin]
    info: Opaque<bindings::balloon_dev_info>,
    /// Whom the migration of a page is reported to.
    reporter: Arc<SharedReporter>,
}

// SAFETY: `info` is only used through functions that take the lock of all balloons.
unsafe impl Send for BalloonPages {}

// SAFETY: As above.
unsafe impl Sync for BalloonPages {}

impl BalloonPages {
    /// An empty balloon.
    ///
    /// `shrinks_memory` says whether its pages count as gone (MemTotal falls), or as used.
    pub(crate) fn new(reporter: Arc<SharedReporter>, shrinks_memory: bool) -> impl PinInit<Self> {
        pin_init!(Self {
            info <- Opaque::ffi_init(|slot: *mut bindings::balloon_dev_info| {
                // SAFETY: `slot` is valid for writes and stays pinned, as its list requires.
                unsafe {
                    let pages = &raw mut (*slot).pages;
                    (*pages).next = pages;
                    (*pages).prev = pages;
                    (*slot).isolated_pages = 0;
                    (*slot).migratepage = Some(Self::migrate_callback);
                    (*slot).adjust_managed_page_count = shrinks_memory;
                }
            }),
            reporter,
        })
    }

    /// Puts pages into the balloon.
    pub(crate) fn enqueue(&self, mut pages: PageList<Given>) {
        while !pages.is_empty() {
            let mut chunk = pages.split(PAGES_PER_LOCK);
            let len = chunk.len();
            chunk.with_head(|head| {
                // SAFETY: `head` is a list of pages that are ours, which the balloon takes over.
                let taken = unsafe { bindings::balloon_page_list_enqueue(self.info.get(), head) };
                len.saturating_sub(taken)
            });
        }
    }

    /// Takes up to `want` pages out of the balloon: fewer while compaction has some of them.
    pub(crate) fn dequeue(&self, want: usize) -> PageList<Given> {
        let mut pages = PageList::new();
        loop {
            let left = want.saturating_sub(pages.len()).min(PAGES_PER_LOCK);
            let mut chunk = PageList::new();
            // SAFETY: `head` is an empty list, to which pages are added that are ours from then on.
            chunk.with_head(|head| unsafe {
                bindings::balloon_page_list_dequeue(self.info.get(), head, left)
            });
            if chunk.is_empty() {
                return pages;
            }
            pages.append(chunk);
        }
    }

    /// Moves a page of the balloon: called by compaction, with both pages locked.
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
            compaction::migrate(&this.reporter, page_pfn(new), page_pfn(old)).map(|()| 0)
        })
    }
}
