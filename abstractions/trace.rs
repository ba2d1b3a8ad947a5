// SPDX-License-Identifier: GPL-2.0-only

//! Tracepoints, which are declared in `trace.h`.
//!
//! `kernel::declare_trace!` would need the same functions in C, in a header that only the kernel's own
//! bindings read.

use crate::abstractions::bindings;

/// A window of pages: how many were wanted and moved, and what the host holds after it.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Pages of the guest.
    pub(crate) wanted: usize,
    /// Pages of the guest.
    pub(crate) moved: usize,
    /// In units of 4 KiB.
    pub(crate) held: u64,
}

impl Window {
    /// The host was given pages.
    pub(crate) fn inflate(self) {
        // SAFETY: A tracepoint takes any numbers, in any context.
        unsafe { bindings::balloon_bmap_trace_inflate(self.wanted, self.moved, self.held) }
    }

    /// The host gave pages back.
    pub(crate) fn deflate(self) {
        // SAFETY: As above.
        unsafe { bindings::balloon_bmap_trace_deflate(self.wanted, self.moved, self.held) }
    }

    /// The host gave pages back as the guest ran out of memory.
    pub(crate) fn oom(self) {
        // SAFETY: As above.
        unsafe { bindings::balloon_bmap_trace_oom(self.wanted, self.moved, self.held) }
    }
}
