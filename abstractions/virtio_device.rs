// SPDX-License-Identifier: GPL-2.0-only

//! Virtio devices.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::abstractions::bindings;
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    device,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

/// A virtio device.
///
/// # Invariants
///
/// An instance represents a valid `struct virtio_device`.
#[repr(transparent)]
pub(crate) struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    pub(super) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }
}

impl Device {
    pub(super) fn has_bit(&self, bit: u32) -> bool {
        // SAFETY: `self` is a valid device. This does not ask whether its driver declares the feature,
        // which `Feature` makes sure of.
        unsafe { bindings::balloon_bmap_has_feature(self.as_raw(), bit) }
    }

    /// # Safety
    ///
    /// The device must be bound to a driver for `'a`.
    pub(super) unsafe fn as_bound<'a>(&'a self) -> &'a Device<device::Bound> {
        // SAFETY: The types differ in a marker, which holds by the safety requirements.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

impl Device<device::Bound> {
    /// Reads the little-endian field at `offset` of the configuration space.
    pub(super) fn config_read(&self, offset: usize) -> u32 {
        let mut value = [0u8; 4];
        // CAST: offsets in the configuration space are those of a small structure.
        let (offset, len) = (offset as u32, value.len() as u32);
        // SAFETY: `self` is a valid device, whose transport has set its operations before any driver
        // is bound.
        unsafe {
            if let Some(get) = (*(*self.as_raw()).config).get {
                get(self.as_raw(), offset, value.as_mut_ptr().cast(), len);
            }
        }
        u32::from_le_bytes(value)
    }

    /// Writes the little-endian field at `offset` of the configuration space.
    pub(super) fn config_write(&self, offset: usize, value: u32) {
        let value = value.to_le_bytes();
        // CAST: offsets in the configuration space are those of a small structure.
        let (offset, len) = (offset as u32, value.len() as u32);
        // SAFETY: As in `config_read`.
        unsafe {
            if let Some(set) = (*(*self.as_raw()).config).set {
                set(self.as_raw(), offset, value.as_ptr().cast(), len);
            }
        }
    }

    /// Resets the device, which has none of the driver's buffers after this.
    pub(super) fn reset(&self) {
        // SAFETY: `self` is a valid device.
        unsafe { bindings::virtio_reset_device(self.as_raw()) };
    }
}

impl Device<device::Core<'_>> {
    /// Whether the transport lets drivers read the configuration space.
    pub(crate) fn has_config(&self) -> bool {
        // SAFETY: `self` is a valid device, whose transport has set its operations.
        unsafe { (*(*self.as_raw()).config).get.is_some() }
    }

    /// Makes the device live (DRIVER_OK). The core does so itself after `probe`, but not after
    /// `restore`.
    pub(crate) fn ready(&self) {
        // SAFETY: `self` is a valid device.
        unsafe { bindings::balloon_bmap_device_ready(self.as_raw()) }
    }
}

// SAFETY: `Device` is a transparent wrapper of `struct virtio_device`, which has a `struct device`
// at this offset.
unsafe impl<Ctx: device::DeviceContext> device::AsBusDevice<Ctx> for Device<Ctx> {
    const OFFSET: usize = offset_of!(bindings::virtio_device, dev);
}

// SAFETY: `Device` is a transparent wrapper of a type that does not depend on its generic argument.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant, `self` is a valid `struct virtio_device`.
        let dev = unsafe { &raw mut (*self.as_raw()).dev };
        // SAFETY: `dev` is the `struct device` of `self`, valid as long as that is.
        unsafe { device::Device::from_raw(dev) }
    }
}

// SAFETY: A virtio device is counted by the references of its `struct device`.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        let dev: &device::Device = self.as_ref();
        dev.inc_ref();
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: By the safety requirements, the object is valid and we own a reference to it.
        let dev: &device::Device = unsafe { obj.as_ref() }.as_ref();
        // SAFETY: `dev` is counted by the same reference.
        unsafe { device::Device::dec_ref(NonNull::from(dev)) }
    }
}

// SAFETY: A device is reference-counted and can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: The operations on a shared device are safe from any thread.
unsafe impl Sync for Device {}
