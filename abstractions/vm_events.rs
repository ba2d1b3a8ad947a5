// SPDX-License-Identifier: GPL-2.0

//! What the kernel counts of its memory management's events, where it does.
//!
//! C header: [`include/linux/vmstat.h`](srctree/include/linux/vmstat.h)

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
pub(crate) use counted::statistics;

/// The statistics of a balloon that are counts of events, each with its tag.
#[cfg(not(CONFIG_VM_EVENT_COUNTERS))]
pub(crate) fn statistics() -> impl Iterator<Item = (u32, u64)> {
    core::iter::empty()
}

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
mod counted {
    use crate::{
        bindings,
        memory_info::bytes, //
    };

    /// Counts of events since boot.
    struct Events([usize; bindings::vm_event_item_NR_VM_EVENT_ITEMS as usize]);

    impl Events {
        fn now() -> Self {
            let mut events = Self([0; bindings::vm_event_item_NR_VM_EVENT_ITEMS as usize]);
            // SAFETY: The array has an element for each event.
            unsafe { bindings::all_vm_events(events.0.as_mut_ptr()) };
            events
        }

        fn get(&self, item: bindings::vm_event_item) -> u64 {
            let count = usize::try_from(item).ok().and_then(|item| self.0.get(item));
            // CAST: `usize` has at most 64 bits.
            count.map_or(0, |count| *count as u64)
        }

        /// The allocations that stalled, in all zones. The items of the zones follow each other, up to
        /// that of ZONE_MOVABLE.
        fn stalls(&self) -> u64 {
            let normal = bindings::vm_event_item_ALLOCSTALL_NORMAL;
            let first = normal.saturating_sub(bindings::zone_type_ZONE_NORMAL);
            (first..first.saturating_add(bindings::zone_type___MAX_NR_ZONES))
                .fold(0, |sum: u64, item| sum.saturating_add(self.get(item)))
        }
    }

    /// The statistics of a balloon that are counts of events, each with its tag.
    pub(crate) fn statistics() -> impl Iterator<Item = (u32, u64)> {
        let events = Events::now();
        [
            (
                bindings::VIRTIO_BALLOON_S_SWAP_IN,
                bytes(events.get(bindings::vm_event_item_PSWPIN)),
            ),
            (
                bindings::VIRTIO_BALLOON_S_SWAP_OUT,
                bytes(events.get(bindings::vm_event_item_PSWPOUT)),
            ),
            (
                bindings::VIRTIO_BALLOON_S_MAJFLT,
                events.get(bindings::vm_event_item_PGMAJFAULT),
            ),
            (
                bindings::VIRTIO_BALLOON_S_MINFLT,
                events.get(bindings::vm_event_item_PGFAULT),
            ),
            (
                bindings::VIRTIO_BALLOON_S_OOM_KILL,
                events.get(bindings::vm_event_item_OOM_KILL),
            ),
            (bindings::VIRTIO_BALLOON_S_ALLOC_STALL, events.stalls()),
        ]
        .into_iter()
        .chain(huge_pages(&events))
    }

    #[cfg(CONFIG_HUGETLB_PAGE)]
    fn huge_pages(events: &Events) -> impl Iterator<Item = (u32, u64)> {
        [
            (
                bindings::VIRTIO_BALLOON_S_HTLB_PGALLOC,
                events.get(bindings::vm_event_item_HTLB_BUDDY_PGALLOC),
            ),
            (
                bindings::VIRTIO_BALLOON_S_HTLB_PGFAIL,
                events.get(bindings::vm_event_item_HTLB_BUDDY_PGALLOC_FAIL),
            ),
        ]
        .into_iter()
    }

    #[cfg(not(CONFIG_HUGETLB_PAGE))]
    fn huge_pages(_: &Events) -> impl Iterator<Item = (u32, u64)> {
        core::iter::empty()
    }
}
