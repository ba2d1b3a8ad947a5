// SPDX-License-Identifier: GPL-2.0

//! What a guest keeps that has no more memory: 4 MiB.
//!
//! The last page that can be had is at the watermark below which the kernel looks for somebody to
//! kill, whoever asks for memory next. So the size worker takes the cushion before a window and
//! gives it back after: then the guest is that far above the watermark at least.
//!
//! The cushion is blocks larger than what processors keep for themselves when it is freed: pages on
//! their lists do not count as free. Where there are no such blocks, there is no cushion.

use crate::bindings;
use core::ptr::NonNull;

/// log2 of the pages of a block: the least that goes back to the buddy allocator at once.
const ORDER: u32 = bindings::PAGE_ALLOC_COSTLY_ORDER + 1;

/// How many blocks there are at most.
const BLOCKS: usize = 64;

/// How many pages that is.
pub(crate) const PAGES: usize = BLOCKS << ORDER;

/// Blocks that are free again when this is dropped.
pub(crate) struct Cushion([Option<NonNull<bindings::page>>; BLOCKS]);

impl Cushion {
    /// Takes what there is. Nothing is reclaimed for it.
    pub(crate) fn take() -> Self {
        let mut blocks = [None; BLOCKS];
        for block in &mut blocks {
            // SAFETY: May be called from any context.
            *block = NonNull::new(unsafe { bindings::balloon_bmap_alloc_block(ORDER) });
            if block.is_none() {
                break;
            }
        }
        Self(blocks)
    }
}

impl Drop for Cushion {
    fn drop(&mut self) {
        for block in self.0.iter().flatten() {
            // SAFETY: The block is ours, of this order.
            unsafe { bindings::balloon_bmap_free_block(block.as_ptr(), ORDER) };
        }
    }
}
