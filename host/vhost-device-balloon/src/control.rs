// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device and its guest as the control socket's clients have them.

use serde_json::Value;

use crate::counters::Counters;
use crate::message::PageRange;
use crate::role::Role;

/// What a control client can see and change.
pub trait Control {
    /// Lets the guest keep `bytes` of its memory. None if there is no guest.
    fn set_guest_bytes(&mut self, bytes: u64) -> Option<()>;
    /// The bytes the guest keeps. None if there is no guest.
    fn guest_bytes(&self) -> Option<u64>;
    /// The counters; zeros if there is no guest.
    fn counters(&self) -> Counters;
    /// The guest's last statistics, as QEMU has them.
    fn guest_stats(&self) -> Value;
    /// How often the guest is asked for statistics, in seconds; 0 for never.
    fn stats_polling_interval(&self) -> u32;
    /// Sets how often the guest is asked for statistics.
    fn set_stats_polling_interval(&mut self, seconds: u32);
    /// The first `limit` ranges of pages that the balloon holds from page frame `from` on.
    fn held(&self, from: u64, limit: usize) -> Vec<PageRange>;
    /// Leaves the queues for `roles` unserved, and serves all others.
    fn leave_unserved(&mut self, roles: Vec<Role>);
}
