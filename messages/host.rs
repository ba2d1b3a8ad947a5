// SPDX-License-Identifier: GPL-2.0-only

//! Whom the driver tells of its pages. Needs nothing but `core`.

use crate::messages::pages::{
    List,
    Released, //
};

/// Which way pages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The host is given pages.
    Inflate,
    /// The host gives pages back.
    Deflate,
}

/// Of which direction the host has read all that it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) inflate: bool,
    pub(crate) deflate: bool,
}

/// A host that is told of pages, and reads of them at its own time.
pub(crate) trait Host {
    /// A list of pages.
    type List: List;

    /// How long to wait where it has to read something before it can be sent more.
    type Patience: Copy;

    type Error;

    /// Whether there is a host that has always answered.
    fn is_live(&self) -> bool;

    /// Whether it may be sent something now. It must not be given anything before it has read what it
    /// has to give back: it might read of a page in the wrong order.
    fn is_ready(&self, direction: Direction) -> bool;

    /// Gives the host up, which does not answer any more.
    fn fail(&mut self);

    /// Proof that pages may be used that it was sent word of, if it does not have to read that first, or
    /// has.
    fn released(&self) -> Option<Released>;

    /// Sends word of pages, which may be put in another order, and does not wait until it has read all
    /// of it.
    ///
    /// # Errors
    ///
    /// It may or may not have read of some of the pages. If it does not answer at all, or is broken, it
    /// is not live from then on.
    fn send(
        &mut self,
        direction: Direction,
        pages: &mut Self::List,
        patience: Self::Patience,
    ) -> Result<(), Self::Error>;

    /// Looks what it has read.
    ///
    /// # Errors
    ///
    /// Where the host is not live, or is so no longer.
    fn poll(&mut self) -> Result<Idle, Self::Error>;
}
