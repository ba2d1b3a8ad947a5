// SPDX-License-Identifier: GPL-2.0-only

//! What an inflation leaves to the guest: 4 MiB that lie together.
//!
//! The last page that can be had is at the watermark below which the next allocation invokes the OOM
//! killer. And where all free pages lie alone, an allocation of order 1, for a stack or a slab, invokes
//! it as well if compaction does not find two neighbours at once. So where little memory lies together,
//! the size worker takes the reserve before it allocates a window, and frees it after.
//!
//! The reserve is blocks larger than what processors keep on their own lists when they are freed: pages
//! there do not count as free. Where there are no such blocks, there is no reserve.
//!
//! It comes from pageblocks of movable pages, as nearly all of a guest's memory is, outside of
//! ZONE_MOVABLE. Others would be converted for it, and back for whoever allocates next, and each time
//! the kernel raises its watermarks.

use crate::abstractions::{
    memory_info,
    page_block::{
        Order,
        PageBlock,
        Source, //
    },
    page_list::PageList, //
};
use kernel::bindings;

/// The least that goes back to the buddy allocator at once.
const ORDER: Order = Order::up_to(bindings::PAGE_ALLOC_COSTLY_ORDER + 1);

/// How many blocks there are at most.
const BLOCKS: usize = 64;

/// How many pages that is.
pub(crate) const PAGES: usize = BLOCKS * ORDER.pages();

/// Blocks that are free again when this is dropped.
pub(crate) struct Reserve {
    _blocks: PageList,
}

impl Reserve {
    /// Takes what there is, where less than `pages` pages lie together. Nothing is reclaimed for it.
    pub(crate) fn take_if_below(pages: usize) -> Self {
        let mut blocks = PageList::new();
        if memory_info::free_pages_in_blocks(ORDER) < pages {
            for _ in 0..BLOCKS {
                let Some(block) = PageBlock::allocate(ORDER, Source::KernelMovable) else {
                    break;
                };
                blocks.push(block);
            }
        }
        Self { _blocks: blocks }
    }
}
