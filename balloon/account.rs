// SPDX-License-Identifier: GPL-2.0-only

//! A balloon's account: its books, and what its counts are shown to be.
//!
//! | | written | under |
//! |---|---|---|
//! | [`Ledger`], blocks | by the size worker, OOM and hot-unplug notifiers, teardown | `books` |
//! | single pages | by them, and by compaction | `balloon_pages_lock` of `mm/balloon.c` |
//! | messages in the queues | by them all | `books` |
//! | `actual` in the configuration space | by all but compaction | `books` |
//!
//! Order: `books`; then the lock of a virtqueue or that of the configuration space, or
//! `balloon_pages_lock`, or those of the zones' counts. `books` is a mutex, and held
//!
//! - never across an allocation that may reclaim, so that the OOM notifier, and compaction by whoever
//!   allocates, can take it; they try it only, for a time;
//! - while the device is waited for only where one window takes more messages than there are, and for
//!   two messages by compaction. All other waits are outside of it.

use crate::{
    abstractions::{
        balloon_device::{
            BalloonDevice,
            Migrate, //
        },
        offline_blocks::OfflineBlocks,
        page_block::BlockRef,
        page_counts::Counted,
        page_list::PageList,
        trace::Window,
        transport::{
            Patience,
            Transport, //
        },
        virtio_device::Device,
    },
    balloon::{
        config,
        held_pages::{
            HeldPages,
            Wanted, //
        },
        ledger::{
            Completed,
            Free,
            Ledger,
            Moved, //
        },
        oom_state::OomState,
    },
    compaction,
    messages::{
        counters::Counters,
        host::Direction,
        message_queue::MessageVirtqueue,
        pages::{
            Allocated,
            Deflated,
            Pages,
            Released, //
        },
        pfns::units,
        sender::Sender, //
    },
};
use kernel::{
    device::Core,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Msecs, //
    },
};

/// How long to wait for compaction to let go of pages.
const ISOLATED: Delta = Delta::from_millis(10);

/// How often to try for the books.
const TRY_LOCK: Delta = Delta::from_millis(1);

/// The books, and where blocks are kept.
pub(crate) struct Books {
    ledger: Ledger<Sender>,
    blocks: OfflineBlocks,
}

type SharedBooks = Arc<Mutex<Books>>;

/// Moves pages for compaction.
pub(crate) struct Migrator {
    books: SharedBooks,
    counted: Counted,
}

impl Migrate for Migrator {
    fn migrate(&self, new: BlockRef<'_>, old: BlockRef<'_>) -> Result {
        // Who has the books may be waiting for memory that this call is to find.
        let mut books = self.books.try_lock().ok_or(EAGAIN)?;
        if books.ledger.in_transit(Direction::Inflate)
            || books.ledger.in_transit(Direction::Deflate)
        {
            return Err(EAGAIN);
        }
        compaction::migrate(books.ledger.host(), new, old)?;
        self.counted.migrated(new, old);
        Ok(())
    }
}

/// The account of a balloon.
#[pin_data]
pub(crate) struct Account {
    pub(crate) transport: Transport,
    pub(crate) counters: Arc<Counters>,
    #[pin]
    pub(crate) oom: OomState,
    /// What was published last, in units of 4 KiB, for who would rather not wait for the books.
    published: Atomic<u32>,
    counted: Counted,
    books: SharedBooks,
    #[pin]
    singles: BalloonDevice<Migrator>,
}

impl Account {
    /// An empty balloon.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[inline(never)]
    pub(crate) fn new(
        transport: Transport,
        sender: Sender,
        counters: Arc<Counters>,
        counted: Counted,
    ) -> Result<Arc<Self>> {
        let blocks = OfflineBlocks::new(&*counters);
        let books = Books {
            ledger: Ledger::new(sender),
            blocks,
        };
        let books: SharedBooks = Arc::pin_init(new_mutex!(books, "Account::books"), GFP_KERNEL)?;
        let migrator = Migrator {
            books: books.clone(),
            counted,
        };
        Arc::pin_init(
            pin_init!(Self {
                transport,
                counters,
                oom <- OomState::new(),
                published: Atomic::new(0),
                counted,
                books,
                singles <- BalloonDevice::new(migrator),
            }),
            GFP_KERNEL,
        )
    }

    fn open<'a>(&'a self, books: Guard<'a, Books, MutexBackend>) -> OpenBooks<'a> {
        OpenBooks {
            account: self,
            books,
        }
    }

    /// The books, which nobody else writes to meanwhile.
    pub(crate) fn lock(&self) -> OpenBooks<'_> {
        self.open(self.books.lock())
    }

    /// The books, for who may not wait for them.
    pub(crate) fn try_lock(&self) -> Option<OpenBooks<'_>> {
        self.books.try_lock().map(|books| self.open(books))
    }

    /// The books, unless that takes longer than `patience`.
    pub(crate) fn lock_within(&self, patience: Patience) -> Option<OpenBooks<'_>> {
        loop {
            if let Some(books) = self.try_lock() {
                return Some(books);
            }
            if patience.is_over() {
                return None;
            }
            fsleep(TRY_LOCK);
        }
    }

    /// Starts to use the queues of the device.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[inline(never)]
    pub(crate) fn connect(&self, queues: [MessageVirtqueue; 2]) -> Result {
        let (spec, [inflate, deflate]) = self.lock().books.ledger.host().missing_buffers();
        // Without the books: see above.
        let spare = [
            spec.allocate(inflate, GFP_KERNEL)?,
            spec.allocate(deflate, GFP_KERNEL)?,
        ];
        let surplus = self.lock().books.ledger.host().connect(queues, spare);
        drop(surplus);
        Ok(())
    }

    /// Looks what the host has read, and frees what it gave back. Returns whether it has read all that
    /// it was sent.
    ///
    /// # Errors
    ///
    /// ENODEV without a device that works, EIO if it stops working now.
    fn poll(&self) -> Result<bool> {
        self.poll_from(self.lock())
    }

    /// As [`Self::poll`], which also closes the books.
    #[inline(never)]
    fn poll_from(&self, mut books: OpenBooks<'_>) -> Result<bool> {
        let _guard = self.oom.hold();
        let completed = books.poll();
        let held = books.actual();
        drop(books);
        let completed = completed?;
        let is_settled = completed.is_settled;
        self.finish(completed, held);
        Ok(is_settled)
    }

    /// Waits until the host has read all that it was sent.
    ///
    /// # Errors
    ///
    /// Those of [`Self::poll`], and ETIMEDOUT where waits are bounded: the device is given up then.
    #[inline(never)]
    pub(crate) fn settle(&self) -> Result {
        let settled = self
            .transport
            .wait(Patience::Device, || Ok(self.poll()?.then_some(())));
        if settled.is_err() {
            self.lock().fail();
        }
        settled
    }

    /// Does what is left to do for what has come to its end, when `held` pages were held. The books
    /// must be closed.
    #[inline(never)]
    fn finish(&self, completed: Completed<PageList>, held: usize) {
        if let Some(Moved { wanted, moved }) = completed.inflated {
            window(wanted, moved, held).inflate();
        }
        completed
            .deflated
            .into_iter()
            .for_each(|free| self.free(free, held));
    }

    /// Frees pages that the host gave back, when `held` pages were held. The books must be closed, and
    /// an `AllocationGuard` be there since the pages have left them.
    #[inline(never)]
    fn free(&self, free: Free<PageList>, held: usize) {
        let moved = free.pages.len();
        drop(free.pages);
        self.oom.add_freed(moved);
        window(free.wanted, moved, held).deflate();
    }

    /// Takes up to `wanted` pages back from the host, and returns how many.
    ///
    /// # Errors
    ///
    /// Those of [`Ledger::deflate`].
    pub(crate) fn deflate(&self, wanted: usize) -> Result<usize> {
        let books = self.lock();
        self.deflate_from(books, Wanted::Exactly(wanted), wanted, Patience::Device)
    }

    /// Takes pages back from the host, tells it of the balloon's size, closes the books, and frees
    /// what may be freed. Returns how many pages leave the balloon.
    ///
    /// # Errors
    ///
    /// Those of [`Ledger::deflate`].
    #[inline(never)]
    pub(crate) fn deflate_from(
        &self,
        mut books: OpenBooks<'_>,
        which: Wanted,
        wanted: usize,
        patience: Patience,
    ) -> Result<usize> {
        let _guard = self.oom.hold();
        let moving = {
            let (ledger, mut held) = books.parts();
            ledger.deflate(which, wanted, patience, &mut held)
        };
        books.publish();
        let held = books.actual();
        drop(books);
        let moving = moving?;
        moving
            .free
            .into_iter()
            .for_each(|free| self.free(free, held));
        Ok(moving.len)
    }

    /// Frees what the host gave back, or else has it give back at least `wanted` pages, and closes the
    /// books. Returns whether any pages are in transit, which may be had later.
    #[inline(never)]
    pub(crate) fn relieve_from(
        &self,
        mut books: OpenBooks<'_>,
        wanted: usize,
        patience: Patience,
    ) -> bool {
        let _guard = self.oom.hold();
        let completed = books.poll();
        let held = books.actual();
        let has_freed = |completed: &Completed<PageList>| completed.deflated.is_some();
        if books.in_transit(Direction::Deflate) || completed.as_ref().is_ok_and(has_freed) {
            drop(books);
        } else {
            // Without a device that works, pages go back to where they were.
            let _ = self.deflate_from(books, Wanted::AtLeast(wanted), wanted, patience);
        }
        if let Ok(completed) = completed {
            self.finish(completed, held);
        }
        self.try_lock().is_none_or(|books| {
            books.in_transit(Direction::Inflate) || books.in_transit(Direction::Deflate)
        })
    }

    /// Waits until no pages are in transit back, or `patience` is over.
    pub(crate) fn await_deflated(&self, patience: Patience) {
        let _ = self.transport.wait(patience, || {
            let books = self.lock_within(patience).ok_or(ETIMEDOUT)?;
            if !books.in_transit(Direction::Deflate) {
                return Ok(Some(()));
            }
            self.poll_from(books)?;
            let books = self.lock_within(patience).ok_or(ETIMEDOUT)?;
            Ok((!books.in_transit(Direction::Deflate)).then_some(()))
        });
    }

    /// Tells the host the size that the balloon has.
    pub(crate) fn publish(&self) {
        self.lock().publish();
    }

    /// The size that the host was told last, in units of 4 KiB.
    pub(crate) fn published(&self) -> u32 {
        self.published.load(Relaxed)
    }

    /// Empties the balloon, whatever its target is, resets the device and deletes its queues.
    ///
    /// The size worker must be stopped, and waits bounded.
    pub(crate) fn drain_and_reset(&self, dev: &Device<Core<'_>>, window: usize) {
        // A device that fails here holds nothing once it is reset below.
        let mut answered = self.settle();
        while answered.is_ok() && self.lock().expected() > 0 {
            answered = match self.deflate(window) {
                // All that is left is isolated by compaction, which does not keep it for long.
                Ok(0) => {
                    fsleep(ISOLATED);
                    Ok(())
                }
                moved => moved.and_then(|_| self.settle()),
            };
        }
        self.publish();

        let reset = self.transport.close(dev);
        let released = self.lock().books.ledger.host().disconnect(reset);
        loop {
            let (pages, left) = {
                let mut books = self.lock();
                (books.reset(released), books.expected())
            };
            self.oom.add_freed(pages.len());
            drop(pages);
            if left == 0 {
                break;
            }
            fsleep(ISOLATED);
        }
    }
}

/// The books while nobody else writes to them.
pub(crate) struct OpenBooks<'a> {
    account: &'a Account,
    books: Guard<'a, Books, MutexBackend>,
}

impl OpenBooks<'_> {
    fn parts(&mut self) -> (&mut Ledger<Sender>, HeldPages<'_, Migrator>) {
        let account = self.account;
        let Books { ledger, blocks } = &mut *self.books;
        let held = HeldPages {
            singles: &account.singles,
            blocks,
            counted: account.counted,
            counters: &account.counters,
        };
        (ledger, held)
    }

    /// Who is told.
    pub(crate) fn sender(&mut self) -> &mut Sender {
        self.books.ledger.host()
    }

    /// See [`Ledger::actual`].
    pub(crate) fn actual(&self) -> usize {
        self.books.ledger.actual()
    }

    /// See [`Ledger::expected`].
    pub(crate) fn expected(&self) -> usize {
        self.books.ledger.expected()
    }

    /// Whether pages are in transit, one way or the other.
    pub(crate) fn in_transit(&self, direction: Direction) -> bool {
        self.books.ledger.in_transit(direction)
    }

    /// See [`Ledger::inflate`]. Pages that the host was not told of are freed once the books are closed.
    pub(crate) fn inflate(
        &mut self,
        pages: Pages<Allocated, PageList>,
        wanted: usize,
    ) -> Result<Result, Pages<Allocated, PageList>> {
        let (ledger, mut held) = self.parts();
        ledger.inflate(pages, wanted, Patience::Device, &mut held)
    }

    /// See [`Ledger::poll`].
    fn poll(&mut self) -> Result<Completed<PageList>> {
        let (ledger, mut held) = self.parts();
        ledger.poll(&mut held)
    }

    /// See [`Ledger::fail`].
    pub(crate) fn fail(&mut self) {
        let (ledger, mut held) = self.parts();
        ledger.fail(&mut held);
    }

    fn reset(&mut self, released: Released) -> Pages<Deflated, PageList> {
        let (ledger, mut held) = self.parts();
        ledger.reset(released, Wanted::Exactly(usize::MAX), &mut held)
    }

    /// Tells the host the size that the balloon has.
    pub(crate) fn publish(&self) {
        // A target has 32 bits, and the balloon does not grow beyond it.
        let actual = u32::try_from(units(self.actual())).unwrap_or(u32::MAX);
        self.account.published.store(actual, Relaxed);
        config::set_actual(&self.account.transport, actual);
    }
}

/// What tracepoints show of a window of pages, after which `held` pages are held.
pub(crate) fn window(wanted: usize, moved: usize, held: usize) -> Window {
    Window {
        wanted,
        moved,
        held: units(held),
    }
}

/// How long somebody who may not wait for the host waits for it all the same.
pub(crate) const BRIEFLY_MS: Msecs = 1000;
