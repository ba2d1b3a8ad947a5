// SPDX-License-Identifier: GPL-2.0-only

//! Virtio memory balloon driver with page bitmaps.
//!
//! Gives memory that the guest does not use back to its host, and takes it again. A device with
//! VIRTIO_BALLOON_F_PAGE_BITMAP is told of a whole window of pages in one message, as bitmap words
//! and power-of-two runs; any other is told by arrays of PFNs.
//!
//! Each layer uses those below it, and none above:
//!
//! ```text
//! balloon        the duties: size, OOM, hot-unplug, hinting, reporting, statistics; the ledger
//! compaction     balloon page migration
//! messages       what goes over the queues: lists of pages, as page bitmaps or PFN arrays
//! resp_encoder   bitmap -> entries          bitmap   which pages are in a message
//! ```
//!
//! All but the last two, which need nothing but `core`, use `abstractions`: safe wrappers of the
//! kernel's interfaces, the one place with `unsafe`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abstractions;
mod balloon;
mod bitmap;
mod compaction;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "tests/kunit/mod.rs"]
mod kunit;
mod messages;
mod resp_encoder;

module_virtio_driver! {
    type: balloon::driver::BalloonDriver,
    name: "virtio_balloon_bmap",
    authors: ["The virtio_balloon_bmap authors"],
    description: "Virtio balloon driver with page bitmaps",
    license: "GPL",
}
