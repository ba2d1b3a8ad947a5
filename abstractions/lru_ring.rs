// SPDX-License-Identifier: GPL-2.0

//! Pages, or blocks of them, that are linked through `page->lru`.

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::bindings::list_head;

/// Where a page has its links.
const LRU_OFFSET: usize = bindings::BALLOON_BMAP_PAGE_LRU;

/// Pages that belong to whoever has the ring.
///
/// # Invariants
///
/// The nodes from `first` on are a ring of `len` nodes without a head, each the `lru` of a page
/// that belongs to the owner of `self`. `first` is `None` if and only if `len` is 0.
pub(crate) struct LruRing {
    first: Option<NonNull<list_head>>,
    len: usize,
}

// SAFETY: The pages belong to the ring, whichever thread has it.
unsafe impl Send for LruRing {}

impl LruRing {
    /// A ring without pages.
    pub(crate) const fn new() -> Self {
        // INVARIANT: There are no nodes.
        Self {
            first: None,
            len: 0,
        }
    }

    /// The number of pages.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The pages, from the one that was added last.
    pub(crate) fn iter(&self) -> Iter<'_> {
        // INVARIANT: The ring does not change as long as it is borrowed.
        Iter {
            next: self.first,
            left: self.len,
            ring: PhantomData,
        }
    }

    /// Adds a page, which belongs to the owner of the ring from then on.
    pub(crate) fn push(&mut self, page: NonNull<bindings::page>) {
        // SAFETY: The page is the caller's, so its `lru` is free to use, and by the type invariant
        // so are the nodes of the ring.
        unsafe {
            let node = lru(page);
            match self.first {
                None => link(node, node),
                Some(first) => insert_before(node, first.as_ptr()),
            }
            // INVARIANT: The ring has one more node.
            self.first = NonNull::new(node);
        }
        self.len = self.len.saturating_add(1);
    }

    /// Takes the page that was added last.
    pub(crate) fn pop(&mut self) -> Option<NonNull<bindings::page>> {
        let node = self.first?.as_ptr();
        // SAFETY: By the type invariant, `node` and its neighbours are nodes of the ring.
        unsafe {
            let next = (*node).next;
            link((*node).prev, next);
            // INVARIANT: The ring has one node less.
            self.first = NonNull::new(next).filter(|next| next.as_ptr() != node);
        }
        self.len = self.len.saturating_sub(1);
        NonNull::new(page(node))
    }

    /// Takes up to `want` pages, those that were added last.
    pub(crate) fn split(&mut self, want: usize) -> Self {
        let all = core::mem::replace(self, Self::new());
        let Some(first) = all.first.filter(|_| want < all.len) else {
            return all;
        };
        let mut rest = first.as_ptr();
        // SAFETY: By the type invariant, all are nodes of the ring, which becomes two.
        unsafe {
            for _ in 0..want {
                rest = (*rest).next;
            }
            let (last, back) = ((*rest).prev, (*first.as_ptr()).prev);
            link(last, first.as_ptr());
            link(back, rest);
        }
        // INVARIANT: Each of the two has its nodes, none of them or all of them included.
        *self = Self {
            first: NonNull::new(rest),
            len: all.len.wrapping_sub(want),
        };
        Self {
            first: Some(first).filter(|_| want > 0),
            len: want,
        }
    }

    /// Adds all pages of another ring, before those that are there.
    pub(crate) fn append(&mut self, other: Self) {
        if let (Some(first), Some(front)) = (self.first, other.first) {
            let (first, front) = (first.as_ptr(), front.as_ptr());
            // SAFETY: By the type invariants, all are nodes of the two rings, which become one.
            unsafe {
                let (last, back) = ((*first).prev, (*front).prev);
                link(back, first);
                link(last, front);
            }
        }
        // INVARIANT: The nodes of both are one ring, or one of the two had none.
        self.first = other.first.or(self.first);
        self.len = self.len.saturating_add(other.len);
    }

    /// Calls `f` with a head for the ring, as C has its lists, and takes what `f` leaves on it.
    ///
    /// `f` returns how many pages there are afterwards.
    pub(crate) fn with_head(&mut self, f: impl FnOnce(*mut list_head) -> usize) {
        let mut head = list_head::default();
        let head = &raw mut head;
        // SAFETY: `head` is valid until the end of this function, by when it is off the ring.
        unsafe {
            link(head, head);
            if let Some(first) = self.first {
                insert_before(head, first.as_ptr());
            }
            self.len = f(head);
            let next = (*head).next;
            link((*head).prev, next);
            // INVARIANT: The ring is what `f` left, without the head.
            self.first = NonNull::new(next).filter(|next| next.as_ptr() != head);
        }
    }
}

/// The pages of a ring.
///
/// # Invariants
///
/// `next` is a node of the ring, which has `left` more pages from there on.
#[derive(Clone)]
pub(crate) struct Iter<'a> {
    next: Option<NonNull<list_head>>,
    left: usize,
    ring: PhantomData<&'a LruRing>,
}

impl Iter<'_> {
    /// No pages.
    pub(crate) const fn empty() -> Self {
        // INVARIANT: There is nothing to come.
        Self {
            next: None,
            left: 0,
            ring: PhantomData,
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = NonNull<bindings::page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let node = self.next?.as_ptr();
        // INVARIANT: The next node is of the same ring.
        // SAFETY: By the type invariant, `node` is a node of the ring.
        self.next = NonNull::new(unsafe { (*node).next });
        NonNull::new(page(node))
    }
}

/// The links of a page.
fn lru(page: NonNull<bindings::page>) -> *mut list_head {
    page.as_ptr().wrapping_byte_add(LRU_OFFSET).cast()
}

/// The page whose links these are.
fn page(lru: *mut list_head) -> *mut bindings::page {
    lru.wrapping_byte_sub(LRU_OFFSET).cast()
}

/// Inserts `node` before `next`.
///
/// # Safety
///
/// `next` must be a node of a ring, and `node` valid for writes and on none.
unsafe fn insert_before(node: *mut list_head, next: *mut list_head) {
    // SAFETY: By the safety requirements, all three are valid.
    unsafe {
        link((*next).prev, node);
        link(node, next);
    }
}

/// Has `next` follow `prev`.
///
/// # Safety
///
/// Both must be valid for writes.
unsafe fn link(prev: *mut list_head, next: *mut list_head) {
    // SAFETY: By the safety requirements.
    unsafe {
        (*prev).next = next;
        (*next).prev = prev;
    }
}
