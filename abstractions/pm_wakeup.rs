// SPDX-License-Identifier: GPL-2.0-only

//! A device's wakeup source.
//!
//! C header: [`include/linux/pm_wakeup.h`](srctree/include/linux/pm_wakeup.h)

use crate::abstractions::bindings;
use kernel::device::Device;

/// Says that the device's events may be a reason for the system to stay awake.
pub(crate) fn set_capable(dev: &Device) {
    // SAFETY: The device is valid.
    unsafe { bindings::balloon_bmap_can_wake_up(as_raw(dev)) }
}

/// Keeps the system awake. Does not nest. May be called in interrupt context.
pub(crate) fn stay_awake(dev: &Device) {
    // SAFETY: The device is valid.
    unsafe { bindings::balloon_bmap_stay_awake(as_raw(dev)) }
}

/// Lets the system sleep again.
pub(crate) fn relax(dev: &Device) {
    // SAFETY: The device is valid.
    unsafe { bindings::balloon_bmap_relax(as_raw(dev)) }
}

fn as_raw(dev: &Device) -> *mut bindings::device {
    // CAST: `Device` is a transparent wrapper of `struct device`.
    core::ptr::from_ref(dev).cast_mut().cast()
}
