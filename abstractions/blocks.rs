// SPDX-License-Identifier: GPL-2.0

//! Blocks of pages as the buddy allocator has them: a power of two, one after the other.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use crate::{
    bindings,
    lru_ring::LruRing, //
};
use core::ptr::NonNull;
use kernel::page::PAGE_SHIFT;

/// How many orders there are.
// CAST: A small constant, which fits.
pub(crate) const ORDERS: usize = bindings::MAX_PAGE_ORDER as usize + 1;

/// How many single pages are allocated with one call.
const PAGES_AT_ONCE: usize = 64;

/// log2 of the pages of a block.
///
/// # Invariants
///
/// At most `MAX_PAGE_ORDER`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order(u32);

impl Order {
    /// That of a single page.
    pub(crate) const PAGE: Self = Self(0);

    /// The highest there is.
    pub(crate) const MAX: Self = Self(bindings::MAX_PAGE_ORDER);

    /// That of the stretches of memory that the kernel keeps apart by whether pages can be moved.
    pub(crate) fn pageblock() -> Self {
        // SAFETY: This only reads a number.
        Self::up_to(unsafe { bindings::balloon_bmap_pageblock_order() })
    }

    /// The order of that number, or the highest.
    pub(crate) const fn up_to(order: u32) -> Self {
        if order < bindings::MAX_PAGE_ORDER {
            Self(order)
        } else {
            Self::MAX
        }
    }

    /// The pages of a block.
    pub(crate) const fn pages(self) -> usize {
        1usize.wrapping_shl(self.0)
    }

    /// The bytes of a block.
    pub(crate) const fn bytes(self) -> usize {
        // CAST: The number of bits of an address fits in 32.
        1usize.wrapping_shl(self.0.wrapping_add(PAGE_SHIFT as u32))
    }

    /// The next lower order, if there is one.
    pub(crate) fn lower(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// This order and all lower ones, in descending order.
    pub(crate) fn downwards(self) -> impl Iterator<Item = Self> + Clone {
        core::iter::successors(Some(self), |order| order.lower())
    }

    /// The highest order of a block of up to `pages` pages, if there is one.
    pub(crate) fn largest_in(pages: usize) -> Option<Self> {
        pages.checked_ilog2().map(Self::up_to)
    }

    /// All orders, in ascending order.
    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        (0..=Self::MAX.0).map(Self)
    }

    /// The order as an index.
    pub(crate) fn index(self) -> usize {
        // CAST: A small number, which fits.
        self.0 as usize
    }

    pub(crate) fn raw(self) -> u32 {
        self.0
    }
}

/// A block that the driver owns, outside the balloon.
pub(crate) struct Block {
    page: NonNull<bindings::page>,
    order: Order,
}

// SAFETY: A block belongs to whichever thread has it.
unsafe impl Send for Block {}

impl Block {
    /// Takes a block that is free as a whole, and in memory that never has to be movable: nothing
    /// is reclaimed for it.
    pub(crate) fn allocate(order: Order) -> Option<Self> {
        // SAFETY: May be called from any context.
        let page = unsafe { bindings::balloon_bmap_alloc_block(order.0) };
        NonNull::new(page).map(|page| Self { page, order })
    }

    /// The same, in memory for what is movable: the block must be split, or go back soon.
    pub(crate) fn allocate_movable(order: Order) -> Option<Self> {
        // SAFETY: May be called from any context.
        let page = unsafe { bindings::balloon_bmap_alloc_movable(order.0) };
        NonNull::new(page).map(|page| Self { page, order })
    }

    /// The same, of memory that the kernel itself can have.
    pub(crate) fn allocate_kernel_movable(order: Order) -> Option<Self> {
        // SAFETY: May be called from any context.
        let page = unsafe { bindings::balloon_bmap_alloc_kernel_movable(order.0) };
        NonNull::new(page).map(|page| Self { page, order })
    }

    /// Takes up to `want` single pages, for which memory is reclaimed, and adds them to `ring`.
    /// Returns how many: there may be more.
    pub(crate) fn allocate_singly(want: usize, ring: &mut LruRing) -> usize {
        let mut pages = [core::ptr::null_mut(); PAGES_AT_ONCE];
        let want = i32::try_from(want.min(pages.len())).unwrap_or(0);
        // SAFETY: There is room for that many, and all elements are NULL. May be called from any
        // context that may sleep.
        unsafe { bindings::balloon_bmap_alloc_pages(want, pages.as_mut_ptr()) };
        let pages = pages.into_iter().map_while(NonNull::new);
        pages.map(|page| ring.push(page)).count()
    }

    /// The block's memory.
    pub(crate) fn address(&self) -> *mut kernel::ffi::c_void {
        // SAFETY: The block is valid.
        unsafe { bindings::balloon_bmap_page_address(self.page.as_ptr()) }
    }

    /// The first page, which stands for the block.
    pub(crate) fn into_page(self) -> NonNull<bindings::page> {
        core::mem::ManuallyDrop::new(self).page
    }

    /// # Safety
    ///
    /// `page` must come from [`Self::into_page`] of a block of this order, once.
    pub(crate) unsafe fn from_page(page: NonNull<bindings::page>, order: Order) -> Self {
        Self { page, order }
    }

    /// log2 of the pages of the block.
    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// The first page.
    pub(crate) fn page(&self) -> NonNull<bindings::page> {
        self.page
    }

    /// Makes single pages of the block, and adds them to `ring`.
    pub(crate) fn split(self, ring: &mut LruRing) {
        let order = self.order;
        let mut page = self.into_page().as_ptr();
        if order != Order::PAGE {
            // SAFETY: The block is ours, of this order.
            unsafe { bindings::split_page(page, order.0) };
        }
        let mut left = order.pages();
        while left > 0 {
            left = left.wrapping_sub(1);
            if let Some(page) = NonNull::new(page) {
                ring.push(page);
            }
            // The pages of a block lie side by side in the kernel's map of pages.
            page = page.wrapping_add(1);
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: The block is ours, of this order.
        unsafe { bindings::balloon_bmap_free_block(self.page.as_ptr(), self.order.0) };
    }
}
