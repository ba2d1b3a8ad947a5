// SPDX-License-Identifier: GPL-2.0-only

//! How the guest's free memory lies: `/proc/buddyinfo`.

use std::ops::RangeBounds;

use anyhow::{Context, Result};

/// The free blocks of a zone.
pub struct Zone {
    pub name: String,
    /// How many there are of each order.
    blocks: Vec<u64>,
}

impl Zone {
    /// Free pages that lie in blocks of these orders.
    pub fn pages(&self, orders: impl RangeBounds<usize>) -> u64 {
        let blocks = self.blocks.iter().enumerate();
        blocks
            .filter(|(order, _)| orders.contains(order))
            .map(|(order, blocks)| blocks << order)
            .sum()
    }
}

/// Reads lines such as `Node 0, zone    DMA32    7    3    0`.
pub(crate) fn parse(text: &str) -> Result<Vec<Zone>> {
    let zone = |line: &str| {
        let mut words = line.split_whitespace().skip(3);
        let name = words.next()?.to_owned();
        let blocks = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Zone { name, blocks })
    };
    text.lines()
        .map(|line| zone(line).with_context(|| format!("not a line of buddyinfo: {line}")))
        .collect()
}
