// SPDX-License-Identifier: GPL-2.0-only

//! What differs between the series of Linux that the driver is written for.
//!
//! The driver speaks to the newest. What an older one lacks is made up for here, under the name and
//! in the manner of the newest; Kbuild says which series it is. Nothing else in the driver asks.

#[cfg(linux_7_2)]
pub(crate) use linux_7_2::*;
#[cfg(not(linux_7_2))]
pub(crate) use newest::*;

#[cfg(not(linux_7_2))]
mod newest {
    use kernel::{
        alloc::{
            AllocError,
            Flags, //
        },
        prelude::*,
    };

    pub(crate) use kernel::{
        module_device_table,
        sync::{
            new_spinlock_irq,
            SpinLockIrq, //
        },
    };

    /// A vector of `n` zeroes.
    pub(crate) fn zeroed<T: Zeroable>(n: usize, flags: Flags) -> Result<KVec<T>, AllocError> {
        KVec::zeroed(n, flags)
    }
}

#[cfg(linux_7_2)]
mod linux_7_2 {
    use crate::abstractions::bindings;
    use kernel::{
        alloc::{
            flags::__GFP_ZERO,
            AllocError,
            Flags, //
        },
        ffi::{
            c_char,
            c_ulong, //
        },
        prelude::*,
        sync::lock::{
            spinlock::SpinLockBackend,
            Backend,
            Lock, //
        },
    };

    /// A vector of `n` zeroes, as `KVec::zeroed` makes it.
    pub(crate) fn zeroed<T: Zeroable>(n: usize, flags: Flags) -> Result<KVec<T>, AllocError> {
        let mut vec = KVec::with_capacity(n, flags | __GFP_ZERO)?;
        // SAFETY: There is room for `n` elements, and all bytes of it are zero, which is a valid
        // value of the type.
        unsafe { vec.inc_len(n) };
        Ok(vec)
    }

    /// `kernel::module_device_table!` for devices without data of the driver's.
    macro_rules! module_device_table {
        ($type:literal, $id_type:ty, $table:ident, @none, [$($id:expr),*]) => {
            const $table: kernel::device_id::IdArray<
                $id_type,
                (),
                { <[$id_type]>::len(&[$($id),*]) },
            > = kernel::device_id::IdArray::new_without_index([$(($id, ())),*]);

            kernel::module_device_table!($type, MODULE_TABLE, $table);
        };
    }

    /// `kernel::sync::new_spinlock_irq!`.
    macro_rules! new_spinlock_irq {
        ($inner:expr) => {
            $crate::abstractions::compat::SpinLockIrq::new(
                $inner,
                kernel::optional_name!(),
                kernel::static_lock_class!(),
            )
        };
    }

    pub(crate) use {
        module_device_table,
        new_spinlock_irq, //
    };

    /// A spinlock with interrupts disabled, `kernel::sync::SpinLockIrq`.
    pub(crate) type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

    /// The backend of [`SpinLockIrq`].
    pub(crate) struct SpinLockIrqBackend;

    // SAFETY: The underlying `spinlock_t` ensures mutual exclusion, and `relock` is the default,
    // which locks in the same way.
    unsafe impl Backend for SpinLockIrqBackend {
        type State = bindings::spinlock_t;
        /// The interrupt flags to restore.
        type GuardState = c_ulong;

        unsafe fn init(
            ptr: *mut Self::State,
            name: *const c_char,
            key: *mut bindings::lock_class_key,
        ) {
            // SAFETY: The requirements are the same.
            unsafe { SpinLockBackend::init(ptr, name, key) }
        }

        unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
            // SAFETY: The lock is initialised.
            unsafe { bindings::balloon_bmap_spin_lock_irqsave(ptr) }
        }

        unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
            let mut flags = 0;
            // SAFETY: The lock is initialised, and `flags` valid for writes.
            let locked = unsafe { bindings::balloon_bmap_spin_trylock_irqsave(ptr, &mut flags) };
            locked.then_some(flags)
        }

        unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
            // SAFETY: The caller owns the lock, and `flags` come from locking it.
            unsafe { bindings::balloon_bmap_spin_unlock_irqrestore(ptr, *flags) }
        }

        unsafe fn assert_is_held(ptr: *mut Self::State) {
            // SAFETY: The requirements are the same.
            unsafe { SpinLockBackend::assert_is_held(ptr) }
        }
    }
}
