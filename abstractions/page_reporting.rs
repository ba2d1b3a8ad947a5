// SPDX-License-Identifier: GPL-2.0-only

//! Free page reporting: the kernel says which of its free pages a host may have meanwhile.
//!
//! C header: [`include/linux/page_reporting.h`]
//!
//! [`include/linux/page_reporting.h`]: srctree/include/linux/page_reporting.h

use crate::abstractions::{
    bindings,
    virtqueue::LentPages, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_uint, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
    types::Opaque, //
};

/// The order of what is reported. The default is that of pageblocks, but with pages of 64 KiB these
/// are of 512 MiB.
const ORDER: c_uint = if cfg!(all(CONFIG_ARM64, CONFIG_ARM64_64K_PAGES)) {
    5
} else {
    // CAST: A small constant, -1, which C takes for an unsigned one too.
    bindings::PAGE_REPORTING_ORDER_UNSPECIFIED as c_uint
};

/// Somebody who tells the host of free pages.
pub(crate) trait Report: Send + Sync {
    /// Tells it of these, and waits until it has done with them what it wants.
    ///
    /// # Errors
    ///
    /// Where the pages may not have been reported.
    fn report(&self, pages: LentPages<'_>) -> Result;
}

/// Reports free pages. One at a time in the whole system can do so: the kernel refuses a second.
#[pin_data(PinnedDrop)]
pub(crate) struct PageReporting<R: Report> {
    #[pin]
    info: Opaque<bindings::page_reporting_dev_info>,
    #[pin]
    registered: Mutex<bool>,
    #[pin]
    reporter: R,
}

// SAFETY: `info` is only used by the page reporting core, which has a lock.
unsafe impl<R: Report> Send for PageReporting<R> {}

// SAFETY: As above.
unsafe impl<R: Report> Sync for PageReporting<R> {}

impl<R: Report> PageReporting<R> {
    /// Nothing is reported yet.
    pub(crate) fn new(reporter: impl PinInit<R>) -> impl PinInit<Self> {
        pin_init!(Self {
            info <- Opaque::ffi_init(|slot: *mut bindings::page_reporting_dev_info| {
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(bindings::page_reporting_dev_info::default()) }
            }),
            registered <- new_mutex!(false),
            reporter <- reporter,
        })
    }

    /// Who reports.
    pub(crate) fn inner(&self) -> &R {
        &self.reporter
    }

    /// Starts to report, up to `capacity` ranges at a time.
    ///
    /// # Errors
    ///
    /// EBUSY if another device reports free pages.
    pub(crate) fn start(&self, capacity: usize) -> Result {
        let mut registered = self.registered.lock();
        if *registered {
            return Ok(());
        }
        let info = self.info.get();
        // SAFETY: `info` is not registered: its fields are ours to set. It is pinned, and
        // unregistered before it is dropped.
        to_result(unsafe {
            (*info).report = Some(Self::callback);
            (*info).order = ORDER;
            (*info).capacity = u32::try_from(capacity)?;
            bindings::page_reporting_register(info)
        })?;
        *registered = true;
        Ok(())
    }

    /// Waits for a report to end, after which there are no more.
    pub(crate) fn stop(&self) {
        let mut registered = self.registered.lock();
        if core::mem::replace(&mut *registered, false) {
            // SAFETY: `info` is registered.
            unsafe { bindings::page_reporting_unregister(self.info.get()) };
        }
    }

    extern "C" fn callback(
        info: *mut bindings::page_reporting_dev_info,
        pages: *mut bindings::scatterlist,
        len: c_uint,
    ) -> c_int {
        // SAFETY: The core calls with an `info` that is registered, so that its `PageReporting` is
        // alive.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(info), Self, info) };
        // SAFETY: The core calls with `len` entries, whose pages nobody uses until we return.
        let pages = unsafe { LentPages::new(pages, len) };
        from_result(|| this.reporter.report(pages).map(|()| 0))
    }
}

#[pinned_drop]
impl<R: Report> PinnedDrop for PageReporting<R> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}
