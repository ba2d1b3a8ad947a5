// SPDX-License-Identifier: GPL-2.0-only

//! Kernels that were started to write the dump of one that crashed.
//!
//! C header: [`include/linux/crash_dump.h`](srctree/include/linux/crash_dump.h)

use crate::abstractions::bindings;

/// Whether this is such a kernel (`is_kdump_kernel()`).
pub(crate) fn is_capture_kernel() -> bool {
    // SAFETY: This only reads an address that was on the command line.
    unsafe { bindings::balloon_bmap_is_kdump_kernel() }
}
