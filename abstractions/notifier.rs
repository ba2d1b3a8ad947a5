// SPDX-License-Identifier: GPL-2.0-only

//! Notifier chains: the kernel calls who wants to know of an event.
//!
//! C header: [`include/linux/notifier.h`](srctree/include/linux/notifier.h)

use crate::abstractions::bindings;
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
    types::Opaque, //
};

/// A chain.
///
/// # Safety
///
/// After `register` succeeded the kernel must only call the block until `unregister` returns, from
/// contexts that may sleep.
pub(crate) unsafe trait Chain {
    /// What is told.
    type Event<'a>;

    /// # Safety
    ///
    /// The block must be complete and stay where it is until it is unregistered.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// # Safety
    ///
    /// The block must be registered.
    unsafe fn unregister(block: *mut bindings::notifier_block);

    /// What is told by a call, if it is one of interest.
    ///
    /// # Safety
    ///
    /// `action` and `data` must be what the chain has called with, and calls with for `'a`.
    unsafe fn event<'a>(action: c_ulong, data: *mut c_void) -> Option<Self::Event<'a>>;
}

/// Somebody who wants to know.
pub(crate) trait Listen<C: Chain>: Send + Sync {
    /// There was an event.
    fn notify(&self, event: C::Event<'_>);
}

/// A listener of a chain.
#[pin_data(PinnedDrop)]
pub(crate) struct Notifier<C: Chain, L: Listen<C>> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    #[pin]
    registered: Mutex<bool>,
    listener: L,
    chain: PhantomData<fn(C)>,
}

// SAFETY: `block` is only used by the notifier chain, which has a lock.
unsafe impl<C: Chain, L: Listen<C>> Send for Notifier<C, L> {}

// SAFETY: As above.
unsafe impl<C: Chain, L: Listen<C>> Sync for Notifier<C, L> {}

impl<C: Chain, L: Listen<C>> Notifier<C, L> {
    /// A notifier that is not registered. Those of higher priority are called first.
    pub(crate) fn new(listener: L, priority: c_int) -> impl PinInit<Self> {
        pin_init!(Self {
            block <- Opaque::ffi_init(move |slot: *mut bindings::notifier_block| {
                // SAFETY: `slot` is valid for writes.
                unsafe {
                    slot.write(bindings::notifier_block {
                        notifier_call: Some(Self::callback),
                        priority,
                        ..Default::default()
                    });
                }
            }),
            registered <- new_mutex!(false),
            listener,
            chain: PhantomData,
        })
    }

    /// Starts to be called, unless it is already.
    ///
    /// # Errors
    ///
    /// Those of the chain.
    pub(crate) fn register(&self) -> Result {
        let mut registered = self.registered.lock();
        if !*registered {
            // SAFETY: The block is complete, pinned, and unregistered before it is dropped.
            to_result(unsafe { C::register(self.block.get()) })?;
            *registered = true;
        }
        Ok(())
    }

    /// Waits for a call to end, after which there are no more.
    pub(crate) fn unregister(&self) {
        let mut registered = self.registered.lock();
        if core::mem::replace(&mut *registered, false) {
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
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(block), Self, block) };
        // SAFETY: These come from the chain.
        if let Some(event) = unsafe { C::event(action, data) } {
            this.listener.notify(event);
        }
        // CAST: Notifiers' results are small.
        bindings::NOTIFY_OK as c_int
    }
}

#[pinned_drop]
impl<C: Chain, L: Listen<C>> PinnedDrop for Notifier<C, L> {
    fn drop(self: Pin<&mut Self>) {
        self.unregister();
    }
}
