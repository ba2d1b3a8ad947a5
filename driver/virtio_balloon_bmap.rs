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
//! size_worker -> pages -> reporter -> bitmap_message -> bitmap -> resp_encoder -> virtqueue
//!                            `------> pfn_array ------------------------------------^
//! ```
//!
//! `virtio`, `virtqueue`, `pages`, `balloon_pages`, `cushion` and `work` are safe wrappers of the
//! kernel's interfaces, and hold all `unsafe` code. `bitmap` and `resp_encoder` need nothing but
//! `core`.

mod balloon;
mod balloon_pages;
mod bindings;
mod bitmap;
mod bitmap_message;
mod compaction;
mod cushion;
mod fault;
mod message;
mod pages;
mod pfn_array;
mod reporter;
mod resp_encoder;
mod size_worker;
mod virtio;
mod virtqueue;
mod work;

module_virtio_driver! {
    type: balloon::BalloonDriver,
    name: "virtio_balloon_bmap",
    authors: ["The virtio_balloon_bmap authors"],
    description: "Virtio balloon driver with page bitmaps",
    license: "GPL",
    params: {
        page_bitmap: bool {
            default: true,
            description: "Use page bitmaps with a device that has them",
        },
    },
}
