// SPDX-License-Identifier: GPL-2.0-only

//! Lists of pages, whose type says what the host knows of them.
//!
//! - [`Allocated`]: taken from the system, of no concern to the host yet. May be freed.
//! - [`Inflated`]: the host was told, or may have been, that it may discard what is in them. They
//!   must not be freed.
//! - [`Deflated`]: the host was told that they are in use again, as it wants to be told. May be freed.
//!
//! So a page that is freed before the host was told of it cannot be written. Needs nothing but `core`.

use core::{
    marker::PhantomData,
    mem::ManuallyDrop, //
};

/// A list of pages, which are freed when it is dropped.
pub(crate) trait List: Default {
    /// The number of pages, in pages of the guest.
    fn len(&self) -> usize;

    /// Adds all pages of another list.
    fn append(&mut self, other: Self);

    /// Tells the kernel that nobody may look into these pages. Who takes memory offline does not wait for
    /// them then.
    fn set_offline(&mut self);

    /// Undoes [`Self::set_offline`].
    fn clear_offline(&mut self);

    /// Says that these pages cannot be freed, which is a defect of the driver.
    fn report_lost(&self);
}

/// What the host knows of the pages of a list.
pub(crate) trait State {
    /// Whether the pages may be freed as they are.
    const MAY_FREE: bool;
}

/// Taken from the system.
pub(crate) struct Allocated;

/// Given to the host.
pub(crate) struct Inflated;

/// Taken back from the host.
pub(crate) struct Deflated;

impl State for Allocated {
    const MAY_FREE: bool = true;
}

impl State for Inflated {
    const MAY_FREE: bool = false;
}

impl State for Deflated {
    const MAY_FREE: bool = true;
}

/// Proof that pages may be used which the host was given.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Released(());

impl Released {
    /// For who tells the host alone: it has read that the pages are in use again, or need not, or was
    /// reset.
    pub(super) const fn new() -> Self {
        Self(())
    }
}

/// Pages in a state.
pub(crate) struct Pages<S: State, L: List> {
    list: ManuallyDrop<L>,
    state: PhantomData<S>,
}

impl<S: State, L: List> Pages<S, L> {
    /// The number of pages, in pages of the guest.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The pages, to be put in another order.
    pub(crate) fn list_mut(&mut self) -> &mut L {
        &mut self.list
    }

    /// Adds all pages of another list.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.list.append(core::mem::take(&mut *other.list));
    }

    fn into_state<T: State>(mut self) -> Pages<T, L> {
        Pages {
            list: ManuallyDrop::new(core::mem::take(&mut *self.list)),
            state: PhantomData,
        }
    }
}

impl<L: List> Pages<Allocated, L> {
    /// Pages that were taken from the system.
    pub(crate) fn new(list: L) -> Self {
        Self {
            list: ManuallyDrop::new(list),
            state: PhantomData,
        }
    }

    /// The host was told of these pages, or may have been: from here on they cannot be freed.
    pub(crate) fn inflated(mut self) -> Pages<Inflated, L> {
        self.list.set_offline();
        self.into_state()
    }
}

impl<L: List> Pages<Inflated, L> {
    /// Pages that come out of where the pages are kept that the host was told of.
    pub(crate) fn held(list: L) -> Self {
        Self {
            list: ManuallyDrop::new(list),
            state: PhantomData,
        }
    }

    /// The list, to be kept where the pages are kept that the host was told of.
    pub(crate) fn into_held(mut self) -> L {
        core::mem::take(&mut *self.list)
    }

    /// The host knows that these pages are in use again.
    pub(crate) fn deflated(mut self, _: Released) -> Pages<Deflated, L> {
        self.list.clear_offline();
        self.into_state()
    }
}

impl<L: List> Default for Pages<Inflated, L> {
    fn default() -> Self {
        Self::held(L::default())
    }
}

impl<S: State, L: List> Drop for Pages<S, L> {
    fn drop(&mut self) {
        let list = core::mem::take(&mut *self.list);
        if S::MAY_FREE {
            drop(list);
        } else if list.len() > 0 {
            // The host may discard what is in these pages at any time: nobody can use them.
            list.report_lost();
            core::mem::forget(list);
        }
    }
}
