// SPDX-License-Identifier: GPL-2.0-only

//! How many kernels were started, and how long that took: what guests cost before they do anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

static COUNT: AtomicU64 = AtomicU64::new(0);
static MILLISECONDS: AtomicU64 = AtomicU64::new(0);

/// Counts a kernel that is up now and was started then.
pub(crate) fn count(start: Instant) {
    let taken = start.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    COUNT.fetch_add(1, Ordering::Relaxed);
    MILLISECONDS.fetch_add(taken, Ordering::Relaxed);
}

/// All those of this process, for a person to read.
pub fn summary() -> String {
    format!(
        "{} boots, {} s in all",
        COUNT.load(Ordering::Relaxed),
        MILLISECONDS.load(Ordering::Relaxed) / 1000
    )
}
