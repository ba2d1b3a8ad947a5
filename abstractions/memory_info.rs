// SPDX-License-Identifier: GPL-2.0-only

//! What the kernel counts of the guest's memory.
//!
//! C headers: [`include/linux/vmstat.h`](srctree/include/linux/vmstat.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::abstractions::{
    bindings,
    page_block::Order, //
};

/// Pages that a program could have without swapping (MemAvailable).
pub(crate) fn available_pages() -> usize {
    // SAFETY: This only reads counters.
    let pages = unsafe { bindings::si_mem_available() };
    // An estimate, which may be below 0.
    usize::try_from(pages).unwrap_or(0)
}

/// Pages that are free, and pages that the kernel manages.
pub(crate) fn free_and_total_pages() -> (usize, usize) {
    let mut info = bindings::sysinfo::default();
    // SAFETY: `info` is valid for writes.
    unsafe { bindings::si_meminfo(&mut info) };
    (info.freeram, info.totalram)
}

/// Free pages in blocks of at least that order, of zones that the kernel itself can use.
pub(crate) fn free_pages_in_blocks(order: Order) -> usize {
    // SAFETY: This only reads counters.
    unsafe { bindings::balloon_bmap_free_pages_in_blocks(order.raw()) }
}

/// Whether without `pages` more less than a quarter would be free of the zones that the kernel itself
/// can use, while there is free memory in ZONE_MOVABLE.
pub(crate) fn is_kernel_short(pages: usize) -> bool {
    // SAFETY: This only reads counters.
    unsafe { bindings::balloon_bmap_kernel_memory_is_short(pages) }
}

/// No page of the guest has a higher PFN.
pub(crate) fn highest_pfn() -> usize {
    // SAFETY: This only reads numbers.
    unsafe { bindings::balloon_bmap_highest_pfn() }
}

/// What the kernel writes to pages that are freed, if it does.
pub(crate) fn free_page_value() -> Option<u32> {
    let mut value = 0;
    // SAFETY: `value` is valid for writes.
    unsafe { bindings::balloon_bmap_free_page_value(&mut value) }.then_some(value)
}

/// A count of pages that the kernel keeps by node.
#[derive(Clone, Copy)]
pub(crate) enum NodePages {
    /// Looked at by kswapd.
    ScannedByKswapd,
    /// Looked at by allocations.
    ScannedDirectly,
    /// Reclaimed by kswapd.
    ReclaimedByKswapd,
    /// Reclaimed by allocations.
    ReclaimedDirectly,
    /// In the page cache.
    File,
}

/// That count, over all nodes.
pub(crate) fn node_pages(which: NodePages) -> usize {
    let item = match which {
        NodePages::ScannedByKswapd => bindings::node_stat_item_PGSCAN_KSWAPD,
        NodePages::ScannedDirectly => bindings::node_stat_item_PGSCAN_DIRECT,
        NodePages::ReclaimedByKswapd => bindings::node_stat_item_PGSTEAL_KSWAPD,
        NodePages::ReclaimedDirectly => bindings::node_stat_item_PGSTEAL_DIRECT,
        NodePages::File => bindings::node_stat_item_NR_FILE_PAGES,
    };
    // SAFETY: This only reads a counter that the kernel has.
    unsafe { bindings::balloon_bmap_node_pages(item) }
}

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
pub(crate) use events::VmEvents;

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
mod events {
    use crate::abstractions::bindings;
    use kernel::{
        alloc::Flags,
        prelude::*, //
    };

    /// Counts of events since boot. As large as a stack frame may be, so they are on the heap.
    pub(crate) struct VmEvents(KBox<[usize; bindings::vm_event_item_NR_VM_EVENT_ITEMS as usize]>);

    impl VmEvents {
        /// Room for the counts.
        ///
        /// # Errors
        ///
        /// ENOMEM.
        pub(crate) fn new(flags: Flags) -> Result<Self> {
            Ok(Self(KBox::init(pin_init::init_zeroed(), flags)?))
        }

        /// Reads all counts.
        pub(crate) fn read(&mut self) {
            // SAFETY: The array has an element for each event.
            unsafe { bindings::all_vm_events(self.0.as_mut_ptr()) };
        }

        fn get(&self, item: bindings::vm_event_item) -> u64 {
            let count = usize::try_from(item).ok().and_then(|item| self.0.get(item));
            // CAST: `usize` has at most 64 bits.
            count.map_or(0, |count| *count as u64)
        }

        /// Pages that were swapped in.
        pub(crate) fn swapped_in(&self) -> u64 {
            self.get(bindings::vm_event_item_PSWPIN)
        }

        /// Pages that were swapped out.
        pub(crate) fn swapped_out(&self) -> u64 {
            self.get(bindings::vm_event_item_PSWPOUT)
        }

        /// Page faults for which something was read.
        pub(crate) fn major_faults(&self) -> u64 {
            self.get(bindings::vm_event_item_PGMAJFAULT)
        }

        /// All page faults.
        pub(crate) fn faults(&self) -> u64 {
            self.get(bindings::vm_event_item_PGFAULT)
        }

        /// Times that the OOM killer was invoked.
        pub(crate) fn oom_kills(&self) -> u64 {
            self.get(bindings::vm_event_item_OOM_KILL)
        }

        /// Allocations that stalled. The zones' items follow each other, up to that of ZONE_MOVABLE.
        pub(crate) fn stalls(&self) -> u64 {
            let normal = bindings::vm_event_item_ALLOCSTALL_NORMAL;
            let first = normal.saturating_sub(bindings::zone_type_ZONE_NORMAL);
            (first..first.saturating_add(bindings::zone_type___MAX_NR_ZONES))
                .fold(0, |sum: u64, item| sum.saturating_add(self.get(item)))
        }

        /// Huge pages that were allocated, and those that were not to be had.
        #[cfg(CONFIG_HUGETLB_PAGE)]
        pub(crate) fn huge_pages(&self) -> (u64, u64) {
            (
                self.get(bindings::vm_event_item_HTLB_BUDDY_PGALLOC),
                self.get(bindings::vm_event_item_HTLB_BUDDY_PGALLOC_FAIL),
            )
        }
    }
}
