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

/// A list of pages that the driver owns, linked through `page->lru`.
///
/// # Invariants
///
/// The nodes from `first` on are a ring of `len` nodes without a head, each the `lru` of a page
/// that the list owns a reference to; `first` is `None` if and only if `len` is 0.
pub(crate) struct PageList<S: State> {
    first: Option<NonNull<list_head>>,
    len: usize,
    state: PhantomData<S>,
}

// SAFETY: The pages of a list are owned by it, and can be freed by any thread.
unsafe impl<S: State> Send for PageList<S> {}

impl<S: State> PageList<S> {
    const fn empty() -> Self {
        // INVARIANT: There are no nodes.
        Self {
            first: None,
            len: 0,
            state: PhantomData,
        }
    }

    /// The number of pages, in pages of the guest.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no pages.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The PFNs of the pages in units of 4 KiB, in the order of the list.
    pub(crate) fn pfns(&self) -> impl Iterator<Item = u64> + Clone + '_ {
        let mut next = self.first;
        let mut left = self.len;
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let node = next?;
            // SAFETY: By the type invariant, `node` is the `lru` of a page that `self` owns.
            let pfn = unsafe {
                next = NonNull::new((*node.as_ptr()).next);
                page_pfn(NonNull::new(bindings::balloon_bmap_lru_page(
                    node.as_ptr(),
                ))?)
            };
            Some(pfn)
        })
        .flat_map(|pfn| pfn..pfn.saturating_add(u64::from(UNITS_PER_PAGE)))
    }

    fn push(&mut self, page: NonNull<bindings::page>) {
        // SAFETY: The caller gives us the page, so its `lru` is ours to use, and by the type
        // invariant so are the nodes of the ring.
        unsafe {
            let node = bindings::balloon_bmap_page_lru(page.as_ptr());
            match self.first {
                None => {
                    (*node).next = node;
                    (*node).prev = node;
                }
                Some(first) => insert_before(node, first.as_ptr()),
            }
            // INVARIANT: The ring has one more node.
            self.first = NonNull::new(node);
        }
        self.len = self.len.saturating_add(1);
    }

    fn pop(&mut self) -> Option<NonNull<bindings::page>> {
        let node = self.first?.as_ptr();
        // SAFETY: By the type invariant, `node` and its neighbours are nodes of the ring, and
        // `node` is the `lru` of a page.
        let page = unsafe {
            let (prev, next) = ((*node).prev, (*node).next);
            (*prev).next = next;
            (*next).prev = prev;
            // INVARIANT: The ring has one node less.
            self.first = NonNull::new(next).filter(|next| next.as_ptr() != node);
            bindings::balloon_bmap_lru_page(node)
        };
        self.len = self.len.saturating_sub(1);
        NonNull::new(page)
    }

    /// Calls `f` with a head for the ring, as C has its lists, and takes what `f` leaves on it.
    ///
    /// `f` returns how many pages there are afterwards.
    pub(crate) fn with_head(&mut self, f: impl FnOnce(*mut list_head) -> usize) {
        let mut head = list_head::default();
        let head = &raw mut head;
        // SAFETY: `head` is valid until the end of this function, by when it is off the ring.
        unsafe {
            (*head).next = head;
            (*head).prev = head;
            if let Some(first) = self.first {
                insert_before(head, first.as_ptr());
            }
            self.len = f(head);
            let (prev, next) = ((*head).prev, (*head).next);
            (*prev).next = next;
            (*next).prev = prev;
            // INVARIANT: The ring is what `f` left, without the head.
            self.first = NonNull::new(next).filter(|next| next.as_ptr() != head);
        }
    }

    /// Takes up to `want` pages off the list.
    pub(crate) fn split(&mut self, want: usize) -> Self {
        let mut list = Self::empty();
        while list.len < want {
            match self.pop() {
                Some(page) => list.push(page),
                None => break,
            }
        }
        list
    }

    /// Adds all pages of another list.
    pub(crate) fn append(&mut self, other: Self) {
        let mut other = other;
        while let Some(page) = other.pop() {
            self.push(page);
        }
    }

    /// The same pages, of which the host now knows something else.
    fn become_<T: State>(mut self) -> PageList<T> {
        // INVARIANT: The ring moves from one list to the other.
        PageList {
            first: self.first.take(),
            len: core::mem::take(&mut self.len),
            state: PhantomData,
        }
    }
}

impl PageList<Allocated> {
    /// Takes up to `want` pages from the system, without the last reserves and without warnings.
    pub(crate) fn allocate(want: usize) -> Self {
        let mut list = Self::empty();
        while list.len < want {
            // SAFETY: May be called from any context that may sleep.
            match NonNull::new(unsafe { bindings::balloon_page_alloc() }) {
                Some(page) => list.push(page),
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
            pr_warn_once!("{} pages that the host holds are lost\n", self.len);
            return;
        }
        while let Some(page) = self.pop() {
            // SAFETY: The list owned a reference to the page.
            unsafe { bindings::balloon_bmap_put_page(page.as_ptr()) };
        }
    }
}

/// Inserts `node` before `next`.
///
/// # Safety
///
/// `next` must be a node of a ring, and `node` valid for writes and on none.
unsafe fn insert_before(node: *mut list_head, next: *mut list_head) {
    // SAFETY: By the safety requirements, all three are valid.
    unsafe {
        let prev = (*next).prev;
        (*node).next = next;
        (*node).prev = prev;
        (*prev).next = node;
        (*next).prev = node;
    }
}

/// The first PFN of a page, in units of 4 KiB.
pub(crate) fn page_pfn(page: NonNull<bindings::page>) -> u64 {
    // SAFETY: This only computes with the page's address.
    let pfn = unsafe { bindings::balloon_bmap_page_pfn(page.as_ptr()) };
    // CAST: `unsigned long` has at most 64 bits.
    (pfn as u64).saturating_mul(u64::from(UNITS_PER_PAGE))
}
