// SPDX-License-Identifier: GPL-2.0-only

//! Where the pages of a list lie, in the unit of all PFNs and counts between driver and device.

use crate::{
    abstractions::{
        page_block::BlockRef,
        page_list::PageList, //
    },
    bitmap::PfnRange,
    messages::pages::List, //
};
use kernel::{
    page::PAGE_SHIFT,
    pr_warn_once, //
};

/// The unit is 4 KiB, whatever the guest's page size. C: `VIRTIO_BALLOON_PFN_SHIFT`.
const BALLOON_PAGE_SHIFT: usize = 12;

/// How many units a page of the guest has.
pub(crate) const UNITS_PER_PAGE: u32 = 1 << (PAGE_SHIFT - BALLOON_PAGE_SHIFT);

/// Pages of the guest, in units.
pub(crate) fn units(pages: usize) -> u64 {
    // CAST: `usize` has at most 64 bits.
    (pages as u64).saturating_mul(u64::from(UNITS_PER_PAGE))
}

/// The PFNs of a block, in units.
pub(crate) fn block_range(block: BlockRef<'_>) -> PfnRange {
    PfnRange::block(units(block.pfn()), units(block.order().pages()))
}

/// The PFNs of all blocks of a list, in units, in the list's order. Neighbours come one by one.
pub(crate) fn ranges(pages: &PageList) -> Ranges<'_> {
    Ranges(pages.iter())
}

/// See [`ranges`].
#[derive(Clone)]
pub(crate) struct Ranges<'a>(crate::abstractions::page_list::Iter<'a>);

impl Iterator for Ranges<'_> {
    type Item = PfnRange;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(block_range)
    }

    fn fold<B, F: FnMut(B, Self::Item) -> B>(self, init: B, mut f: F) -> B {
        self.0
            .fold(init, |result, block| f(result, block_range(block)))
    }
}

impl List for PageList {
    fn len(&self) -> usize {
        self.len()
    }

    fn append(&mut self, other: Self) {
        self.append(other);
    }

    fn set_offline(&mut self) {
        self.set_offline();
    }

    fn clear_offline(&mut self) {
        self.clear_offline();
    }

    fn report_lost(&self) {
        pr_warn_once!("{} pages that the host was given are lost\n", self.len());
    }
}
