// SPDX-License-Identifier: GPL-2.0

//! Memory hot-unplug: blocks leave memory that is to go offline, as nobody can move them.
//!
//! The balloon gets others elsewhere. Single pages move by themselves: [`crate::compaction`].
//!
//! C header: [`include/linux/memory.h`](srctree/include/linux/memory.h)

use crate::{
    balloon::{
        Balloon,
        SIZE_WORK, //
    },
    bindings,
    bitmap::PfnRange,
    notifier::Chain,
    pages::UNITS_PER_PAGE,
    work, //
};
use kernel::{
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    sync::Arc, //
};

/// Memory changes between online and offline.
pub(crate) struct MemoryHotplug;

// SAFETY: Unregistering waits for calls to end. Whoever takes memory offline waits for it.
unsafe impl Chain for MemoryHotplug {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { bindings::balloon_bmap_register_memory_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::balloon_bmap_unregister_memory_notifier(block) };
    }

    unsafe fn call(balloon: &Arc<Balloon>, action: c_ulong, data: *mut c_void) {
        let (mut start, mut pages) = (0, 0);
        // SAFETY: These come from the chain of the memory.
        if !unsafe { bindings::balloon_bmap_goes_offline(action, data, &mut start, &mut pages) } {
            return;
        }
        // CAST: `unsigned long` has at most 64 bits.
        let units = |pages: c_ulong| (pages as u64).saturating_mul(u64::from(UNITS_PER_PAGE));
        if balloon.vacate(PfnRange::block(units(start), units(pages))) {
            work::start::<Balloon, SIZE_WORK>(balloon);
        }
    }
}
