// SPDX-License-Identifier: GPL-2.0-only

//! What is proved of a guest, one idea a file.

pub mod floor;
pub mod fragmented;
pub mod hibernation;
pub mod hinting;
pub mod hot_unplug;
pub mod hotplug;
pub mod interrupts;
pub mod kexec;
pub mod lifecycle;
pub mod memory_map;
pub mod migration;
pub mod observation;
pub mod oom;
pub mod open_file;
pub mod parameters;
pub mod pauses;
pub mod reclaim;
pub mod reload;
pub mod reporting;
pub mod silence;
pub mod statistics;
pub mod stress;
pub mod targets;
mod tracing;
pub mod transfer;
pub mod two_devices;
pub mod wakeup;
