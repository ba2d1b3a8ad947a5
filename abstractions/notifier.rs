// SPDX-License-Identifier: GPL-2.0

//! Has the kernel call a balloon when something happens that it should know of.
//!
//! C header: [`include/linux/notifier.h`](srctree/include/linux/notifier.h)

use crate::{
    balloon::Balloon,
    bindings, //
};
use core::{
    marker::PhantomData,
    mem::offset_of, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// What there is to know of.
///
/// # Safety
///
/// After `register` the kernel must only call the block until `unregister` returns, from contexts
/// that may sleep.
pub(crate) unsafe trait Chain {
    /// Who is called first.
    const PRIORITY: c_int = 0;

    /// # Safety
    ///
    /// The block must be complete and stay where it is until it is unregistered.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// # Safety
    ///
    /// The block must be registered.
    unsafe fn unregister(block: *mut bindings::notifier_block);

    /// It has happened.
    ///
    /// # Safety
    ///
    /// `action` and `data` must be what the chain has called with.
    unsafe fn call(balloon: &Arc<Balloon>, action: c_ulong, data: *mut c_void);
}

/// A balloon that may be called.
#[pin_data(PinnedDrop)]
pub(crate) struct Notifier<C: Chain> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    registered: Atomic<bool>,
    balloon: Arc<Balloon>,
    chain: PhantomData<C>,
}

// SAFETY: `block` is only used by the notifier chain, which has a lock.
unsafe impl<C: Chain> Send for Notifier<C> {}

// SAFETY: As above.
unsafe impl<C: Chain> Sync for Notifier<C> {}

impl<C: Chain> Notifier<C> {
    /// A notifier that is not registered.
    pub(crate) fn new(balloon: Arc<Balloon>) -> impl PinInit<Self> {
        pin_init!(Self {
            block <- Opaque::ffi_init(|slot: *mut bindings::notifier_block| {
                // SAFETY: `slot` is valid for writes.
                unsafe {
                    slot.write(bindings::notifier_block::default());
                    (*slot).notifier_call = Some(Self::callback);
                    (*slot).priority = C::PRIORITY;
                }
            }),
            registered: Atomic::new(false),
            balloon,
            chain: PhantomData,
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
        to_result(unsafe { C::register(self.block.get()) })
    }

    /// Waits for a call to end, after which there are no more.
    pub(crate) fn unregister(&self) {
        if self.registered.xchg(false, Full) {
            // SAFETY: The block is registered.
            unsafe { C::unregister(self.block.get()) };
        }
    }

    extern "C" fn callback(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: The chain calls with a block that is registered, so that its `Notifier` is alive.
        let this = unsafe { &*block.byte_sub(offset_of!(Self, block)).cast::<Self>() };
        // SAFETY: These come from the chain.
        unsafe { C::call(&this.balloon, action, data) };
        // CAST: Notifiers' results are small.
        bindings::NOTIFY_OK as c_int
    }
}

#[pinned_drop]
impl<C: Chain> PinnedDrop for Notifier<C> {
    fn drop(self: Pin<&mut Self>) {
        self.unregister();
    }
}
