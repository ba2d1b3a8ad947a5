// SPDX-License-Identifier: GPL-2.0-only

//! Deflate on OOM: the balloon gives way before the OOM killer is invoked.

use crate::{
    abstractions::{
        notifier::Listen,
        oom_notifier::{
            Freed,
            OomChain, //
        },
        param,
        transport::Patience,
        work::Task, //
    },
    balloon::{
        account::{
            window,
            Account,
            BRIEFLY_MS, //
        },
        size_worker::SizeWorker, //
    },
};
use kernel::{
    sync::Arc,
    time::Msecs, //
};

/// Before other notifiers, as what they free may be worth keeping. C:
/// `VIRTIO_BALLOON_OOM_NOTIFY_PRIORITY`.
pub(crate) const PRIORITY: kernel::ffi::c_int = 80;

/// How often to look what the host has read, or others have freed.
const LOOK_MS: Msecs = 5;

/// Gives pages of a balloon to a guest that has run out of memory.
pub(crate) struct OomDeflation {
    pub(crate) account: Arc<Account>,
    pub(crate) size_worker: Arc<Task<SizeWorker>>,
}

impl OomDeflation {
    /// Frees some `wanted` pages, and returns how many were freed since: by whomever.
    ///
    /// This allocates nothing, and waits neither for the books nor for the host longer than
    /// `BRIEFLY_MS`.
    fn relieve(&self, wanted: usize) -> usize {
        let account = &*self.account;
        let before = account.oom.freed();
        let freed = || account.oom.freed().wrapping_sub(before);
        let patience = Patience::for_ms(BRIEFLY_MS);
        loop {
            let seen = account.transport.used_count();
            let may_come = match account.try_lock() {
                Some(books) => account.relieve_from(books, wanted, patience),
                None => true,
            };
            // What is in somebody's hand is about to be freed, or to be in the books.
            if freed() > 0 || patience.is_over() || !(may_come || account.oom.is_held()) {
                return freed();
            }
            account.transport.wait_used(seen, LOOK_MS);
        }
    }
}

impl Listen<OomChain> for OomDeflation {
    fn notify(&self, event: Freed<'_>) {
        let account = &*self.account;
        let wanted = param::oom_pages();
        account.oom.raise();
        let freed = if wanted > 0 { self.relieve(wanted) } else { 0 };
        account.counters.oom_calls.inc();
        account.counters.oom_pages.add_len(freed);
        let held = account.try_lock().map_or(0, |books| books.actual());
        window(wanted, freed, held).oom();
        event.add(freed);
        // It pauses the balloon's growth.
        self.size_worker.start();
    }
}
