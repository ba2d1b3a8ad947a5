// SPDX-License-Identifier: GPL-2.0-only

//! Pages that are linked through `page->lru`.
//!
//! The links are a ring without a head: a head would have to stay where it is, and these lists move
//! as values do, from one owner to the next. Functions of C get a head for as long as they run.

use crate::abstractions::bindings;
use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        MaybeUninit, //
    },
    ptr::NonNull, //
};
use kernel::bindings::list_head;

/// Where a page has its links. In C they are in an unnamed union, which bindings name as they like.
const LRU_OFFSET: usize = bindings::BALLOON_BMAP_PAGE_LRU;

const _: () = assert!(LRU_OFFSET + size_of::<list_head>() <= size_of::<bindings::page>());
const _: () = assert!(offset_of!(list_head, next) == 0);

/// Pages that belong to whoever has the ring.
///
/// # Invariants
///
/// The nodes from `first` on are a ring of `len` nodes without a head, each the `lru` of a page
/// that belongs to the owner of `self`. `first` is `None` if and only if `len` is 0.
pub(super) struct PageRing {
    first: Option<NonNull<list_head>>,
    len: usize,
}

// SAFETY: The pages belong to the ring, whichever thread has it.
unsafe impl Send for PageRing {}

impl PageRing {
    /// A ring without pages.
    pub(super) const fn new() -> Self {
        // INVARIANT: There are no nodes.
        Self {
            first: None,
            len: 0,
        }
    }

    /// The number of pages.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The pages, from the one that was added last.
    pub(super) fn iter(&self) -> Iter<'_> {
        // INVARIANT: The ring does not change as long as it is borrowed.
        Iter {
            next: self.first,
            left: self.len,
            ring: PhantomData,
        }
    }

    /// Adds a page.
    ///
    /// # Safety
    ///
    /// The page, and its `lru`, must be the caller's; they are the ring's owner's from then on.
    pub(super) unsafe fn push(&mut self, page: NonNull<bindings::page>) {
        let node = lru(page);
        // SAFETY: The node is free to use by the safety requirements, and by the type invariant so are
        // those of the ring. The new one comes before the first.
        unsafe {
            match self.first {
                None => bindings::INIT_LIST_HEAD(node),
                Some(first) => bindings::list_add_tail(node, first.as_ptr()),
            }
        }
        // INVARIANT: The ring has one more node.
        self.first = NonNull::new(node);
        self.len = self.len.saturating_add(1);
    }

    /// Takes the page that was added last.
    pub(super) fn pop(&mut self) -> Option<NonNull<bindings::page>> {
        let page = page(self.first?.as_ptr())?;
        // SAFETY: This page is one of the ring.
        unsafe { self.remove(page) };
        Some(page)
    }

    /// Takes a page out.
    ///
    /// # Safety
    ///
    /// The page must be one of the ring.
    pub(super) unsafe fn remove(&mut self, page: NonNull<bindings::page>) {
        let node = lru(page);
        // SAFETY: By the type invariant, `node` and its neighbours are nodes of the ring.
        unsafe {
            let next = (*node).next;
            bindings::balloon_bmap_list_del(node);
            if self.first == NonNull::new(node) {
                self.first = NonNull::new(next).filter(|next| next.as_ptr() != node);
            }
        }
        // INVARIANT: The ring has one node less.
        self.len = self.len.saturating_sub(1);
    }

    /// Takes up to `want` pages, those that were added last.
    pub(super) fn split(&mut self, want: usize) -> Self {
        if want >= self.len {
            return core::mem::replace(self, Self::new());
        }
        let mut taken = Self::new();
        let len = self.len;
        self.with_head(|head| {
            taken.with_head(|other| {
                // SAFETY: Both are lists, the one of more than `want` nodes and the other of none.
                unsafe { bindings::balloon_bmap_list_cut(other, head, want) };
                want
            });
            len.saturating_sub(want)
        });
        taken
    }

    /// Adds all pages of another ring.
    pub(super) fn append(&mut self, mut other: Self) {
        let len = self.len.saturating_add(other.len);
        self.with_head(|head| {
            other.with_head(|from| {
                // SAFETY: Both are lists.
                unsafe { bindings::balloon_bmap_list_splice_init(from, head) };
                0
            });
            len
        });
    }

    /// Frees all pages, which must be single ones.
    pub(super) fn free_pages(&mut self) {
        self.with_head(|head| {
            // SAFETY: The list is one of single pages that are ours.
            unsafe { bindings::balloon_bmap_free_list(head) };
            0
        });
    }

    /// Sorts the pages by their PFNs.
    pub(super) fn sort(&mut self) {
        let len = self.len;
        self.with_head(|head| {
            // SAFETY: The list is one of pages.
            unsafe { bindings::balloon_bmap_list_sort(head) };
            len
        });
    }

    /// Calls `f` with a head for the ring, as C has its lists, and takes what `f` leaves on it.
    ///
    /// `f` returns how many pages there are afterwards, which must be so, and owned by the caller.
    fn with_head(&mut self, f: impl FnOnce(*mut list_head) -> usize) {
        let mut head = MaybeUninit::<list_head>::uninit();
        let head = head.as_mut_ptr();
        // SAFETY: `head` is valid until the end of this function, by when it is off the ring.
        unsafe {
            bindings::INIT_LIST_HEAD(head);
            if let Some(first) = self.first {
                bindings::list_add_tail(head, first.as_ptr());
            }
            self.len = f(head);
            let next = (*head).next;
            // INVARIANT: The ring is what `f` left, without the head.
            self.first = NonNull::new(next).filter(|next| next.as_ptr() != head);
            bindings::balloon_bmap_list_del(head);
        }
    }

    /// As [`Self::with_head`].
    ///
    /// # Safety
    ///
    /// After `f` the list must have as many pages as it returns, all of which are the caller's.
    pub(super) unsafe fn with_list(&mut self, f: impl FnOnce(*mut list_head) -> usize) {
        self.with_head(f);
    }
}

/// The pages of a ring.
///
/// # Invariants
///
/// `next` is a node of the ring, which has `left` more pages from there on.
#[derive(Clone)]
pub(super) struct Iter<'a> {
    next: Option<NonNull<list_head>>,
    left: usize,
    ring: PhantomData<&'a PageRing>,
}

impl Iter<'_> {
    /// No pages.
    pub(super) const fn empty() -> Self {
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
        page(node)
    }
}

/// The links of a page.
fn lru(page: NonNull<bindings::page>) -> *mut list_head {
    page.as_ptr().wrapping_byte_add(LRU_OFFSET).cast()
}

/// The page whose links these are.
fn page(lru: *mut list_head) -> Option<NonNull<bindings::page>> {
    NonNull::new(lru.wrapping_byte_sub(LRU_OFFSET).cast())
}
