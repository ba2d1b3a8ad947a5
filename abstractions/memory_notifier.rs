// SPDX-License-Identifier: GPL-2.0-only

//! The chain that is called when memory goes online or offline.
//!
//! C header: [`include/linux/memory.h`](srctree/include/linux/memory.h)

use crate::abstractions::{
    bindings,
    notifier::Chain, //
};
use core::ops::Range;
use kernel::ffi::{
    c_int,
    c_ulong,
    c_void, //
};

/// Memory changes its state. Listeners are called with the kernel's lock of memory hotplug held.
pub(crate) struct MemoryChain;

/// What happens.
pub(crate) enum MemoryEvent {
    /// Memory is about to go offline, with these PFNs, in pages of the guest. It is still online.
    ///
    /// Told only of memory that may have pages which cannot be moved: not of ZONE_MOVABLE.
    GoingOffline(Range<usize>),
}

// SAFETY: Unregistering waits for calls to end. Whoever takes memory offline waits for it.
unsafe impl Chain for MemoryChain {
    type Event<'a> = MemoryEvent;

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { bindings::balloon_bmap_register_memory_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::balloon_bmap_unregister_memory_notifier(block) };
    }

    unsafe fn event<'a>(action: c_ulong, data: *mut c_void) -> Option<Self::Event<'a>> {
        let (mut start, mut pages) = (0, 0);
        // SAFETY: These come from the chain.
        unsafe { bindings::balloon_bmap_goes_offline(action, data, &mut start, &mut pages) }
            .then(|| MemoryEvent::GoingOffline(start..start.saturating_add(pages)))
    }
}
