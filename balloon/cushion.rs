// SPDX-License-Identifier: GPL-2.0

//! What a guest keeps: 4 MiB that lie together.
//!
//! The last page that can be had is at the watermark below which the kernel looks for somebody to
//! kill, whoever asks for memory next. And where all free pages lie alone, it looks for somebody to
//! kill as soon as it needs two that lie together, for a stack or a slab, and compaction does not
//! find them at once. So when little lies together the size worker takes the cushion before a window
//! and gives it back after.
//!
//! The cushion is blocks larger than what processors keep for themselves when it is freed: pages on
//! their lists do not count as free. Where there are no such blocks, there is no cushion.
//!
//! It is of what the kernel keeps for movable pages, as nearly all of a guest's memory is, outside of
//! ZONE_MOVABLE. Other memory would be turned into what the cushion asks for, and back by whoever asks
//! next, and each time the kernel raises its watermarks in answer.

use crate::blocks::{
    Block,
    Order, //
};
use kernel::bindings;

/// The least that goes back to the buddy allocator at once.
pub(crate) const ORDER: Order = Order::up_to(bindings::PAGE_ALLOC_COSTLY_ORDER + 1);

/// How many blocks there are at most.
const BLOCKS: usize = 64;

/// How many pages that is.
pub(crate) const PAGES: usize = BLOCKS * ORDER.pages();

/// Blocks that are free again when this is dropped.
pub(crate) struct Cushion {
    _blocks: [Option<Block>; BLOCKS],
}

impl Cushion {
    /// Takes what there is. Nothing is reclaimed for it.
    pub(crate) fn take() -> Self {
        let mut blocks = [const { None }; BLOCKS];
        for block in &mut blocks {
            *block = Block::allocate_kernel_movable(ORDER);
            if block.is_none() {
                break;
            }
        }
        Self { _blocks: blocks }
    }
}
