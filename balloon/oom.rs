// SPDX-License-Identifier: GPL-2.0

//! Deflate on OOM: the balloon gives way before a process is killed.
//!
//! C header: [`include/linux/oom.h`](srctree/include/linux/oom.h)

use crate::{
    balloon::{
        Balloon,
        SIZE_WORK, //
    },
    bindings,
    notifier::Chain,
    param,
    work, //
};
use kernel::{
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    sync::Arc,
    time::msecs_to_jiffies, //
};

/// How soon the size worker looks at the balloon after the guest ran out of memory.
const LOOK_AGAIN_MS: kernel::time::Msecs = 1000;

/// The guest has run out of memory.
pub(crate) struct OutOfMemory;

// SAFETY: Unregistering waits for calls to end. Memory that runs out is memory that somebody waits
// for.
unsafe impl Chain for OutOfMemory {
    /// Before other notifiers, as what they free may be worth keeping. C:
    /// `VIRTIO_BALLOON_OOM_NOTIFY_PRIORITY`.
    const PRIORITY: c_int = 80;

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { bindings::register_oom_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::unregister_oom_notifier(block) };
    }

    unsafe fn call(balloon: &Arc<Balloon>, _: c_ulong, freed: *mut c_void) {
        let pages = balloon.relieve(param::oom_pages());
        work::start_later::<Balloon, SIZE_WORK>(balloon, msecs_to_jiffies(LOOK_AGAIN_MS));
        // SAFETY: OOM notifiers are called with a pointer to the number of pages freed so far.
        unsafe {
            let freed = freed.cast::<usize>();
            *freed = (*freed).saturating_add(pages);
        }
    }
}
