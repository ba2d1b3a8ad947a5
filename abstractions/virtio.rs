// SPDX-License-Identifier: GPL-2.0-only

//! The virtio bus: devices, drivers and their registration.
//!
//! The shape is that of the bindings proposed on the kernel's lists: [`Driver`] with an ID table,
//! `probe`, `scan` and `remove`. This adds what a driver of more than one queue cannot do without:
//!
//! - the private data exists before `probe`, since the callbacks of the queues that `probe` finds may
//!   run at once, and need it;
//! - the features that a driver declares are a type of their own ([`Feature`]), as the core stops the
//!   machine (`BUG()`) where a driver asks for one that it has not declared;
//! - configuration space and queues are reached through a [`Transport`], which refuses all use once
//!   the driver is unbound or frozen. So work, notifiers and timers may keep what they use of it: a
//!   driver that forgets to stop one of them gets ENODEV, and not a device that is gone;
//! - freeze and restore, which find the queues anew.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::abstractions::{
    bindings,
    transport::Transport,
    virtio_device::Device,
    virtqueue::{
        QueueInfo,
        RawQueue, //
    },
};
use core::{
    marker::PhantomData,
    mem::offset_of, //
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
    types::Opaque, //
};

/// A driver for virtio devices.
///
/// A device that is bound sees `validate`, `probe` and `scan`, in this order, then `config_changed`
/// any number of times, and at last `remove`. The data that `validate` returns lives from before
/// `probe` until after `remove` or a `probe` that failed. Queues that are left then are deleted, after
/// a reset.
pub(crate) trait Driver: Sized + 'static {
    /// The driver's private data of a device.
    type Data: Send + Sync + 'static;

    /// The devices that the driver serves.
    const ID_TABLE: IdTable;

    /// The features that the driver knows.
    const FEATURES: &'static [u32];

    /// Makes the private data and withdraws features that the driver cannot serve, while the
    /// features may still change.
    fn validate(
        dev: &Device<device::Core<'_>>,
        transport: &Transport,
        features: &mut Features<'_, Self>,
    ) -> Result<impl PinInit<Self::Data, Error>>;

    /// Sets the device up with the features agreed on. It is not yet live: nothing may be sent.
    fn probe(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>) -> Result;

    /// The device is live.
    fn scan(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>);

    /// The device changed its configuration space. Runs in interrupt context.
    fn config_changed(data: Pin<&Self::Data>);

    /// The device has used buffers of the queue with this number. Runs in interrupt context, after
    /// those who wait for the [`Transport`] were woken.
    fn on_notify(data: Pin<&Self::Data>, queue: u32);

    /// The driver is about to be unbound.
    fn remove(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>);

    /// The machine goes down: stop using the device, which is broken and reset after this.
    fn shutdown(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>);

    /// The system suspends: stop using the device, whose queues are deleted after this.
    fn freeze(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>) -> Result;

    /// The system resumes: set the device up as `probe` does, make it live, and start. Queues are
    /// deleted if this fails.
    fn restore(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data>) -> Result;
}

/// A feature that the driver `D` has declared.
pub(crate) struct Feature<D>(u32, PhantomData<fn(D)>);

impl<D> Clone for Feature<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Feature<D> {}

impl<D: Driver> Feature<D> {
    /// The device follows virtio 1.0 or later.
    pub(crate) const VERSION_1: Self = Self(bindings::VIRTIO_F_VERSION_1, PhantomData);

    /// Descriptors may refer to tables of descriptors.
    pub(crate) const RING_INDIRECT_DESC: Self =
        Self(bindings::VIRTIO_RING_F_INDIRECT_DESC, PhantomData);

    /// Addresses go through the platform's DMA API.
    pub(crate) const ACCESS_PLATFORM: Self = Self(bindings::VIRTIO_F_ACCESS_PLATFORM, PhantomData);

    /// The feature with this number, which must be one of [`Driver::FEATURES`]. For constants: the
    /// build fails where it is none.
    pub(crate) const fn declared(bit: u32) -> Self {
        let mut features = D::FEATURES;
        while let [first, rest @ ..] = features {
            if *first == bit {
                return Self(bit, PhantomData);
            }
            features = rest;
        }
        panic!("the driver does not declare this feature");
    }

    /// Whether both sides have agreed on it.
    pub(crate) fn is_agreed_on(self, transport: &Transport) -> bool {
        transport.has_bit(self.0)
    }
}

/// The features of a device before they are final.
pub(crate) struct Features<'a, D>(&'a Device, PhantomData<D>);

impl<D: Driver> Features<'_, D> {
    /// Whether both sides have the feature.
    pub(crate) fn has(&self, feature: Feature<D>) -> bool {
        self.0.has_bit(feature.0)
    }

    /// Withdraws a feature.
    pub(crate) fn withdraw(&mut self, feature: Feature<D>) {
        // SAFETY: The device is valid, and its features may change while `self` exists.
        unsafe { bindings::balloon_bmap_clear_feature(self.0.as_raw(), feature.0) }
    }
}

/// Finds the queues of a device, in the order of their numbers. A place in `infos` without a queue has
/// no number.
///
/// # Errors
///
/// EBUSY if there are queues, and those of the transport, ENOMEM among them.
pub(crate) fn find_vqs<D: Driver, const N: usize>(
    transport: &Transport,
    dev: &Device<device::Core<'_>>,
    infos: [Option<QueueInfo>; N],
) -> Result<[Option<RawQueue>; N]> {
    transport.find_vqs(dev, infos, Adapter::<D>::notify_callback)
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

/// What the core keeps for a device: the driver's data, and the way to the device.
#[pin_data]
pub(crate) struct DeviceData<D: Driver> {
    transport: Transport,
    #[pin]
    data: D::Data,
}

impl<D: Driver> DeviceData<D> {
    fn data(self: Pin<&Self>) -> Pin<&D::Data> {
        // SAFETY: `data` is pinned with the whole.
        unsafe { self.map_unchecked(|this| &this.data) }
    }
}

/// The C side of a [`Driver`].
pub(crate) struct Adapter<D: Driver>(D);

// SAFETY: `virtio_driver` is a C type with a `struct device_driver` at this offset, and `DeviceData`
// is the type of the private data that `validate_callback` stores.
unsafe impl<D: Driver> driver::DriverLayout for Adapter<D> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = DeviceData<D>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(bindings::virtio_driver, driver);
}

// SAFETY: After a `register` that succeeded, `unregister` is valid for the same driver.
unsafe impl<D: Driver> driver::RegistrationOps for Adapter<D> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let drv = reg.get();
        let features = D::FEATURES;

        // SAFETY: The driver is not registered yet: its fields are ours to set.
        unsafe {
            (*drv).driver.name = name.as_char_ptr();
            (*drv).id_table = D::ID_TABLE.as_ptr();
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

impl<D: Driver> Adapter<D> {
    /// The device of a callback, and the private data that [`Self::validate_callback`] stored.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, bound to the driver, and `validate_callback` must have succeeded.
    unsafe fn bound<'a>(
        vdev: *mut bindings::virtio_device,
    ) -> (&'a Device<device::CoreInternal<'a>>, Pin<&'a DeviceData<D>>) {
        // SAFETY: `vdev` is valid, and the core calls with the device lock held.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'a>>>() };
        let generic: &device::Device<device::CoreInternal<'a>> = dev.as_ref();
        // SAFETY: `validate_callback` stored data of this type, which is dropped only after the
        // driver is unbound.
        let data = unsafe { generic.drvdata_borrow::<DeviceData<D>>() };
        (dev, data)
    }

    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core calls with a valid device, and holds its lock.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };
        let mut features = Features(dev, PhantomData);
        from_result(|| {
            let transport = Transport::new(dev)?;
            let kept = transport.clone();
            let data = D::validate(dev, &transport, &mut features)?;
            let generic: &device::Device<device::CoreInternal<'_>> = dev.as_ref();
            generic.set_drvdata(try_pin_init!(DeviceData::<D> {
                transport: kept,
                data <- data,
            }? Error))?;
            Ok(0)
        })
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core probes after `validate_callback` has succeeded.
        let (dev, data) = unsafe { Self::bound(vdev) };
        from_result(|| {
            D::probe(dev, data.data()).inspect_err(|_| {
                let _ = data.transport.close(dev);
            })?;
            Ok(0)
        })
    }

    extern "C" fn scan_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core scans after `probe_callback` has succeeded.
        let (dev, data) = unsafe { Self::bound(vdev) };
        D::scan(dev, data.data());
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core tells of changes only between the end of probe and remove.
        let (_, data) = unsafe { Self::bound(vdev) };
        D::config_changed(data.data());
    }

    extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core removes a driver that was bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        D::remove(dev, data.data());
        let _ = data.transport.close(dev);
    }

    extern "C" fn shutdown_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core shuts down a driver that is bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        D::shutdown(dev, data.data());
        // SAFETY: The driver does not use the device any more.
        unsafe { bindings::virtio_device_shutdown(vdev) };
    }

    extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core freezes a driver that is bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        from_result(|| {
            D::freeze(dev, data.data())?;
            let _ = data.transport.close(dev);
            Ok(0)
        })
    }

    extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The core restores a driver that is bound.
        let (dev, data) = unsafe { Self::bound(vdev) };
        from_result(|| {
            D::restore(dev, data.data()).inspect_err(|_| {
                let _ = data.transport.close(dev);
            })?;
            Ok(0)
        })
    }

    /// The callback of the driver's queues.
    extern "C" fn notify_callback(vq: *mut bindings::virtqueue) {
        // SAFETY: The queue was found by `probe` or `restore`, and is deleted before the driver
        // is unbound.
        let (queue, (_, data)) = unsafe { ((*vq).index, Self::bound((*vq).vdev)) };
        data.transport.announce();
        D::on_notify(data.data(), queue);
    }
}

/// Declares a kernel module that is exactly one virtio driver.
#[macro_export]
macro_rules! module_virtio_driver {
    ($($f:tt)*) => {
        kernel::module_driver!(<T>, $crate::abstractions::virtio::Adapter<T>, { $($f)* });
    }
}

/// Declares the table of the devices that a driver serves, with its module alias.
#[macro_export]
macro_rules! virtio_device_table {
    ($table:ident, [$($id:expr),* $(,)?]) => {
        $crate::abstractions::compat::module_device_table!(
            "virtio",
            $crate::abstractions::virtio::DeviceId,
            $table,
            @none,
            [$($id),*]
        );
    };
}
