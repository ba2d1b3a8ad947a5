// SPDX-License-Identifier: GPL-2.0-only

//! The configuration space of a balloon device. VIRTIO 1.3, 5.5.4.
//!
//! It is little-endian on legacy devices too.

use crate::abstractions::{
    bindings::virtio_balloon_config,
    transport::Transport, //
};
use core::mem::offset_of;
use kernel::prelude::*;

/// The size that the host wants, in units of 4 KiB.
///
/// # Errors
///
/// Those of [`Transport::config_read`].
pub(crate) fn num_pages(transport: &Transport) -> Result<u32> {
    transport.config_read(offset_of!(virtio_balloon_config, num_pages))
}

/// The newest command about hints of free pages.
///
/// # Errors
///
/// Those of [`Transport::config_read`].
pub(crate) fn free_page_hint_cmd_id(transport: &Transport) -> Result<u32> {
    transport.config_read(offset_of!(virtio_balloon_config, __bindgen_anon_1))
}

/// Tells the host the size that the balloon has, in units of 4 KiB.
pub(crate) fn set_actual(transport: &Transport, actual: u32) {
    // Without a device there is nobody to tell.
    let _ = transport.config_write(offset_of!(virtio_balloon_config, actual), actual);
}

/// Tells the host what the kernel writes to pages that are freed.
///
/// # Errors
///
/// Those of [`Transport::config_write`].
pub(crate) fn set_poison_val(transport: &Transport, value: u32) -> Result {
    transport.config_write(offset_of!(virtio_balloon_config, poison_val), value)
}
