// SPDX-License-Identifier: GPL-2.0-only

//! Balloon page migration: compaction moves a page of the balloon elsewhere.
//!
//! The host is given the new page before the old one is taken back, so that it never holds less than
//! the balloon says. `mm/balloon.c` then swaps the pages in its list.

use crate::{
    abstractions::{
        page_block::BlockRef,
        transport::Patience, //
    },
    messages::{
        host::{
            Direction,
            Host, //
        },
        sender::{
            page_range,
            Sender, //
        },
    },
};
use kernel::{
    prelude::*,
    time::Msecs, //
};

/// How long to wait for each of the two messages to be read.
const PATIENCE_MS: Msecs = 500;

/// Tells the host that the page at `new` takes the place of the one at `old`.
///
/// # Errors
///
/// EAGAIN if the host has not read all that it was told before, or does not answer, or cannot be told
/// of `new`. It knows nothing of `new` then.
pub(crate) fn migrate(sender: &mut Sender, new: BlockRef<'_>, old: BlockRef<'_>) -> Result {
    let idle = sender.poll().map_err(|_| EAGAIN)?;
    let new = page_range(new.pfn());
    if !idle.inflate || !idle.deflate || new.max > sender.format().max_pfn() {
        return Err(EAGAIN);
    }
    sender
        .send_page(Direction::Inflate, new)
        .map_err(|_| EAGAIN)?;
    // From here on the host may take `new`, so the page has to be in the balloon, read or not.
    let _ = sender.flush(Patience::for_ms(PATIENCE_MS));

    let told = sender
        .send_page(Direction::Deflate, page_range(old.pfn()))
        .and_then(|()| match sender.released() {
            Some(_) => Ok(()),
            None => sender.flush(Patience::for_ms(PATIENCE_MS)),
        });
    if told.is_err() {
        // The host may still discard what is in `old`, which nobody may have then.
        sender.keep(old.keep());
    }
    sender.counters().migrations.inc();
    Ok(())
}
