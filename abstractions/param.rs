// SPDX-License-Identifier: GPL-2.0-only

//! Module parameters, which hold for all devices.
//!
//! They are declared in `helpers.c`: those of `module!` cannot be written while the module is
//! loaded, and cannot be `bool` in every kernel.

use crate::abstractions::{
    bindings,
    notifier::Chain,
    page_block::Order, //
};
use kernel::ffi::{
    c_int,
    c_ulong,
    c_void, //
};

/// Whether page bitmaps are used with a device that has them.
pub(crate) fn page_bitmap() -> bool {
    // SAFETY: This only reads a flag.
    unsafe { bindings::balloon_bmap_page_bitmap() }
}

/// How many pages the balloon gives up each time that the guest runs out of memory.
pub(crate) fn oom_pages() -> usize {
    // SAFETY: This only reads a number.
    let pages = unsafe { bindings::balloon_bmap_oom_pages() };
    usize::try_from(pages).unwrap_or(usize::MAX)
}

/// How many pages the balloon leaves available to the guest when it grows.
pub(crate) fn floor_pages() -> usize {
    // SAFETY: This only reads a number.
    unsafe { bindings::balloon_bmap_floor_pages() }
}

/// The largest blocks that the balloon holds as a whole.
pub(crate) fn block_order() -> Order {
    // SAFETY: This only reads a number.
    Order::up_to(unsafe { bindings::balloon_bmap_block_order() })
}

/// `floor_mib` was written to.
pub(crate) struct FloorChain;

// SAFETY: Unregistering waits for calls to end. A parameter is written to by a process.
unsafe impl Chain for FloorChain {
    type Event<'a> = ();

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { bindings::balloon_bmap_register_floor_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::balloon_bmap_unregister_floor_notifier(block) };
    }

    unsafe fn event<'a>(_: c_ulong, _: *mut c_void) -> Option<Self::Event<'a>> {
        Some(())
    }
}
