// SPDX-License-Identifier: GPL-2.0-only

//! Blocks of pages as the buddy allocator has them: a power of two, one after the other.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use crate::abstractions::bindings;
use core::ptr::NonNull;
use kernel::page::PAGE_SHIFT;

/// How many orders there are.
// CAST: A small constant, which fits.
pub(crate) const ORDERS: usize = bindings::MAX_PAGE_ORDER as usize + 1;

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

    /// That of the stretches in which the kernel groups pages by mobility (`pageblock_order`).
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

/// What memory a block comes from.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// Memory of the kernel's own zones, in pageblocks for what cannot be moved.
    Unmovable,
    /// Memory of the kernel's own zones, in pageblocks for what can be moved. The block must be split
    /// into pages that can be moved, or go back soon.
    KernelMovable,
    /// Any memory that can be had for pages that can be moved; as above.
    Movable,
}

/// A block that the driver owns.
pub(crate) struct PageBlock {
    page: NonNull<bindings::page>,
    order: Order,
}

// SAFETY: A block belongs to whichever thread has it.
unsafe impl Send for PageBlock {}

impl PageBlock {
    /// Takes a block that is free as a whole: nothing is reclaimed or moved for it, and no reserve
    /// is touched.
    pub(crate) fn allocate(order: Order, source: Source) -> Option<Self> {
        // SAFETY: May be called from any context.
        let page = unsafe {
            match source {
                Source::Unmovable => bindings::balloon_bmap_alloc_unmovable(order.0),
                Source::KernelMovable => bindings::balloon_bmap_alloc_kernel_movable(order.0),
                Source::Movable => bindings::balloon_bmap_alloc_movable(order.0),
            }
        };
        NonNull::new(page).map(|page| Self { page, order })
    }

    /// log2 of the pages of the block.
    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// The block's memory.
    pub(super) fn address(&self) -> *mut kernel::ffi::c_void {
        // SAFETY: The block is valid.
        unsafe { bindings::balloon_bmap_page_address(self.page.as_ptr()) }
    }

    /// The first page, which stands for the block, and is owned by the caller from then on.
    pub(super) fn into_page(self) -> NonNull<bindings::page> {
        core::mem::ManuallyDrop::new(self).page
    }

    /// # Safety
    ///
    /// `page` must come from [`Self::into_page`] of a block of this order, once.
    pub(super) unsafe fn from_page(page: NonNull<bindings::page>, order: Order) -> Self {
        Self { page, order }
    }
}

impl Drop for PageBlock {
    fn drop(&mut self) {
        // SAFETY: The block is ours, of this order.
        unsafe { bindings::balloon_bmap_free_block(self.page.as_ptr(), self.order.0) };
    }
}

/// Where a block lies that somebody owns.
#[derive(Clone, Copy)]
pub(crate) struct BlockRef<'a> {
    page: NonNull<bindings::page>,
    order: Order,
    owner: core::marker::PhantomData<&'a PageBlock>,
}

impl BlockRef<'_> {
    /// # Safety
    ///
    /// `page` must be the first of a block of this order, which stays owned for the lifetime.
    pub(super) unsafe fn new(page: NonNull<bindings::page>, order: Order) -> Self {
        Self {
            page,
            order,
            owner: core::marker::PhantomData,
        }
    }

    /// The first page's PFN, in pages of the guest.
    pub(crate) fn pfn(self) -> usize {
        // SAFETY: The page is valid.
        unsafe { bindings::balloon_bmap_page_pfn(self.page.as_ptr()) }
    }

    /// log2 of the pages of the block.
    pub(crate) fn order(self) -> Order {
        self.order
    }

    pub(super) fn page(self) -> *mut bindings::page {
        self.page.as_ptr()
    }

    /// Takes a reference of the page, with which it stays allocated although its owner frees it.
    pub(crate) fn keep(self) -> KeptPage {
        // SAFETY: The page is valid.
        unsafe { bindings::balloon_bmap_get_page(self.page.as_ptr()) };
        KeptPage(self.page)
    }
}

/// A reference of a single page.
pub(crate) struct KeptPage(NonNull<bindings::page>);

// SAFETY: A reference belongs to whichever thread has it.
unsafe impl Send for KeptPage {}

impl Drop for KeptPage {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::balloon_bmap_put_page(self.0.as_ptr()) };
    }
}
