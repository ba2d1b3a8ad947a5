// SPDX-License-Identifier: GPL-2.0

//! Free page reporting: the kernel says which of its free pages the host may have meanwhile.
//!
//! VIRTIO 1.3, 5.5.6.7. C header: [`include/linux/page_reporting.h`]
//!
//! [`include/linux/page_reporting.h`]: srctree/include/linux/page_reporting.h

use crate::{
    bindings,
    virtqueue::{
        LentPages,
        Virtqueue, //
    },
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Mutex, //
    },
    types::Opaque, //
};

/// Reports free pages on a queue of its own.
///
/// One at a time in the whole system can do so: the kernel refuses a second.
#[pin_data(PinnedDrop)]
pub(crate) struct PageReporting {
    #[pin]
    info: Opaque<bindings::page_reporting_dev_info>,
    registered: Atomic<bool>,
    #[pin]
    queue: Mutex<Option<Virtqueue>>,
}

// SAFETY: `info` is only used by the page reporting core, which has a lock.
unsafe impl Send for PageReporting {}

// SAFETY: As above.
unsafe impl Sync for PageReporting {}

impl PageReporting {
    /// Nothing is reported yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            info <- Opaque::ffi_init(|slot: *mut bindings::page_reporting_dev_info| {
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(bindings::page_reporting_dev_info::default()) }
            }),
            registered: Atomic::new(false),
            queue <- new_mutex!(None),
        })
    }

    /// Takes the queue to report on.
    pub(crate) fn connect(&self, queue: Option<Virtqueue>) {
        *self.queue.lock() = queue;
    }

    /// Starts to report, if there is a queue. The device must be live, or about to be.
    ///
    /// # Errors
    ///
    /// EBUSY if another device reports free pages.
    pub(crate) fn start(&self) -> Result {
        let Some(capacity) = self.queue.lock().as_ref().map(Virtqueue::capacity) else {
            return Ok(());
        };
        if self.registered.xchg(true, Full) {
            return Err(EEXIST);
        }
        let info = self.info.get();
        // SAFETY: `info` is not registered: its fields are ours to set. It is pinned, and
        // unregistered before it is dropped.
        let registered = to_result(unsafe {
            (*info).report = Some(Self::callback);
            (*info).order = bindings::PAGE_REPORTING_ORDER_UNSPECIFIED as kernel::ffi::c_uint;
            (*info).capacity = u32::try_from(capacity)?;
            bindings::page_reporting_register(info)
        });
        if registered.is_err() {
            self.registered.store(false, kernel::sync::atomic::Relaxed);
        }
        registered
    }

    /// Waits for a report to end, after which there are no more.
    pub(crate) fn stop(&self) {
        if self.registered.xchg(false, Full) {
            // SAFETY: `info` is registered.
            unsafe { bindings::page_reporting_unregister(self.info.get()) };
        }
    }

    extern "C" fn callback(
        info: *mut bindings::page_reporting_dev_info,
        pages: *mut bindings::scatterlist,
        len: kernel::ffi::c_uint,
    ) -> kernel::ffi::c_int {
        // SAFETY: The core calls with an `info` that is registered, so that its `PageReporting` is
        // alive.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(info), Self, info) };
        // SAFETY: The core calls with `len` entries, whose pages nobody uses until we return.
        let pages = unsafe { LentPages::new(pages, len) };
        from_result(|| match &mut *this.queue.lock() {
            Some(queue) => queue.lend(pages).map(|()| 0),
            None => Err(ENODEV),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for PageReporting {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}
