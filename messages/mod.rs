// SPDX-License-Identifier: GPL-2.0-only

//! What the host is told of pages, and how.
//!
//! [`sender`] tells it of lists of [`pages`], by messages of one of two formats, [`pfn_array`] and
//! [`page_bitmap`], each of which goes over a [`message_queue`].

pub(crate) mod byte_order;
pub(crate) mod counters;
pub(crate) mod fault;
pub(crate) mod host;
pub(crate) mod message_queue;
pub(crate) mod page_bitmap;
pub(crate) mod pages;
pub(crate) mod pfn_array;
pub(crate) mod pfns;
pub(crate) mod sender;
