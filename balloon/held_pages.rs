// SPDX-License-Identifier: GPL-2.0-only

//! The pages that the host holds, as the kernel's memory management knows them.
//!
//! Here they are marked, counted and, where they are on their own and the kernel supports it,
//! movable: `mm/balloon.c` has the single pages. Blocks are held as a whole.

use crate::{
    abstractions::{
        balloon_device::{
            BalloonDevice,
            Migrate, //
        },
        offline_blocks::OfflineBlocks,
        page_counts::Counted,
        page_list::PageList, //
    },
    balloon::ledger::Store,
    messages::counters::Counters,
};
use core::ops::Range;

/// What pages are wanted.
pub(crate) enum Wanted {
    /// So many. Blocks leave the balloon as a whole as long as they are wanted whole; one is only split
    /// where there are no single pages.
    Exactly(usize),
    /// At least so many, where whoever needs memory cannot wait: single pages first, then whole blocks.
    /// No block is split: parts of one would lie in a pageblock for what cannot be moved, and whoever
    /// allocates next would have to convert others, for which the kernel raises its watermarks.
    AtLeast(usize),
    /// All blocks that start in these PFNs of the guest.
    BlocksIn(Range<usize>),
}

/// The pages that the host holds.
pub(crate) struct HeldPages<'a, M> {
    pub(crate) singles: &'a BalloonDevice<M>,
    pub(crate) blocks: &'a mut OfflineBlocks,
    pub(crate) counted: Counted,
    pub(crate) counters: &'a Counters,
}

impl<M: Migrate> HeldPages<'_, M> {
    fn take_exactly(&mut self, pages: &mut PageList, want: usize) {
        let mut left = want;
        while let Some(block) = self.blocks.take_up_to(left) {
            left = left.saturating_sub(block.order().pages());
            pages.push(block);
        }
        left = left.saturating_sub(self.singles.dequeue(pages, left));
        if left > 0 && self.split_block() {
            self.singles.dequeue(pages, left);
        }
    }

    fn take_at_least(&mut self, pages: &mut PageList, want: usize) {
        let mut left = want.saturating_sub(self.singles.dequeue(pages, want));
        while left > 0 {
            let Some(block) = self.blocks.take_smallest() else {
                break;
            };
            left = left.saturating_sub(block.order().pages());
            pages.push(block);
        }
    }

    /// Makes single pages of a block, if there is one.
    fn split_block(&mut self) -> bool {
        let Some(block) = self.blocks.take_smallest() else {
            return false;
        };
        let mut pages = PageList::new();
        pages.push(block);
        pages.iter().for_each(|block| self.counted.split(block));
        while let Some(block) = pages.pop_smallest_block() {
            pages.push_split(block);
        }
        self.singles.enqueue(&mut pages);
        true
    }
}

impl<M: Migrate> Store for HeldPages<'_, M> {
    type List = PageList;
    type Wanted = Wanted;

    fn insert(&mut self, mut pages: PageList) {
        self.counted.inflated(&pages);
        self.singles.enqueue(&mut pages);
        self.blocks.insert(pages);
    }

    fn take(&mut self, wanted: Wanted) -> PageList {
        let mut pages = PageList::new();
        match wanted {
            Wanted::Exactly(want) => self.take_exactly(&mut pages, want),
            Wanted::AtLeast(want) => self.take_at_least(&mut pages, want),
            Wanted::BlocksIn(pfns) => {
                let look = || self.counters.eviction_looks.inc();
                pages = self.blocks.take_in(pfns, look);
            }
        }
        self.counted.deflated(&pages);
        pages
    }

    fn len(&self) -> usize {
        self.singles.len().saturating_add(self.blocks.len())
    }
}
