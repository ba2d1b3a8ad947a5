// SPDX-License-Identifier: GPL-2.0

//! Balloon page migration: compaction moves a page of the balloon elsewhere.
//!
//! The new page is given to the host before the old one is taken back, so that the balloon never
//! holds less than it says. `mm/balloon.c` then swaps the pages in its books.

use crate::{
    bitmap::PfnRange,
    pages::units,
    reporter::{
        Direction,
        Report,
        SharedReporter, //
    },
};
use kernel::prelude::*;

/// Reports that the page at `new` takes the place of the one at `old`.
///
/// # Errors
///
/// EAGAIN if the device is busy with other pages, or does not answer. Compaction comes back later;
/// waiting for it could mean waiting for oneself, as inflation may itself have asked for
/// compaction.
pub(crate) fn migrate(reporter: &SharedReporter, new: u64, old: u64) -> Result {
    let mut reporter = reporter.try_lock().ok_or(EAGAIN)?;
    if !reporter.is_live() {
        return Err(EAGAIN);
    }
    let page = |pfn| Report::new(core::iter::once(PfnRange::block(pfn, units(1))));

    // A device that fails here may have read the message all the same. The new page is in the
    // balloon then, where it is kept until the device is reset.
    let _ = reporter.tell(Direction::Inflate, &page(new));
    let _ = reporter.tell(Direction::Deflate, &page(old));
    reporter.counters().migrations.inc();
    Ok(())
}
