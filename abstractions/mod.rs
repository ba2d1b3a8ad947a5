// SPDX-License-Identifier: GPL-2.0-only

//! Safe wrappers of the kernel's interfaces, shaped so that they could move to the `kernel` crate:
//! they know nothing of the balloon's messages, books and policies, and hold all `unsafe` code.

pub(crate) mod balloon_device;
pub(crate) mod bindings;
pub(crate) mod buffer;
pub(crate) mod compat;
pub(crate) mod crash_dump;
pub(crate) mod debugfs;
pub(crate) mod memory_info;
pub(crate) mod memory_notifier;
pub(crate) mod notifier;
pub(crate) mod offline_blocks;
pub(crate) mod oom_notifier;
pub(crate) mod page_block;
pub(crate) mod page_counts;
pub(crate) mod page_list;
pub(crate) mod page_reporting;
mod page_ring;
pub(crate) mod param;
pub(crate) mod pm_wakeup;
pub(crate) mod shrinker;
pub(crate) mod trace;
pub(crate) mod transport;
pub(crate) mod virtio;
pub(crate) mod virtio_device;
pub(crate) mod virtqueue;
pub(crate) mod wait;
pub(crate) mod work;
