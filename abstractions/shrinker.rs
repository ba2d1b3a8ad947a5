// SPDX-License-Identifier: GPL-2.0-only

//! Shrinkers: the kernel asks for memory back when it has little.
//!
//! C header: [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)

use crate::abstractions::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable, //
};

/// Something that can give memory back.
pub(crate) trait Shrink: Send + Sync {
    /// How many pages could be given back.
    fn count(&self) -> usize;

    /// Gives back about as many pages, and returns how many it were.
    fn scan(&self, pages: usize) -> usize;
}

/// A shrinker, which is registered as long as this exists.
///
/// # Invariants
///
/// `shrinker` is registered, and its `private_data` owns a reference to an `Arc<T>`.
pub(crate) struct Shrinker<T: Shrink + 'static> {
    shrinker: NonNull<bindings::shrinker>,
    target: PhantomData<Arc<T>>,
}

// SAFETY: A shrinker may be unregistered from any thread.
unsafe impl<T: Shrink> Send for Shrinker<T> {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl<T: Shrink> Sync for Shrinker<T> {}

impl<T: Shrink> Shrinker<T> {
    /// Registers a shrinker.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn register(target: Arc<T>) -> Result<Self> {
        // SAFETY: May be called from any context that may sleep.
        let raw = unsafe { bindings::balloon_bmap_shrinker_alloc() };
        let shrinker = NonNull::new(raw).ok_or(ENOMEM)?;
        // SAFETY: The shrinker is not registered yet: its fields are ours to set.
        unsafe {
            (*raw).count_objects = Some(Self::count_callback);
            (*raw).scan_objects = Some(Self::scan_callback);
            (*raw).private_data = target.into_foreign();
            bindings::shrinker_register(raw);
        }
        // INVARIANT: The shrinker is registered with the reference above.
        Ok(Self {
            shrinker,
            target: PhantomData,
        })
    }

    /// # Safety
    ///
    /// `shrinker` must be registered.
    unsafe fn target<'a>(shrinker: *mut bindings::shrinker) -> ArcBorrow<'a, T> {
        // SAFETY: By the type invariant, this is a reference that is owned.
        unsafe { Arc::<T>::borrow((*shrinker).private_data) }
    }

    extern "C" fn count_callback(
        shrinker: *mut bindings::shrinker,
        _: *mut bindings::shrink_control,
    ) -> usize {
        // SAFETY: Only a shrinker that is registered is called.
        unsafe { Self::target(shrinker) }.count()
    }

    extern "C" fn scan_callback(
        shrinker: *mut bindings::shrinker,
        control: *mut bindings::shrink_control,
    ) -> usize {
        // SAFETY: Only a shrinker that is registered is called, with a valid `control`.
        unsafe { Self::target(shrinker).scan((*control).nr_to_scan) }
    }
}

impl<T: Shrink> Drop for Shrinker<T> {
    fn drop(&mut self) {
        let raw = self.shrinker.as_ptr();
        // SAFETY: The shrinker is registered; it is freed here, after the last of its calls.
        let target = unsafe {
            let target = (*raw).private_data;
            bindings::shrinker_free(raw);
            target
        };
        // SAFETY: By the type invariant, the reference is ours, and nobody uses it any more.
        drop(unsafe { Arc::<T>::from_foreign(target) });
    }
}
