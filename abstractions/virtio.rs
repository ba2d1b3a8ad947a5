// SPDX-License-Identifier: GPL-2.0

//! The virtio bus: devices, drivers and their registration.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::bindings;
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    device,
    device_id,
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

/// A driver for virtio devices.
///
/// A device that is bound sees `validate`, `probe` and `scan`, in this order, then `config_changed`
/// any number of times, and at last `remove`. The data that `validate` returns lives from before
/// `probe`, so that queue callbacks always find it, until after `remove` or a failed `probe`.
pub(crate) trait Driver {
    /// The driver's private data of a device.
    type Data: Send + Sync + 'static;

    /// The devices that the driver serves.
    const ID_TABLE: IdTable;

    /// The feature bits that the driver knows; no other may be asked for.
    const FEATURES: &'static [u32];

    /// Makes the private data and withdraws features that the driver cannot serve, while the
    /// features may still change.
    fn validate(
        dev: &Device<device::Core<'_>>,
        features: &mut Features<'_>,
    ) -> Result<impl PinInit<Self::Data, Error>>;

    /// Sets the device up with the features agreed on. It is not yet live: nothing may be sent.
    ///
    /// The queues found here must be gone by the time that `probe` fails or `remove` returns.
    fn probe(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>) -> Result;

    /// The device is live.
    fn scan(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>);

    /// The device changed its configuration space. Runs in interrupt context.
    fn config_changed(data: Pin<&Self::Data>);

    /// The device has used buffers of the queue with this number. Runs in interrupt context.
    fn buffers_used(data: Pin<&Self::Data>, queue: u32);

    /// The driver is about to be unbound: the device must be left without queues.
    fn remove(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>);

    /// The machine goes down: stop using the device, which is broken and reset after this.
    fn shutdown(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>);

    /// The system suspends: leave the device as `remove` does.
    fn freeze(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>) -> Result;

    /// The system resumes: set the device up as `probe` does, make it live, and start.
    fn restore(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>) -> Result;
}

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
    pub(crate) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }
}

impl Device {
    /// Whether a feature was agreed on. `bit` must be one of [`Driver::FEATURES`].
    pub(crate) fn has_feature(&self, bit: u32) -> bool {
        // SAFETY: `self` is a valid device.
        unsafe { bindings::balloon_bmap_has_feature(self.as_raw(), bit) }
    }

    /// Reads the little-endian field at `offset` of the configuration space. May sleep.
    pub(crate) fn config_read(&self, offset: usize) -> u32 {
        let mut value = [0u8; 4];
        // CAST: offsets in the configuration space are those of a small structure.
        let (offset, len) = (offset as u32, value.len() as u32);
        // SAFETY: `self` is a valid device, whose transport has set its operations before any
        // driver is bound; `probe` has made sure that `get` is there.
        unsafe {
            if let Some(get) = (*(*self.as_raw()).config).get {
                get(self.as_raw(), offset, value.as_mut_ptr().cast(), len);
            }
        }
        u32::from_le_bytes(value)
    }

    /// Writes the little-endian field at `offset` of the configuration space. May sleep.
    pub(crate) fn config_write(&self, offset: usize, value: u32) {
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

    /// Whether the transport lets drivers read the configuration space.
    pub(crate) fn has_config(&self) -> bool {
        // SAFETY: `self` is a valid device, whose transport has set its operations.
        unsafe { (*(*self.as_raw()).config).get.is_some() }
    }

    /// The `struct device` of the device.
    pub(crate) fn as_raw_device(&self) -> *mut bindings::device {
        // SAFETY: `self` is a valid device.
        unsafe { &raw mut (*self.as_raw()).dev }
    }

    /// Makes the device live (DRIVER_OK). The core does so itself after [`Driver::probe`].
    pub(crate) fn ready(&self) {
        // SAFETY: `self` is a valid device.
        unsafe { bindings::balloon_bmap_device_ready(self.as_raw()) }
    }

    /// Says, at a limited rate, that the guest has no memory for the balloon.
    pub(crate) fn out_of_puff(&self, pages: usize) {
        // SAFETY: `self` is a valid device.
        unsafe { bindings::balloon_bmap_out_of_puff(self.as_raw(), pages) }
    }

    /// Writes the names of the driver and the device, `DRIVER-DEVICE`, as far as there is room.
    pub(crate) fn full_name<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a CStr> {
        // SAFETY: The buffer is valid for writes, with this length.
        let len = unsafe {
            bindings::balloon_bmap_full_name(
                self.as_raw(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        let name = buffer.get(..=len).ok_or(EINVAL)?;
        CStr::from_bytes_with_nul(name).map_err(|_| EINVAL)
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

/// The features of a device before they are final.
pub(crate) struct Features<'a>(&'a Device);

impl Features<'_> {
    /// Whether both sides have the feature. `bit` must be one of [`Driver::FEATURES`].
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.0.has_feature(bit)
    }

    /// Withdraws a feature.
    pub(crate) fn withdraw(&mut self, bit: u32) {
        // SAFETY: The device is valid, and its features may change while `self` exists.
        unsafe { bindings::balloon_bmap_clear_feature(self.0.as_raw(), bit) }
    }
}

/// The identity of a device, `struct virtio_device_id`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Devices of a type, whoever made them.
    pub(crate) const fn any_vendor(device: u32) -> Self {
        Self(bindings::virtio_device_id {
            device,
            vendor: bindings::VIRTIO_DEV_ANY_ID,
        })
    }
}

// SAFETY: `DeviceId` is a transparent wrapper of `virtio_device_id`.
unsafe impl device_id::RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// A table of the devices that a driver serves.
pub(crate) type IdTable = &'static dyn device_id::IdTable<DeviceId, ()>;

/// The C side of a [`Driver`].
pub(crate) struct Adapter<T: Driver>(T);

// SAFETY: `virtio_driver` is a C type with a `struct device_driver` at this offset, and `T::Data` is
// the type of the private data that `validate_callback` stores.
unsafe impl<T: Driver + 'static> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(bindings::virtio_driver, driver);
}

// SAFETY: After a `register` that succeeded, `unregister` is valid for the same driver.
unsafe impl<T: Driver + 'static> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let drv = reg.get();
        let features = T::FEATURES;

        // SAFETY: The driver is not registered yet: its fields are ours to set.
        unsafe {
            (*drv).driver.name = name.as_char_ptr();
            (*drv).id_table = T::ID_TABLE.as_ptr();
            (*drv).feature_table = features.as_ptr();
            (*drv).feature_table_size = u32::try_from(features.len())?;
            (*drv).validate = Some(Self::validate_callback);
            (*drv).probe = Some(Self::probe_callback);
            (*drv).scan = Some(Self::scan_callback);
            (*drv).remove = Some(Self::remove_callback);
            (*drv).config_changed = Some(Self::config_changed_callback);
            (*drv).shutdown = Some(Self::shutdown_callback);
            (*drv).freeze = Some(Self::freeze_callback);
            (*drv).restore = Some(Self::restore_callback);
        }
        // SAFETY: `drv` is complete and stays pinned until `unregister`.
        to_result(unsafe { bindings::__register_virtio_driver(drv, module.as_ptr()) })
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: The driver was registered.
        unsafe { bindings::unregister_virtio_driver(reg.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    /// The device of a callback, and the private data that [`Self::validate_callback`] stored.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, bound to the driver, and `validate_callback` must have succeeded.
    unsafe fn bound<'a>(
        vdev: *mut bindings::virtio_device,
    ) -> (&'a Device<device::CoreInternal<'a>>, Pin<&'a T::Data>) {
        // SAFETY: `vdev` is valid, and the core calls with the device lock held.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'a>>>() };
        let generic: &device::Device<device::CoreInternal<'a>> = dev.as_ref();
        // SAFETY: `validate_callback` stored data of this type, which is dropped only after the
        // driver is unbound.
        let data = unsafe { generic.drvdata_borrow::<T::Data>() };
        (dev, data)
    }

    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core calls with a valid device, and holds its lock.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };
        let mut features = Features(dev);
        from_result(|| {
            let generic: &device::Device<device::CoreInternal<'_>> = dev.as_ref();
            generic.set_drvdata(T::validate(dev, &mut features)?)?;
            Ok(0)
        })
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core probes after `validate_callback` has succeeded.
        let (dev, data) = unsafe { Self::bound(vdev) };
        from_result(|| T::probe(dev, data).map(|()| 0))
    }

    extern "C" fn scan_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core scans after `probe_callback` has succeeded.
        let (dev, data) = unsafe { Self::bound(vdev) };
        T::scan(dev, data);
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core tells of changes only between the end of probe and remove.
        let (_, data) = unsafe { Self::bound(vdev) };
        T::config_changed(data);
    }

    extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core removes a driver that was bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        T::remove(dev, data);
        // SAFETY: The driver does not use the device any more. Without queues, as after a restore
        // that failed, nobody has reset it yet.
        unsafe { bindings::virtio_reset_device(vdev) };
    }

    extern "C" fn shutdown_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core shuts down a driver that is bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        T::shutdown(dev, data);
        // SAFETY: The driver does not use the device any more.
        unsafe { bindings::virtio_device_shutdown(vdev) };
    }

    extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core freezes a driver that is bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        from_result(|| T::freeze(dev, data).map(|()| 0))
    }

    extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core restores a driver that is bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        from_result(|| T::restore(dev, data).map(|()| 0))
    }

    /// The callback of the driver's queues.
    pub(crate) extern "C" fn buffers_used_callback(vq: *mut bindings::virtqueue) {
        // SAFETY: The queue was found by `probe` or `restore`, and is deleted before the driver
        // is unbound.
        let (queue, (_, data)) = unsafe { ((*vq).index, Self::bound((*vq).vdev)) };
        T::buffers_used(data, queue);
    }
}

/// Declares a kernel module that is exactly one virtio driver.
#[macro_export]
macro_rules! module_virtio_driver {
    ($($f:tt)*) => {
        kernel::module_driver!(<T>, $crate::virtio::Adapter<T>, { $($f)* });
    }
}

/// Declares the table of the devices that a driver serves, with its module alias.
#[macro_export]
macro_rules! virtio_device_table {
    ($table:ident, [$($id:expr),* $(,)?]) => {
        $crate::compat::module_device_table!("virtio", $crate::virtio::DeviceId, $table, @none, [$($id),*]);
    };
}
