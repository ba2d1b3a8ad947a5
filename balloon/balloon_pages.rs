// SPDX-License-Identifier: GPL-2.0

//! The pages in the balloon, as the kernel's memory management knows them.
//!
//! Here they are marked, counted and, where they are on their own and the kernel supports it,
//! movable. `mm/balloon.c` has the single pages. Blocks are kept here, each as a whole: all of its
//! pages are PageOffline, and counted where `mm/balloon.c` counts.
//!
//! C header: [`include/linux/balloon.h`](srctree/include/linux/balloon.h)

use crate::{
    bindings,
    bitmap::PfnRange,
    blocks::Order,
    compaction,
    lru_ring::LruRing,
    pages::{
        page_pfn,
        Given,
        PageList, //
    },
    reporter::SharedReporter, //
};
use core::ptr::NonNull;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    types::Opaque, //
};

/// How many pages go in or out under one hold of the lock of all balloons, which is taken with
/// interrupts off.
const PAGES_PER_LOCK: usize = 256;

/// The set of pages that the host holds.
#[pin_data]
pub(crate) struct BalloonPages {
    /// The single pages.
    #[pin]
    info: Opaque<bindings::balloon_dev_info>,
    /// All others.
    #[pin]
    blocks: SpinLock<PageList<Given>>,
    /// Whether the pages count as gone (MemTotal falls), or as used.
    shrinks_memory: bool,
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
                    // Page by page this is what takes the longest: it is done here instead.
                    (*slot).adjust_managed_page_count = false;
                }
            }),
            blocks <- new_spinlock!(PageList::<Given>::new()),
            shrinks_memory,
            reporter,
        })
    }

    /// Puts pages into the balloon.
    pub(crate) fn enqueue(&self, mut pages: PageList<Given>) {
        self.count(&pages, Way::Into);
        if let Some(ring) = pages.single_pages() {
            self.enqueue_single(ring);
        }
        mark(&pages, true);
        self.blocks.lock().append(pages);
    }

    fn enqueue_single(&self, pages: &mut LruRing) {
        while pages.len() > 0 {
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
    ///
    /// Blocks leave it whole, as long as they are wanted whole. One is only split when there are
    /// no single pages left.
    pub(crate) fn dequeue(&self, want: usize) -> PageList<Given> {
        let mut pages = PageList::<Given>::new();
        let mut left = want;
        {
            let mut blocks = self.blocks.lock();
            while let Some(block) = blocks.pop_up_to(left) {
                left = left.saturating_sub(block.order().pages());
                pages.push(block);
            }
        }
        mark(&pages, false);
        if let Some(ring) = pages.single_pages() {
            self.dequeue_single(ring, left);
            left = left.saturating_sub(ring.len());
            if left > 0 && self.split_block() {
                self.dequeue_single(ring, left);
            }
        }
        self.count(&pages, Way::OutOf);
        pages
    }

    /// Takes at least `want` pages out of the balloon, as far as there are so many.
    ///
    /// Single pages come first. No block is split: parts of one would lie in memory that the kernel
    /// keeps for what cannot be moved, and whoever needs pages now would have them turned into
    /// others, for which the kernel raises its watermarks.
    pub(crate) fn dequeue_whole(&self, want: usize) -> PageList<Given> {
        let mut pages = PageList::<Given>::new();
        let mut left = want;
        if let Some(ring) = pages.single_pages() {
            self.dequeue_single(ring, want);
            left = left.saturating_sub(ring.len());
        }
        {
            let mut blocks = self.blocks.lock();
            while left > 0 {
                let Some(block) = blocks.pop_smallest() else {
                    break;
                };
                left = left.saturating_sub(block.order().pages());
                pages.push(block);
            }
        }
        mark(&pages, false);
        self.count(&pages, Way::OutOf);
        pages
    }

    /// Takes all blocks out of the balloon that have pages of the range.
    pub(crate) fn dequeue_blocks_in(&self, range: PfnRange) -> PageList<Given> {
        let pages = self.blocks.lock().split_off(range);
        mark(&pages, false);
        self.count(&pages, Way::OutOf);
        pages
    }

    fn dequeue_single(&self, pages: &mut LruRing, want: usize) {
        let mut left = want;
        while left > 0 {
            let mut chunk = LruRing::new();
            // SAFETY: `head` is an empty list, to which pages are added that are ours from then on.
            chunk.with_head(|head| unsafe {
                bindings::balloon_page_list_dequeue(self.info.get(), head, left.min(PAGES_PER_LOCK))
            });
            if chunk.len() == 0 {
                break;
            }
            left = left.saturating_sub(chunk.len());
            pages.append(chunk);
        }
    }

    /// Makes single pages of a block in the balloon, if there is one.
    fn split_block(&self) -> bool {
        let Some(block) = self.blocks.lock().pop_smallest() else {
            return false;
        };
        // The pages are counted again as they come in singly.
        count_in_balloon(
            block.page(),
            signed(block.order().pages()).wrapping_neg(),
            0,
        );
        let mut ring = LruRing::new();
        block.split(&mut ring);
        self.enqueue_single(&mut ring);
        true
    }

    /// Counts pages that go into the balloon or come out of it, zone by zone.
    fn count(&self, pages: &PageList<Given>, way: Way) {
        let mut pages = pages.iter();
        let Some((order, first)) = pages.next() else {
            return;
        };
        let mut tally = Tally::new(order, first);
        pages.for_each(|(order, page)| {
            if zone_id(page) == tally.zone_id {
                tally.add(order);
            } else {
                self.close(&tally, way);
                tally = Tally::new(order, page);
            }
        });
        self.close(&tally, way);
    }

    fn close(&self, tally: &Tally, way: Way) {
        let blocks = signed(tally.in_blocks);
        match way {
            Way::Into => count_in_balloon(tally.first, blocks, 0),
            Way::OutOf => count_in_balloon(tally.first, 0, blocks),
        }
        let pages = signed(tally.pages);
        self.manage(
            tally.first,
            match way {
                Way::Into => -pages,
                Way::OutOf => pages,
            },
        );
    }

    /// Changes how many pages the kernel manages in the zone of a page.
    fn manage(&self, page: NonNull<bindings::page>, pages: isize) {
        if self.shrinks_memory {
            // SAFETY: The page is valid, and tells the zone.
            unsafe { bindings::adjust_managed_page_count(page.as_ptr(), pages) };
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
            compaction::migrate(&this.reporter, page_pfn(new), page_pfn(old))?;
            if zone_id(new) != zone_id(old) {
                this.manage(old, 1);
                this.manage(new, -1);
            }
            Ok(0)
        })
    }
}

/// Which way pages go.
#[derive(Clone, Copy)]
enum Way {
    Into,
    OutOf,
}

/// Pages of one zone.
struct Tally {
    first: NonNull<bindings::page>,
    zone_id: i32,
    pages: usize,
    in_blocks: usize,
}

impl Tally {
    fn new(order: Order, first: NonNull<bindings::page>) -> Self {
        let mut tally = Self {
            first,
            zone_id: zone_id(first),
            pages: 0,
            in_blocks: 0,
        };
        tally.add(order);
        tally
    }

    fn add(&mut self, order: Order) {
        self.pages = self.pages.wrapping_add(order.pages());
        if order != Order::PAGE {
            self.in_blocks = self.in_blocks.wrapping_add(order.pages());
        }
    }
}

/// Says of all pages of the blocks whether somebody may look into them.
fn mark(pages: &PageList<Given>, offline: bool) {
    for (order, page) in pages.iter() {
        if order != Order::PAGE {
            // SAFETY: The pages are those of a block that is ours.
            unsafe {
                if offline {
                    bindings::balloon_bmap_set_offline(page.as_ptr(), order.raw());
                } else {
                    bindings::balloon_bmap_clear_offline(page.as_ptr(), order.raw());
                }
            }
        }
    }
}

/// Counts pages of blocks as `mm/balloon.c` counts single pages.
fn count_in_balloon(page: NonNull<bindings::page>, inflated: isize, deflated: isize) {
    if inflated != 0 || deflated != 0 {
        // SAFETY: The page is valid, and tells the node.
        unsafe { bindings::balloon_bmap_count(page.as_ptr(), inflated, deflated) };
    }
}

/// The same number for pages of the same zone, as far as blocks of pages go.
fn zone_id(page: NonNull<bindings::page>) -> i32 {
    // SAFETY: The page is valid.
    unsafe { bindings::balloon_bmap_page_zone_id(page.as_ptr()) }
}

fn signed(pages: usize) -> isize {
    isize::try_from(pages).unwrap_or(isize::MAX)
}
