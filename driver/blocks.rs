// SPDX-License-Identifier: GPL-2.0

//! Blocks of pages as large as the buddy allocator has them.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use crate::{
    bindings,
    lru_ring::LruRing, //
};
use core::ptr::NonNull;
use kernel::page::PAGE_SHIFT;

/// log2 of the pages of a block.
const ORDER: u32 = bindings::MAX_PAGE_ORDER;

/// The pages of a block.
pub(crate) const PAGES_PER_BLOCK: usize = 1 << ORDER;

/// The bytes of a block.
pub(crate) const BLOCK_LEN: u32 = 1 << (ORDER as usize + PAGE_SHIFT);

/// A block that the driver owns.
pub(crate) struct Block(NonNull<bindings::page>);

// SAFETY: A block belongs to whichever thread has it.
unsafe impl Send for Block {}

impl Block {
    /// Takes a block that is free as a whole: nothing is reclaimed for it.
    pub(crate) fn allocate() -> Option<Self> {
        // SAFETY: May be called from any context.
        NonNull::new(unsafe { bindings::balloon_bmap_alloc_block(ORDER) }).map(Self)
    }

    /// The block's memory.
    pub(crate) fn address(&self) -> *mut kernel::ffi::c_void {
        // SAFETY: The block is valid.
        unsafe { bindings::balloon_bmap_page_address(self.0.as_ptr()) }
    }

    fn into_page(self) -> NonNull<bindings::page> {
        core::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: The block is ours, of this order.
        unsafe { bindings::balloon_bmap_free_block(self.0.as_ptr(), ORDER) };
    }
}

/// A list of blocks.
pub(crate) struct BlockList(LruRing);

impl BlockList {
    /// No blocks.
    pub(crate) const fn new() -> Self {
        Self(LruRing::new())
    }

    /// The number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a block.
    pub(crate) fn push(&mut self, block: Block) {
        self.0.push(block.into_page());
    }

    /// Takes the block that was added last.
    pub(crate) fn pop(&mut self) -> Option<Block> {
        self.0.pop().map(Block)
    }
}

impl Drop for BlockList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
