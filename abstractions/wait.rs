// SPDX-License-Identifier: GPL-2.0-only

//! Waiting for events that interrupt handlers announce.
//!
//! A `CondVar` will not do: its waiters have to hold the lock under which the handler announces the
//! event, a spinlock with interrupts off, while what they look at here is a virtqueue, under a mutex.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use crate::abstractions::bindings;
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    },
    time::{
        Jiffies,
        Msecs, //
    },
    types::Opaque, //
};

/// A time from which on others are measured.
///
/// In jiffies, since differences of `kernel::time::Instant` are checked for overflow, which would be a
/// panic.
#[derive(Clone, Copy)]
pub(crate) struct Moment(Jiffies);

impl Moment {
    /// This one.
    pub(crate) fn now() -> Self {
        // SAFETY: The kernel's count of ticks is a word, which is read at once.
        Self(unsafe { core::ptr::read_volatile(&raw const bindings::jiffies) })
    }

    /// How long ago that was.
    pub(crate) fn elapsed_ms(self) -> Msecs {
        let elapsed = Self::now().0.wrapping_sub(self.0);
        // CAST: `unsigned long` has at most 64 bits.
        // SAFETY: This only computes.
        let ms = unsafe { bindings::jiffies64_to_msecs(elapsed as u64) };
        Msecs::try_from(ms).unwrap_or(Msecs::MAX)
    }
}

/// Counts events, and wakes who waits for the next.
///
/// Whoever reads [`Self::count`], then looks at what the events are about, and then waits for the
/// count to change, misses none.
#[pin_data]
pub(crate) struct EventCount {
    #[pin]
    wait_queue: Opaque<bindings::wait_queue_head>,
    count: Atomic<u32>,
}

impl EventCount {
    /// No events yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            wait_queue <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, and stays pinned.
                unsafe { bindings::balloon_bmap_init_waitqueue(slot) }
            }),
            count: Atomic::new(0),
        })
    }

    /// How many events there were.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Acquire)
    }

    /// There was an event. May be called in interrupt context.
    pub(crate) fn announce(&self) {
        self.count.fetch_add(1, Release);
        // SAFETY: The wait queue was initialised.
        unsafe { bindings::balloon_bmap_wake_up(self.wait_queue.get()) }
    }

    /// Waits until the count is not `seen` any more, or for that time.
    pub(crate) fn wait(&self, seen: u32, timeout: Jiffies) {
        // SAFETY: The wait queue was initialised, and `count` lives as long as it.
        unsafe {
            bindings::balloon_bmap_wait_change(
                self.wait_queue.get(),
                self.count.as_ptr().cast(),
                seen,
                timeout,
            )
        }
    }
}

// SAFETY: A wait queue may be used from any thread.
unsafe impl Send for EventCount {}

// SAFETY: A wait queue has its own lock.
unsafe impl Sync for EventCount {}
