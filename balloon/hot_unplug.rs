// SPDX-License-Identifier: GPL-2.0-only

//! Memory hot-unplug: blocks leave memory that is to go offline, as nobody can move them.
//!
//! The balloon gets others elsewhere. Single pages move by themselves: [`crate::compaction`].

use crate::{
    abstractions::{
        memory_notifier::{
            MemoryChain,
            MemoryEvent, //
        },
        notifier::Listen,
        transport::Patience,
        work::Task, //
    },
    balloon::{
        account::{
            Account,
            BRIEFLY_MS, //
        },
        held_pages::Wanted,
        size_worker::SizeWorker, //
    },
};
use core::ops::Range;
use kernel::sync::Arc;

/// Takes blocks of a balloon out of memory that goes offline.
pub(crate) struct BlockEviction {
    pub(crate) account: Arc<Account>,
    pub(crate) size_worker: Arc<Task<SizeWorker>>,
}

impl BlockEviction {
    /// Has no blocks in these PFNs any more, as far as the host lets go of them in time. Those that are
    /// in transit to it, or that it does not let go of, stay: the memory cannot go offline then, and
    /// whoever wants it to tries again.
    fn evict_blocks(&self, pfns: Range<usize>) -> usize {
        let account = &*self.account;
        let patience = Patience::for_ms(BRIEFLY_MS);
        let Some(books) = account.lock_within(patience) else {
            return 0;
        };
        let which = Wanted::BlocksIn(pfns);
        let evicted = account.deflate_from(books, which, 0, patience);
        account.await_deflated(patience);
        let evicted = evicted.unwrap_or(0);
        account.counters.evicted_pages.add_len(evicted);
        evicted
    }
}

impl Listen<MemoryChain> for BlockEviction {
    fn notify(&self, event: MemoryEvent) {
        let MemoryEvent::GoingOffline(pfns) = event;
        if self.evict_blocks(pfns) > 0 {
            self.size_worker.start();
        }
    }
}
