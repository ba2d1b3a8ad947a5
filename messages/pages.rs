// SPDX-License-Identifier: GPL-2.0

//! Pages on their way into the balloon and out of it, singly and in blocks.
//!
//! The type of a list says what the host knows of its pages, so that a page cannot be freed before
//! the host has been told as it wants to be:
//!
//! - [`Allocated`]: taken from the system, of no concern to the host yet.
//! - [`Given`]: the host may discard what is in them at any time. In the balloon, or about to be.
//! - [`Returned`]: the host knows that they are in use again.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    bitmap::PfnRange,
    blocks::{
        Block,
        Order,
        ORDERS, //
    },
    lru_ring::{
        self,
        LruRing, //
    },
    reporter::Released, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SHIFT, //
    pr_warn_once,
};

/// The unit of all page numbers and counts between driver and device is 4 KiB, whatever the
/// guest's page size. C: `VIRTIO_BALLOON_PFN_SHIFT`.
const BALLOON_PAGE_SHIFT: usize = 12;

/// How many of those units a page of the guest has.
pub(crate) const UNITS_PER_PAGE: u32 = 1 << (PAGE_SHIFT - BALLOON_PAGE_SHIFT);

/// What the host knows of the pages of a list.
pub(crate) trait State {
    /// Whether the pages may be freed as they are.
    const FREE: bool;
}

/// Taken from the system.
pub(crate) struct Allocated;

/// Given to the host.
pub(crate) struct Given;

/// Taken back from the host.
pub(crate) struct Returned;

impl State for Allocated {
    const FREE: bool = true;
}

impl State for Given {
    const FREE: bool = false;
}

impl State for Returned {
    const FREE: bool = true;
}

/// Pages that the driver owns.
///
/// # Invariants
///
/// The pages of `rings[n]` are blocks of order `n`, each of which stands there with its first page.
pub(crate) struct PageList<S: State> {
    rings: [LruRing; ORDERS],
    state: PhantomData<S>,
}

impl<S: State> PageList<S> {
    const fn empty() -> Self {
        // INVARIANT: There are no pages.
        Self {
            rings: [const { LruRing::new() }; ORDERS],
            state: PhantomData,
        }
    }

    /// The number of pages, in pages of the guest.
    pub(crate) fn len(&self) -> usize {
        Order::MAX.downwards().fold(0, |len, order| {
            len.saturating_add(self.blocks(order).saturating_mul(order.pages()))
        })
    }

    /// Whether there are no pages.
    pub(crate) fn is_empty(&self) -> bool {
        self.rings.iter().all(|ring| ring.len() == 0)
    }

    /// The number of blocks of an order.
    pub(crate) fn blocks(&self, order: Order) -> usize {
        self.rings.get(order.index()).map_or(0, LruRing::len)
    }

    /// All blocks by their first page, the largest first.
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter {
            rings: &self.rings,
            order: Order::MAX,
            ring: self
                .rings
                .last()
                .map_or(lru_ring::Iter::empty(), LruRing::iter),
        }
    }

    /// Where the pages are, in units of 4 KiB. Neighbours may come one by one, and in any order.
    pub(crate) fn ranges(&self) -> Ranges<'_> {
        Ranges(self.iter())
    }

    /// The single pages.
    pub(crate) fn single_pages(&mut self) -> Option<&mut LruRing> {
        self.rings.first_mut()
    }

    /// Adds a block.
    pub(crate) fn push(&mut self, block: Block) {
        if let Some(ring) = self.rings.get_mut(block.order().index()) {
            // INVARIANT: The ring is that of the block's order.
            ring.push(block.into_page());
        }
    }

    /// Takes a block of that order, if there is one.
    pub(crate) fn pop(&mut self, order: Order) -> Option<Block> {
        let page = self.rings.get_mut(order.index())?.pop()?;
        // SAFETY: By the type invariant, this is a block of the ring's order.
        Some(unsafe { Block::from_page(page, order) })
    }

    /// Takes the largest block of up to `pages` pages, if there is one.
    pub(crate) fn pop_up_to(&mut self, pages: usize) -> Option<Block> {
        Order::largest_in(pages)?
            .downwards()
            .find_map(|order| self.pop(order))
    }

    /// Takes the smallest block of more than a page, if there is one.
    pub(crate) fn pop_smallest(&mut self) -> Option<Block> {
        Order::all()
            .filter(|order| *order != Order::PAGE)
            .find_map(|order| self.pop(order))
    }

    /// Adds all pages of another list.
    pub(crate) fn append(&mut self, mut other: Self) {
        for order in Order::all() {
            let Some(theirs) = other.rings.get_mut(order.index()) else {
                continue;
            };
            if let Some(ours) = self.rings.get_mut(order.index()) {
                // INVARIANT: Both are rings of the same order.
                ours.append(core::mem::replace(theirs, LruRing::new()));
            }
        }
    }

    /// Takes all blocks that have pages of a range.
    pub(crate) fn split_off(&mut self, range: PfnRange) -> Self {
        let mut those = Self::empty();
        for order in Order::all() {
            let index = order.index();
            if let (Some(ours), Some(theirs)) =
                (self.rings.get_mut(index), those.rings.get_mut(index))
            {
                let mut all = core::mem::replace(ours, LruRing::new());
                while let Some(page) = all.pop() {
                    // INVARIANT: All three are rings of the same order.
                    if range.meets(block_range(order, page)) {
                        theirs.push(page);
                    } else {
                        ours.push(page);
                    }
                }
            }
        }
        those
    }

    /// The same pages, of which the host now knows something else.
    fn become_<T: State>(mut self) -> PageList<T> {
        PageList {
            rings: core::mem::replace(&mut self.rings, [const { LruRing::new() }; ORDERS]),
            state: PhantomData,
        }
    }
}

/// Blocks by their first page.
#[derive(Clone)]
pub(crate) struct Iter<'a> {
    rings: &'a [LruRing; ORDERS],
    order: Order,
    ring: lru_ring::Iter<'a>,
}

impl Iterator for Iter<'_> {
    type Item = (Order, NonNull<bindings::page>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(page) = self.ring.next() {
                return Some((self.order, page));
            }
            (self.order, self.ring) = below(self.rings, self.order)?;
        }
    }

    /// What depends on the order alone is done once for all blocks of the order.
    fn fold<B, F: FnMut(B, Self::Item) -> B>(self, init: B, mut f: F) -> B {
        let mut next = Some((self.order, self.ring));
        let mut result = init;
        while let Some((order, ring)) = next {
            result = ring.fold(result, |result, page| f(result, (order, page)));
            next = below(self.rings, order);
        }
        result
    }
}

/// The blocks of the next lower order, if there is one.
fn below(rings: &[LruRing; ORDERS], order: Order) -> Option<(Order, lru_ring::Iter<'_>)> {
    let order = order.lower()?;
    Some((order, rings.get(order.index())?.iter()))
}

/// Blocks by their PFNs.
#[derive(Clone)]
pub(crate) struct Ranges<'a>(Iter<'a>);

impl Iterator for Ranges<'_> {
    type Item = PfnRange;

    fn next(&mut self) -> Option<Self::Item> {
        let (order, page) = self.0.next()?;
        Some(block_range(order, page))
    }

    fn fold<B, F: FnMut(B, Self::Item) -> B>(self, init: B, mut f: F) -> B {
        self.0.fold(init, |result, (order, page)| {
            f(result, block_range(order, page))
        })
    }
}

impl PageList<Allocated> {
    /// Takes up to `want` pages from the system, without the last reserves and without warnings, as
    /// long as `go_on` says so.
    ///
    /// Blocks of the orders in `whole` stay as they are. All other pages are on their own, and
    /// movable. Only for single pages is memory reclaimed.
    pub(crate) fn allocate(
        want: usize,
        whole: impl Iterator<Item = Order>,
        go_on: impl Fn() -> bool,
    ) -> Self {
        let mut list = Self::empty();
        let mut left = want;
        for order in whole {
            while left >= order.pages() && go_on() {
                let Some(block) = Block::allocate(order) else {
                    break;
                };
                left = left.wrapping_sub(order.pages());
                list.push(block);
            }
        }
        let Some(ring) = list.single_pages() else {
            return list;
        };
        let orders = Order::largest_in(left)
            .into_iter()
            .flat_map(Order::downwards);
        for order in orders.filter(|order| *order != Order::PAGE) {
            while left >= order.pages() && go_on() {
                let Some(block) = Block::allocate_movable(order) else {
                    break;
                };
                left = left.wrapping_sub(order.pages());
                block.split(ring);
            }
        }
        while left > 0 && go_on() {
            let got = Block::allocate_singly(left, ring);
            if got == 0 {
                break;
            }
            left = left.saturating_sub(got);
        }
        list
    }

    /// A list for blocks.
    pub(crate) const fn new() -> Self {
        Self::empty()
    }

    /// The host was given these pages, or may have been: from here on it has to be told.
    pub(crate) fn given(self) -> PageList<Given> {
        self.become_()
    }
}

impl PageList<Given> {
    /// A list for pages that come out of the balloon.
    pub(crate) const fn new() -> Self {
        Self::empty()
    }

    /// The host knows that these pages are in use again.
    pub(crate) fn returned(self, _: Released) -> PageList<Returned> {
        self.become_()
    }
}

impl<S: State> Drop for PageList<S> {
    fn drop(&mut self) {
        if !S::FREE && !self.is_empty() {
            // The host may discard what is in these pages at any time: nobody can use them.
            pr_warn_once!("{} pages that the host holds are lost\n", self.len());
            return;
        }
        for order in Order::all() {
            while self.pop(order).is_some() {}
        }
    }
}

/// The PFNs of a block, in units of 4 KiB.
fn block_range(order: Order, page: NonNull<bindings::page>) -> PfnRange {
    PfnRange::block(page_pfn(page), units(order.pages()))
}

/// The first PFN of a page, in units of 4 KiB.
pub(crate) fn page_pfn(page: NonNull<bindings::page>) -> u64 {
    // SAFETY: This only computes with the page's address.
    let pfn = unsafe { bindings::balloon_bmap_page_pfn(page.as_ptr()) };
    // CAST: `unsigned long` has at most 64 bits.
    (pfn as u64).wrapping_mul(u64::from(UNITS_PER_PAGE))
}

/// Pages of the guest, in units of 4 KiB.
pub(crate) fn units(pages: usize) -> u64 {
    // CAST: `usize` has at most 64 bits.
    (pages as u64).saturating_mul(u64::from(UNITS_PER_PAGE))
}
