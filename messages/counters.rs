// SPDX-License-Identifier: GPL-2.0-only

//! What the driver has done, as debugfs shows it.

use crate::abstractions::{
    page_block::{
        Order,
        ORDERS, //
    },
    page_list::PageList, //
};
use kernel::{
    fmt,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// A number that only grows. No order is kept between counters.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts one more.
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Counts `n` more.
    pub(crate) fn add(&self, n: u64) {
        self.0.add(n, Relaxed);
    }

    /// Counts `n` more.
    pub(crate) fn add_len(&self, n: usize) {
        // CAST: `usize` has at most 64 bits.
        self.add(n as u64);
    }

    /// The count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What went over the inflate or the deflate queue.
pub(crate) struct QueueCounters {
    /// Pages of the guest.
    pages: Counter,
    /// Blocks, by their order.
    blocks: [Counter; ORDERS],
    pub(crate) messages: Counter,
    pub(crate) bytes: Counter,
    /// Entries of page bitmap messages that are runs.
    pub(crate) runs: Counter,
    /// Words of page bitmap messages.
    pub(crate) words: Counter,
    /// Notifications of the device.
    pub(crate) notifications: Counter,
    /// Messages that came back.
    pub(crate) waits: Counter,
}

impl QueueCounters {
    const fn new() -> Self {
        Self {
            pages: Counter::new(),
            blocks: [const { Counter::new() }; ORDERS],
            messages: Counter::new(),
            bytes: Counter::new(),
            runs: Counter::new(),
            words: Counter::new(),
            notifications: Counter::new(),
            waits: Counter::new(),
        }
    }

    /// Counts the pages of a list.
    pub(crate) fn count(&self, pages: &PageList) {
        self.pages.add_len(pages.len());
        for order in Order::all() {
            if let Some(counter) = self.blocks.get(order.index()) {
                counter.add_len(pages.blocks(order));
            }
        }
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{name}_pages {}", self.pages.get())?;
        for order in Order::all() {
            if let Some(counter) = self.blocks.get(order.index()) {
                writeln!(f, "{name}_blocks_{} {}", order.raw(), counter.get())?;
            }
        }
        writeln!(f, "{name}_messages {}", self.messages.get())?;
        writeln!(f, "{name}_bytes {}", self.bytes.get())?;
        writeln!(f, "{name}_runs {}", self.runs.get())?;
        writeln!(f, "{name}_words {}", self.words.get())?;
        writeln!(f, "{name}_notifications {}", self.notifications.get())?;
        writeln!(f, "{name}_waits {}", self.waits.get())
    }
}

/// All counters of a device.
pub(crate) struct Counters {
    pub(crate) inflate: QueueCounters,
    pub(crate) deflate: QueueCounters,
    /// Windows for which the guest had too few pages.
    pub(crate) out_of_puff: Counter,
    /// Windows that were given up, or not begun, because memory ran out elsewhere.
    pub(crate) oom_retreats: Counter,
    /// Windows that were cut short, or put off, to keep to the floor.
    pub(crate) floor_hits: Counter,
    /// Times that the guest ran out of memory.
    pub(crate) oom_calls: Counter,
    /// Pages that were freed then.
    pub(crate) oom_pages: Counter,
    /// Pages of blocks that left memory that was to go offline.
    pub(crate) evicted_pages: Counter,
    /// Places that were looked at for such blocks.
    pub(crate) eviction_looks: Counter,
    /// Pages that compaction moved.
    pub(crate) migrations: Counter,
    /// Statistics that were sent.
    pub(crate) stats: Counter,
}

impl Counters {
    /// All counters at 0.
    pub(crate) const fn new() -> Self {
        Self {
            inflate: QueueCounters::new(),
            deflate: QueueCounters::new(),
            out_of_puff: Counter::new(),
            oom_retreats: Counter::new(),
            floor_hits: Counter::new(),
            oom_calls: Counter::new(),
            oom_pages: Counter::new(),
            evicted_pages: Counter::new(),
            eviction_looks: Counter::new(),
            migrations: Counter::new(),
            stats: Counter::new(),
        }
    }

    /// Writes a line for each counter: its name and its count.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inflate.write("inflate", f)?;
        self.deflate.write("deflate", f)?;
        for (name, counter) in [
            ("out_of_puff", &self.out_of_puff),
            ("oom_retreats", &self.oom_retreats),
            ("floor_hits", &self.floor_hits),
            ("oom_calls", &self.oom_calls),
            ("oom_pages", &self.oom_pages),
            ("evicted_pages", &self.evicted_pages),
            ("eviction_looks", &self.eviction_looks),
            ("migrations", &self.migrations),
            ("stats", &self.stats),
        ] {
            writeln!(f, "{name} {}", counter.get())?;
        }
        Ok(())
    }
}
