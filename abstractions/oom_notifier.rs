// SPDX-License-Identifier: GPL-2.0-only

//! The chain that is called before the OOM killer is invoked.
//!
//! C header: [`include/linux/oom.h`](srctree/include/linux/oom.h)

use crate::abstractions::{
    bindings,
    notifier::Chain, //
};
use kernel::ffi::{
    c_int,
    c_ulong,
    c_void, //
};

/// Memory has run out.
///
/// Listeners are called with the kernel's `oom_lock` held, by whoever needs memory: they may neither
/// allocate, nor take a lock that is held across an allocation.
pub(crate) struct OomChain;

/// How many pages were freed so far by those who were called.
pub(crate) struct Freed<'a>(&'a mut usize);

impl Freed<'_> {
    /// So many pages were freed. If it is none by anybody, a process is killed.
    pub(crate) fn add(self, pages: usize) {
        *self.0 = self.0.saturating_add(pages);
    }
}

// SAFETY: Unregistering waits for calls to end. Memory that runs out is memory that somebody waits
// for.
unsafe impl Chain for OomChain {
    type Event<'a> = Freed<'a>;

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { bindings::register_oom_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::unregister_oom_notifier(block) };
    }

    unsafe fn event<'a>(_: c_ulong, freed: *mut c_void) -> Option<Freed<'a>> {
        // SAFETY: This chain is called with a pointer to the number of pages freed so far.
        unsafe { freed.cast::<usize>().as_mut() }.map(Freed)
    }
}
