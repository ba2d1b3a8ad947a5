// SPDX-License-Identifier: GPL-2.0-only

//! Blocks that nobody may look into: all of their pages are PageOffline.
//!
//! The kernel's map of pages tells of a block whose it is, so that those of a stretch of memory are
//! found by looking at that stretch, however many there are elsewhere.
//!
//! C header: [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)

use crate::abstractions::{
    bindings,
    page_block::{
        Order,
        PageBlock, //
    },
    page_list::PageList, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

/// Blocks of more than a page that are PageOffline.
///
/// # Invariants
///
/// The first page of each block has `tag`, and the second its order. No other page has the tag.
pub(crate) struct OfflineBlocks {
    blocks: PageList,
    tag: usize,
}

impl OfflineBlocks {
    /// No blocks. They are told from those of others by the address of their owner, which no other
    /// owner of such pages may have put into a page.
    pub(crate) fn new<T>(owner: &T) -> Self {
        // INVARIANT: There are no blocks. `mm/balloon.c` has addresses that are even.
        Self {
            blocks: PageList::new(),
            tag: core::ptr::from_ref(owner).addr() | 1,
        }
    }

    /// The number of pages.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Adds all blocks of the list, which must be PageOffline, and no single pages.
    pub(crate) fn insert(&mut self, blocks: PageList) {
        for block in blocks.iter() {
            // SAFETY: The pages are those of a block that is ours, with two of them at least.
            unsafe { bindings::balloon_bmap_tag_block(block.page(), block.order().raw(), self.tag) }
        }
        self.blocks.append(blocks);
    }

    fn untag(block: PageBlock) -> PageBlock {
        let order = block.order();
        let page = block.into_page();
        // SAFETY: The pages are those of the block, which `insert` has tagged.
        unsafe {
            bindings::balloon_bmap_untag_block(page.as_ptr());
            PageBlock::from_page(page, order)
        }
    }

    /// Takes the largest block of up to `pages` pages, if there is one.
    pub(crate) fn take_up_to(&mut self, pages: usize) -> Option<PageBlock> {
        self.blocks.pop_up_to(pages).map(Self::untag)
    }

    /// Takes the smallest block, if there is one.
    pub(crate) fn take_smallest(&mut self) -> Option<PageBlock> {
        self.blocks.pop_smallest_block().map(Self::untag)
    }

    /// Takes all blocks that start in a range of PFNs, which must be online. The range is in pages of
    /// the guest, and aligned to the largest blocks. `look` is called for each place that is looked at.
    pub(crate) fn take_in(&mut self, pfns: Range<usize>, mut look: impl FnMut()) -> PageList {
        let mut taken = PageList::new();
        let smallest = Order::all()
            .filter(|order| *order != Order::PAGE)
            .find(|order| self.blocks.blocks(*order) > 0);
        let Some(smallest) = smallest else {
            return taken;
        };
        let mut pfn = pfns.start;
        while pfn < pfns.end {
            look();
            let mut raw_order = 0;
            // SAFETY: This looks at a page's place in the map of pages, if it is online.
            let page =
                unsafe { bindings::balloon_bmap_tagged_block(pfn, self.tag, &mut raw_order) };
            let mut order = smallest;
            if let Some(page) = NonNull::new(page) {
                order = Order::up_to(raw_order);
                if let Some(ring) = self.blocks.ring(order) {
                    // SAFETY: By the type invariant, this is the first page of one of the blocks, which
                    // has this order, and stands in this ring.
                    let block = unsafe {
                        ring.remove(page);
                        PageBlock::from_page(page, order)
                    };
                    taken.push(Self::untag(block));
                }
            }
            pfn = pfn.saturating_add(order.pages());
        }
        taken
    }
}
