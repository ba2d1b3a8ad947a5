// SPDX-License-Identifier: GPL-2.0

//! Free page hinting: the device asks which pages are free, to leave them out of a migration.
//!
//! The driver takes all blocks that are free, tells the device of each, and keeps them until the
//! device is done. A page may be used again even while the device still has to look at it: what is
//! written from then on is migrated.
//!
//! VIRTIO 1.3, 5.5.6.5.

use crate::{
    bindings,
    blocks::{
        Block,
        Order, //
    },
    message::{
        ByteOrder,
        Message, //
    },
    pages::{
        Allocated,
        PageList, //
    },
    shrinker::Shrink,
    virtio,
    virtqueue::Virtqueue,
    work::{
        self,
        OwnedQueue, //
    },
};
use core::mem::offset_of;
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};

/// The device wants no hints now.
const STOP: u32 = bindings::VIRTIO_BALLOON_CMD_ID_STOP;

/// The device is done with the hints that it has.
const DONE: u32 = bindings::VIRTIO_BALLOON_CMD_ID_DONE;

/// The queue, and the command that is served on it.
struct HintQueue {
    queue: Virtqueue,
    order: ByteOrder,
    active: u32,
}

/// Hints of a device.
#[pin_data]
pub(crate) struct Hinting {
    dev: ARef<virtio::Device>,
    workqueue: OwnedQueue,
    /// Of the work alone, and of those who have stopped it.
    #[pin]
    queue: Mutex<Option<HintQueue>>,
    /// The blocks that the device was told of.
    #[pin]
    blocks: SpinLock<PageList<Allocated>>,
    /// Whether the configuration space may have a newer command than `received`.
    changed: Atomic<bool>,
    received: Atomic<u32>,
    #[pin]
    work: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Hinting { self.work }
}

impl WorkItem for Hinting {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let command = this.command();
        if command == DONE {
            this.give_back(usize::MAX);
            return;
        }
        let mut queue = this.queue.lock();
        let Some(queue) = &mut *queue else {
            return;
        };
        if command != STOP && command != queue.active {
            if let Err(err) = this.hint(queue, command) {
                let dev: &kernel::device::Device = this.dev.as_ref();
                dev_err!(dev, "free pages were not hinted: {err:?}\n");
            }
        }
    }
}

impl Hinting {
    /// Hints for a device that has the feature.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(dev: &virtio::Device) -> Result<Arc<Self>> {
        let workqueue = OwnedQueue::new()?;
        Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                workqueue,
                queue <- new_mutex!(None),
                blocks <- new_spinlock!(PageList::<Allocated>::new()),
                changed: Atomic::new(false),
                received: Atomic::new(STOP),
                work <- new_delayed_work!("Hinting::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes the queue to hint on.
    ///
    /// # Errors
    ///
    /// ENOSPC if it is too small: there is always an entry for a command beside those for pages.
    pub(crate) fn connect(&self, queue: Virtqueue, order: ByteOrder) -> Result {
        if queue.capacity() < 2 {
            return Err(ENOSPC);
        }
        *self.queue.lock() = Some(HintQueue {
            queue,
            order,
            active: STOP,
        });
        Ok(())
    }

    /// Lets go of the queue, and of all blocks. The work must be stopped.
    pub(crate) fn disconnect(&self) {
        *self.queue.lock() = None;
        self.give_back(usize::MAX);
    }

    /// The configuration space has changed. Does not sleep.
    pub(crate) fn config_changed(this: &Arc<Self>) {
        this.changed.store(true, Relaxed);
        work::start_on(this.workqueue.queue(), this);
    }

    /// Waits for the work to end, and lets it start no more.
    pub(crate) fn stop(this: &Arc<Self>) {
        work::stop(this);
    }

    /// Undoes [`Self::stop`].
    pub(crate) fn allow(this: &Arc<Self>) {
        work::allow(this);
    }

    /// The newest command of the device.
    fn command(&self) -> u32 {
        if self.changed.xchg(false, Full) {
            let offset = offset_of!(bindings::virtio_balloon_config, __bindgen_anon_1);
            self.received.store(self.dev.config_read(offset), Relaxed);
        }
        self.received.load(Relaxed)
    }

    /// Tells the device of free blocks, between the start and the stop of a command.
    fn hint(&self, queue: &mut HintQueue, command: u32) -> Result {
        queue.active = command;
        queue.send_command(command)?;
        while self.command() == command {
            // What the device has used is not waited for, only made room of.
            while queue.queue.take().is_some() {}
            let Some(block) = Block::allocate(Order::MAX) else {
                break;
            };
            // The last entry is left to the command that ends this.
            if queue.queue.free() > 1 {
                queue.queue.hint(&block)?;
                queue.queue.kick();
                self.blocks.lock().push(block);
            }
        }
        queue.send_command(STOP)
    }

    /// Frees up to `blocks` blocks, and returns how many.
    fn give_back(&self, blocks: usize) -> usize {
        let mut freed: usize = 0;
        while freed < blocks {
            let block = self.blocks.lock().pop(Order::MAX);
            if block.is_none() {
                break;
            }
            freed = freed.saturating_add(1);
        }
        freed
    }
}

impl HintQueue {
    fn send_command(&mut self, command: u32) -> Result {
        while self.queue.take().is_some() {}
        let mut message = Message::new(4, GFP_KERNEL)?;
        if let Some((slot, _)) = message.space().split_first_chunk_mut() {
            *slot = self.order.bytes(command);
        }
        message.set_len(4);
        self.queue.add(message).map_err(|(err, _)| err)?;
        self.queue.kick();
        Ok(())
    }
}

impl Shrink for Hinting {
    fn count(&self) -> usize {
        self.blocks.lock().len()
    }

    fn scan(&self, pages: usize) -> usize {
        self.give_back(pages.div_ceil(Order::MAX.pages()))
            .saturating_mul(Order::MAX.pages())
    }
}
