// SPDX-License-Identifier: GPL-2.0

//! Virtio memory balloon driver with page bitmaps.
//!
//! Gives memory that the guest does not use back to its host, and takes it again. A device with
//! VIRTIO_BALLOON_F_PAGE_BITMAP is told of a whole window of pages in one message, as bitmap words
//! and power-of-two runs; any other is told by arrays of PFNs.

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

use abstractions::{
    bindings, blocks, compat, debugfs, lru_ring, memory_info, notifier, param, shrinker, trace,
    virtio, virtqueue, vm_events, wakeup, work,
};
use balloon::{
    back_off, balloon_pages, cushion, hinting, hot_unplug, oom, reporting, shortage, size_worker,
    stats,
};
use messages::{
    bitmap_message, counters, fault, message, outbox, pages, pfn_array, reporter,
};

module_virtio_driver! {
    type: balloon::BalloonDriver,
    name: "virtio_balloon_bmap",
    authors: ["The virtio_balloon_bmap authors"],
    description: "Virtio balloon driver with page bitmaps",
    license: "GPL",
}
