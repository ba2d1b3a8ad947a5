// SPDX-License-Identifier: GPL-2.0

pub(crate) mod bitmap_message;
pub(crate) mod counters;
pub(crate) mod fault;
pub(crate) mod message;
pub(crate) mod outbox;
pub(crate) mod pages;
pub(crate) mod pfn_array;
pub(crate) mod reporter;
