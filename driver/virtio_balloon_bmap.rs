// SPDX-License-Identifier: GPL-2.0

//! Virtio memory balloon driver with page bitmaps.
//!
//! Gives memory that the guest does not use back to its host, and takes it again. A device with
//! VIRTIO_BALLOON_F_PAGE_BITMAP is told of a whole window of pages in one message, as bitmap words
//! and power-of-two runs; any other is told by arrays of PFNs.
//!
//! Data flows one way:
//!
//! ```text
//! size_worker -> pages -> reporter -> bitmap -> bitmap_message -> resp_encoder -> outbox -> virtqueue
//!                                        `----> pfn_array --------------------------^
//! ```
//!
//! `virtio`, `virtqueue`, `blocks`, `pages`, `balloon_pages`, `cushion`, `work` and their like are
//! safe wrappers of the kernel's interfaces, and hold all `unsafe` code. `bitmap`, `grid` and
//! `resp_encoder` need nothing but `core`.

mod back_off;
mod balloon;
mod balloon_pages;
mod bindings;
mod bitmap;
mod bitmap_message;
mod blocks;
mod compaction;
mod compat;
mod counters;
mod cushion;
mod debugfs;
mod fault;
mod grid;
mod hinting;
mod hot_unplug;
#[cfg(CONFIG_KUNIT = "y")]
mod kunit;
mod lru_ring;
mod memory_info;
mod message;
mod notifier;
mod oom;
mod outbox;
mod pages;
mod param;
mod pfn_array;
mod reporter;
mod reporting;
mod resp_encoder;
mod shortage;
mod shrinker;
mod size_worker;
mod stats;
mod trace;
mod virtio;
mod virtqueue;
mod vm_events;
mod wakeup;
mod work;

module_virtio_driver! {
    type: balloon::BalloonDriver,
    name: "virtio_balloon_bmap",
    authors: ["The virtio_balloon_bmap authors"],
    description: "Virtio balloon driver with page bitmaps",
    license: "GPL",
}
