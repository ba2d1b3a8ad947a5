// SPDX-License-Identifier: GPL-2.0-only

//! The way to a virtio device, as long as it is bound to its driver.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use crate::abstractions::{
    virtio_device::Device,
    virtqueue::{
        Callback,
        LentPages,
        OutBuffer,
        QueueInfo,
        QueueSet,
        RawQueue,
        Virtqueue, //
    },
    wait::{
        EventCount,
        Moment, //
    },
};
use kernel::{
    device, new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
};

/// How long to wait for a device.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// As long as it takes, unless [`Transport::bound_waits`] was called: then for some seconds more.
    Device,
    /// For so many milliseconds from the moment on.
    Limited(Moment, Msecs),
}

impl Patience {
    /// For so many milliseconds from now on.
    pub(crate) fn for_ms(ms: Msecs) -> Self {
        Self::Limited(Moment::now(), ms)
    }

    /// Whether it is over.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Device => false,
            Self::Limited(start, ms) => start.elapsed_ms() >= ms,
        }
    }
}

/// How long one look at a silent device lasts: a queue that breaks meanwhile (`virtio_break_device()`)
/// wakes nobody.
const LOOK_MS: Msecs = 1000;

/// How long a device is waited for once waits are bounded.
const BOUND_MS: Msecs = 5000;

/// The way to a device's configuration space and queues, as long as it is bound.
#[derive(Clone)]
pub(crate) struct Transport(Arc<Shared>);

#[pin_data]
struct Shared {
    dev: ARef<Device>,
    /// Whether the device may be used: from the moment that its queues are found until they are
    /// deleted. Held while it is used.
    #[pin]
    open: Mutex<bool>,
    /// The queues, which only callbacks of the bus change.
    #[pin]
    queues: Mutex<QueueSet>,
    /// Times that the device has used buffers.
    #[pin]
    used: EventCount,
    bounded: Atomic<bool>,
}

impl Transport {
    pub(super) fn new(dev: &Device) -> Result<Self> {
        let shared = Arc::pin_init(
            pin_init!(Shared {
                dev: dev.into(),
                open <- new_mutex!(false),
                queues <- new_mutex!(QueueSet::new()),
                used <- EventCount::new(),
                bounded: Atomic::new(false),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self(shared))
    }

    /// The device, for messages about it.
    pub(crate) fn device(&self) -> &device::Device {
        (*self.0.dev).as_ref()
    }

    pub(super) fn has_bit(&self, bit: u32) -> bool {
        self.0.dev.has_bit(bit)
    }

    /// The device has used buffers. May be called in interrupt context.
    pub(super) fn announce(&self) {
        self.0.used.announce();
    }

    /// Does something with the device while it is bound, or nothing. May sleep.
    fn with<R>(&self, f: impl FnOnce(&Device<device::Bound>) -> R) -> Result<R> {
        let open = self.0.open.lock();
        if !*open {
            return Err(ENODEV);
        }
        // SAFETY: `close` takes the lock, and is called before the driver is unbound.
        Ok(f(unsafe { self.0.dev.as_bound() }))
    }

    /// Reads the little-endian field at `offset` of the configuration space. May sleep.
    ///
    /// # Errors
    ///
    /// ENODEV without queues.
    pub(crate) fn config_read(&self, offset: usize) -> Result<u32> {
        self.with(|dev| dev.config_read(offset))
    }

    /// Writes the little-endian field at `offset` of the configuration space. May sleep.
    ///
    /// # Errors
    ///
    /// ENODEV without queues.
    pub(crate) fn config_write(&self, offset: usize, value: u32) -> Result {
        self.with(|dev| dev.config_write(offset, value))
    }

    /// Lets the device do with pages what it wants, and waits until it has.
    ///
    /// # Errors
    ///
    /// ENOSPC if there is no room, and those of [`Virtqueue::get`] and [`Self::wait`]. The device is
    /// reset then, as it must not touch the pages any more.
    pub(crate) fn lend<B: OutBuffer>(
        &self,
        queue: &mut Virtqueue<B>,
        pages: LentPages<'_>,
        patience: Patience,
    ) -> Result {
        queue.add_lent(&pages)?;
        queue.kick();
        let answered = self.wait(patience, || Ok(queue.get()?.map(drop)));
        if answered.is_err() {
            let _ = self.with(Device::reset);
        }
        answered
    }

    /// See [`super::virtio::find_vqs`].
    pub(super) fn find_vqs<const N: usize>(
        &self,
        dev: &Device<device::Core<'_>>,
        infos: [Option<QueueInfo>; N],
        callback: Callback,
    ) -> Result<[Option<RawQueue>; N]> {
        let queues = self.0.queues.lock().find(dev, infos, callback)?;
        self.0.bounded.store(false, Release);
        *self.0.open.lock() = true;
        Ok(queues)
    }

    /// Resets the device and deletes its queues, whose buffers are dropped. They and the configuration
    /// space refuse to be used from then on.
    pub(crate) fn close(&self, dev: &Device<device::Core<'_>>) -> Reset {
        self.bound_waits();
        {
            // Whoever is refused from now on may rely on the reset.
            let mut open = self.0.open.lock();
            *open = false;
            dev.reset();
        }
        self.0.queues.lock().delete(dev);
        Reset(())
    }

    /// From now on, a device that does not answer is waited for no longer than some seconds.
    pub(crate) fn bound_waits(&self) {
        self.0.bounded.store(true, Release);
        self.0.used.announce();
    }

    /// Calls `poll` until it has something, whenever the device has used buffers. May sleep.
    ///
    /// # Errors
    ///
    /// Those of `poll`, and ETIMEDOUT where patience is over.
    pub(crate) fn wait<T>(
        &self,
        patience: Patience,
        mut poll: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let mut bound: Option<Patience> = None;
        loop {
            let seen = self.0.used.count();
            if let Some(value) = poll()? {
                return Ok(value);
            }
            if self.0.bounded.load(Acquire) && bound.is_none() {
                bound = Some(Patience::for_ms(BOUND_MS));
            }
            if patience.is_over() || bound.is_some_and(Patience::is_over) {
                return Err(ETIMEDOUT);
            }
            let look_ms = match patience {
                Patience::Device => LOOK_MS,
                Patience::Limited(_, ms) => ms.min(LOOK_MS),
            };
            self.0.used.wait(seen, msecs_to_jiffies(look_ms));
        }
    }

    /// How many times the device has used buffers.
    pub(crate) fn used_count(&self) -> u32 {
        self.0.used.count()
    }

    /// Waits until the device has used more buffers than at the count `seen`, or for that long.
    pub(crate) fn wait_used(&self, seen: u32, ms: Msecs) {
        self.0.used.wait(seen, msecs_to_jiffies(ms));
    }
}

/// Proof that a device was reset, and has nothing of what it was given before.
#[must_use]
pub(crate) struct Reset(());
