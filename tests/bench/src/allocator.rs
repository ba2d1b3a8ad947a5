// SPDX-License-Identifier: GPL-2.0-only

//! The floor in the guest: what the page allocator takes for the same memory.

use std::path::Path;

use anyhow::{ensure, Context, Result};
use guest_tests::initramfs;

use crate::peer::start;
use crate::plan::{Subject, Zeroing};
use crate::record::Allocation;
use crate::times::{move_pages, Amounts};

/// The orders it is measured for: both kinds of blocks, and single pages.
pub const ORDERS: [u32; 3] = [10, 9, 0];
/// How each of the module's lines begins.
const PREFIX: &str = "balloon_floor: ";

/// Boots a guest and measures. Before each measurement all the memory goes to the host and comes back, as
/// before that of an idle guest's balloon: the host need not have what the guest gets.
pub fn measure(
    amounts: Amounts,
    zeroing: Zeroing,
    round: u32,
    logs: &Path,
) -> Result<Vec<Allocation>> {
    let machine = amounts.machine(zeroing.word());
    let mut peer = start(Subject::OursDaemon, machine, amounts.moved_mib, logs)?;
    let mut found = Vec::new();
    // The first is for the module to be read.
    for (order, counts) in [(0, false)]
        .into_iter()
        .chain(ORDERS.map(|order| (order, true)))
    {
        move_pages(&mut *peer, amounts.moved())?;
        move_pages(&mut *peer, 0)?;
        let script = format!(
            "insmod {} mib={} order={order} && rmmod balloon_floor && dmesg | grep '{PREFIX}' | tail -n 1",
            initramfs::module("balloon_floor"),
            amounts.moved_mib
        );
        let said = peer
            .guest()
            .shell_within(std::time::Duration::from_secs(120), &script)?;
        let allocation = parse(&said, zeroing, round)
            .with_context(|| format!("the module says: {}", said.trim()))?;
        ensure!(
            allocation.order == order && allocation.pages == amounts.moved(),
            "not all memory came in blocks of order {order}: {}",
            said.trim()
        );
        if counts {
            found.push(allocation);
        }
    }
    peer.finish()?;
    Ok(found)
}

/// Reads the module's line, the last of what was said.
fn parse(said: &str, zeroing: Zeroing, round: u32) -> Result<Allocation> {
    let line = said.lines().last().context("nothing")?;
    let (_, figures) = line.split_once(PREFIX).context("no such line")?;
    let words: Vec<&str> = figures.split_whitespace().collect();
    let number = |name: &str| -> Result<u64> {
        let at = words.iter().position(|&word| word == name);
        let value = at.and_then(|at| words.get(at + 1));
        let value = value.with_context(|| format!("no {name}"))?;
        Ok(value.parse()?)
    };
    Ok(Allocation {
        zeroing,
        round,
        order: number("order")?.try_into()?,
        pages: number("pages")?,
        allocate_ns: number("allocate_ns")?,
        free_ns: number("free_ns")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_line_is_read() {
        let said = "insmod: can't insert\n[ 4.2] balloon_floor: order 9 pages 1024 allocate_ns 500 free_ns 600\n";
        let found = parse(said, Zeroing::Off, 2).unwrap();
        assert_eq!((found.order, found.pages), (9, 1024));
        assert_eq!((found.allocate_ns, found.free_ns), (500, 600));
        let error = parse("balloon_floor: order 9\n", Zeroing::Off, 2)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "no pages");
        assert!(parse("insmod: not found\n", Zeroing::Off, 2).is_err());
    }
}
