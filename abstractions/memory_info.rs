// SPDX-License-Identifier: GPL-2.0

//! How the guest's memory is doing.
//!
//! C headers: [`include/linux/vmstat.h`](srctree/include/linux/vmstat.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    blocks::Order,
    vm_events, //
};
use kernel::page::PAGE_SHIFT;

/// Pages that a program could have without swapping.
pub(crate) fn available_pages() -> usize {
    // SAFETY: This only reads counters.
    let pages = unsafe { bindings::si_mem_available() };
    // An estimate, which may be below 0.
    usize::try_from(pages).unwrap_or(0)
}

/// Free pages that lie together, in blocks of at least that order, of memory that the kernel itself
/// can have.
pub(crate) fn free_pages_in_blocks(order: Order) -> usize {
    // SAFETY: This only reads counters.
    unsafe { bindings::balloon_bmap_free_pages_in_blocks(order.raw()) }
}

/// Whether little would be free, without `pages` more, of what the kernel itself can have, while
/// there is memory that only programs can have.
pub(crate) fn is_kernel_short(pages: usize) -> bool {
    // SAFETY: This only reads counters.
    unsafe { bindings::balloon_bmap_kernel_memory_is_short(pages) }
}

/// What the kernel writes to pages that are freed, if it does.
pub(crate) fn free_page_value() -> Option<u32> {
    let mut value = 0;
    // SAFETY: `value` is valid for writes.
    unsafe { bindings::balloon_bmap_free_page_value(&mut value) }.then_some(value)
}

/// The statistics of a balloon, each with its tag: all that the kernel has, in bytes or events as
/// the specification says.
pub(crate) fn statistics() -> impl Iterator<Item = (u32, u64)> {
    let mut info = bindings::sysinfo::default();
    // SAFETY: `info` is valid for writes.
    unsafe { bindings::si_meminfo(&mut info) };

    [
        (
            bindings::VIRTIO_BALLOON_S_ASYNC_SCAN,
            node_bytes(bindings::node_stat_item_PGSCAN_KSWAPD),
        ),
        (
            bindings::VIRTIO_BALLOON_S_DIRECT_SCAN,
            node_bytes(bindings::node_stat_item_PGSCAN_DIRECT),
        ),
        (
            bindings::VIRTIO_BALLOON_S_ASYNC_RECLAIM,
            node_bytes(bindings::node_stat_item_PGSTEAL_KSWAPD),
        ),
        (
            bindings::VIRTIO_BALLOON_S_DIRECT_RECLAIM,
            node_bytes(bindings::node_stat_item_PGSTEAL_DIRECT),
        ),
        (
            bindings::VIRTIO_BALLOON_S_MEMFREE,
            bytes(info.freeram as u64),
        ),
        (
            bindings::VIRTIO_BALLOON_S_MEMTOT,
            bytes(info.totalram as u64),
        ),
        (
            bindings::VIRTIO_BALLOON_S_AVAIL,
            bytes(available_pages() as u64),
        ),
        (
            bindings::VIRTIO_BALLOON_S_CACHES,
            node_bytes(bindings::node_stat_item_NR_FILE_PAGES),
        ),
    ]
    .into_iter()
    .chain(vm_events::statistics())
}

fn node_bytes(item: bindings::node_stat_item) -> u64 {
    // SAFETY: This only reads a counter that the kernel has.
    bytes(unsafe { bindings::balloon_bmap_node_pages(item) } as u64)
}

/// The bytes of that many pages.
pub(crate) fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(1 << PAGE_SHIFT)
}
