// SPDX-License-Identifier: GPL-2.0

//! Pages on their way into the balloon and out of it.
//!
//! The type of a list says what the host knows of its pages, so that a page cannot be freed before
//! the host has acknowledged that it was told:
//!
//! - [`Allocated`]: taken from the system, of no concern to the host yet.
//! - [`Given`]: the host may discard what is in them at any time. In the balloon, or about to be.
//! - [`Returned`]: the host has acknowledged that they are in use again.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    lru_ring::LruRing,
    reporter::Acknowledged, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings::list_head,
    page::PAGE_SHIFT, //
    pr_warn_once,
};

/// The unit of all page numbers and counts between driver and device is 4 KiB, whatever the
/// guest's page size. C: `VIRTIO_BALLOON_PFN_SHIFT`.
const BALLOON_PAGE_SHIFT: usize = 12;

/// How many of those units a page of the guest has.
pub(crate) const UNITS_PER_PAGE: u32 = 1 << (PAGE_SHIFT - BALLOON_PAGE_SHIFT);

/// What the host knows of the pages of a list.
pub(crate) trait State {
    /// Whether the pages may be freed as they are.
    const FREE: bool;
}

/// Taken from the system.
pub(crate) struct Allocated;

/// Given to the host.
pub(crate) struct Given;

/// Taken back from the host.
pub(crate) struct Returned;

impl State for Allocated {
    const FREE: bool = true;
}

impl State for Given {
    const FREE: bool = false;
}

impl State for Returned {
    const FREE: bool = true;
}

/// A list of pages that the driver owns.
pub(crate) struct PageList<S: State> {
    pages: LruRing,
    state: PhantomData<S>,
}

impl<S: State> PageList<S> {
    const fn empty() -> Self {
        Self {
            pages: LruRing::new(),
            state: PhantomData,
        }
    }

    /// The number of pages, in pages of the guest.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are no pages.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The PFNs of the pages in units of 4 KiB, in the order of the list.
    pub(crate) fn pfns(&self) -> impl Iterator<Item = u64> + Clone + '_ {
        self.pages
            .iter()
            .map(page_pfn)
            .flat_map(|pfn| pfn..pfn.saturating_add(u64::from(UNITS_PER_PAGE)))
    }

    /// Calls `f` with the pages as a list of C, and takes what `f` leaves on it.
    ///
    /// `f` returns how many pages there are afterwards.
    pub(crate) fn with_head(&mut self, f: impl FnOnce(*mut list_head) -> usize) {
        self.pages.with_head(f);
    }

    /// Takes up to `want` pages off the list.
    pub(crate) fn split(&mut self, want: usize) -> Self {
        let mut list = Self::empty();
        while list.len() < want {
            match self.pages.pop() {
                Some(page) => list.pages.push(page),
                None => break,
            }
        }
        list
    }

    /// Adds all pages of another list.
    pub(crate) fn append(&mut self, other: Self) {
        let mut other = other;
        while let Some(page) = other.pages.pop() {
            self.pages.push(page);
        }
    }

    /// The same pages, of which the host now knows something else.
    fn become_<T: State>(mut self) -> PageList<T> {
        PageList {
            pages: core::mem::replace(&mut self.pages, LruRing::new()),
            state: PhantomData,
        }
    }
}

impl PageList<Allocated> {
    /// Takes up to `want` pages from the system, without the last reserves and without warnings, as
    /// long as `go_on` says so.
    pub(crate) fn allocate(want: usize, go_on: impl Fn() -> bool) -> Self {
        let mut list = Self::empty();
        while list.len() < want && go_on() {
            // SAFETY: May be called from any context that may sleep.
            match NonNull::new(unsafe { bindings::balloon_page_alloc() }) {
                Some(page) => list.pages.push(page),
                None => break,
            }
        }
        list
    }

    /// The host was given these pages, or may have been: from here on it has to be asked.
    pub(crate) fn given(self) -> PageList<Given> {
        self.become_()
    }
}

impl PageList<Given> {
    /// A list for pages that come out of the balloon.
    pub(crate) const fn new() -> Self {
        Self::empty()
    }

    /// The host has acknowledged that these pages are in use again.
    pub(crate) fn returned(self, _: Acknowledged) -> PageList<Returned> {
        self.become_()
    }
}

impl<S: State> Drop for PageList<S> {
    fn drop(&mut self) {
        if !S::FREE && !self.is_empty() {
            // The host may discard what is in these pages at any time: nobody can use them.
            pr_warn_once!("{} pages that the host holds are lost\n", self.len());
            return;
        }
        while let Some(page) = self.pages.pop() {
            // SAFETY: The list owned a reference to the page.
            unsafe { bindings::balloon_bmap_put_page(page.as_ptr()) };
        }
    }
}

/// The first PFN of a page, in units of 4 KiB.
pub(crate) fn page_pfn(page: NonNull<bindings::page>) -> u64 {
    // SAFETY: This only computes with the page's address.
    let pfn = unsafe { bindings::balloon_bmap_page_pfn(page.as_ptr()) };
    // CAST: `unsigned long` has at most 64 bits.
    (pfn as u64).saturating_mul(u64::from(UNITS_PER_PAGE))
}
