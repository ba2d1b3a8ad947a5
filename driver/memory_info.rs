// SPDX-License-Identifier: GPL-2.0

//! How the guest's memory is doing.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::bindings;

/// Pages that a program could have without swapping.
pub(crate) fn available_pages() -> usize {
    // SAFETY: This only reads counters.
    let pages = unsafe { bindings::si_mem_available() };
    // An estimate, which may be below 0.
    usize::try_from(pages).unwrap_or(0)
}
