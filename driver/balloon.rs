// SPDX-License-Identifier: GPL-2.0

//! A balloon device and its driver.

use crate::{
    balloon_pages::BalloonPages,
    bindings,
    bitmap::MAX_BITMAPS,
    bitmap_message::BitmapMessages,
    module_parameters,
    pfn_array::{
        ByteOrder,
        PfnArrays, //
    },
    reporter::{
        Encoding,
        Reporter,
        SharedReporter, //
    },
    virtio::{
        self,
        DeviceId,
        Driver,
        Features, //
    },
    virtqueue::{
        self,
        UsedBuffers, //
    },
    work, //
};
use core::mem::offset_of;
use kernel::{
    device::Core,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork, //
    },
};

/// Messages are page bitmaps. Not in any published specification of virtio: docs/PROTOCOL.md.
const VIRTIO_BALLOON_F_PAGE_BITMAP: u32 = 63;

/// A balloon device that is bound to the driver.
///
/// Locks: the reporter's, under which the device is waited for, comes before the kernel's lock of
/// all balloons, which is taken inside [`BalloonPages`]. Pages are allocated under neither.
#[pin_data]
pub(crate) struct Balloon {
    pub(crate) dev: ARef<virtio::Device>,
    pub(crate) reporter: Arc<SharedReporter>,
    #[pin]
    pub(crate) pages: BalloonPages,
    /// What the host holds, in units of 4 KiB. Changed by the size worker, or when that is stopped.
    pub(crate) held: Atomic<u64>,
    /// Whether it was said that the guest has no memory for the balloon.
    pub(crate) out_of_puff: Atomic<bool>,
    /// How often the guest was looked at since.
    pub(crate) puffs: Atomic<u32>,
    used: Arc<UsedBuffers>,
    #[pin]
    size_work: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Balloon { self.size_work }
}

impl Balloon {
    fn new(dev: &virtio::Device, encoding: Encoding) -> Result<Arc<Self>> {
        let reporter = Arc::pin_init(new_mutex!(Reporter::new(encoding)), GFP_KERNEL)?;
        let used = Arc::pin_init(UsedBuffers::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                pages <- BalloonPages::new(reporter.clone(), true),
                reporter,
                held: Atomic::new(0),
                out_of_puff: Atomic::new(false),
                puffs: Atomic::new(0),
                used,
                size_work <- new_delayed_work!("Balloon::size_work"),
            }),
            GFP_KERNEL,
        )
    }

    /// The size that the host wants, in units of 4 KiB.
    pub(crate) fn target(&self) -> u32 {
        self.dev
            .config_read(offset_of!(bindings::virtio_balloon_config, num_pages))
    }

    /// Tells the host the size that the balloon has.
    pub(crate) fn write_actual(&self) {
        // A target has 32 bits, and the balloon does not grow beyond it.
        let actual = u32::try_from(self.held.load(Relaxed)).unwrap_or(u32::MAX);
        self.dev
            .config_write(offset_of!(bindings::virtio_balloon_config, actual), actual);
    }

    fn connect(&self) -> Result {
        self.used.hurry(false);
        let names = [c"inflate", c"deflate"];
        let queues = virtqueue::find::<BalloonDriver, 2>(&self.dev, names, &self.used)?;
        self.reporter.lock().connect(queues);
        Ok(())
    }

    /// Stops all that uses the device, which may not answer any more.
    fn quiesce(this: &Arc<Self>) {
        this.used.hurry(true);
        work::stop(this);
    }
}

/// The driver of balloon devices.
pub(crate) struct BalloonDriver;

crate::virtio_device_table!(
    ID_TABLE,
    [DeviceId::any_vendor(bindings::VIRTIO_ID_BALLOON)]
);

impl Driver for BalloonDriver {
    type Data = Arc<Balloon>;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    const FEATURES: &'static [u32] = &[
        bindings::VIRTIO_BALLOON_F_MUST_TELL_HOST,
        VIRTIO_BALLOON_F_PAGE_BITMAP,
    ];

    fn validate(dev: &virtio::Device<Core<'_>>, features: &mut Features<'_>) -> Result<Self::Data> {
        let generic: &kernel::device::Device = (**dev).as_ref();
        if !dev.has_config() {
            dev_err!(generic, "the device has no configuration space\n");
            return Err(EINVAL);
        }
        // Messages are one descriptor each, and physical addresses.
        features.withdraw(bindings::VIRTIO_RING_F_INDIRECT_DESC);
        features.withdraw(bindings::VIRTIO_F_ACCESS_PLATFORM);

        Balloon::new(dev, encoding(features)?)
    }

    fn probe(dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        data.connect()?;
        let generic: &kernel::device::Device = (**dev).as_ref();
        match data.reporter.lock().encoding() {
            Encoding::Bitmaps(_) => dev_info!(
                generic,
                "page bitmaps, 1 of up to {MAX_BITMAPS} bitmaps of 32 KiB\n"
            ),
            Encoding::Pfns(_) => dev_info!(generic, "PFN array\n"),
        }
        Ok(())
    }

    fn scan(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) {
        work::start(&data);
    }

    fn config_changed(data: Pin<&Self::Data>) {
        work::start(&data);
    }

    fn buffers_used(data: Pin<&Self::Data>) {
        data.used.wake();
    }

    fn remove(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) {
        Balloon::quiesce(&data);
        data.give_up();
    }

    fn shutdown(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) {
        Balloon::quiesce(&data);
    }

    fn freeze(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        Balloon::quiesce(&data);
        data.give_up();
        Ok(())
    }

    fn restore(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        data.connect()?;
        data.dev.ready();
        data.write_actual();
        work::allow(&data);
        work::start(&data);
        Ok(())
    }
}

/// Chooses how pages are put into messages, and withdraws page bitmaps where they are not used.
fn encoding(features: &mut Features<'_>) -> Result<Encoding> {
    let modern = features.has(bindings::VIRTIO_F_VERSION_1);

    if features.has(VIRTIO_BALLOON_F_PAGE_BITMAP) {
        if modern && module_parameters::page_bitmap.value() {
            match BitmapMessages::new(GFP_KERNEL | __GFP_NOWARN) {
                Ok(messages) => return Ok(Encoding::Bitmaps(messages)),
                Err(_) => pr_warn!("no memory for page bitmaps\n"),
            }
        }
        features.withdraw(VIRTIO_BALLOON_F_PAGE_BITMAP);
    }
    let order = if modern {
        ByteOrder::Little
    } else {
        ByteOrder::Guest
    };
    Ok(Encoding::Pfns(PfnArrays::new(order, GFP_KERNEL)?))
}
