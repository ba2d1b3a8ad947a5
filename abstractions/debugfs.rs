// SPDX-License-Identifier: GPL-2.0-only

//! A directory in debugfs with one file that is made up when it is read.
//!
//! The files of `kernel::debugfs` belong to no module: one that is still open when the module goes
//! calls into memory that is free. These count as use of the module as long as they are open.
//!
//! The directory's name is made in C: `Device::name()` looks for a string's end by arithmetic that is
//! checked for overflow, which would be a panic.
//!
//! C headers: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use crate::abstractions::bindings;
use core::marker::PhantomData;
use kernel::{
    device::Device,
    ffi::{
        c_int,
        c_void, //
    },
    fmt,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc,
    types::ForeignOwnable, //
};

/// What a file shows.
pub(crate) trait Show: Send + Sync {
    /// Writes the text.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A directory with a file.
///
/// # Invariants
///
/// `dir` is a directory that is ours, or NULL or an error pointer. Its file's data is `show`, a reference of
/// an `Arc<T>` that is ours too.
pub(crate) struct ShowFile<T: Show + 'static> {
    dir: *mut bindings::dentry,
    show: *mut c_void,
    data: PhantomData<Arc<T>>,
}

// SAFETY: A directory may be removed from any thread.
unsafe impl<T: Show> Send for ShowFile<T> {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl<T: Show> Sync for ShowFile<T> {}

impl<T: Show> ShowFile<T> {
    /// Makes `/sys/kernel/debug/MODULE-DEVICE/FILE`. Without debugfs there is none, which is no error.
    pub(crate) fn new(dev: &Device, file: &CStr, show: Arc<T>) -> Self {
        let show = show.into_foreign();
        // CAST: `Device` is a transparent wrapper of `struct device`.
        let dev = core::ptr::from_ref(dev).cast();
        // SAFETY: The device is valid, and the name a C string, which is copied. The file's data lives
        // until the directory was removed, and is of the type that the callback takes it for.
        let dir = unsafe {
            bindings::balloon_bmap_debugfs_create(
                dev,
                file.as_char_ptr(),
                Some(Self::callback),
                show,
            )
        };
        // INVARIANT: Both are from above.
        Self {
            dir,
            show,
            data: PhantomData,
        }
    }

    extern "C" fn callback(file: *mut bindings::seq_file, _: *mut c_void) -> c_int {
        struct Text<'a, T>(&'a T);

        impl<T: Show> fmt::Display for Text<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.show(f)
            }
        }

        // SAFETY: The file is read, so the directory was not removed yet, and its data is there.
        let (file, show) = unsafe { (SeqFile::from_raw(file), Arc::<T>::borrow((*file).private)) };
        seq_print!(file, "{}", Text(&*show));
        0
    }
}

impl<T: Show> Drop for ShowFile<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, both are ours. No read is under way once this returns, and none
        // comes after it, whoever has the file open.
        unsafe {
            bindings::balloon_bmap_debugfs_remove(self.dir);
            drop(Arc::<T>::from_foreign(self.show));
        }
    }
}
