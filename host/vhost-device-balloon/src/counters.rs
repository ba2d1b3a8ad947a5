// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is counted, as the command `query-balloon-counters` tells it.

use std::cmp::Ordering;
use std::fmt::Display;

use log::warn;
use serde::Deserialize;
use serde::Serialize;

use crate::discard::Discarded;
use crate::statistics::StatisticsCounters;

/// What came through the inflate or the deflate queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounters {
    /// Messages taken off the queue, whatever became of them.
    pub messages: u64,
    /// Bytes of those messages.
    pub bytes: u64,
    /// Pages of 4 KiB in the accepted messages.
    pub pages: u64,
    /// Runs in the accepted bitmap messages.
    pub runs: u64,
    /// Bitmap words in the accepted bitmap messages.
    pub words: u64,
    /// Pages that were held already (inflate) or not held (deflate).
    pub duplicates: u64,
    /// Messages rejected as malformed.
    pub rejected: u64,
    /// Messages ignored for their unknown command.
    pub ignored: u64,
    /// Notifications from the driver (kicks).
    pub notifications: u64,
}

/// What came through the reporting queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportingCounters {
    /// Reports taken off the queue, whatever became of them.
    pub messages: u64,
    /// Pages of 4 KiB in the accepted reports.
    pub pages: u64,
    /// Reports rejected as malformed.
    pub rejected: u64,
    /// Reports without effect, because the guest wants to find its free pages poisoned.
    pub poisoned: u64,
    /// What was given back to the host.
    pub discard: Discarded,
}

/// All counters, from the frontend's connection on, and the state they belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub inflate: QueueCounters,
    pub deflate: QueueCounters,
    /// What was given back to the host of the inflated pages.
    pub discard: Discarded,
    pub reporting: ReportingCounters,
    pub statistics: StatisticsCounters,
    /// Pages of 4 KiB the balloon holds now.
    pub pages_held: u64,
    /// Pages of 4 KiB the balloon held when a driver began anew, and holds no more.
    pub pages_forgotten: u64,
    /// Interrupts sent to the driver.
    pub interrupts: u64,
    /// Pages of 4 KiB the balloon shall hold (`num_pages`).
    pub target: u32,
    /// Pages of 4 KiB the driver says it holds.
    pub actual: u32,
    /// What the driver says it fills free pages with.
    pub poison_val: u32,
    /// Whether messages are page bitmaps.
    pub page_bitmap: bool,
    /// The guest's memory size in bytes.
    pub ram: u64,
    /// Whether a driver is running.
    pub started: bool,
}

/// Bad messages of a kind that are logged, for each virtual machine.
const REJECTIONS_LOGGED: u64 = 10;

/// Counts one message rejected for `error` in `count`, and says so in the log unless that is full.
pub(crate) fn reject(count: &mut u64, what: &str, error: &dyn Display) {
    *count += 1;
    // A hostile guest must not fill the log.
    match (*count).cmp(&REJECTIONS_LOGGED) {
        Ordering::Less => warn!("{what} rejected: {error}"),
        Ordering::Equal => warn!("{what} rejected: {error}; more are counted, not logged"),
        Ordering::Greater => {}
    }
}
