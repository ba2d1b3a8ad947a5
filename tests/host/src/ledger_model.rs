// SPDX-License-Identifier: GPL-2.0-only

//! The balloon's books under all who write to them, in many orders: the ledger and the page lists are
//! the driver's own, the rest is a model. A page has an identity here, so that it is seen when one is
//! lost, freed twice, or freed while the host may discard what is in it.

use std::collections::BTreeSet;

use shuttle::rand::{thread_rng, Rng};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use crate::balloon::ledger::{Ledger, Store};
use crate::messages::host::Direction;
use crate::messages::model::{Device, ModelHost};
use crate::messages::pages::{List, Pages};

const PAGES: u32 = 12;
const WINDOW: usize = 4;

shuttle::lazy_static! {
    /// Pages that are free, and what their being freed is held against.
    static ref SYSTEM: Mutex<System> = Mutex::new(System::default());
}

#[derive(Default)]
struct System {
    free: BTreeSet<u32>,
    device: Option<Arc<Device>>,
}

/// A list whose pages are free again when it is dropped.
#[derive(Default)]
pub struct ModelList(pub Vec<u32>);

impl ModelList {
    fn allocate(want: usize) -> Self {
        let mut system = SYSTEM.lock().unwrap();
        let pages = (0..want).map_while(|_| system.free.pop_first()).collect();
        Self(pages)
    }
}

impl List for ModelList {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    fn set_offline(&mut self) {}

    fn clear_offline(&mut self) {}

    fn report_lost(&self) {
        panic!("{:?} are lost", self.0);
    }
}

impl Drop for ModelList {
    fn drop(&mut self) {
        if self.0.is_empty() || std::thread::panicking() {
            return;
        }
        let mut system = SYSTEM.lock().unwrap();
        for page in self.0.drain(..) {
            let device = system.device.clone().unwrap();
            assert!(device.may_be_used(page), "{page} is freed, but the host's");
            assert!(system.free.insert(page), "{page} is freed twice");
        }
    }
}

/// Held pages, of which compaction may have isolated some.
#[derive(Default)]
struct ModelStore {
    pages: Vec<u32>,
    isolated: Option<u32>,
}

impl Store for ModelStore {
    type List = ModelList;
    type Wanted = usize;

    fn insert(&mut self, mut pages: ModelList) {
        self.pages.append(&mut pages.0);
    }

    fn take(&mut self, wanted: usize) -> ModelList {
        let rest = self.pages.len().saturating_sub(wanted);
        ModelList(self.pages.split_off(rest))
    }

    fn len(&self) -> usize {
        self.pages.len() + usize::from(self.isolated.is_some())
    }
}

struct Books {
    ledger: Ledger<ModelHost>,
    store: ModelStore,
}

type SharedBooks = Arc<Mutex<Books>>;

impl Books {
    fn poll(&mut self) -> bool {
        match self.ledger.poll(&mut self.store) {
            Ok(completed) => completed.is_settled,
            Err(()) => true,
        }
    }

    fn deflate(&mut self, wanted: usize) {
        // What may be freed is freed here and now; what is in transit, by whoever polls.
        let _ = self
            .ledger
            .deflate(wanted, wanted, (), &mut self.store)
            .map(|moving| moving.free);
    }
}

fn settle(books: &SharedBooks) {
    while !books.lock().unwrap().poll() {
        thread::yield_now();
    }
}

fn size_worker(books: &SharedBooks) {
    for _ in 0..6 {
        let target = thread_rng().gen_range(0..PAGES as usize);
        let expected = books.lock().unwrap().ledger.expected();
        if target > expected {
            let pages = ModelList::allocate((target - expected).min(WINDOW));
            if pages.len() > 0 {
                settle(books);
                let mut books = books.lock().unwrap();
                let Books { ledger, store } = &mut *books;
                // Pages that the host was told nothing of are freed here.
                let _ = ledger.inflate(Pages::new(pages), WINDOW, (), store);
            }
        } else {
            if books.lock().unwrap().ledger.in_transit(Direction::Inflate) {
                settle(books);
            }
            books
                .lock()
                .unwrap()
                .deflate((expected - target).min(WINDOW));
        }
    }
    settle(books);
}

/// As the OOM and the hot-unplug notifiers do, which may not wait.
fn relieve(books: &SharedBooks) {
    for _ in 0..3 {
        if let Ok(mut books) = books.try_lock() {
            books.poll();
            if !books.ledger.in_transit(Direction::Deflate) {
                books.deflate(2);
            }
        }
        thread::yield_now();
    }
}

/// Moves a page, if that can be done.
fn compact(books: &SharedBooks) {
    for _ in 0..2 {
        let isolated = {
            let mut books = books.lock().unwrap();
            books.store.isolated = books.store.pages.pop();
            books.store.isolated
        };
        let Some(old) = isolated else { continue };
        thread::yield_now();
        let mut new = ModelList::allocate(1);
        // `balloon_page_migrate()` in all orders with the others.
        let migrated = match (books.try_lock(), new.0.first().copied()) {
            (Ok(mut books), Some(page)) => {
                let is_quiet = !books.ledger.in_transit(Direction::Inflate)
                    && !books.ledger.in_transit(Direction::Deflate);
                is_quiet && books.ledger.host().migrate(page, old)
            }
            _ => false,
        };
        let mut books = books.lock().unwrap();
        books.store.isolated = None;
        if migrated {
            books.store.pages.append(&mut new.0);
            drop(books);
            drop(ModelList(vec![old]));
        } else {
            books.store.pages.push(old);
        }
    }
}

/// All of it at once, and then the end of the driver.
fn run(must_tell_host: bool, breaks: bool) {
    let device = Arc::new(Device::new(must_tell_host));
    {
        let mut system = SYSTEM.lock().unwrap();
        system.free = (0..PAGES).collect();
        system.device = Some(device.clone());
    }
    let books: SharedBooks = Arc::new(Mutex::new(Books {
        ledger: Ledger::new(ModelHost::new(device.clone())),
        store: ModelStore::default(),
    }));
    let callers: Vec<_> = [size_worker, relieve, relieve, compact]
        .into_iter()
        .map(|caller| {
            let books = books.clone();
            thread::spawn(move || caller(&books))
        })
        .collect();
    let server = {
        let device = device.clone();
        thread::spawn(move || device.serve(breaks))
    };
    for caller in callers {
        caller.join().unwrap();
    }
    {
        let mut books = books.lock().unwrap();
        let Books { ledger, store } = &mut *books;
        let released = ledger.host().reset();
        while ledger.expected() > 0 {
            drop(ledger.reset(released, usize::MAX, store));
        }
        assert_eq!((ledger.actual(), store.len()), (0, 0));
    }
    server.join().unwrap();
    let free = SYSTEM.lock().unwrap().free.len();
    assert_eq!(free, PAGES as usize, "pages are lost");
}

#[test]
fn no_page_is_lost_or_used_too_soon() {
    shuttle::check_random(|| run(false, false), 2000);
}

#[test]
fn nor_where_the_host_must_be_told_first() {
    shuttle::check_random(|| run(true, false), 2000);
}

#[test]
fn nor_where_the_device_breaks() {
    shuttle::check_random(|| run(true, true), 2000);
    shuttle::check_random(|| run(false, true), 2000);
}

#[test]
fn nor_in_orders_that_are_rare() {
    shuttle::check_pct(|| run(true, true), 1000, 4);
}
