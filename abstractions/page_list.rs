// SPDX-License-Identifier: GPL-2.0-only

//! Lists of pages that the driver owns, singly and in blocks.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::abstractions::{
    bindings,
    page_block::{
        BlockRef,
        Order,
        PageBlock,
        Source,
        ORDERS, //
    },
    page_ring::{
        self,
        PageRing, //
    },
};
use core::ptr::NonNull;

/// How many single pages are allocated with one call.
const PAGES_AT_ONCE: usize = 64;

/// Pages that are freed when the list is dropped.
///
/// # Invariants
///
/// The pages of `rings[n]` are blocks of order `n`, each of which stands there with its first page.
pub(crate) struct PageList {
    rings: [PageRing; ORDERS],
}

impl PageList {
    /// No pages.
    pub(crate) const fn new() -> Self {
        // INVARIANT: There are no pages.
        Self {
            rings: [const { PageRing::new() }; ORDERS],
        }
    }

    /// The number of pages, in pages of the guest.
    pub(crate) fn len(&self) -> usize {
        Order::MAX.downwards().fold(0, |len, order| {
            len.saturating_add(self.blocks(order).saturating_mul(order.pages()))
        })
    }

    /// The number of blocks of an order.
    pub(crate) fn blocks(&self, order: Order) -> usize {
        self.rings.get(order.index()).map_or(0, PageRing::len)
    }

    /// All blocks, the largest first.
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter {
            rings: &self.rings,
            order: Order::MAX,
            ring: self
                .rings
                .last()
                .map_or(page_ring::Iter::empty(), PageRing::iter),
        }
    }

    pub(super) fn ring(&mut self, order: Order) -> Option<&mut PageRing> {
        self.rings.get_mut(order.index())
    }

    /// The single pages.
    pub(super) fn singles(&mut self) -> Option<&mut PageRing> {
        self.rings.first_mut()
    }

    /// Adds a block.
    pub(crate) fn push(&mut self, block: PageBlock) {
        if let Some(ring) = self.rings.get_mut(block.order().index()) {
            // INVARIANT: The ring is that of the block's order.
            // SAFETY: The block, and with it the links of its first page, is ours.
            unsafe { ring.push(block.into_page()) };
        }
    }

    /// Takes a block of that order, if there is one.
    pub(crate) fn pop(&mut self, order: Order) -> Option<PageBlock> {
        let page = self.rings.get_mut(order.index())?.pop()?;
        // SAFETY: By the type invariant, this is a block of the ring's order.
        Some(unsafe { PageBlock::from_page(page, order) })
    }

    /// Takes the largest block of up to `pages` pages, if there is one.
    pub(crate) fn pop_up_to(&mut self, pages: usize) -> Option<PageBlock> {
        Order::largest_in(pages)?
            .downwards()
            .find_map(|order| self.pop(order))
    }

    /// Takes the smallest block of more than a page, if there is one.
    pub(crate) fn pop_smallest_block(&mut self) -> Option<PageBlock> {
        Order::all()
            .filter(|order| *order != Order::PAGE)
            .find_map(|order| self.pop(order))
    }

    /// Adds all pages of another list.
    pub(crate) fn append(&mut self, mut other: Self) {
        for order in Order::all() {
            if let (Some(ours), Some(theirs)) = (self.ring(order), other.ring(order)) {
                if theirs.len() > 0 {
                    // INVARIANT: Both are rings of the same order.
                    ours.append(core::mem::replace(theirs, PageRing::new()));
                }
            }
        }
    }

    /// Takes all blocks whose first PFN is such.
    #[inline(never)]
    pub(crate) fn extract_if(&mut self, mut is_such: impl FnMut(BlockRef<'_>) -> bool) -> Self {
        let mut those = Self::new();
        for order in Order::all() {
            let mut rest = Self::new();
            while let Some(block) = self.pop(order) {
                let page = block.into_page();
                // SAFETY: The block is owned meanwhile.
                let such = is_such(unsafe { BlockRef::new(page, order) });
                // SAFETY: The page was taken from the block above.
                let block = unsafe { PageBlock::from_page(page, order) };
                if such {
                    those.push(block);
                } else {
                    rest.push(block);
                }
            }
            self.append(rest);
        }
        those
    }

    /// Sorts the blocks of each order by their PFNs.
    pub(crate) fn sort(&mut self) {
        self.rings
            .iter_mut()
            .filter(|ring| ring.len() > 1)
            .for_each(PageRing::sort);
    }

    /// Makes all pages PageOffline, as those of `mm/balloon.c` are: nobody may look into them.
    pub(crate) fn set_offline(&mut self) {
        for block in self.iter() {
            // SAFETY: The pages are those of a block that is ours.
            unsafe { bindings::balloon_bmap_set_offline(block.page(), block.order().raw()) }
        }
    }

    /// Undoes [`Self::set_offline`] for blocks. The kernel does so itself for single pages that are freed.
    pub(crate) fn clear_offline(&mut self) {
        for block in self.iter().take_while(|block| block.order() != Order::PAGE) {
            // SAFETY: The pages are those of a block that is ours.
            unsafe { bindings::balloon_bmap_clear_offline(block.page(), block.order().raw()) }
        }
    }

    /// Makes single pages of a block, and adds them.
    pub(crate) fn push_split(&mut self, block: PageBlock) {
        let order = block.order();
        let mut page = block.into_page().as_ptr();
        if order != Order::PAGE {
            // SAFETY: The block is ours, of this order.
            unsafe { bindings::split_page(page, order.raw()) };
        }
        let Some(ring) = self.singles() else { return };
        for _ in 0..order.pages() {
            if let Some(page) = NonNull::new(page) {
                // INVARIANT: These are single pages.
                // SAFETY: The pages are ours.
                unsafe { ring.push(page) };
            }
            // The pages of a block lie side by side in the kernel's map of pages.
            page = page.wrapping_add(1);
        }
    }

    /// Takes as many blocks from the system as can be had, up to `pages` pages in all and as long as
    /// `go_on` says so, and adds them. Returns how many pages they have.
    #[inline(never)]
    pub(crate) fn allocate_blocks(
        &mut self,
        order: Order,
        source: Source,
        pages: usize,
        go_on: impl Fn() -> bool,
    ) -> usize {
        let mut left = pages;
        while left >= order.pages() && go_on() {
            let Some(block) = PageBlock::allocate(order, source) else {
                break;
            };
            left = left.wrapping_sub(order.pages());
            match source {
                Source::Unmovable => self.push(block),
                Source::KernelMovable | Source::Movable => self.push_split(block),
            }
        }
        pages.saturating_sub(left)
    }

    /// Takes up to `want` single pages from the system, for which memory is reclaimed, and adds them.
    /// Returns how many: there may be more, unless it is 0.
    #[inline(never)]
    pub(crate) fn allocate_singles(&mut self, want: usize) -> usize {
        let mut pages = [core::ptr::null_mut(); PAGES_AT_ONCE];
        let want = i32::try_from(want.min(pages.len())).unwrap_or(0);
        // SAFETY: There is room for that many, and all elements are NULL. May be called from any
        // context that may sleep.
        unsafe { bindings::balloon_bmap_alloc_pages(want, pages.as_mut_ptr()) };
        let Some(ring) = self.singles() else { return 0 };
        let pages = pages.iter().copied().map_while(NonNull::new);
        // INVARIANT: These are single pages.
        // SAFETY: They are ours.
        pages.map(|page| unsafe { ring.push(page) }).count()
    }
}

impl Default for PageList {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for PageList {
    fn drop(&mut self) {
        if let Some(ring) = self.singles() {
            if ring.len() > 0 {
                ring.free_pages();
            }
        }
        for order in Order::all() {
            while self.pop(order).is_some() {}
        }
    }
}

/// The blocks of a list.
#[derive(Clone)]
pub(crate) struct Iter<'a> {
    rings: &'a [PageRing; ORDERS],
    order: Order,
    ring: page_ring::Iter<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = BlockRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(page) = self.ring.next() {
                // SAFETY: The list owns its blocks, and is borrowed.
                return Some(unsafe { BlockRef::new(page, self.order) });
            }
            (self.order, self.ring) = below(self.rings, self.order)?;
        }
    }

    /// What depends on the order alone is done once for all blocks of the order.
    fn fold<B, F: FnMut(B, Self::Item) -> B>(self, init: B, mut f: F) -> B {
        let mut next = Some((self.order, self.ring));
        let mut result = init;
        while let Some((order, ring)) = next {
            result = ring.fold(result, |result, page| {
                // SAFETY: As above.
                f(result, unsafe { BlockRef::new(page, order) })
            });
            next = below(self.rings, order);
        }
        result
    }
}

/// The blocks of the next lower order, if there is one.
fn below(rings: &[PageRing; ORDERS], order: Order) -> Option<(Order, page_ring::Iter<'_>)> {
    let order = order.lower()?;
    Some((order, rings.get(order.index())?.iter()))
}
