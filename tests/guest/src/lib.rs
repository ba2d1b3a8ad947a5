// SPDX-License-Identifier: GPL-2.0-only

//! The guest under QEMU: how the tests and the demonstration boot a stock kernel with a balloon,
//! speak to it, and judge it.
//!
//! A [`vm::Vm`] is a QEMU process ([`qemu`]), a balloon device ([`balloon`]: QEMU's own or the
//! daemon's) and an agent inside the guest ([`guest`], [`protocol`]). What the guest says is never
//! believed alone: the host's memory ([`host_memory`]), the device's own account and the guest's
//! kernel log ([`audit`]) have to agree with it.

pub mod accelerator;
pub mod audit;
pub mod balloon;
pub mod boots;
pub mod buddyinfo;
mod conservation;
pub mod disk;
pub mod driver_counters;
pub mod environment;
pub mod guest;
pub mod host_memory;
pub mod initramfs;
pub mod json_lines;
pub mod kvm;
pub mod memory;
pub mod migration;
pub mod page_set;
pub mod process;
pub mod protocol;
pub mod qemu;
pub mod qmp;
pub mod reclaim;
pub mod vm;

/// Bytes in a page, in the guest and in the balloon's page numbers.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;
