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
    param,
    work, //
};
use core::mem::offset_of;
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc, //
    },
    time::msecs_to_jiffies,
    types::Opaque, //
};

/// Before other notifiers, as what they free may be worth keeping. C:
/// `VIRTIO_BALLOON_OOM_NOTIFY_PRIORITY`.
const PRIORITY: kernel::ffi::c_int = 80;

/// How soon the size worker looks at the balloon after the guest ran out of memory.
const LOOK_AGAIN_MS: kernel::time::Msecs = 1000;

/// Frees pages of a balloon when the guest runs out of memory.
#[pin_data(PinnedDrop)]
pub(crate) struct OomNotifier {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    registered: Atomic<bool>,
    balloon: Arc<Balloon>,
}

// SAFETY: `block` is only used by the notifier chain, which has a lock.
unsafe impl Send for OomNotifier {}

// SAFETY: As above.
unsafe impl Sync for OomNotifier {}

impl OomNotifier {
    /// A notifier that is not registered.
    pub(crate) fn new(balloon: Arc<Balloon>) -> impl PinInit<Self> {
        pin_init!(Self {
            block <- Opaque::ffi_init(|slot: *mut bindings::notifier_block| {
                // SAFETY: `slot` is valid for writes.
                unsafe {
                    slot.write(bindings::notifier_block::default());
                    (*slot).notifier_call = Some(Self::callback);
                    (*slot).priority = PRIORITY;
                }
            }),
            registered: Atomic::new(false),
            balloon,
        })
    }

    /// Starts to be called.
    ///
    /// # Errors
    ///
    /// EEXIST if it is called already.
    pub(crate) fn register(&self) -> Result {
        if self.registered.xchg(true, Full) {
            return Err(EEXIST);
        }
        // SAFETY: The block is complete, pinned, and unregistered before it is dropped.
        to_result(unsafe { bindings::register_oom_notifier(self.block.get()) })
    }

    /// Waits for a call to end, after which there are no more.
    pub(crate) fn unregister(&self) {
        if self.registered.xchg(false, Full) {
            // SAFETY: The block is registered.
            unsafe { bindings::unregister_oom_notifier(self.block.get()) };
        }
    }

    extern "C" fn callback(
        block: *mut bindings::notifier_block,
        _: usize,
        freed: *mut kernel::ffi::c_void,
    ) -> kernel::ffi::c_int {
        // SAFETY: The chain calls with a block that is registered, so that its `OomNotifier` is
        // alive.
        let this = unsafe { &*block.byte_sub(offset_of!(Self, block)).cast::<Self>() };
        let pages = this.balloon.relieve(param::oom_pages());
        work::start_later::<Balloon, SIZE_WORK>(&this.balloon, msecs_to_jiffies(LOOK_AGAIN_MS));
        // SAFETY: OOM notifiers are called with a pointer to the number of pages freed so far.
        unsafe {
            let freed = freed.cast::<usize>();
            *freed = (*freed).saturating_add(pages);
        }
        // CAST: Notifiers' results are small.
        bindings::NOTIFY_OK as kernel::ffi::c_int
    }
}

#[pinned_drop]
impl PinnedDrop for OomNotifier {
    fn drop(self: Pin<&mut Self>) {
        self.unregister();
    }
}
