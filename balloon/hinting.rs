// SPDX-License-Identifier: GPL-2.0-only

//! Free page hinting: the device asks which pages are free, to leave them out of a migration.
//!
//! The driver takes all blocks that are free, tells the device of each, and keeps them until the
//! device is done. A page may be used again even while the device still has to look at it: what is
//! written from then on is migrated.
//!
//! VIRTIO 1.3, 5.5.6.5.

use crate::{
    abstractions::{
        bindings,
        buffer::Buffer,
        page_block::{
            Order,
            PageBlock,
            Source, //
        },
        page_list::PageList,
        shrinker::Shrink,
        transport::Transport,
        virtqueue::{
            RawQueue,
            Virtqueue, //
        },
        work::{
            Next,
            Run,
            Task, //
        },
    },
    balloon::config,
    messages::{
        byte_order::ByteOrder,
        fault, //
    },
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Mutex,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// The device wants no hints now.
const STOP: u32 = bindings::VIRTIO_BALLOON_CMD_ID_STOP;

/// The device is done with the hints that it has.
const DONE: u32 = bindings::VIRTIO_BALLOON_CMD_ID_DONE;

/// How often to look at a full queue. It does not notify: a device may be far behind.
const LOOK: Delta = Delta::from_millis(1);

/// The queue, and the command that is served on it.
struct HintQueue {
    queue: Virtqueue<KBox<Buffer>>,
    order: ByteOrder,
    active: u32,
}

/// Hints of a device.
#[pin_data]
pub(crate) struct Hinting {
    transport: Transport,
    /// Of a run of the task, and of those who have stopped it.
    #[pin]
    queue: Mutex<Option<HintQueue>>,
    /// The blocks that the device was told of.
    #[pin]
    blocks: SpinLock<PageList>,
    /// Whether the configuration space may have a newer command than `received`.
    changed: Atomic<bool>,
    received: Atomic<u32>,
    /// Whether the task is to come to its end.
    stopping: Atomic<bool>,
}

impl Hinting {
    /// No queue yet.
    pub(crate) fn new(transport: Transport) -> impl PinInit<Self> {
        pin_init!(Self {
            transport,
            queue <- new_mutex!(None),
            blocks <- new_spinlock!(PageList::new()),
            changed: Atomic::new(false),
            received: Atomic::new(STOP),
            stopping: Atomic::new(false),
        })
    }

    /// Takes the queue to hint on.
    ///
    /// # Errors
    ///
    /// ENOSPC if it is too small: there is always an entry for a command beside those for pages.
    pub(crate) fn connect(&self, queue: RawQueue, order: ByteOrder) -> Result {
        let queue = queue.of();
        if queue.size() < 2 {
            return Err(ENOSPC);
        }
        self.stopping.store(false, Relaxed);
        *self.queue.lock() = Some(HintQueue {
            queue,
            order,
            active: STOP,
        });
        Ok(())
    }

    /// Lets go of the queue, and of all blocks. The task must be stopped.
    pub(crate) fn disconnect(&self) {
        *self.queue.lock() = None;
        self.free_blocks(usize::MAX);
    }

    /// The configuration space has changed: the task is to look. May be called in interrupt context.
    pub(crate) fn config_changed(&self) {
        self.changed.store(true, Relaxed);
    }

    /// Has the task come to its end, whatever the device wants.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// The newest command of the device.
    fn command(&self) -> Result<u32> {
        if self.stopping.load(Relaxed) {
            return Ok(STOP);
        }
        if self.changed.xchg(false, Full) {
            let command = config::free_page_hint_cmd_id(&self.transport)?;
            self.received.store(command, Relaxed);
        }
        Ok(self.received.load(Relaxed))
    }

    fn serve(&self) -> Result {
        let command = self.command()?;
        if command == DONE {
            self.free_blocks(usize::MAX);
            return Ok(());
        }
        match &mut *self.queue.lock() {
            Some(queue) if command != STOP && command != queue.active => self.hint(queue, command),
            _ => Ok(()),
        }
    }

    /// Tells the device of free blocks, between the start and the stop of a command.
    fn hint(&self, queue: &mut HintQueue, command: u32) -> Result {
        queue.active = command;
        queue.send_command(command)?;
        while self.command()? == command {
            queue.collect()?;
            // The last entry is left to the command that ends this.
            if queue.queue.free() < 2 {
                fsleep(LOOK);
                continue;
            }
            let Some(block) = PageBlock::allocate(Order::MAX, Source::Unmovable) else {
                break;
            };
            queue.queue.advertise(&block)?;
            queue.queue.kick();
            self.blocks.lock().push(block);
        }
        queue.send_command(STOP)
    }

    /// Frees up to `blocks` blocks, and returns how many.
    fn free_blocks(&self, blocks: usize) -> usize {
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

impl Run for Hinting {
    fn run(&self) -> Next {
        if let Err(err) = self.serve() {
            dev_err!(
                self.transport.device(),
                "free pages were not hinted: {err:?}\n"
            );
        }
        Next::Idle
    }
}

impl HintQueue {
    fn send_command(&mut self, command: u32) -> Result {
        self.collect()?;
        let mut buffer = Buffer::new(4, GFP_KERNEL)?;
        if let Some((slot, _)) = buffer.space().split_first_chunk_mut() {
            *slot = self.order.u32(command);
        }
        buffer.set_len(4);
        self.queue.add(buffer)?;
        self.queue.kick();
        Ok(())
    }

    /// Makes room of what the device has used.
    fn collect(&mut self) -> Result {
        while !fault::DEAD_HINT_QUEUE && self.queue.get()?.is_some() {}
        Ok(())
    }
}

impl Shrink for Task<Hinting> {
    fn count(&self) -> usize {
        self.inner().blocks.lock().len()
    }

    fn scan(&self, pages: usize) -> usize {
        let blocks = pages.div_ceil(Order::MAX.pages());
        self.inner()
            .free_blocks(blocks)
            .saturating_mul(Order::MAX.pages())
    }
}
