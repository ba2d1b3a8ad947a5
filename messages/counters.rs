// SPDX-License-Identifier: GPL-2.0

//! What the driver has done, as debugfs shows it.

use crate::{
    blocks::{
        Order,
        ORDERS, //
    },
    pages::{
        PageList,
        State, //
    },
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

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What went over one of the queues that pages are reported on.
pub(crate) struct Flow {
    /// Pages of the guest.
    pub(crate) pages: Counter,
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
    /// Messages that were waited for.
    pub(crate) waits: Counter,
}

impl Flow {
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
    pub(crate) fn count<S: State>(&self, pages: &PageList<S>) {
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
    pub(crate) inflate: Flow,
    pub(crate) deflate: Flow,
    /// Windows for which the guest had too little memory.
    pub(crate) out_of_puff: Counter,
    /// Windows that were cut short, or put off, to keep to the floor.
    pub(crate) floor_hits: Counter,
    /// Times that the guest ran out of memory.
    pub(crate) oom_calls: Counter,
    /// Pages that were given to the guest then.
    pub(crate) oom_pages: Counter,
    /// Pages that compaction moved.
    pub(crate) migrations: Counter,
    /// Statistics that were sent.
    pub(crate) stats: Counter,
}

impl Counters {
    /// All counters at 0.
    pub(crate) const fn new() -> Self {
        Self {
            inflate: Flow::new(),
            deflate: Flow::new(),
            out_of_puff: Counter::new(),
            floor_hits: Counter::new(),
            oom_calls: Counter::new(),
            oom_pages: Counter::new(),
            migrations: Counter::new(),
            stats: Counter::new(),
        }
    }

    /// Writes a line for each counter: its name and its count.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inflate.write("inflate", f)?;
        self.deflate.write("deflate", f)?;
        writeln!(f, "out_of_puff {}", self.out_of_puff.get())?;
        writeln!(f, "floor_hits {}", self.floor_hits.get())?;
        writeln!(f, "oom_calls {}", self.oom_calls.get())?;
        writeln!(f, "oom_pages {}", self.oom_pages.get())?;
        writeln!(f, "migrations {}", self.migrations.get())?;
        writeln!(f, "stats {}", self.stats.get())
    }
}
