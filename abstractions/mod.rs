// SPDX-License-Identifier: GPL-2.0

pub(crate) mod bindings;
pub(crate) mod blocks;
pub(crate) mod compat;
pub(crate) mod debugfs;
pub(crate) mod lru_ring;
pub(crate) mod memory_info;
pub(crate) mod notifier;
pub(crate) mod param;
pub(crate) mod shrinker;
pub(crate) mod trace;
pub(crate) mod virtio;
pub(crate) mod virtqueue;
pub(crate) mod vm_events;
pub(crate) mod wakeup;
pub(crate) mod work;
