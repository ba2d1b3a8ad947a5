// SPDX-License-Identifier: GPL-2.0-only

//! Bindings of what `bindings_helper.h` declares, on top of the kernel crate's own.

#![allow(
    clippy::all,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

pub use kernel::bindings::*;
use kernel::ffi;

include!(env!("BALLOON_BMAP_BINDINGS"));

// The transport finds these fields by the kernel's layout of them.
const _: () = {
    assert!(core::mem::offset_of!(virtio_driver, driver) == 0);
    assert!(core::mem::size_of::<virtio_device_id>() == 8);
    assert!(core::mem::offset_of!(virtio_balloon_config, num_pages) == 0);
    assert!(core::mem::offset_of!(virtio_balloon_config, actual) == 4);
    assert!(core::mem::size_of::<virtio_balloon_config>() == 16);
};
