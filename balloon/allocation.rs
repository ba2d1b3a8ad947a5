// SPDX-License-Identifier: GPL-2.0-only

//! Where the pages of a window come from.

use crate::{
    abstractions::{
        memory_info,
        page_block::{
            Order,
            Source, //
        },
        page_list::PageList,
        param, //
    },
    messages::{
        pages::{
            Allocated,
            Pages, //
        },
        pfns::{
            block_range,
            UNITS_PER_PAGE, //
        },
    },
};
use kernel::page::PAGE_SHIFT;

/// The bytes of a window.
const WINDOW_BYTES: usize = 96 << 20;

/// The most pages of the guest in a window: 96 MiB.
///
/// This bounds by how much the host's memory may rise while the balloon grows, as the kernel may write
/// to pages when they are allocated, and how late a newer target is seen. There are two windows at a
/// time: one with the host, and one that is being allocated.
pub(crate) const WINDOW: usize = WINDOW_BYTES >> PAGE_SHIFT;

/// Takes up to `want` pages from the system, without its last reserves and without warnings, as long as
/// `go_on` says so. None has a PFN above `max_pfn`, in units of 4 KiB.
///
/// Blocks stay as they are. All other pages are on their own, and movable. Only for single pages is
/// memory reclaimed.
#[inline(never)]
pub(crate) fn allocate(
    want: usize,
    max_pfn: u64,
    go_on: impl Fn() -> bool,
) -> Pages<Allocated, PageList> {
    let mut list = PageList::new();
    let mut left = want;
    for order in whole_blocks(want) {
        left = left.saturating_sub(list.allocate_blocks(order, Source::Unmovable, left, &go_on));
    }
    let orders = Order::largest_in(left)
        .into_iter()
        .flat_map(Order::downwards);
    for order in orders.filter(|order| *order != Order::PAGE) {
        left = left.saturating_sub(list.allocate_blocks(order, Source::Movable, left, &go_on));
    }
    while left > 0 && go_on() {
        let got = list.allocate_singles(left);
        if got == 0 {
            break;
        }
        left = left.saturating_sub(got);
    }
    if is_beyond(max_pfn) {
        // They go back to the system.
        drop(list.extract_if(|block| block_range(block).max > max_pfn));
    }
    Pages::new(list)
}

/// Whether memory may have higher PFNs, in units of 4 KiB, at all.
fn is_beyond(max_pfn: u64) -> bool {
    // CAST: `usize` has at most 64 bits.
    let highest = (memory_info::highest_pfn() as u64).saturating_mul(u64::from(UNITS_PER_PAGE));
    highest > max_pfn
}

/// The orders of the blocks that the balloon holds as a whole.
///
/// By default these are those of pageblocks and above: smaller unmovable blocks would fragment
/// pageblocks, in which whoever needs a huge page moves the others away. They come from zones that the
/// kernel itself can use; where these are short, single pages come from ZONE_MOVABLE first.
fn whole_blocks(want: usize) -> impl Iterator<Item = Order> {
    // Not larger than a window, as they are where pages are large.
    let largest =
        Order::largest_in(WINDOW).map_or(Order::PAGE, |most| most.min(param::block_order()));
    let largest = if memory_info::is_kernel_short(want) {
        Order::PAGE
    } else {
        largest
    };
    largest
        .downwards()
        .take_while(|order| *order != Order::PAGE)
        .filter(move |order| *order == largest || *order >= Order::pageblock())
}
