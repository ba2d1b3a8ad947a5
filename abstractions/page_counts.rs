// SPDX-License-Identifier: GPL-2.0-only

//! What the kernel counts of a balloon's pages, zone by zone.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/vmstat.h`](srctree/include/linux/vmstat.h)

use crate::abstractions::{
    bindings,
    page_block::{
        BlockRef,
        Order, //
    },
    page_list::PageList, //
};

/// How the kernel counts the pages of a balloon.
#[derive(Clone, Copy)]
pub(crate) enum Counted {
    /// As gone: MemTotal falls.
    Gone,
    /// As used, because they come back when memory runs out.
    Used,
}

/// Which way pages go.
#[derive(Clone, Copy)]
enum Direction {
    Inflate,
    Deflate,
}

impl Counted {
    /// Counts pages that go into the balloon.
    pub(crate) fn inflated(self, pages: &PageList) {
        self.count(pages, Direction::Inflate);
    }

    /// Counts pages that come out of the balloon.
    pub(crate) fn deflated(self, pages: &PageList) {
        self.count(pages, Direction::Deflate);
    }

    /// Takes the pages of a block of the balloon off the counts that `mm/balloon.c` puts single pages
    /// on: the block is about to go in again, in single pages.
    pub(crate) fn split(self, block: BlockRef<'_>) {
        count_in_balloon(block, signed(block.order().pages()).wrapping_neg(), 0);
    }

    /// A page of the balloon has moved.
    pub(crate) fn migrated(self, new: BlockRef<'_>, old: BlockRef<'_>) {
        if zone_id(new) != zone_id(old) {
            self.manage(old, 1);
            self.manage(new, -1);
        }
    }

    fn count(self, pages: &PageList, direction: Direction) {
        let mut pages = pages.iter();
        let Some(first) = pages.next() else {
            return;
        };
        let mut tally = Tally::new(first);
        pages.for_each(|block| {
            if zone_id(block) == tally.zone_id {
                tally.add(block.order());
            } else {
                self.close(&tally, direction);
                tally = Tally::new(block);
            }
        });
        self.close(&tally, direction);
    }

    fn close(self, tally: &Tally<'_>, direction: Direction) {
        let (blocks, pages) = (signed(tally.in_blocks), signed(tally.pages));
        match direction {
            Direction::Inflate => {
                count_in_balloon(tally.first, blocks, 0);
                self.manage(tally.first, pages.wrapping_neg());
            }
            Direction::Deflate => {
                count_in_balloon(tally.first, 0, blocks);
                self.manage(tally.first, pages);
            }
        }
    }

    /// Changes how many pages the kernel manages in the zone of a page.
    fn manage(self, page: BlockRef<'_>, pages: isize) {
        if let Self::Gone = self {
            // SAFETY: The page is valid, and tells the zone.
            unsafe { bindings::adjust_managed_page_count(page.page(), pages) };
        }
    }
}

/// Pages of one zone.
struct Tally<'a> {
    first: BlockRef<'a>,
    zone_id: i32,
    pages: usize,
    in_blocks: usize,
}

impl<'a> Tally<'a> {
    fn new(first: BlockRef<'a>) -> Self {
        let mut tally = Self {
            first,
            zone_id: zone_id(first),
            pages: 0,
            in_blocks: 0,
        };
        tally.add(first.order());
        tally
    }

    fn add(&mut self, order: Order) {
        self.pages = self.pages.wrapping_add(order.pages());
        if order != Order::PAGE {
            self.in_blocks = self.in_blocks.wrapping_add(order.pages());
        }
    }
}

/// Counts pages of blocks as `mm/balloon.c` counts single pages.
fn count_in_balloon(block: BlockRef<'_>, inflated: isize, deflated: isize) {
    if inflated != 0 || deflated != 0 {
        // SAFETY: The page is valid, and tells the node.
        unsafe { bindings::balloon_bmap_count(block.page(), inflated, deflated) };
    }
}

/// The same number for pages of the same zone, as far as blocks of pages go.
fn zone_id(block: BlockRef<'_>) -> i32 {
    // SAFETY: The page is valid.
    unsafe { bindings::balloon_bmap_page_zone_id(block.page()) }
}

fn signed(pages: usize) -> isize {
    isize::try_from(pages).unwrap_or(isize::MAX)
}
