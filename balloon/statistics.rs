// SPDX-License-Identifier: GPL-2.0-only

//! The statistics queue: the device asks, by using the driver's buffer, and gets a newer one.
//!
//! VIRTIO 1.3, 5.5.6.3. C header: [`include/uapi/linux/virtio_balloon.h`]
//!
//! [`include/uapi/linux/virtio_balloon.h`]: srctree/include/uapi/linux/virtio_balloon.h

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
use crate::abstractions::memory_info::VmEvents;
use crate::{
    abstractions::{
        bindings,
        buffer::Buffer,
        memory_info::{
            self,
            NodePages, //
        },
        transport::Transport,
        virtqueue::{
            RawQueue,
            Used,
            Virtqueue, //
        },
        work::{
            Next,
            Run, //
        },
    },
    balloon::wakeup::{
        Event,
        WakeupEvents, //
    },
    messages::{
        byte_order::ByteOrder,
        counters::Counters, //
    },
};
use kernel::{
    new_mutex,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The length of a statistic: a tag of 16 bits and a value of 64 bits, packed.
const STAT_LEN: usize = 10;

/// The number of tags.
// CAST: A small constant, which fits.
const MAX_STATS: usize = bindings::VIRTIO_BALLOON_S_NR as usize;

/// The queue, whose one buffer the device has most of the time.
struct StatsQueue {
    queue: Virtqueue<KBox<Buffer>>,
    order: ByteOrder,
    #[cfg(CONFIG_VM_EVENT_COUNTERS)]
    events: VmEvents,
}

/// Answers requests for statistics.
#[pin_data]
pub(crate) struct Statistics {
    transport: Transport,
    counters: Arc<Counters>,
    wakeup: Arc<WakeupEvents>,
    #[pin]
    queue: Mutex<Option<StatsQueue>>,
}

impl Statistics {
    /// No queue yet.
    pub(crate) fn new(
        transport: Transport,
        counters: Arc<Counters>,
        wakeup: Arc<WakeupEvents>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            transport,
            counters,
            wakeup,
            queue <- new_mutex!(None),
        })
    }

    /// Gives the device its first buffer, which it uses when it wants statistics.
    ///
    /// # Errors
    ///
    /// ENOMEM, and those of the queue.
    pub(crate) fn connect(&self, queue: RawQueue, order: ByteOrder) -> Result {
        let mut queue = StatsQueue {
            queue: queue.of(),
            order,
            #[cfg(CONFIG_VM_EVENT_COUNTERS)]
            events: VmEvents::new(GFP_KERNEL)?,
        };
        let buffer = Buffer::new(STAT_LEN * MAX_STATS, GFP_KERNEL)?;
        queue.send(buffer)?;
        *self.queue.lock() = Some(queue);
        Ok(())
    }

    /// Lets go of the queue.
    pub(crate) fn disconnect(&self) {
        *self.queue.lock() = None;
    }

    /// Notifies the device of the first buffer, once it is live.
    pub(crate) fn kick(&self) {
        if let Some(queue) = &mut *self.queue.lock() {
            queue.queue.kick();
        }
    }
}

impl Run for Statistics {
    fn run(&self) -> Next {
        self.wakeup.begin(Event::Stats);
        let answered = (*self.queue.lock()).as_mut().map(StatsQueue::answer);
        match answered {
            Some(Ok(true)) => self.counters.stats.inc(),
            Some(Ok(false)) | None => {}
            Some(Err(err)) => {
                dev_err!(self.transport.device(), "no more statistics: {err:?}\n");
            }
        }
        self.wakeup.end();
        Next::Idle
    }
}

impl StatsQueue {
    /// Answers the device, if it asked. Returns whether it did.
    fn answer(&mut self) -> Result<bool> {
        let Some(Used::Buffer(buffer)) = self.queue.get()? else {
            return Ok(false);
        };
        self.send(buffer)?;
        self.queue.kick();
        Ok(true)
    }

    fn send(&mut self, mut buffer: KBox<Buffer>) -> Result {
        let mut space = buffer.space();
        let mut len: usize = 0;
        let mut put = |tag: u32, value: u64| {
            if let Some((slot, rest)) =
                core::mem::take(&mut space).split_first_chunk_mut::<STAT_LEN>()
            {
                // CAST: Tags have 16 bits, and there are few.
                *slot = statistic(self.order, tag as u16, value);
                len = len.saturating_add(STAT_LEN);
                space = rest;
            }
        };
        put_node_counts(&mut put);
        put_memory(&mut put);
        #[cfg(CONFIG_VM_EVENT_COUNTERS)]
        {
            self.events.read();
            put_events(&self.events, &mut put);
        }
        buffer.set_len(len);
        self.queue.add(buffer)
    }
}

/// A statistic as it goes over the wire.
fn statistic(order: ByteOrder, tag: u16, value: u64) -> [u8; STAT_LEN] {
    let ([t0, t1], [v0, v1, v2, v3, v4, v5, v6, v7]) = (order.u16(tag), order.u64(value));
    [t0, t1, v0, v1, v2, v3, v4, v5, v6, v7]
}

fn put_node_counts(put: &mut impl FnMut(u32, u64)) {
    for (tag, pages) in [
        (
            bindings::VIRTIO_BALLOON_S_ASYNC_SCAN,
            NodePages::ScannedByKswapd,
        ),
        (
            bindings::VIRTIO_BALLOON_S_DIRECT_SCAN,
            NodePages::ScannedDirectly,
        ),
        (
            bindings::VIRTIO_BALLOON_S_ASYNC_RECLAIM,
            NodePages::ReclaimedByKswapd,
        ),
        (
            bindings::VIRTIO_BALLOON_S_DIRECT_RECLAIM,
            NodePages::ReclaimedDirectly,
        ),
        (bindings::VIRTIO_BALLOON_S_CACHES, NodePages::File),
    ] {
        put(tag, bytes(memory_info::node_pages(pages) as u64));
    }
}

fn put_memory(put: &mut impl FnMut(u32, u64)) {
    let (free, total) = memory_info::free_and_total_pages();
    let available = memory_info::available_pages();
    put(bindings::VIRTIO_BALLOON_S_MEMFREE, bytes(free as u64));
    put(bindings::VIRTIO_BALLOON_S_MEMTOT, bytes(total as u64));
    put(bindings::VIRTIO_BALLOON_S_AVAIL, bytes(available as u64));
}

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
fn put_events(events: &VmEvents, put: &mut impl FnMut(u32, u64)) {
    put(
        bindings::VIRTIO_BALLOON_S_SWAP_IN,
        bytes(events.swapped_in()),
    );
    put(
        bindings::VIRTIO_BALLOON_S_SWAP_OUT,
        bytes(events.swapped_out()),
    );
    put(bindings::VIRTIO_BALLOON_S_MAJFLT, events.major_faults());
    put(bindings::VIRTIO_BALLOON_S_MINFLT, events.faults());
    put(bindings::VIRTIO_BALLOON_S_OOM_KILL, events.oom_kills());
    put(bindings::VIRTIO_BALLOON_S_ALLOC_STALL, events.stalls());
    #[cfg(CONFIG_HUGETLB_PAGE)]
    {
        let (allocated, failed) = events.huge_pages();
        put(bindings::VIRTIO_BALLOON_S_HTLB_PGALLOC, allocated);
        put(bindings::VIRTIO_BALLOON_S_HTLB_PGFAIL, failed);
    }
}

/// The bytes of that many pages.
fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(1 << PAGE_SHIFT)
}
