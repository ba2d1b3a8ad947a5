// SPDX-License-Identifier: GPL-2.0-only

//! Allocations that a module built for tests makes fail.
//!
//! `make modules BALLOON_BMAP_FAULTS="first_bitmap"` builds such a module. In any other these are
//! constants that are false, and leave no trace.

/// The first bitmap and the response buffer cannot be had.
pub(crate) const FIRST_BITMAP: bool = cfg!(balloon_bmap_fault = "first_bitmap");

/// No further bitmap can be had.
pub(crate) const MORE_BITMAPS: bool = cfg!(balloon_bmap_fault = "more_bitmaps");

/// The device uses no buffer of the hint queue.
pub(crate) const DEAD_HINT_QUEUE: bool = cfg!(balloon_bmap_fault = "dead_hint_queue");
