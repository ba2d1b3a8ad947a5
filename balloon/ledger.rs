// SPDX-License-Identifier: GPL-2.0-only

//! The balloon's books: which pages the host holds, and which are on their way to it or back.
//!
//! A page that was allocated for the balloon stands in exactly one of three lists until it is free
//! again: in transit to the host, held, or in transit back. Each transition is a method here, which
//! changes list and count at once; whoever has the ledger is alone with it. All who change the
//! balloon's size call these methods and keep no books of their own.
//!
//! Held pages lie in a [`Store`], which callers hand in with each call. Needs nothing but `core`.

use crate::messages::{
    host::{
        Direction,
        Host, //
    },
    pages::{
        Allocated,
        Deflated,
        Inflated,
        List,
        Pages,
        Released, //
    },
};

/// Where pages are kept that the host holds.
pub(crate) trait Store {
    type List: List;

    /// What pages are wanted out of it.
    type Wanted;

    /// Takes pages in.
    fn insert(&mut self, pages: Self::List);

    /// Gives pages out: those that are wanted, as far as they are here and at hand.
    fn take(&mut self, wanted: Self::Wanted) -> Self::List;

    /// The number of pages, those included that are not at hand.
    fn len(&self) -> usize;
}

/// How many pages moved of those that were to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// How many were to move.
    pub(crate) wanted: usize,
    /// How many did.
    pub(crate) moved: usize,
}

/// Pages that may be freed.
pub(crate) struct Free<L: List> {
    /// The pages.
    pub(crate) pages: Pages<Deflated, L>,
    /// How many there were to be.
    pub(crate) wanted: usize,
}

/// Pages in transit.
struct Transit<L: List> {
    pages: Pages<Inflated, L>,
    wanted: usize,
}

impl<L: List> Transit<L> {
    fn nothing() -> Self {
        Self {
            pages: Pages::default(),
            wanted: 0,
        }
    }

    fn add(&mut self, pages: Pages<Inflated, L>, wanted: usize) {
        self.pages.append(pages);
        self.wanted = self.wanted.saturating_add(wanted);
    }

    fn take(&mut self) -> Option<Self> {
        let all = core::mem::replace(self, Self::nothing());
        (all.pages.len() > 0).then_some(all)
    }
}

/// What has come to its end since the last look.
pub(crate) struct Completed<L: List> {
    /// Pages that the host holds now.
    pub(crate) inflated: Option<Moved>,
    /// Pages that it gave back.
    pub(crate) deflated: Option<Free<L>>,
    /// Whether the host has read all that it was sent.
    pub(crate) is_settled: bool,
}

/// The books of a balloon, in pages of the guest.
pub(crate) struct Ledger<H: Host> {
    host: H,
    held: usize,
    to_host: Transit<H::List>,
    from_host: Transit<H::List>,
}

impl<H: Host> Ledger<H> {
    /// An empty balloon.
    pub(crate) fn new(host: H) -> Self {
        Self {
            host,
            held: 0,
            to_host: Transit::nothing(),
            from_host: Transit::nothing(),
        }
    }

    /// Who is told.
    pub(crate) fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// The pages that the host has for sure: what the balloon's size is said to be.
    pub(crate) fn actual(&self) -> usize {
        self.held.saturating_add(self.from_host.pages.len())
    }

    /// The pages that the host holds once it has read all that it was sent.
    pub(crate) fn expected(&self) -> usize {
        self.held.saturating_add(self.to_host.pages.len())
    }

    /// Whether pages are in transit in that direction.
    pub(crate) fn in_transit(&self, direction: Direction) -> bool {
        let transit = match direction {
            Direction::Inflate => &self.to_host,
            Direction::Deflate => &self.from_host,
        };
        transit.pages.len() > 0
    }

    /// Gives pages to the host: they are in transit from then on. `wanted` is how many there were to be.
    ///
    /// # Errors
    ///
    /// The pages if the host was told nothing, as it is not ready. Where it fails on the way, the pages
    /// are held: it may have read of them.
    #[inline(never)]
    pub(crate) fn inflate(
        &mut self,
        pages: Pages<Allocated, H::List>,
        wanted: usize,
        patience: H::Patience,
        store: &mut impl Store<List = H::List>,
    ) -> Result<Result<(), H::Error>, Pages<Allocated, H::List>> {
        if !self.host.is_ready(Direction::Inflate) {
            return Err(pages);
        }
        let mut pages = pages.inflated();
        let sent = self
            .host
            .send(Direction::Inflate, pages.list_mut(), patience);
        self.to_host.add(pages, wanted);
        if sent.is_err() {
            self.fail(store);
        }
        self.check(store);
        Ok(sent)
    }

    /// Takes pages back from the host. They may be freed at once, unless the host has to read of it
    /// first: then they are in transit.
    ///
    /// # Errors
    ///
    /// Those of the host. The pages are still held, although it may have read of some of them.
    #[inline(never)]
    pub(crate) fn deflate<S: Store<List = H::List>>(
        &mut self,
        which: S::Wanted,
        wanted: usize,
        patience: H::Patience,
        store: &mut S,
    ) -> Result<Moving<H::List>, H::Error> {
        let mut list = store.take(which);
        let len = list.len();
        if len == 0 {
            return Ok(Moving { len, free: None });
        }
        if let Err(err) = self.host.send(Direction::Deflate, &mut list, patience) {
            store.insert(list);
            if !self.host.is_live() {
                self.fail(store);
            }
            self.check(store);
            return Err(err);
        }
        self.held = self.held.saturating_sub(len);
        let pages = Pages::held(list);
        let free = match self.host.released() {
            Some(released) => Some(Free {
                pages: pages.deflated(released),
                wanted,
            }),
            None => {
                self.from_host.add(pages, wanted);
                None
            }
        };
        self.check(store);
        Ok(Moving { len, free })
    }

    /// Looks what the host has read, and closes the books on it.
    ///
    /// # Errors
    ///
    /// Those of the host. Whatever was in transit is held then.
    #[inline(never)]
    pub(crate) fn poll(
        &mut self,
        store: &mut impl Store<List = H::List>,
    ) -> Result<Completed<H::List>, H::Error> {
        let idle = match self.host.poll() {
            Ok(idle) => idle,
            Err(err) => {
                self.fail(store);
                return Err(err);
            }
        };
        let mut completed = Completed {
            inflated: None,
            deflated: None,
            is_settled: idle.inflate && idle.deflate,
        };
        if idle.inflate {
            completed.inflated = self.hold_inflated(store);
        }
        if let (true, Some(released)) = (idle.deflate, self.host.released()) {
            completed.deflated = self.from_host.take().map(|transit| Free {
                pages: transit.pages.deflated(released),
                wanted: transit.wanted,
            });
        }
        self.check(store);
        Ok(completed)
    }

    /// Gives the host up: it may have read, or not, of all that is in transit, so that is held.
    pub(crate) fn fail(&mut self, store: &mut impl Store<List = H::List>) {
        self.host.fail();
        let _ = self.hold_inflated(store);
        if let Some(transit) = self.from_host.take() {
            self.hold(transit.pages, store);
        }
        self.check(store);
    }

    /// The host was reset: it holds nothing. Returns the pages that are at hand; there may be more, as
    /// long as [`Self::expected`] is not 0.
    pub(crate) fn reset<S: Store<List = H::List>>(
        &mut self,
        released: Released,
        all: S::Wanted,
        store: &mut S,
    ) -> Pages<Deflated, H::List> {
        self.fail(store);
        let list = store.take(all);
        self.held = self.held.saturating_sub(list.len());
        self.check(store);
        Pages::held(list).deflated(released)
    }

    fn hold_inflated(&mut self, store: &mut impl Store<List = H::List>) -> Option<Moved> {
        let transit = self.to_host.take()?;
        let moved = Moved {
            wanted: transit.wanted,
            moved: transit.pages.len(),
        };
        self.hold(transit.pages, store);
        Some(moved)
    }

    fn hold(&mut self, pages: Pages<Inflated, H::List>, store: &mut impl Store<List = H::List>) {
        self.held = self.held.saturating_add(pages.len());
        store.insert(pages.into_held());
    }

    /// The count and the store agree. Looked at where the kernel has debug assertions.
    fn check(&self, store: &impl Store<List = H::List>) {
        debug_assert!(self.held == store.len(), "the balloon's books do not agree");
    }
}

/// Pages that leave the balloon.
pub(crate) struct Moving<L: List> {
    /// How many there are.
    pub(crate) len: usize,
    /// The pages, where they may be freed at once.
    pub(crate) free: Option<Free<L>>,
}
